//! The one parser of what a guest wrote: whatever the bytes are, it answers, and what comes out is clean.

use konductor_core::{Decision, Denial, Grant, HoldAction, Millis};
use konductor_policy::Policy;
use proptest::prelude::*;

#[test]
fn answers_become_decisions() {
    let preempt = HoldAction::Preempt { in_favour_of: 3, grace: Millis(500), force: true };
    for (answer, decision) in [
        ("{}", Decision::default()),
        (" {\n} ", Decision::default()),
        (r#"{"hold":{"action":"keep"}}"#, Decision::default()),
        (r#"{"hold":null,"grant":null,"deny":null,"wakeInMs":null,"state":null,"reason":null}"#, Decision::default()),
        (
            r#"{"hold":{"action":"renew","ttlMs":60000}}"#,
            Decision { hold: HoldAction::Renew { ttl: Millis(60_000) }, ..Decision::default() },
        ),
        (
            r#"{"hold":{"action":"expire"},"grant":{"request":1,"ttlMs":5}}"#,
            Decision {
                hold: HoldAction::Expire,
                grant: Some(Grant { request: 1, ttl: Millis(5) }),
                ..Decision::default()
            },
        ),
        (
            r#"{"hold":{"action":"preempt","for":3,"graceMs":500,"force":true}}"#,
            Decision { hold: preempt, ..Decision::default() },
        ),
        (
            r#"{"deny":[{"request":1,"reason":"closed"}],"wakeInMs":0,"state":"s\n","reason":"why"}"#,
            Decision {
                deny: vec![Denial { request: 1, reason: "closed".to_owned() }],
                wake_in: Some(Millis::ZERO),
                // The policy's own memory is not for people, so it stays as it is.
                state: Some("s\n".to_owned()),
                reason: "why".to_owned(),
                ..Decision::default()
            },
        ),
    ] {
        assert_eq!(Policy::read(answer.as_bytes()), Ok(decision), "{answer}");
    }
}

#[test]
fn everything_else_is_a_typed_fault() {
    for (answer, reason) in [
        ("", "OutputEmpty"),
        (" ", "OutputNotJson"),
        ("null", "OutputSchema"),
        ("\"grant\"", "OutputSchema"),
        ("[]", "OutputSchema"),
        ("{}{}", "OutputNotJson"),
        ("{\"reason\":\"\\ud800\"}", "OutputNotJson"),
        ("{\"reason\":\"a\0b\"}", "OutputNotJson"),
        (r#"{"reason":5}"#, "OutputSchema"),
        (r#"{"grant":{}}"#, "OutputSchema"),
        (r#"{"grant":{"request":0}}"#, "OutputSchema"),
        (r#"{"grant":{"request":0,"ttlMs":1.5}}"#, "OutputSchema"),
        (r#"{"grant":{"request":0,"ttlMs":"NaN"}}"#, "OutputSchema"),
        (r#"{"grant":{"request":0,"ttlMs":9223372036854775808}}"#, "OutputSchema"),
        (r#"{"grant":{"request":4294967296,"ttlMs":1}}"#, "OutputSchema"),
        (r#"{"grant":[0,1]}"#, "OutputSchema"),
        (r#"{"reason":"a","reason":"b"}"#, "OutputSchema"),
        (r#"{"hold":{"action":"renew"}}"#, "OutputSchema"),
        (r#"{"hold":{"action":"renew","ttlMs":-1}}"#, "OutputSchema"),
        (r#"{"hold":{"action":"preempt","for":0,"graceMs":-1}}"#, "OutputSchema"),
        (r#"{"hold":{"action":"preempt","for":0}}"#, "OutputSchema"),
        (r#"{"hold":{}}"#, "OutputSchema"),
        (r#"{"hold":"keep"}"#, "OutputSchema"),
        (r#"{"wakeInMs":-1}"#, "OutputSchema"),
    ] {
        let fault = Policy::read(answer.as_bytes()).expect_err(answer);
        assert_eq!(fault.reason(), reason, "{answer}: {fault}");
    }
    assert_eq!(Policy::read(b"{\"reason\":\"\xff\"}").expect_err("bytes").reason(), "OutputNotUtf8");
    assert_eq!(Policy::read(&vec![b' '; 65 * 1024]).expect_err("long").reason(), "OutputTooLarge");
}

fn is_clean(text: &str) -> bool {
    text.len() <= 256 && !text.chars().any(char::is_control)
}

// Any bytes, and any pieces of answers, are what `controller/policy/fuzz` tries.
proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_out_clean(reason in ".{0,400}", denial in ".{0,400}") {
        let answer = serde_json::json!({"reason": reason, "deny": [{"request": 0, "reason": denial}]}).to_string();
        let decision = Policy::read(answer.as_bytes()).expect("an answer");
        prop_assert!(is_clean(&decision.reason) && is_clean(&decision.deny[0].reason), "{:?}", decision);
    }

    #[test]
    fn any_decision_survives_the_way(
        request in any::<u32>(), ttl in 0..i64::MAX, wake in prop::option::of(0..i64::MAX), state in prop::option::of(".{0,50}"),
    ) {
        let answer = serde_json::json!({"grant": {"request": request, "ttlMs": ttl}, "wakeInMs": wake, "state": state});
        let decision = Policy::read(answer.to_string().as_bytes()).expect("an answer");
        prop_assert_eq!(decision.grant, Some(Grant { request: request as usize, ttl: Millis(ttl) }));
        prop_assert_eq!(decision.wake_in, wake.map(Millis));
        prop_assert_eq!(decision.state, state);
    }
}
