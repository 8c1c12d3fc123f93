//! A request's priority rises while it waits, up to a cap, so that nobody starves and nobody
//! overtakes what is truly urgent.
//!
//! `README.md` beside this crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{string::String, vec::Vec};

use konductor_policy_sdk::{
    Hold, HoldAction, Input, Output, Request,
    params::{self, Problem, Reading, Value},
    rules,
};

/// What the policy is.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "aging",
    description: "A request's priority rises while it waits, up to a cap.",
    params_schema: "../params.schema.json",
};

/// The most that a minute, or waiting as a whole, adds: it keeps the arithmetic far from its ends.
const NUMBER_MAX: u32 = 1_000_000;
const MINUTE_MS: i64 = 60_000;

/// Why the next one is next.
const REASON_GRANT: &str = "highest priority with what was gained by waiting, then first come";
/// Why the holder is asked to leave.
const REASON_PREEMPT: &str = "a request has waited so long that its priority is above the holder's";

/// The params. Priorities are in thousandths: whole numbers compare the same way everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// What a minute of waiting adds.
    pub gain: i64,
    /// The most that waiting adds.
    pub cap: i64,
    /// Whether a holder is asked to leave once somebody who waits has a higher priority.
    pub preempt: bool,
    /// How long it then has, in milliseconds.
    pub grace_period_ms: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { gain: 1000, cap: 100_000, preempt: false, grace_period_ms: rules::GRACE_PERIOD_DEFAULT_MS }
    }
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["gain", "cap", "preempt", "gracePeriod"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "gain" => number(value).map(|v| self.gain = v),
            "cap" => number(value).map(|v| self.cap = v),
            "preempt" => value.flag().map(|v| self.preempt = v),
            "gracePeriod" => value.duration().map(|v| self.grace_period_ms = v),
            _ => return None,
        })
    }
}

fn number(value: &Value<'_>) -> Result<i64, Problem> {
    value.thousandths(NUMBER_MAX).ok_or("is not a number from 0 to 1000000")
}

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading<Params>>) -> Output<'a> {
    let params = input.params.accepted();
    match &input.hold {
        Some(hold) if params.preempt && !hold.due && hold.preemption.is_none() => held(input, hold, params),
        _ => rules::usual(input, || granted(input, params)),
    }
}

fn granted<'a>(input: &Input<'a, Reading<Params>>, params: &Params) -> Output<'a> {
    let next = rules::highest(&input.requests, |request| rank(request, input.now, params));
    let Some((index, request)) = next else { return Output::default() };
    Output { grant: Some(rules::grant(input, index, request)), ..rules::because(REASON_GRANT) }
}

/// The holder is asked to leave for the one that is next, if that one's priority has risen above its
/// own; else somebody's may rise above it while nothing else happens.
fn held<'a>(input: &Input<'a, Reading<Params>>, hold: &Hold<'a>, params: &Params) -> Output<'a> {
    let holder = i64::from(hold.priority) * 1000;
    match rules::highest(&input.requests, |request| rank(request, input.now, params)) {
        Some((index, request)) if rank(request, input.now, params) > holder => {
            let preempt = HoldAction::Preempt { r#for: index, grace_ms: params.grace_period_ms, force: false };
            Output { hold: Some(preempt), ..rules::because(REASON_PREEMPT) }
        }
        _ => {
            let wake_in_ms = input.requests.iter().filter_map(|request| above_in(request, holder, input.now, params));
            Output { wake_in_ms: wake_in_ms.min(), ..rules::standing(input, hold) }
        }
    }
}

/// A request's priority with what it gained by waiting.
fn rank(request: &Request<'_>, now: i64, params: &Params) -> i64 {
    let waited_ms = rules::since(request.arrived, now);
    let gained = waited_ms.saturating_mul(params.gain) / MINUTE_MS;
    (i64::from(request.priority) * 1000).saturating_add(gained.min(params.cap))
}

/// In how many milliseconds a request's priority is above this one; `None` if it never is.
fn above_in(request: &Request<'_>, priority: i64, now: i64, params: &Params) -> Option<i64> {
    let lacks = priority + 1 - i64::from(request.priority) * 1000;
    if lacks > params.cap || params.gain == 0 {
        return None;
    }
    // Rounded up: a moment too early it would not yet be so.
    let waits_ms = lacks.saturating_mul(MINUTE_MS).saturating_add(params.gain - 1) / params.gain;
    // What a clock that stepped back takes away, waiting makes good.
    Some(request.arrived.saturating_add(waits_ms).saturating_sub(now).max(1))
}

/// What is wrong with the params.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    params::validate::<Params>(params)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
