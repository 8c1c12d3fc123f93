//! The rules: a pure function from a question to an answer.

use konductor_policy_sdk::{
    Ending, Hold, HoldAction, Input, Output, Past, Request,
    rules::{because, due, grant, highest, since, standing},
};

use crate::params::{Params, Preemption, Reading};

/// Why the next one is next.
pub const REASON_GRANT: &str = "highest priority, then first come";
/// The same with aging.
pub const REASON_GRANT_AGED: &str = "highest priority with aging, then first come";
/// Why nothing is granted yet.
pub const REASON_LOCK_DELAY: &str = "waiting for lockDelay: the last hold was not given back";
/// Why a holder is asked to leave.
pub const REASON_PREEMPT: &str = "a request with a higher priority is next";

/// Decides.
///
/// # Panics
/// On params that [`validate`](crate::validate) refuses.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading>) -> Output<'a> {
    let params = input.params.accepted();
    match &input.hold {
        None => free(input, params),
        Some(hold) if hold.due => due(input, hold, || {
            if params.lock_delay_ms > 0 { paused(params.lock_delay_ms) } else { granted(input, params) }
        }),
        Some(hold) => held(input, hold, params),
    }
}

/// Nobody holds the lease: the next one gets it, unless the last hold's end asks for a pause.
fn free<'a>(input: &Input<'a, Reading>, params: &Params) -> Output<'a> {
    let pause = input.history.first().map_or(0, |last| pause_after(last, input.now, params));
    if pause > 0 { paused(pause) } else { granted(input, params) }
}

/// The hold stands.
fn held<'a>(input: &Input<'a, Reading>, hold: &Hold<'a>, params: &Params) -> Output<'a> {
    // While a hand-over is under way, who gets the lease is decided when it is free.
    if hold.preemption.is_some() {
        return standing(input, hold);
    }
    // Only for the one that is next, or the lease could go to a request for which nobody was asked to leave.
    let preemptor = next(&input.requests, input.now, params)
        .filter(|&(_, request)| params.preemption == Preemption::LowerPriority && request.priority > hold.priority);
    let mut wake_in_ms = None;
    if let Some((index, _)) = preemptor {
        let protected_for = params.min_hold_ms.saturating_sub(since(hold.acquired, input.now));
        if protected_for <= 0 {
            let preempt = HoldAction::Preempt { r#for: index, grace_ms: params.grace_period_ms, force: false };
            return Output { hold: Some(preempt), ..because(REASON_PREEMPT) };
        }
        wake_in_ms = Some(protected_for);
    }
    Output { wake_in_ms, ..standing(input, hold) }
}

/// Grants to the next one, if there is one.
fn granted<'a>(input: &Input<'a, Reading>, params: &Params) -> Output<'a> {
    let Some((index, request)) = next(&input.requests, input.now, params) else { return Output::default() };
    let reason = if params.aging_milli > 0 { REASON_GRANT_AGED } else { REASON_GRANT };
    Output { grant: Some(grant(input, index, request)), ..because(reason) }
}

/// Who is next: the highest priority, with what it gained by waiting; among equals the first that came.
fn next<'r, 'a>(requests: &'r [Request<'a>], now: i64, params: &Params) -> Option<(u32, &'r Request<'a>)> {
    highest(requests, |request| rank(request, now, params))
}

/// A request's priority with what it gained by waiting, in thousandths.
fn rank(request: &Request<'_>, now: i64, params: &Params) -> i64 {
    let gained = since(request.arrived, now).saturating_mul(params.aging_milli) / 60_000;
    (i64::from(request.priority) * 1000).saturating_add(gained)
}

/// How much longer nothing is granted after this hold, in milliseconds; zero or less: no longer.
///
/// Preempted means that the holder did not leave by itself: its time ran out, or it was forced out.
/// A force release is not followed by a pause: the person who did it knows better than a clock.
fn pause_after(last: &Past<'_>, now: i64, params: &Params) -> i64 {
    match last.how {
        // The clock may have stepped back since: never longer than the whole pause.
        Ending::Expired | Ending::Preempted => params.lock_delay_ms.saturating_sub(since(last.ended, now)),
        Ending::Released | Ending::ForceReleased | Ending::Superseded | Ending::Other => 0,
    }
}

fn paused(ms: i64) -> Output<'static> {
    Output { wake_in_ms: Some(ms), ..because(REASON_LOCK_DELAY) }
}
