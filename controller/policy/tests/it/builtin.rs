//! The built-in policy in the sandbox. Its rules are tested in `policies/default`; here it is that
//! the module is those rules, and that it is fit to be shipped.

use konductor_core::{Ending, HoldAction, Millis, PastHold, Question, Time};
use konductor_policy::Policy;

use crate::common::{NOW, hold, host, question};

fn questions() -> Vec<(Question, &'static str)> {
    let waiting = question(&[("a", 1), ("b", 5), ("c", 5)]);
    let mut paused = waiting.clone();
    paused.history = vec![PastHold {
        holder: "x".to_owned(),
        request: "r".to_owned(),
        request_name: "r".to_owned(),
        token: 1,
        acquired: Time(0),
        ended: Time(NOW.0 - 1000),
        how: Ending::Expired,
    }];
    let mut held = waiting.clone();
    held.hold = Some(hold("h"));
    let mut renewing = held.clone();
    renewing.hold.as_mut().expect("held").renewal_requested = true;
    let mut due = held.clone();
    due.hold.as_mut().expect("held").due = true;
    vec![
        (question(&[]), "{}"),
        (waiting, "{}"),
        (paused, r#"{"lockDelay": "5s"}"#),
        (held.clone(), "{}"),
        (held, r#"{"preemption": "LowerPriority", "gracePeriod": "1m", "minHold": "10s"}"#),
        (renewing.clone(), "{}"),
        (renewing, r#"{"preemption": "LowerPriority", "minHold": "1h", "aging": 2.5}"#),
        (due, "{}"),
    ]
}

#[test]
fn the_module_is_the_rules() {
    let policy = host().builtin();
    for (question, params) in questions() {
        let input = Policy::input(&question, params).expect("an input");
        let natively = konductor_policy_default::decide_json(&input);
        let output = policy.answer(&input).expect("an answer").output;
        assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(&natively));
        // And what it proposes is legal.
        let decided = policy.decide(&question, params).expect("decides");
        assert!(konductor_core::check(&question, decided.decision).is_ok());
    }
}

#[test]
fn it_grants_to_the_first_of_the_highest_priority() {
    let decided = host().builtin().decide(&question(&[("a", 1), ("b", 5), ("c", 5)]), "{}").expect("decides");
    let grant = decided.decision.grant.expect("a grant");
    assert_eq!((grant.request, grant.ttl), (1, Millis::from_secs(30)));
    assert_eq!(decided.decision.reason, "highest priority, then first come");
}

#[test]
fn it_preempts_with_a_grace() {
    let mut question = question(&[("a", 1)]);
    question.hold = Some(hold("h"));
    let params = r#"{"preemption": "LowerPriority", "gracePeriod": "45s"}"#;
    let decided = host().builtin().decide(&question, params).expect("decides");
    let expected = HoldAction::Preempt { in_favour_of: 0, grace: Millis::from_secs(45), force: false };
    assert_eq!(decided.decision.hold, expected);
}

#[test]
fn it_says_what_it_is() {
    let policy = host().builtin();
    let description = policy.describe().expect("a description");
    assert_eq!((description.name.as_str(), description.version.as_str()), ("default", env!("CARGO_PKG_VERSION")));
    let schema = description.params_schema.as_ref().expect("a schema");
    assert_eq!(schema["properties"]["preemption"]["default"], "Never");
}

#[test]
fn it_refuses_wrong_params_by_name() {
    let policy = host().builtin();
    assert_eq!(policy.validate("{}"), Ok(vec![]));
    assert_eq!(policy.validate(r#"{"minHold": "10s", "aging": 1}"#), Ok(vec![]));
    let errors = policy.validate(r#"{"minhold": "10s", "lockDelay": 5}"#).expect("an answer");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("minhold: ") && errors[1].starts_with("lockDelay: "), "{errors:?}");
}

/// Its stack is small, so it must do for the deepest JSON that the host lets through.
#[test]
fn it_reads_params_as_deep_as_they_come() {
    let policy = host().builtin();
    let deep = format!(r#"{{"deep": {}{}}}"#, "[".repeat(120), "]".repeat(120));
    let deep_objects = format!(r#"{{"deep": {}1{}}}"#, r#"{"a":"#.repeat(120), "}".repeat(120));
    for params in [deep, deep_objects] {
        let errors = policy.validate(&params).expect("an answer");
        assert!(errors.len() == 1 && errors[0].starts_with("deep: "), "{errors:?}");
    }
}

/// Deciding by half of what somebody asked for would be a silent surprise.
#[test]
fn it_does_not_decide_with_params_that_it_refuses() {
    let fault = host().builtin().decide(&question(&[("a", 0)]), r#"{"agin": 1}"#).expect_err("refused params");
    assert_eq!(fault.reason(), "Trap");
    assert!(fault.to_string().contains("params_are_refused_by_validate"), "{fault}");
}

#[test]
fn it_is_small() {
    let size = host().builtin().size();
    assert!(size < 130_000, "{size} bytes");
}
