//! The params: what they mean, their defaults, and what is wrong with bad ones.

use konductor_policy_sdk::{
    params::{self, Problem, Value},
    rules,
};

/// The most priority per minute: it lets the lowest priority overtake the highest within three days,
/// and keeps the arithmetic far from its ends.
pub const AGING_MAX: u32 = 1_000_000;

/// The params as they are read.
pub type Reading = params::Reading<Params>;

/// The params.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// When a holder is asked to leave.
    pub preemption: Preemption,
    /// How long it then has, in milliseconds.
    pub grace_period_ms: i64,
    /// How long a holder is left alone first, in milliseconds since its grant.
    pub min_hold_ms: i64,
    /// The pause before the next grant after a hold that was not given back, in milliseconds.
    pub lock_delay_ms: i64,
    /// The priority gained per minute of waiting, in thousandths: whole numbers compare the same
    /// way everywhere.
    pub aging_milli: i64,
}

/// When a holder is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// Never.
    Never,
    /// When the next request has a higher priority.
    LowerPriority,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            preemption: Preemption::Never,
            grace_period_ms: rules::GRACE_PERIOD_DEFAULT_MS,
            min_hold_ms: 0,
            lock_delay_ms: 0,
            aging_milli: 0,
        }
    }
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["preemption", "gracePeriod", "minHold", "lockDelay", "aging"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "preemption" => preemption(value).map(|v| self.preemption = v),
            "gracePeriod" => value.duration().map(|v| self.grace_period_ms = v),
            "minHold" => value.duration().map(|v| self.min_hold_ms = v),
            "lockDelay" => value.duration().map(|v| self.lock_delay_ms = v),
            "aging" => aging(value).map(|v| self.aging_milli = v),
            _ => return None,
        })
    }
}

fn preemption(value: &Value<'_>) -> Result<Preemption, Problem> {
    match value {
        Value::Text(text) if text == "Never" => Ok(Preemption::Never),
        Value::Text(text) if text == "LowerPriority" => Ok(Preemption::LowerPriority),
        _ => Err("is neither Never nor LowerPriority"),
    }
}

fn aging(value: &Value<'_>) -> Result<i64, Problem> {
    value.thousandths(AGING_MAX).ok_or("is not a number from 0 to 1000000")
}
