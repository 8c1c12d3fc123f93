//! What most policies do the same way, so that they differ only where they mean to.

use alloc::borrow::Cow;

use crate::{Grant, Hold, HoldAction, Input, Output, Request};

/// How long a holder that is asked to leave has to do so, if the params do not say: what Kubernetes
/// gives a Pod between SIGTERM and SIGKILL.
pub const GRACE_PERIOD_DEFAULT_MS: i64 = 30_000;

/// Why a hold was renewed.
pub const REASON_RENEWED: &str = "renewed";
/// Why a hold was renewed after its time.
pub const REASON_RENEWED_LATE: &str = "renewed late: nobody else was waiting";
/// Why a renewal is refused.
pub const REASON_NOT_RENEWABLE: &str = "the lease is not renewable (spec.renewable: false)";
/// Why a renewal is refused.
pub const REASON_LEAVING: &str = "not renewed: the holder is asked to leave for a request with a higher priority";

/// The usual frame around a policy's own rule, which says who is `next`: nobody is granted a lease
/// that is held; a hold whose time is over ends in the answer that grants to the next; a renewal is
/// allowed where the lease allows it.
pub fn usual<'a, P>(input: &Input<'a, P>, next: impl FnOnce() -> Output<'a>) -> Output<'a> {
    match &input.hold {
        None => next(),
        Some(hold) if hold.due => due(input, hold, next),
        Some(hold) => standing(input, hold),
    }
}

/// The time of the hold is over.
///
/// With a renewal asked for at the last moment there are two fair answers. If somebody waits, the
/// hold ends: `expires` is the promise that waiters count on, and the holder, which counts by its
/// own clock from before it asked, has stopped or must. If nobody waits, it is renewed: an end would
/// help nobody and would cost a holder that was late by a moment, or whose controller was, its token.
pub fn due<'a, P>(input: &Input<'a, P>, hold: &Hold<'a>, next: impl FnOnce() -> Output<'a>) -> Output<'a> {
    let late = hold.renewal_requested && input.lease.renewable && hold.preemption.is_none();
    if late && input.requests.is_empty() {
        return Output { hold: Some(renewal(input, hold)), ..because(REASON_RENEWED_LATE) };
    }
    Output { hold: Some(HoldAction::Expire), ..next() }
}

/// The hold stands. A renewal that was asked for is allowed, unless the lease is not renewable or the
/// holder is asked to leave.
pub fn standing<'a, P>(input: &Input<'a, P>, hold: &Hold<'a>) -> Output<'a> {
    match hold.renewal_requested {
        false => Output::default(),
        true if hold.preemption.is_some() => kept(REASON_LEAVING),
        true if input.lease.renewable => Output { hold: Some(renewal(input, hold)), ..because(REASON_RENEWED) },
        true => kept(REASON_NOT_RENEWABLE),
    }
}

/// A renewal for as long as was asked for.
#[must_use]
pub fn renewal<P>(input: &Input<'_, P>, hold: &Hold<'_>) -> HoldAction {
    HoldAction::Renew { ttl_ms: ttl_ms(hold.ttl_ms, input.lease.ttl_ms) }
}

/// A grant to this request for as long as it asks for.
#[must_use]
pub fn grant<P>(input: &Input<'_, P>, index: u32, request: &Request<'_>) -> Grant {
    Grant { request: index, ttl_ms: ttl_ms(request.ttl_ms, input.lease.ttl_ms) }
}

/// What was asked for, never above the lease's, and never nothing.
#[must_use]
pub fn ttl_ms(asked: i64, lease: i64) -> i64 {
    asked.min(lease).max(1)
}

/// The request that ranks highest; among equals the first that came.
pub fn highest<'r, 'a, K: Ord>(
    requests: &'r [Request<'a>],
    rank: impl Fn(&Request<'a>) -> K,
) -> Option<(u32, &'r Request<'a>)> {
    let mut best: Option<(K, u32, &Request<'_>)> = None;
    for (index, request) in (0u32..).zip(requests) {
        let rank = rank(request);
        if best.as_ref().is_none_or(|(highest, ..)| rank > *highest) {
            best = Some((rank, index, request));
        }
    }
    best.map(|(_, index, request)| (index, request))
}

/// The highest token that there was; 0 if there was none. Only the host knows the token of a grant, but it is above this
/// one: so a policy that remembers both knows its grant again in the history.
#[must_use]
pub fn last_token<P>(input: &Input<'_, P>) -> i64 {
    let ended = input.history.iter().map(|past| past.token);
    ended.chain(input.hold.iter().map(|hold| hold.token)).max().unwrap_or_default()
}

/// For how many milliseconds a moment has passed; none if a clock stepped back behind it.
#[must_use]
pub fn since(moment: i64, now: i64) -> i64 {
    now.saturating_sub(moment).max(0)
}

/// The hold stays as it is, and a renewal that was asked for is refused.
#[must_use]
pub fn kept(reason: &'static str) -> Output<'static> {
    Output { hold: Some(HoldAction::Keep), ..because(reason) }
}

/// An answer that does nothing yet, and why.
#[must_use]
pub fn because(reason: &'static str) -> Output<'static> {
    Output { reason: Cow::Borrowed(reason), ..Output::default() }
}
