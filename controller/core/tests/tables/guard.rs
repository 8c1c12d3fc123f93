//! `guard.txt`: what a policy may propose about which question.

use std::fmt::Write as _;

use konductor_core::{
    Candidate, Clamp, Decision, HoldView, LeaseFacts, Millis, PastHold, Preemption, Question, Refusal, Time, check,
};

use crate::{
    runner::run,
    show::show_decision,
    words::{ENDINGS, Words, named, propose},
};

#[test]
fn every_case() {
    let all = run("guard.txt", |lines| {
        let (question, decision) = guard_case(lines);
        match check(&question, decision) {
            Err(refusal) => format!("refused {}: {refusal}\n", refusal.rule()),
            Ok(checked) => {
                let mut out = String::from("legal\n");
                for clamp in checked.clamps() {
                    writeln!(out, "cut {}", clamp.rule()).unwrap();
                }
                show_decision(&mut out, checked.decision());
                out
            }
        }
    });
    let missing: Vec<&str> = every_refusal_and_clamp().into_iter().filter(|rule| !all.contains(rule)).collect();
    assert!(missing.is_empty(), "guard.txt has no case of {missing:?}");
}

/// The matches are here so that a new variant does not compile until it stands in this list.
fn every_refusal_and_clamp() -> Vec<&'static str> {
    let refusals = [
        Refusal::UnknownRequest { index: 0, shown: 0 },
        Refusal::GrantWhileHeld,
        Refusal::GrantAndDeny,
        Refusal::NoHold,
        Refusal::RenewalNotAsked,
        Refusal::ExpireNotDue,
        Refusal::Flapping { again_in: Millis(1) },
        Refusal::TtlNotPositive,
        Refusal::StateTooLarge { bytes: 0 },
    ];
    match refusals[0] {
        Refusal::UnknownRequest { .. }
        | Refusal::GrantWhileHeld
        | Refusal::GrantAndDeny
        | Refusal::NoHold
        | Refusal::RenewalNotAsked
        | Refusal::ExpireNotDue
        | Refusal::Flapping { .. }
        | Refusal::TtlNotPositive
        | Refusal::StateTooLarge { .. } => {}
    }
    assert_eq!(refusals.each_ref().map(Refusal::rule), Refusal::RULES);
    let clamps = [Clamp::Ttl, Clamp::Grace, Clamp::Wake, Clamp::Reason];
    match clamps[0] {
        Clamp::Ttl | Clamp::Grace | Clamp::Wake | Clamp::Reason => {}
    }
    refusals.iter().map(Refusal::rule).chain(clamps.into_iter().map(Clamp::rule)).collect()
}

fn guard_case(lines: &[&str]) -> (Question, Decision) {
    let mut asked = Question {
        now: Time(1_000),
        lease: LeaseFacts { ttl: Some(Millis(600)), ..LeaseFacts::default() },
        ttl: Millis(600),
        ..Question::default()
    };
    let mut decision = Decision::default();
    for line in lines {
        let mut words = Words::of(line);
        match words.text() {
            "hold" => {
                let mut hold = HoldView {
                    holder: "a".to_owned(),
                    ttl: Millis(600),
                    expires: Time(2_000),
                    token: 7,
                    ..HoldView::default()
                };
                while let Some(word) = words.next() {
                    match word {
                        "due" => hold.due = true,
                        "renewal" => hold.renewal_requested = true,
                        _ => words.unknown(word),
                    }
                }
                asked.hold = Some(hold);
            }
            // `ended HOW AGO…`: past holds, newest first, by how long ago each ended.
            "ended" => {
                let how = named(&ENDINGS, words.text());
                while let Some(ago) = words.next() {
                    let ago: i64 = ago.parse().unwrap_or_else(|_| panic!("{ago} is no time"));
                    let ended = Time(asked.now.0 - ago);
                    asked.history.push(PastHold {
                        holder: "p".to_owned(),
                        request: "u".to_owned(),
                        request_name: "r".to_owned(),
                        token: 6,
                        acquired: Time(ended.0 - 1),
                        ended,
                        how,
                    });
                }
            }
            "preempted" => {
                let hold = asked.hold.as_mut().expect("a hold stands above");
                hold.preemption = Some(Preemption {
                    by: "h0".to_owned(),
                    request: "u0".to_owned(),
                    deadline: Time(1_500),
                    force: false,
                    reason: String::new(),
                });
            }
            "shown" => {
                let shown: usize = words.number();
                asked.waiting = shown;
                asked.requests = (0..shown)
                    .map(|i| Candidate {
                        uid: format!("u{i}"),
                        holder: format!("h{i}"),
                        ttl: Millis(600),
                        ..Candidate::default()
                    })
                    .collect();
            }
            word => propose(&mut decision, word, &mut words, &|index| {
                index.parse().unwrap_or_else(|_| panic!("{index} is no index"))
            }),
        }
    }
    (asked, decision)
}
