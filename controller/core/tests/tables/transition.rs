//! `transition.txt`: every state with every change.

use std::{collections::BTreeMap, fmt::Write as _};

use konductor_core::{
    Hold, State, Time,
    transition::{Adjustment, Transition, transition},
};

use crate::{
    runner::run,
    show::show_state,
    words::{ENDINGS, hold},
};

#[test]
fn every_case() {
    let mut seen = BTreeMap::new();
    run("transition.txt", |lines| {
        let mut out = String::new();
        for line in lines {
            let (state, change) = line.split_once(": ").unwrap_or_else(|| panic!("no state: {line}"));
            let all: Vec<(String, State, Transition)> = every_pair();
            let (_, from, by) = all
                .iter()
                .find(|(name, ..)| name == line)
                .unwrap_or_else(|| panic!("there is no pair of {state} and {change}"));
            assert_eq!(seen.insert((*line).to_owned(), ()), None, "{line} is there twice");
            match transition(from, by, Time(1_000)) {
                Ok(state) => writeln!(out, "{line} -> {}", show_state(&state)).unwrap(),
                Err(illegal) => writeln!(out, "{line} -> illegal: {illegal}").unwrap(),
            }
        }
        out
    });
    let missing: Vec<String> =
        every_pair().into_iter().map(|(name, ..)| name).filter(|name| !seen.contains_key(name)).collect();
    assert!(missing.is_empty(), "transition.txt lacks:\n{}", missing.join("\n"));
}

/// Every state with every transition, by the name that the table gives the pair.
fn every_pair() -> Vec<(String, State, Transition)> {
    let old = hold("a", "u1", 500, 1_500);
    let new = hold("b", "u2", 1_000, 1_600);
    let states = [
        ("available", State::Available),
        ("held by a", State::Held(old.clone())),
        ("expired", State::Expired(Time(900))),
        ("evicted a", State::Evicted(old.clone())),
    ];
    let mut changes = vec![
        ("stay".to_owned(), Transition::Stay),
        ("clean up".to_owned(), Transition::CleanUp),
        ("grant to b".to_owned(), Transition::Grant(new.clone())),
    ];
    for how in ENDINGS {
        changes.push((format!("end {how:?}"), Transition::End(how)));
        changes.push((format!("hand over {how:?} to b"), Transition::HandOver(how, new.clone())));
    }
    for what in [Adjustment::Renewed, Adjustment::RenewalRefused, Adjustment::Preempting, Adjustment::PreemptionOver] {
        changes.push((format!("adjust {what:?}"), Transition::Adjust(old.clone(), what)));
    }
    let mut pairs: Vec<(String, State, Transition)> = Vec::new();
    for (state, from) in &states {
        pairs.extend(changes.iter().map(|(change, by)| (format!("{state}: {change}"), from.clone(), by.clone())));
    }
    // What depends on the hold besides the state: whose it is, and that nothing is taken back.
    let mut with_a_hold = |state: &str, change: String, from: State, by: Transition| {
        pairs.push((format!("{state}: {change}"), from, by));
    };
    for how in ENDINGS {
        let by = Transition::HandOver(how, old.clone());
        let change = format!("hand over {how:?} to its own request");
        with_a_hold("held by a", change.clone(), State::Held(old.clone()), by.clone());
        with_a_hold("evicted a", change, State::Evicted(old.clone()), by);
    }
    for (change, to) in [
        ("a later expiry", Hold { expires: Time(1_600), ..old.clone() }),
        ("an earlier expiry", Hold { expires: Time(1_499), ..old.clone() }),
        ("another holder", Hold { holder: "b".to_owned(), ..old.clone() }),
        ("another request", Hold { request: new.request, ..old.clone() }),
        ("another beginning", Hold { acquired: Time(501), ..old.clone() }),
    ] {
        let by = Transition::Adjust(to, Adjustment::Renewed);
        with_a_hold("held by a", format!("adjust Renewed to {change}"), State::Held(old.clone()), by);
    }
    pairs
}
