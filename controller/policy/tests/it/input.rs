//! A question becomes the ABI's input.

use konductor_core::{Ending, Millis, PastHold, Preemption, Time, question::SHOWN_MAX};
use konductor_policy::Policy;
use konductor_policy_abi::limits;
use serde_json::{Value, json};

use crate::common::{NOW, candidate, hold, host, question};

fn input(question: &konductor_core::Question, params: &str) -> Value {
    serde_json::from_slice(&Policy::input(question, params).expect("an input")).expect("JSON")
}

#[test]
fn the_input_is_the_one_of_the_design() {
    let mut question = question(&[("b", 5)]);
    question.requests[0].labels = vec![("team".to_owned(), "red".to_owned())];
    question.waiting = 7;
    question.state = "state \"quoted\"".to_owned();
    let mut hold = hold("a");
    hold.preemption = Some(Preemption {
        by: "b".to_owned(),
        request: "not shown".to_owned(),
        deadline: Time(NOW.0 + 5),
        force: false,
        reason: "because".to_owned(),
    });
    question.hold = Some(hold);
    question.history = vec![PastHold {
        holder: "x".to_owned(),
        request: "not shown".to_owned(),
        request_name: "not shown either".to_owned(),
        token: 6,
        acquired: Time(1),
        ended: Time(2),
        how: Ending::ForceReleased,
    }];
    let now = NOW.0;
    assert_eq!(
        input(&question, r#"{"z": [1, 2.50], "a": null}"#),
        json!({
            "now": now, "cause": "request",
            "lease": {"name": "lease", "namespace": "default", "uid": "lease-uid", "ttlMs": 60000, "priority": 0, "renewable": true, "labels": {}},
            "params": {"z": [1, 2.5], "a": null},
            "hold": {"holder": "a", "priority": 0, "ttlMs": 30000, "acquired": now - 10_000, "expires": now + 20_000, "renewals": 0,
                     "token": 1, "renewalRequested": false, "due": false, "labels": {},
                     "preemption": {"by": "b", "deadline": now + 5, "force": false, "reason": "because"}},
            "requests": [{"holder": "b", "priority": 5, "ttlMs": 30000, "arrived": now, "labels": {"team": "red"}}],
            "waiting": 7,
            "history": [{"holder": "x", "token": 6, "acquired": 1, "ended": 2, "how": "ForceReleased"}],
            "state": "state \"quoted\""
        })
    );
}

#[test]
fn params_must_be_an_object() {
    for params in ["{}", "", "  ", " {\"a\": 1} "] {
        assert!(Policy::input(&question(&[]), params).is_ok(), "{params:?}");
    }
    for params in ["[]", "5", "null", "{", "{}}", "{'a': 1}"] {
        let fault = Policy::input(&question(&[]), params).expect_err(params);
        assert_eq!(fault.reason(), "ParamsNotJson", "{params:?}: {fault}");
    }
}

#[test]
fn the_core_and_the_abi_agree_on_their_limits() {
    assert_eq!(SHOWN_MAX, limits::REQUESTS_MAX);
    assert_eq!(konductor_core::guard::REASON_MAX, limits::REASON_MAX);
    assert_eq!(konductor_core::guard::STATE_MAX, limits::STATE_MAX);
}

/// 512 requests with long names and labels do not fit. The ones with the lowest priority are left
/// out, the others keep their order, and a decision still names the request that it meant.
#[test]
fn an_input_that_is_too_long_leaves_out_the_lowest_priorities() {
    let mut question = question(&[]);
    for i in 0..512 {
        let mut candidate = candidate(&format!("holder-{i:04}"), i % 10);
        candidate.labels = (0..8).map(|l| (format!("label-{l}"), "v".repeat(63))).collect();
        question.requests.push(candidate);
    }
    // The most urgent request is far behind: by its index in the input it would be another one.
    question.requests[500].priority = 99;
    question.waiting = 512;

    let json = Policy::input(&question, "{}").expect("an input");
    assert!(json.len() <= limits::INPUT_MAX && json.len() > limits::INPUT_MAX - 2048, "{}", json.len());
    let input: Value = serde_json::from_slice(&json).expect("JSON");
    let shown: Vec<(&str, i64)> = input["requests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| (r["holder"].as_str().expect("a text"), r["priority"].as_i64().expect("a number")))
        .collect();
    assert!(shown.len() < 500, "{}", shown.len());
    assert!(shown.is_sorted_by_key(|(holder, _)| *holder), "not in order of arrival");
    let lowest = shown.iter().map(|(_, priority)| *priority).min().expect("some");
    let higher = question.requests.iter().filter(|r| i64::from(r.priority) > lowest).count();
    assert_eq!(shown.iter().filter(|(_, p)| *p > lowest).count(), higher, "a higher priority was left out");
    assert_eq!(input["waiting"], 512);

    let grant = host().builtin().decide(&question, "{}").expect("decides").decision.grant.expect("a grant");
    assert_eq!((grant.request, grant.ttl), (500, Millis::from_secs(30)));
}

#[test]
fn an_input_that_cannot_be_made_to_fit_is_a_fault() {
    let mut question = question(&[("a", 0)]);
    question.lease.labels = vec![("huge".to_owned(), "x".repeat(limits::INPUT_MAX))];
    assert_eq!(host().builtin().decide(&question, "{}").expect_err("too long").reason(), "InputTooLarge");
}

#[test]
fn the_largest_input_fits_the_budget_many_times() {
    let mut question = question(&[]);
    question.requests = (0..512)
        .map(|i| {
            let mut candidate = candidate(&format!("holder-{i:04}"), i);
            candidate.labels = (0..4).map(|l| (format!("label-{l}"), "v".repeat(63))).collect();
            candidate
        })
        .collect();
    let decided = host().builtin().decide(&question, "{}").expect("decides");
    assert_eq!(decided.decision.grant.map(|grant| grant.request), Some(511));
    assert!(decided.fuel * 4 < host().limits().call_fuel.0, "{} fuel", decided.fuel);
}
