//! What came of a case, as it is written below it.

use std::fmt::Write as _;

use konductor_core::{
    Answer, Decision, Hold, HoldAction, Notice, PastHold, Plan, Question, RequestAnswer, Snapshot, State,
    transition::Transition,
};

pub(crate) fn show_decision(out: &mut String, decision: &Decision) {
    match decision.hold {
        HoldAction::Keep => {}
        HoldAction::Renew { ttl } => writeln!(out, "renew {}", ttl.0).unwrap(),
        HoldAction::Expire => out.push_str("expire\n"),
        HoldAction::Preempt { in_favour_of, grace, force } => {
            let force = if force { " force" } else { "" };
            writeln!(out, "preempt {in_favour_of} grace {}{force}", grace.0).unwrap();
        }
    }
    if let Some(grant) = decision.grant {
        writeln!(out, "grant {} ttl {}", grant.request, grant.ttl.0).unwrap();
    }
    for denial in &decision.deny {
        writeln!(out, "deny {} {}", denial.request, short(&denial.reason)).unwrap();
    }
    if let Some(wake) = decision.wake_in {
        writeln!(out, "wake {}", wake.0).unwrap();
    }
    if let Some(state) = &decision.state {
        writeln!(out, "state {}", short(state)).unwrap();
    }
    if !decision.reason.is_empty() {
        writeln!(out, "reason {}", short(&decision.reason)).unwrap();
    }
}

/// A text, or its length if it is long.
fn short(text: &str) -> String {
    if text.len() > 80 { format!("{} bytes", text.len()) } else { text.to_owned() }
}

pub(crate) fn show_question(out: &mut String, question: &Question, superseding: bool) {
    write!(out, "asked: {}", question.cause.as_str()).unwrap();
    if superseding {
        out.push_str(", may it supersede");
    }
    if let Some(hold) = &question.hold {
        write!(out, ", hold of {}", hold.holder).unwrap();
        for (is, word) in [(hold.due, "due"), (hold.renewal_requested, "asks to renew")] {
            if is {
                write!(out, " {word}").unwrap();
            }
        }
        if let Some(p) = &hold.preemption {
            write!(out, " preempted by {}", p.by).unwrap();
        }
    }
    let uids: Vec<&str> = question.requests.iter().map(|r| r.uid.as_str()).collect();
    if uids.len() <= 8 {
        writeln!(out, ", shown [{}] of {}", uids.join(" "), question.waiting).unwrap();
    } else {
        let (first, last) = (uids[..3].join(" "), uids[uids.len() - 3..].join(" "));
        writeln!(out, ", shown [{first} ... {last}] {} of {}", uids.len(), question.waiting).unwrap();
    }
}

pub(crate) fn show_state(state: &State) -> String {
    match state {
        State::Available => "available".to_owned(),
        State::Held(hold) => show_hold("held", hold),
        State::Expired(at) => format!("expired at {}", at.0),
        State::Evicted(hold) => show_hold("evicted", hold),
    }
}

fn show_hold(how: &str, hold: &Hold) -> String {
    let Hold { holder, request, acquired, expires, renewed, renewals, acted_on, counted, preemption } = hold;
    let mut out = format!(
        "{how} by {holder} req {} acquired {} expires {} renewed {} renewals {renewals} acted-on {acted_on}",
        request.uid, acquired.0, expires.0, renewed.0
    );
    if counted != acted_on {
        write!(out, " counted {counted}").unwrap();
    }
    if let Some(p) = preemption {
        let force = if p.force { " force" } else { "" };
        write!(out, " preempted-for {} by {} deadline {}{force}", p.request, p.by, p.deadline.0).unwrap();
    }
    out
}

fn show_transition(change: &Transition) -> String {
    match change {
        Transition::Stay | Transition::CleanUp | Transition::Grant(_) => change.name().to_owned(),
        Transition::End(how) | Transition::HandOver(how, _) => format!("{} {how:?}", change.name()),
        Transition::Adjust(_, what) => format!("{} {what:?}", change.name()),
    }
}

pub(crate) fn show_plan(out: &mut String, before: &Snapshot, plan: &Plan) {
    let Plan { next, transition, waiting, answers, sweep, notices, wake_in, reason } = plan;
    writeln!(out, "{}", show_transition(transition)).unwrap();
    writeln!(out, "next: token {} {}", next.token, show_state(&next.state)).unwrap();
    if next.history != before.record.history {
        let entries: Vec<String> = next.history.iter().map(show_past).collect();
        writeln!(out, "history: {}", entries.join(", ")).unwrap();
    }
    if next.policy_state != before.record.policy_state {
        writeln!(out, "policy state: {}", next.policy_state).unwrap();
    }
    for told in answers.iter().take(6) {
        writeln!(out, "answer {}: {}", told.request.uid, show_answer(told)).unwrap();
    }
    if answers.len() > 6 {
        writeln!(out, "answers in all: {}", answers.len()).unwrap();
    }
    for request in sweep {
        writeln!(out, "sweep {}", request.uid).unwrap();
    }
    for notice in notices {
        writeln!(out, "notice: {}", show_notice(notice)).unwrap();
    }
    if let Some(reason) = reason {
        writeln!(out, "reason: {reason}").unwrap();
    }
    let wake = wake_in.map_or("never".to_owned(), |wake| wake.0.to_string());
    writeln!(out, "waiting {waiting}, wake {wake}").unwrap();
}

fn show_past(past: &PastHold) -> String {
    let PastHold { holder, request, request_name: _, token, acquired, ended, how } = past;
    format!("{holder} {request} {token} {}..{} {how:?}", acquired.0, ended.0)
}

fn show_answer(told: &RequestAnswer) -> String {
    match &told.answer {
        Answer::Pending => format!("pending, sequence {}", told.sequence),
        Answer::Granted { token, expires } => format!("granted, token {token} until {}", expires.0),
        Answer::Denied { reason } => format!("denied, {reason}"),
        Answer::Invalid { problem } => format!("invalid, {problem}"),
        Answer::Crowded { most } => format!("crowded out, {most} wait"),
        Answer::Over(how) => format!("over, {how:?}"),
        Answer::Lost => "lost".to_owned(),
        Answer::NoLease => format!("no lease, sequence {}", told.sequence),
        Answer::Superseded => "superseded".to_owned(),
        Answer::TimedOut { why } => format!("timed out, {why}"),
    }
}

fn show_notice(notice: &Notice) -> String {
    match notice {
        Notice::Granted { holder, token, waited } => format!("granted {holder} token {token} waited {}", waited.0),
        Notice::Ended { holder, token, how } => format!("ended {holder} token {token} {how:?}"),
        Notice::Renewed { holder } => format!("renewed {holder}"),
        Notice::RenewalRefused { holder, reason } => format!("renewal refused {holder}: {reason}"),
        Notice::Preempting { holder, by, deadline } => format!("preempting {holder} for {by} until {}", deadline.0),
        Notice::Denied { holder, reason } => format!("denied {holder}: {reason}"),
    }
}
