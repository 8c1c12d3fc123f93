//! Fixtures: what is filled in, what is compared, and what is said.

use konductor_workbench::{
    Policy, eval,
    fixture::{self, Outcome},
};
use serde_json::{Value, json};

use crate::{always, host, never};

fn filled(short: &str) -> Value {
    let filled = fixture::input(short).unwrap_or_else(|mistake| panic!("{short}: {mistake}"));
    serde_json::from_slice(&filled.json()).expect("JSON")
}

fn mistake(cases: &str) -> String {
    fixture::parse(cases).expect_err(cases).to_string()
}

/// What came of the only case of a file.
fn outcome(policy: &Policy, case: &str) -> Outcome {
    let cases = fixture::parse(case).unwrap_or_else(|mistake| panic!("{case}: {mistake}"));
    assert_eq!(cases.len(), 1);
    fixture::run(&cases[0], policy)
}

fn failures(policy: &Policy, case: &str) -> String {
    let outcome = outcome(policy, case);
    assert!(!outcome.passed(), "it should fail: {case}");
    outcome.failures.join("\n")
}

#[test]
fn an_empty_input_is_a_free_lease_for_which_nobody_waits() {
    let whole = json!({
        "now": 1_767_225_600_000_i64, "cause": "request",
        "lease": {
            "name": "lease", "namespace": "default", "uid": "00000000-0000-0000-0000-000000000001", "ttlMs": 600_000,
            "priority": 0, "renewable": true, "labels": {},
        },
        "params": {}, "hold": null, "requests": [], "waiting": 0, "history": [], "state": "",
    });
    assert_eq!(filled("{}"), whole);
    assert_eq!(filled(""), whole);
    // A whole one stays what it is.
    assert_eq!(filled(&whole.to_string()), whole);
}

#[test]
fn what_is_left_out_is_filled_in_from_what_is_there() {
    let input = filled(
        "{now: 2026-03-01T12:00:00Z, lease: {ttlMs: 20m, priority: 3}, params: {a: 10m}, waiting: 9,
          hold: {holder: h, renewals: 2, labels: {team: x}, preemption: {by: a}},
          requests: [{holder: a}, {holder: b, ttlMs: 90s, arrived: -5m, priority: -1}],
          history: [{holder: p}, {holder: q, how: Expired, acquired: -10m}, {holder: r}]}",
    );
    let now = 1_772_366_400_000_i64;
    assert_eq!(input["now"], now);
    assert_eq!(input["params"], json!({"a": "10m"}), "params are the policy's own");
    assert_eq!(
        input["hold"],
        json!({
            "holder": "h", "priority": 3, "ttlMs": 1_200_000, "acquired": now - 60_000, "expires": now + 1_140_000,
            "renewals": 2, "token": 7, "renewalRequested": false, "due": false, "labels": {"team": "x"},
            "preemption": {"by": "a", "deadline": now + 30_000, "force": false, "reason": ""},
        })
    );
    assert_eq!(
        input["requests"],
        json!([
            {"holder": "a", "priority": 3, "ttlMs": 1_200_000, "arrived": now - 2_000, "labels": {}},
            {"holder": "b", "priority": -1, "ttlMs": 90_000, "arrived": now - 300_000, "labels": {}},
        ])
    );
    assert_eq!(input["waiting"], 9);
    assert_eq!(
        input["history"],
        json!([
            {"holder": "p", "token": 6, "acquired": now - 120_000, "ended": now - 60_000, "how": "Released"},
            {"holder": "q", "token": 5, "acquired": now - 600_000, "ended": now - 540_000, "how": "Expired"},
            {"holder": "r", "token": 4, "acquired": now - 660_000, "ended": now - 600_000, "how": "Released"},
        ])
    );
    let due = filled("hold: {holder: h, due: true}");
    assert_eq!((&due["cause"], &due["hold"]["expires"]), (&json!("due"), &due["now"]));
    assert_eq!(filled("hold: {holder: h, renewalRequested: true}")["cause"], "renewal");
    assert_eq!(filled("history: [{holder: p}]")["history"][0]["token"], 7);
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_probably_meant() {
    let case = |input: &str, expect: &str| format!("[{{name: x, input: {input}, expect: {expect}}}]");
    for (cases, said) in [
        ("", "a list of cases belongs here"),
        ("[]", "0 cases"),
        ("[{nme: x}]", "did you mean name?"),
        ("[{input: {}, expect: {}}]", "case 1: name is missing"),
        ("[{name: x, input: {}, expect: {}}, {name: x, input: {}, expect: {}}]", "case 1 has the name \"x\" too"),
        ("[{name: x}]", "it asks nothing"),
        ("[{name: x, input: {}}]", "say what should come of it"),
        ("[{name: x, input: {}, expect: {}, fault: Trap}]", "say what should come of it"),
        ("[{name: x, input: {}, expect: {}, validate: {}, errors: []}]", "a case asks one thing"),
        ("[{name: x, validate: {}, expect: {}}]", "what belongs here is errors"),
        ("[{name: x, validate: [1], errors: []}]", "params are a mapping"),
        ("[{name: x, validate: {}}]", "say either which errors"),
        (&case("{requests: [{holder: a, priorty: 1}]}", "{}"), "input.requests[0]: there is no member \"priorty\""),
        (&case("{requests: [{priority: 1}]}", "{}"), "input.requests[0]: holder is missing"),
        (&case("{requests: [{holder: a}, {holder: a}]}", "{}"), "is in the list already"),
        (&case("{hold: {holder: a, ttl: 5m}}", "{}"), "did you mean ttlMs?"),
        (&case("{hold: {holder: a, acquired: soon}}", "{}"), "such as -5m"),
        (&case("{lease: {ttlMs: 0}}", "{}"), "above zero"),
        (&case("{cause: renewl}", "{}"), "did you mean renewal?"),
        (&case("{history: [{holder: a, how: Relesed}]}", "{}"), "did you mean Released?"),
        (&case("{requests: [{holder: a}], waiting: 0}", "{}"), "but 1 requests are listed"),
        (&case("{now: today}", "{}"), "is no time"),
        (&case("{}", "{grant: {request: 0}}"), "the input has 0, and they are counted from 0"),
        (&case("{requests: [{holder: web-1}]}", "{grant: {request: web-2}}"), "did you mean web-1?"),
        (&case("{}", "{hold: {action: renw}}"), "did you mean renew?"),
        (&case("{}", "{hold: {action: expire, ttlMs: 1m}}"), "the action expire has no ttlMs"),
        (&case("{}", "{deny: [{reason: x}]}"), "request is missing"),
        ("[{name: x, input: {}, fault: Panic}]", "\"Panic\" is no fault; there are: FuelExhausted"),
        ("[{name: x, validate: {}, fault: Trapp}]", "did you mean Trap?"),
        ("[{name: x, input: {}, veto: GrantWhileHold}]", "did you mean GrantWhileHeld?"),
    ] {
        let problem = mistake(cases);
        assert!(problem.contains(said), "{cases}\n{problem}");
    }
    let holder = "h".repeat(1_000);
    let many: Vec<String> = (0..400).map(|i| format!("{{holder: {holder}-{i}}}")).collect();
    let problem = mistake(&case(&format!("{{requests: [{}]}}", many.join(",")), "{}"));
    assert!(problem.contains("a host sends at most 262144"), "{problem}");
}

