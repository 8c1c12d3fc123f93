//! The request that came last gets the lease.
//!
//! For work where only the newest matters, such as a build of a branch. Build it with
//! `cargo build -p konductor-policy-newest-first --profile guest --target wasm32-unknown-unknown`;
//! the module is `target/wasm32-unknown-unknown/guest/konductor_policy_newest_first.wasm`.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{string::String, vec, vec::Vec};

use konductor_policy_sdk::{Grant, Hold, HoldAction, Input, NoParams, Output};

/// What the policy is.
pub const DESCRIBE: &str = concat!(
    r#"{"name":"newest-first","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","description":"The request that came last gets the lease.","paramsSchema":{"type":"object","additionalProperties":false}}"#
);

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, NoParams>) -> Output<'a> {
    match &input.hold {
        Some(hold) if !hold.due => renew_if_asked(input, hold),
        Some(_) => Output { hold: Some(HoldAction::Expire), ..grant_newest(input) },
        None => grant_newest(input),
    }
}

fn grant_newest<'a>(input: &'a Input<'a, NoParams>) -> Output<'a> {
    // The requests are in order of arrival, so the newest is the last.
    let Some((index, newest)) = (0u32..).zip(&input.requests).last() else { return Output::default() };
    let grant = Grant { request: index, ttl_ms: newest.ttl_ms.min(input.lease.ttl_ms) };
    Output { grant: Some(grant), reason: "newest first".into(), ..Output::default() }
}

fn renew_if_asked<'a>(input: &'a Input<'a, NoParams>, hold: &'a Hold<'a>) -> Output<'a> {
    if !(hold.renewal_requested && input.lease.renewable) {
        return Output::default();
    }
    let renew = HoldAction::Renew { ttl_ms: hold.ttl_ms.min(input.lease.ttl_ms) };
    Output { hold: Some(renew), reason: "renewed".into(), ..Output::default() }
}

/// What is wrong with the params: that there are some.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    let none = params.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).map(str::trim) == Some("");
    if none { Vec::new() } else { vec![String::from("newest-first has no params")] }
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(input: &str) -> Output<'static> {
        let input: Input<'_, NoParams> = serde_json::from_str(input).expect("an input");
        let json = serde_json::to_string(&decide(&input)).expect("an answer");
        serde_json::from_str(&json).expect("an answer")
    }

    #[test]
    fn the_last_request_is_granted() {
        let input = r#"{"lease": {"ttlMs": 1000}, "requests": [{"holder": "a", "priority": 9, "ttlMs": 500}, {"holder": "b", "ttlMs": 5000}]}"#;
        assert_eq!(answer(input).grant, Some(Grant { request: 1, ttl_ms: 1000 }));
    }

    #[test]
    fn a_hold_that_is_not_due_stays() {
        let input =
            r#"{"lease": {"ttlMs": 1000}, "hold": {"holder": "x"}, "requests": [{"holder": "a", "ttlMs": 500}]}"#;
        assert_eq!(answer(input), Output::default());
    }

    #[test]
    fn params_are_refused() {
        assert!(validate(" { } ").is_empty());
        assert_eq!(validate(r#"{"order": "oldest"}"#).len(), 1);
    }
}
