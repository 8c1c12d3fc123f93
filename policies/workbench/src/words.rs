//! Decisions in words, with the names of holders beside the indexes.

use konductor_core::{Decision, Grant, HoldAction, Millis, Question};
use konductor_crds::time::format_duration;

/// A span for people. What is not above zero is shown as the number that it is.
pub(crate) fn span(ms: i64) -> String {
    if ms > 0 { format_duration(ms) } else { format!("{ms}ms") }
}

/// A name or a sentence of somebody else on one line, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// `1 (b)`
pub(crate) fn request(question: &Question, index: usize) -> String {
    match question.requests.get(index) {
        Some(request) => format!("{index} ({})", request.holder),
        None => format!("{index} (there is none)"),
    }
}

/// What happens to the hold.
pub(crate) fn hold(question: &Question, action: HoldAction) -> String {
    match action {
        HoldAction::Keep => "keep".to_owned(),
        HoldAction::Renew { ttl: Millis(ttl) } => format!("renew for {}", span(ttl)),
        HoldAction::Expire => "expire".to_owned(),
        HoldAction::Preempt { in_favour_of, grace: Millis(grace), force } => {
            let force = if force { ", by force" } else { "" };
            format!("preempt for request {}, grace {}{force}", request(question, in_favour_of), span(grace))
        }
    }
}

/// Who gets the lease.
pub(crate) fn grant(question: &Question, grant: Option<Grant>) -> String {
    match grant {
        None => "none".to_owned(),
        Some(Grant { request: index, ttl: Millis(ttl) }) => {
            format!("request {} for {}", request(question, index), span(ttl))
        }
    }
}

/// A whole decision, a line for each thing that it does.
#[must_use]
pub fn decision(question: &Question, decision: &Decision) -> Vec<String> {
    let mut lines = Vec::new();
    if decision.hold != HoldAction::Keep || question.hold.is_some() {
        lines.push(format!("hold: {}", hold(question, decision.hold)));
    }
    if decision.grant.is_some() || question.hold.is_none() {
        lines.push(format!("grant: {}", grant(question, decision.grant)));
    }
    for denial in &decision.deny {
        lines.push(format!("deny: request {}: {}", request(question, denial.request), denial.reason));
    }
    if let Some(Millis(ms)) = decision.wake_in {
        lines.push(format!("wake in: {}", span(ms)));
    }
    if let Some(state) = &decision.state {
        lines.push(format!("state: {state:?}"));
    }
    if !decision.reason.is_empty() {
        lines.push(format!("reason: {}", decision.reason));
    }
    lines
}
