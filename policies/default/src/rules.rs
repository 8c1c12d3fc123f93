//! The rules: a pure function from a question to an answer.

use alloc::{borrow::Cow, vec::Vec};

use konductor_policy_sdk::{Ending, Grant, Hold, HoldAction, Input, Output, Past, Request};

use crate::params::{Params, Preemption, Reading};

/// Why the next one is next.
pub const REASON_GRANT: &str = "highest priority, then first come";
/// The same with aging.
pub const REASON_GRANT_AGED: &str = "highest priority with aging, then first come";
/// Why nothing is granted yet.
pub const REASON_LOCK_DELAY: &str = "waiting for lockDelay: the last hold was not given back";
/// Why a hold was renewed.
pub const REASON_RENEWED: &str = "renewed";
/// Why a hold was renewed after its time.
pub const REASON_RENEWED_LATE: &str = "renewed late: nobody else was waiting";
/// Why a renewal is refused.
pub const REASON_NOT_RENEWABLE: &str = "the lease is not renewable (spec.renewable: false)";
/// Why a renewal is refused.
pub const REASON_LEAVING: &str = "not renewed: the holder is asked to leave for a request with a higher priority";
/// Why a holder is asked to leave.
pub const REASON_PREEMPT: &str = "a request with a higher priority is next";

/// Decides.
///
/// # Panics
/// On params that [`validate`](crate::validate) refuses. To go on with half of what somebody asked
/// for would be a silent surprise; a trap is a loud one, and the lease says what then happens.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading>) -> Output<'a> {
    if !input.params.errors.is_empty() {
        params_are_refused_by_validate();
    }
    let params = &input.params.params;
    match &input.hold {
        None => free(input, params),
        Some(hold) if hold.due => due(input, hold, params),
        Some(hold) => held(input, hold, params),
    }
}

/// Nobody holds the lease: the next one gets it, unless the last hold's end asks for a pause.
fn free<'a>(input: &Input<'a, Reading>, params: &Params) -> Output<'a> {
    let pause = input.history.first().map_or(0, |last| pause_after(last, input.now, params));
    if pause > 0 { paused(pause) } else { granted(input, params) }
}

/// The time of the hold is over.
///
/// With a renewal asked for at the last moment there are two fair answers. If somebody waits, the
/// hold ends: `expires` is the promise that waiters count on, and the holder, which counts by its
/// own clock from before it asked, has stopped or must. If nobody waits, it is renewed: an end would
/// help nobody and would cost a holder that was late by a moment, or whose controller was, its token.
fn due<'a>(input: &Input<'a, Reading>, hold: &Hold<'a>, params: &Params) -> Output<'a> {
    let late = hold.renewal_requested && input.lease.renewable && hold.preemption.is_none();
    if late && input.requests.is_empty() {
        return Output { hold: Some(renewed(input, hold)), ..because(REASON_RENEWED_LATE) };
    }
    let next = if params.lock_delay_ms > 0 { paused(params.lock_delay_ms) } else { granted(input, params) };
    Output { hold: Some(HoldAction::Expire), ..next }
}

/// The hold stands.
fn held<'a>(input: &Input<'a, Reading>, hold: &Hold<'a>, params: &Params) -> Output<'a> {
    if hold.preemption.is_some() {
        // The hand-over is under way. Who gets the lease is decided when it is free.
        return if hold.renewal_requested { kept(REASON_LEAVING) } else { Output::default() };
    }
    // Only for the one that is next, or the lease could go to a request for which nobody was asked to leave.
    let preemptor = next(&input.requests, input.now, params)
        .filter(|&(_, request)| params.preemption == Preemption::LowerPriority && request.priority > hold.priority);
    let mut wake_in_ms = None;
    if let Some((index, _)) = preemptor {
        // The clock may have stepped back since the grant.
        let held_for = input.now.saturating_sub(hold.acquired).max(0);
        let protected_for = params.min_hold_ms.saturating_sub(held_for);
        if protected_for <= 0 {
            let preempt = HoldAction::Preempt { r#for: index, grace_ms: params.grace_period_ms, force: false };
            return Output { hold: Some(preempt), ..because(REASON_PREEMPT) };
        }
        wake_in_ms = Some(protected_for);
    }
    let answer = match (hold.renewal_requested, input.lease.renewable) {
        (false, _) => Output::default(),
        (true, true) => Output { hold: Some(renewed(input, hold)), ..because(REASON_RENEWED) },
        (true, false) => kept(REASON_NOT_RENEWABLE),
    };
    Output { wake_in_ms, ..answer }
}

/// Grants to the next one, if there is one.
fn granted<'a>(input: &Input<'a, Reading>, params: &Params) -> Output<'a> {
    let Some((index, request)) = next(&input.requests, input.now, params) else { return Output::default() };
    let grant = Grant { request: index, ttl_ms: ttl(request.ttl_ms, input.lease.ttl_ms) };
    let reason = if params.aging_milli > 0 { REASON_GRANT_AGED } else { REASON_GRANT };
    Output { grant: Some(grant), ..because(reason) }
}

/// Who is next: the highest priority, with what it gained by waiting; among equals the first that came.
fn next<'r, 'a>(requests: &'r Vec<Request<'a>>, now: i64, params: &Params) -> Option<(u32, &'r Request<'a>)> {
    let mut best: Option<(i64, u32, &Request<'_>)> = None;
    for (index, request) in (0u32..).zip(requests) {
        let rank = rank(request, now, params);
        if best.is_none_or(|(highest, ..)| rank > highest) {
            best = Some((rank, index, request));
        }
    }
    best.map(|(_, index, request)| (index, request))
}

/// A request's priority with what it gained by waiting, in thousandths.
fn rank(request: &Request<'_>, now: i64, params: &Params) -> i64 {
    let waited_ms = now.saturating_sub(request.arrived).max(0);
    let gained = waited_ms.saturating_mul(params.aging_milli) / 60_000;
    (i64::from(request.priority) * 1000).saturating_add(gained)
}

/// How much longer nothing is granted after this hold, in milliseconds; zero or less: no longer.
///
/// Preempted means that the holder did not leave by itself: its time ran out, or it was forced out.
/// A force release is not followed by a pause: the person who did it knows better than a clock.
fn pause_after(last: &Past<'_>, now: i64, params: &Params) -> i64 {
    match last.how {
        // The clock may have stepped back since: never longer than the whole pause.
        Ending::Expired | Ending::Preempted => {
            params.lock_delay_ms.saturating_sub(now.saturating_sub(last.ended).max(0))
        }
        Ending::Released | Ending::ForceReleased | Ending::Superseded | Ending::Other => 0,
    }
}

fn renewed(input: &Input<'_, Reading>, hold: &Hold<'_>) -> HoldAction {
    HoldAction::Renew { ttl_ms: ttl(hold.ttl_ms, input.lease.ttl_ms) }
}

/// What was asked for, never above the lease's, and never nothing.
fn ttl(asked: i64, lease: i64) -> i64 {
    asked.min(lease).max(1)
}

fn paused(ms: i64) -> Output<'static> {
    Output { wake_in_ms: Some(ms), ..because(REASON_LOCK_DELAY) }
}

fn kept(reason: &'static str) -> Output<'static> {
    Output { hold: Some(HoldAction::Keep), ..because(reason) }
}

fn because(reason: &'static str) -> Output<'static> {
    Output { reason: Cow::Borrowed(reason), ..Output::default() }
}

// Never inlined: its name is what a trap's backtrace shows.
#[cold]
#[inline(never)]
fn params_are_refused_by_validate() -> ! {
    panic!("the params are refused by konductor_validate")
}
