//! A request of a higher priority takes the lease over: after a minimum hold, and only so often.
//!
//! `README.md` beside this crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{borrow::Cow, format, string::String, vec::Vec};

use konductor_policy_sdk::{
    Hold, HoldAction, Input, Output, json,
    params::{self, Problem, Reading, Value},
    rules,
};

/// What the policy is.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "preempt",
    description: "A request of a higher priority takes the lease over, after a minimum hold and within a budget.",
    params_schema: "../params.schema.json",
};

/// The most preemptions in the window: their moments are the state, at 14 bytes each, and the state
/// may have 4 KiB. More would not be a budget.
const BUDGET_MAX: u32 = 100;
const HOUR_MS: i64 = 3_600_000;

/// Why the next one is next.
const REASON_GRANT: &str = "highest priority, then first come";
/// Why the holder is left alone for now.
const REASON_MIN_HOLD: &str = "a request with a higher priority waits for the end of minHold";
/// Why the holder is left alone for now.
const REASON_BUDGET: &str = "a request with a higher priority waits: the budget of preemptions is used up";

/// The params.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// How long a holder is left alone, in milliseconds since its grant.
    pub min_hold_ms: i64,
    /// The most preemptions in a window.
    pub budget: u32,
    /// How long a window is, in milliseconds.
    pub window_ms: i64,
    /// How long a holder that is asked to leave has to do so, in milliseconds.
    pub grace_period_ms: i64,
    /// Whether its hold ends then even if it has not left.
    pub force: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            min_hold_ms: 60_000,
            budget: 4,
            window_ms: HOUR_MS,
            grace_period_ms: rules::GRACE_PERIOD_DEFAULT_MS,
            force: false,
        }
    }
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["minHold", "budget", "window", "gracePeriod", "force"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "minHold" => value.duration().map(|v| self.min_hold_ms = v),
            "budget" => value.whole(BUDGET_MAX).map(|v| self.budget = v).ok_or("is not a whole number from 0 to 100"),
            "window" => match value.duration() {
                Ok(0) => Err("is no time at all; write how long a preemption counts, such as \"1h\""),
                other => other.map(|v| self.window_ms = v),
            },
            "gracePeriod" => value.duration().map(|v| self.grace_period_ms = v),
            "force" => value.flag().map(|v| self.force = v),
            _ => return None,
        })
    }
}

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading<Params>>) -> Output<'a> {
    let params = input.params.accepted();
    match &input.hold {
        Some(hold) if !hold.due && hold.preemption.is_none() => held(input, hold, params),
        _ => rules::usual(input, || granted(input)),
    }
}

fn granted<'a>(input: &Input<'a, Reading<Params>>) -> Output<'a> {
    let next = rules::highest(&input.requests, |request| request.priority);
    let Some((index, request)) = next else { return Output::default() };
    Output { grant: Some(rules::grant(input, index, request)), ..rules::because(REASON_GRANT) }
}

fn held<'a>(input: &Input<'a, Reading<Params>>, hold: &Hold<'a>, params: &Params) -> Output<'a> {
    let next = rules::highest(&input.requests, |request| request.priority);
    let Some((index, request)) = next.filter(|(_, request)| request.priority > hold.priority) else {
        return rules::standing(input, hold);
    };
    let mut spent = preemptions(&input.state, input.now, params);
    let protected_for = params.min_hold_ms - rules::since(hold.acquired, input.now);
    if let Some((wait, why)) = wait(protected_for, &spent, input.now, params) {
        let stands = rules::standing(input, hold);
        let reason = if stands.reason.is_empty() { Cow::Borrowed(why) } else { stands.reason };
        return Output { wake_in_ms: wait, reason, ..stands };
    }
    spent.push(input.now);
    let grace_ms = params.grace_period_ms;
    let reason = format!(
        "priority {} goes before {}; preemption {} of {} in this window",
        request.priority,
        hold.priority,
        spent.len(),
        params.budget
    );
    Output {
        hold: Some(HoldAction::Preempt { r#for: index, grace_ms, force: params.force }),
        state: Some(Cow::Owned(json::to_string(&State { preempted: spent }))),
        reason: Cow::Owned(reason),
        ..Output::default()
    }
}

/// For how long the holder is still left alone, and why; no length is until something else happens.
fn wait(protected_for: i64, spent: &[i64], now: i64, params: &Params) -> Option<(Option<i64>, &'static str)> {
    let budget = params.budget as usize;
    if spent.len() >= budget {
        // Of those that count, enough have to leave the window that there is room for one more.
        let leaves = spent.len().checked_sub(budget).and_then(|surplus| spent.get(surplus));
        let free_in = leaves.map(|&at| at.saturating_add(params.window_ms).saturating_sub(now).max(1));
        return Some((free_in.map(|ms| ms.max(protected_for)), REASON_BUDGET));
    }
    (protected_for > 0).then_some((Some(protected_for), REASON_MIN_HOLD))
}

/// The moments of the preemptions that still count, the oldest first.
fn preemptions(state: &str, now: i64, params: &Params) -> Vec<i64> {
    // What is there may be another policy's; then nothing was spent.
    let State { preempted } = json::from_str(state).unwrap_or_default();
    // A moment that is yet to come is from a clock that stepped back since.
    let mut spent: Vec<i64> = preempted.into_iter().map(|at| at.min(now)).collect();
    spent.retain(|&at| rules::since(at, now) < params.window_ms);
    spent.sort_unstable();
    // Another budget may have been in force when the state was written.
    let surplus = spent.len().saturating_sub(BUDGET_MAX as usize);
    spent.split_off(surplus)
}

/// What is kept between two questions.
#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
struct State {
    preempted: Vec<i64>,
}

/// What is wrong with the params.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    params::validate::<Params>(params)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