const TWO: &str = "input: {requests: [{holder: a, priority: 1}, {holder: b, priority: 5}]}";

#[test]
fn a_decision_is_compared_in_what_is_named() {
    let builtin = host().builtin();
    for expect in [
        "{grant: {request: 1}}",
        "{grant: {request: b}}",
        "{grant: {request: b, ttlMs: 10m}, reason: 'highest * first come'}",
        "{grant: {ttlMs: 600000}}",
        "{grant: {}, hold: keep, deny: []}",
    ] {
        let outcome = outcome(&builtin, &format!("[{{name: x, {TWO}, expect: {expect}}}]"));
        assert!(outcome.passed() && outcome.fuel.is_some(), "{expect}: {:?}", outcome.failures);
    }
    for (expect, said) in [
        ("{}", "grant     expected  none\n          got       request 1 (b) for 10m"),
        ("{grant: {request: 0}}", "grant     expected  request 0 (a)\n          got       request 1 (b) for 10m"),
        ("{grant: {ttlMs: 5m}}", "expected  any request for 5m"),
        ("{grant: {request: b}, hold: expire}", "hold      expected  expire\n          got       keep"),
        (
            "{grant: {request: b}, deny: [{request: a}]}",
            "deny      expected  request 0 (a)\n          got       not denied",
        ),
        ("{grant: {request: b}, wakeInMs: 5s}", "wakeInMs  expected  5s\n          got       none"),
        ("{grant: {request: b}, state: x}", "state     expected  \"x\"\n          got       as it was"),
        (
            "{grant: {request: b}, reason: 'lowest*'}",
            "reason    expected  lowest*\n          got       highest priority",
        ),
    ] {
        let failures = failures(&builtin, &format!("[{{name: x, {TWO}, expect: {expect}}}]"));
        assert!(failures.contains(said), "{expect}\n{failures}");
    }
}

