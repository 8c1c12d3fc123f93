//! The ABI's promises: the committed schemas are those of the types, the DESIGN's examples parse,
//! and what may be added later does not break a guest of today.

use std::{borrow::Cow, fs, path::Path};

use konductor_policy_abi::{
    exports::{pack, unpack},
    v1::{Cause, Ending, Grant, HoldAction, Input, Object, Output},
};
use serde_json::{Value, json};

#[test]
fn committed_schemas_are_those_of_the_types() {
    for (name, expected) in konductor_policy_abi::schema::files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
        let committed = fs::read_to_string(&path).unwrap_or_default();
        // As values: the order of members depends on the features that other packages choose.
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        assert_eq!(
            value(&committed),
            value(&expected),
            "{name} has drifted; run: cargo run -p konductor-policy-abi --features schema --example schemagen"
        );
    }
}

/// The input of DESIGN section 6, every member of it.
const INPUT: &str = r#"
{ "now": 1790000000000, "cause": "request",
  "lease": {"name": "db-migration", "namespace": "default", "uid": "u", "ttlMs": 600000, "priority": 1, "renewable": true, "labels": {"a": "b"}},
  "params": {},
  "hold": {"holder": "pod-a", "priority": 1, "ttlMs": 600000, "acquired": 0, "expires": 0, "renewals": 0, "token": 7,
           "renewalRequested": false, "due": false, "labels": {}, "preemption": {"by": "pod-b", "deadline": 5, "force": false, "reason": ""}},
  "requests": [{"holder": "pod-b", "priority": 5, "ttlMs": 600000, "arrived": 0, "labels": {}}],
  "waiting": 1,
  "history": [{"holder": "pod-x", "token": 6, "acquired": 0, "ended": 0, "how": "Released"}],
  "state": "" }"#;

#[test]
fn the_designs_input_survives_a_round_trip() {
    let input: Input<'_, Value> = serde_json::from_str(INPUT).unwrap();
    assert_eq!(input.lease.labels.get("a"), Some("b"));
    assert_eq!(serde_json::to_value(&input).unwrap(), serde_json::from_str::<Value>(INPUT).unwrap());
}

#[test]
fn text_without_escapes_is_borrowed() {
    let input: Input<'_, Value> = serde_json::from_str(INPUT).unwrap();
    let hold = input.hold.unwrap();
    for text in [&input.lease.name, &hold.holder, &hold.preemption.unwrap().by, &input.requests[0].holder] {
        assert!(matches!(text, Cow::Borrowed(_)), "{text} was copied");
    }
    assert!(matches!(&input.lease.labels[0], (Cow::Borrowed(_), Cow::Borrowed(_))));
}

#[test]
fn a_guest_ignores_what_it_does_not_know() {
    let later = r#"{"now": 1, "cause": "moonrise", "novelty": {"x": [1, 2]}, "lease": {"ttlMs": 5, "colour": "red"},
                    "history": [{"how": "Abducted", "by": "aliens"}]}"#;
    let input: Input<'_, Value> = serde_json::from_str(later).unwrap();
    assert_eq!((input.cause, input.history[0].how, input.lease.ttl_ms), (Cause::Other, Ending::Other, 5));
}

#[test]
fn the_designs_output_survives_a_round_trip() {
    let text = r#"{"hold":{"action":"keep"},"grant":{"request":0,"ttlMs":600000},"deny":[{"request":1,"reason":"outside the change window"}],"wakeInMs":30000,"state":"…","reason":"highest priority, then first come"}"#;
    let output: Output<'_> = serde_json::from_str(text).unwrap();
    assert_eq!(output.grant, Some(Grant { request: 0, ttl_ms: 600_000 }));
    assert_eq!(serde_json::to_string(&output).unwrap(), text);
}

#[test]
fn an_empty_answer_is_an_empty_object() {
    assert_eq!(serde_json::to_string(&Output::default()).unwrap(), "{}");
    assert_eq!(serde_json::from_str::<Output<'_>>("{}").unwrap(), Output::default());
}

#[test]
fn null_is_absent_in_an_answer() {
    let nulls = json!({"hold": null, "grant": null, "deny": null, "wakeInMs": null, "state": null, "reason": null});
    assert_eq!(serde_json::from_str::<Output<'_>>(&nulls.to_string()).unwrap(), Output::default());
}

#[test]
fn every_action_has_its_members() {
    for (action, text) in [
        (HoldAction::Keep, r#"{"action":"keep"}"#),
        (HoldAction::Renew { ttl_ms: 5 }, r#"{"action":"renew","ttlMs":5}"#),
        (HoldAction::Expire, r#"{"action":"expire"}"#),
        (
            HoldAction::Preempt { r#for: 2, grace_ms: 9, force: true },
            r#"{"action":"preempt","for":2,"graceMs":9,"force":true}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&action).unwrap(), text);
        assert_eq!(serde_json::from_str::<HoldAction>(text).unwrap(), action);
    }
    for wrong in [
        r#"{"action":"destroy"}"#,
        r#"{"action":"renew"}"#,
        r#"{"action":"preempt","for":1}"#,
        r#"{"action":"preempt","for":-1,"graceMs":0}"#,
        r"{}",
    ] {
        assert!(serde_json::from_str::<HoldAction>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_answer_with_an_unknown_member_is_refused() {
    for typo in [r#"{"grants":{"request":0,"ttlMs":1}}"#, r#"{"grant":{"request":0,"ttlMs":1,"forced":true}}"#] {
        assert!(serde_json::from_str::<Output<'_>>(typo).is_err(), "{typo}");
    }
}

#[test]
fn a_list_is_not_an_object() {
    for list in [r#"{"hold":["keep"]}"#, r#"{"grant":[0,1]}"#, r#"{"deny":[[0,"no"]]}"#, r#"{"deny":{"request":0}}"#] {
        assert!(serde_json::from_str::<Output<'_>>(list).is_err(), "{list}");
    }
    assert!(serde_json::from_str::<Object<Output<'_>>>("[]").is_err());
}

#[test]
fn packed_results_are_unsigned() {
    for (ptr, len) in [(0, 0), (1, 2), (u32::MAX, u32::MAX), (0x8000_0000, 0x8000_0000), (65_536, 0)] {
        assert_eq!(unpack(pack(ptr, len)), (ptr, len));
    }
}
