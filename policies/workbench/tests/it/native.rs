//! The same rules natively and in the sandbox, and the same questions from builders and from fixtures.

use std::time::Duration;

use konductor_policy_sdk::{Ending, Grant, HoldAction, Input, Output, testing};
use konductor_workbench::{Host, fixture, harness};
use testing::Snapshot;

use crate::{always, host};

#[test]
fn a_builder_and_a_fixture_of_the_same_words_ask_the_same() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    for (built, written) in [
        (Snapshot::new(), "{}"),
        (Snapshot::new().request("a").request("b").priority(5), "requests: [{holder: a}, {holder: b, priority: 5}]"),
        (
            Snapshot::new().priority(2).ttl(minutes(1)).label("x", "y").not_renewable().request("a").label("l", "m"),
            "{lease: {priority: 2, ttlMs: 1m, renewable: false, labels: {x: y}}, requests: [{holder: a, labels: {l: m}}]}",
        ),
        (
            Snapshot::new()
                .hold("h")
                .ttl(minutes(5))
                .renewals(3)
                .asks_for_renewal()
                .past("p", Ending::Expired)
                .past("q", Ending::Released),
            "{hold: {holder: h, ttlMs: 5m, renewals: 3, renewalRequested: true}, history: [{holder: p, how: Expired}, {holder: q}]}",
        ),
        (
            Snapshot::new().hold("h").due().asked_to_leave_for("a").request("a").arrived_ago(minutes(9)).request("b"),
            "{hold: {holder: h, due: true, preemption: {by: a}}, requests: [{holder: a, arrived: -9m}, {holder: b}]}",
        ),
        (
            Snapshot::new().params(r#"{"minHold":"5m"}"#).state("s").hold("h").acquired_ago(minutes(2)),
            "{params: {minHold: 5m}, state: s, hold: {holder: h, acquired: -2m}}",
        ),
        (Snapshot::new().past("p", Ending::Preempted), "history: [{holder: p, how: Preempted}]"),
    ] {
        let written = fixture::input(written).unwrap_or_else(|mistake| panic!("{written}: {mistake}"));
        assert_eq!(built.json(), String::from_utf8_lossy(&written.json()));
    }
}

#[test]
fn the_built_in_rules_answer_the_same_bytes_natively() {
    let asked = Snapshot::new().hold("h").due().request("a").request("b").priority(5);
    let output = asked.decide(konductor_policy_default::rules::decide);
    assert_eq!((output.hold, output.grant), (Some(HoldAction::Expire), Some(Grant { request: 1, ttl_ms: 600_000 })));
    let native = asked.answer(konductor_policy_default::rules::decide);
    assert_eq!(harness::agree(&host().builtin(), &asked.json(), &native), Ok(()));
    let differs = harness::agree(&always("{}"), &asked.json(), &native).expect_err("it answers {}");
    assert!(differs.contains("in the sandbox {}") && differs.contains(&native), "{differs}");
}

#[test]
fn fixtures_are_checked_on_both_sides() {
    const CASES: &str = "
- {name: grants, input: {requests: [{holder: a}]}, expect: {grant: {request: a}}}
- {name: params, validate: {x: 1}, errors: ['x: *']}
- {name: refused params, input: {params: {x: 1}}, fault: Trap}
";
    let native = |input: &[u8]| testing::answer(input, konductor_policy_default::rules::decide);
    assert_eq!(harness::check(Host::builtin_module(), CASES, native), Ok(()));
    fn silent<'a>(_: &'a Input<'a, konductor_policy_sdk::NoParams>) -> Output<'a> {
        Output::default()
    }
    let found = harness::check(Host::builtin_module(), CASES, |input| testing::answer(input, silent));
    let found = found.expect_err("the module grants");
    assert!(found.starts_with("grants: natively it answers {}, and in the sandbox {\"grant\""), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
}
