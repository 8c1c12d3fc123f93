//! Params: what is accepted, and what is said of the rest.

use konductor_policy_default::{DESCRIBE, Params, params::Preemption, validate};
use konductor_policy_sdk::{abi, duration};
use serde_json::Value;

fn read(params: &str) -> Params {
    let reading: konductor_policy_default::params::Reading =
        konductor_policy_sdk::json::from_str(params).expect("JSON");
    assert_eq!(reading.errors, Vec::<String>::new());
    reading.params
}

#[test]
fn every_param_is_read() {
    assert_eq!(read("{}"), Params::default());
    assert_eq!(
        read(
            r#"{"preemption": "LowerPriority", "gracePeriod": "1m", "minHold": "10s", "lockDelay": "500ms", "aging": 0.25}"#
        ),
        Params {
            preemption: Preemption::LowerPriority,
            grace_period_ms: 60_000,
            min_hold_ms: 10_000,
            lock_delay_ms: 500,
            aging_milli: 250,
        }
    );
    assert_eq!(read(r#"{"preemption": "Never", "minHold": "0", "aging": 1000000}"#).aging_milli, 1_000_000_000);
    assert_eq!(read(r#"{"lockDelay": "366d"}"#).lock_delay_ms, duration::MAX_MS);
}

#[test]
fn every_error_names_its_param() {
    for (params, error) in [
        (r#"{"preemption": "Always"}"#, "preemption: \"Always\" is neither Never nor LowerPriority"),
        (r#"{"preemption": null}"#, "preemption: null is neither Never nor LowerPriority"),
        (r#"{"preemption": "never"}"#, "preemption: \"never\" is neither Never nor LowerPriority"),
        (
            r#"{"gracePeriod": 30}"#,
            "gracePeriod: this number is not a duration; write a text such as \"30s\" or \"1h30m\"",
        ),
        (
            r#"{"gracePeriod": "30"}"#,
            "gracePeriod: \"30\" is not a duration up to 366 days; write one such as \"30s\" or \"1h30m\"",
        ),
        (
            r#"{"minHold": "-5s"}"#,
            "minHold: \"-5s\" is not a duration up to 366 days; write one such as \"30s\" or \"1h30m\"",
        ),
        (r#"{"lockDelay": ["5s"]}"#, "lockDelay: a list is not a duration; write a text such as \"30s\" or \"1h30m\""),
        (r#"{"aging": "1"}"#, "aging: \"1\" is not a number from 0 to 1000000"),
        (r#"{"aging": -0.5}"#, "aging: this number is not a number from 0 to 1000000"),
        (r#"{"aging": 1000001}"#, "aging: this number is not a number from 0 to 1000000"),
        (r#"{"aging": true}"#, "aging: true is not a number from 0 to 1000000"),
        (
            r#"{"grace": {"period": "5s"}}"#,
            "grace: an object is not a param of this policy, which knows preemption, gracePeriod, minHold, lockDelay and aging",
        ),
        ("[]", "params: not a JSON object"),
        ("{", "params: not a JSON object"),
    ] {
        assert_eq!(validate(params), [error], "{params}");
    }
}

#[test]
fn all_errors_are_told_at_once_within_reason() {
    assert_eq!(validate(r#"{"a": 1, "b": 2, "aging": "x", "minHold": "5s"}"#).len(), 3);
    let many: Vec<String> = (0..100).map(|i| format!("\"p{i}\": 0")).collect();
    assert_eq!(validate(&format!("{{{}}}", many.join(","))).len(), 16);
}

/// The schema that the policy tells of itself says the same as its code.
#[test]
fn the_description_is_right() {
    let description: abi::v1::Description<'_, Value> = serde_json::from_str(DESCRIBE).expect("a description");
    assert_eq!((description.name.as_ref(), description.version.as_ref()), ("default", env!("CARGO_PKG_VERSION")));
    let schema = description.params_schema.expect("a schema");
    let properties = schema["properties"].as_object().expect("properties");
    let defaults: serde_json::Map<String, Value> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(defaults.len(), 5);
    assert_eq!(read(&Value::from(defaults).to_string()), Params::default());
}