#[test]
fn denials_come_in_any_order_and_each_counts_once() {
    let policy = always(r#"{"deny":[{"request":1,"reason":"late"},{"request":0,"reason":"old"}],"wakeInMs":5000}"#);
    let case = |deny: &str| format!("[{{name: x, {TWO}, expect: {{wakeInMs: 5s, deny: {deny}}}}}]");
    assert!(outcome(&policy, &case("[{request: a, reason: o*}, {request: b}]")).passed());
    for (deny, said) in [
        ("[{request: a}]", "expected  not denied\n          got       request 1 (b): late"),
        ("[{request: a, reason: late}, {request: b}]", "request 0 (a): late\n          got       request 0 (a): old"),
        ("[]", "got       request 1 (b): late"),
    ] {
        let failures = failures(&policy, &case(deny));
        assert!(failures.contains(said), "{deny}\n{failures}");
    }
}

#[test]
fn faults_and_vetoes_are_expected_by_name() {
    let whole = |what: &str| format!("[{{name: x, {TWO}, {what}}}]");
    assert!(outcome(&never(), &whole("fault: Trap")).passed());
    assert!(failures(&never(), &whole("fault: FuelExhausted")).contains("got       the fault Trap"));
    assert!(failures(&never(), &whole("expect: {}")).contains("expected  a decision"));
    assert!(failures(&always("{}"), &whole("fault: Trap")).contains("grant: none"));
    assert!(outcome(&always("{"), &whole("fault: OutputNotJson")).passed());
    let legal = always(r#"{"grant":{"request":0,"ttlMs":1}}"#);
    let illegal = always(r#"{"grant":{"request":7,"ttlMs":1}}"#);
    assert!(outcome(&illegal, &whole("veto: UnknownRequest")).passed());
    assert!(failures(&illegal, &whole("veto: NoHold")).contains("UnknownRequest"));
    assert!(failures(&legal, &whole("veto: NoHold")).contains("a legal decision: grant: request 0 (a)"));
    // As expected, and yet the host would not obey it.
    let renews = always(r#"{"hold":{"action":"renew","ttlMs":1000}}"#);
    let unasked = "[{name: x, input: {hold: {holder: a}}, expect: {hold: {action: renew}}}]";
    assert!(failures(&renews, unasked).contains("the host would refuse this decision (RenewalNotAsked)"));
    let asked = unasked.replace("holder: a", "holder: a, renewalRequested: true");
    assert!(outcome(&renews, &asked).passed());
}

#[test]
fn params_are_validated_error_by_error() {
    let builtin = host().builtin();
    let case = |params: &str, what: &str| format!("[{{name: x, validate: {params}, {what}}}]");
    assert!(outcome(&builtin, &case("{minHold: 5m}", "errors: []")).passed());
    assert!(outcome(&builtin, &case("{minHold: banana}", "errors: ['minHold: *']")).passed());
    for (params, errors, said) in [
        ("{minHold: 5m}", "errors: ['minHold: *']", "got       no further error"),
        ("{minHold: banana, x: 1}", "errors: ['minHold: *']", "errors[1] expected  no further error"),
        ("{minHold: banana}", "errors: ['aging: *']", "errors[0] expected  aging: *"),
        ("{minHold: banana}", "fault: Trap", "got       1 errors"),
    ] {
        let failures = failures(&builtin, &case(params, errors));
        assert!(failures.contains(said), "{failures}");
    }
}

#[test]
fn one_decision_is_looked_at_as_a_host_does() {
    let input = fixture::input("requests: [{holder: a}, {holder: b, priority: 5}]").expect("an input").json();
    let found = eval::evaluate(&host().builtin(), &input);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.words[0], "grant: request 1 (b) for 10m");
    assert_eq!(found.decision.expect("JSON")["grant"]["request"], 1);
    let clamped = eval::evaluate(&always(r#"{"wakeInMs":1}"#), &input);
    assert_eq!((clamped.clamped, clamped.problems.len()), (vec!["WakeClamped"], 0));
    for (policy, params, said) in [
        (never(), "{}", "Trap: "),
        (always("no"), "{}", "OutputNotJson: "),
        (always(r#"{"hold":{"action":"expire"}}"#), "{}", "NoHold: "),
        (host().builtin(), "{minHold: 1}", "InvalidParams: minHold"),
    ] {
        let input = fixture::input(&format!("params: {params}")).expect("an input").json();
        let problems = eval::evaluate(&policy, &input).problems;
        assert!(problems.iter().any(|problem| problem.starts_with(said)), "{said}: {problems:?}");
    }
}
