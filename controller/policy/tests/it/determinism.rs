//! The same input gives the same bytes for the same fuel.

use std::collections::BTreeSet;

use konductor_core::Question;
use konductor_policy::{Host, Policy};

use crate::common::{hold, host, load, question};

fn questions() -> Vec<Question> {
    let mut held = question(&[("b", 5), ("c", -1)]);
    held.hold = Some(hold("a"));
    let mut due = held.clone();
    due.hold.as_mut().expect("held").due = true;
    vec![question(&[]), question(&[("a", 1), ("b", 2), ("c", 2)]), held, due]
}

#[test]
fn the_same_input_gives_the_same_bytes_for_the_same_fuel() {
    // A second host has an engine, code and memory of its own.
    let other = Host::new().expect("another host");
    for question in questions() {
        let input = Policy::input(&question, r#"{"aging": 0.5}"#).expect("an input");
        let answers: BTreeSet<(Vec<u8>, u64)> = (0..20)
            .map(|i| {
                let policy = if i % 2 == 0 { host().builtin() } else { other.builtin() };
                let answer = policy.answer(&input).expect("an answer");
                (answer.output, answer.fuel)
            })
            .collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
}

#[test]
fn a_question_gives_the_same_decision_as_its_bytes() {
    for question in questions() {
        let decided = host().builtin().decide(&question, "{}").expect("decides");
        let answer = host().builtin().answer(&Policy::input(&question, "{}").expect("an input")).expect("answers");
        assert_eq!(Policy::read(&answer.output).expect("an answer"), decided.decision);
        assert_eq!(answer.fuel, decided.fuel);
    }
}

#[test]
fn not_a_number_has_the_same_bits_everywhere() {
    let decided = load("asks_for_nan").expect("loads").decide(&question(&[]), "{}").expect("decides");
    assert_eq!(decided.decision.wake_in.map(|ms| ms.0), Some(1), "the bits of 0/0 are not the canonical ones");
}

#[test]
fn the_built_in_policy_has_one_digest() {
    let other = Host::new().expect("another host");
    assert_eq!(host().builtin().digest(), other.builtin().digest());
}
