//! What must be so between a lease's record and the next one, as functions that find what is not.
//!
//! Used by the tests, the model and the simulation on every step. It shares no code with the
//! planner: it looks only at what was before and what is planned.

use crate::{
    plan::Plan,
    snapshot::{Answered, Ending, HISTORY_MAX, Preemption, Snapshot, State},
    time::Millis,
};

/// A sentence that says which invariant is broken and how.
pub type Violation = String;

/// Every invariant that this step breaks; empty when all is well.
#[must_use]
pub fn violations(before: &Snapshot, plan: &Plan) -> Vec<Violation> {
    let mut found = Vec::new();
    token_rises_with_every_grant_and_only_then(before, plan, &mut found);
    a_hold_is_complete(plan, &mut found);
    only_a_live_pending_request_is_granted(before, plan, &mut found);
    nothing_is_granted_while_a_hold_stands(before, plan, &mut found);
    a_hold_ends_by_its_expiry(before, plan, &mut found);
    expiry_is_never_lowered(before, plan, &mut found);
    renewal_needs_the_holders_request(before, plan, &mut found);
    history_tells_every_end(before, plan, &mut found);
    history_forgets_only_what_is_over(before, plan, &mut found);
    found
}

/// Whether the lease has another hold than before.
fn is_new_hold(before: &Snapshot, plan: &Plan) -> bool {
    match (before.record.hold(), plan.next.hold()) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => old.request.uid != new.request.uid || old.acquired != new.acquired,
    }
}

/// The token strictly rises with every grant, to at least the resourceVersion, and only then.
fn token_rises_with_every_grant_and_only_then(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    let (old, new) = (before.record.token, plan.next.token);
    if is_new_hold(before, plan) {
        if new <= old || new < before.resource_version {
            found.push(format!("a grant has token {new} after {old} at resourceVersion {}", before.resource_version));
        }
    } else if new != old {
        found.push(format!("the token went from {old} to {new} without a grant"));
    }
}

/// A holder always has a request, a positive token, and an expiry after its acquisition.
fn a_hold_is_complete(plan: &Plan, found: &mut Vec<Violation>) {
    match &plan.next.state {
        State::Held(hold) => {
            if hold.holder.is_empty() || hold.request.uid.is_empty() || plan.next.token <= 0 {
                found.push("a hold without holder, request or token".to_owned());
            }
            if hold.expires <= hold.acquired {
                found.push("a hold that expires before it begins".to_owned());
            }
        }
        State::Evicted(_) => found.push("the controller writes an eviction".to_owned()),
        State::Available | State::Expired(_) => {}
    }
}

/// Only a live, valid, pending request of this lease is granted, and at most once.
fn only_a_live_pending_request_is_granted(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    if !is_new_hold(before, plan) {
        return;
    }
    let Some(hold) = plan.next.hold() else { return };
    let Some(request) = before.request(&hold.request.uid) else {
        found.push("a grant to a request that does not exist".to_owned());
        return;
    };
    if request.holder != hold.holder || request.invalid.is_some() {
        found.push("a grant to an invalid request, or to another holder than the request's".to_owned());
    }
    if request.answered.is_some_and(Answered::is_over) {
        found.push("a grant to a request that is over".to_owned());
    }
    if request.abandoned {
        found.push("a grant to a request whose Pod is gone".to_owned());
    }
    if matches!(request.answered, Some(Answered::Granted(_))) {
        found.push("a grant to a request whose status says that it was granted before".to_owned());
    }
    if request.timeout.is_some_and(|t| t > Millis::ZERO && request.untouched >= t) {
        found.push("a grant to a request that nobody has touched for its timeout".to_owned());
    }
    let evicted =
        matches!(&before.record.state, State::Evicted(h) | State::Held(h) if h.request.uid == hold.request.uid);
    if before.record.has_held(&hold.request.uid) || evicted {
        found.push("a request is granted twice".to_owned());
    }
    if before.lease.ttl.is_none() {
        found.push("a grant on a lease whose spec is invalid".to_owned());
    }
}

/// While a hold is neither given back, due, preempted by force, evicted nor superseded by its own
/// holder, nobody else gets the lease.
fn nothing_is_granted_while_a_hold_stands(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    let State::Held(old) = &before.record.state else { return };
    let ends = plan.next.hold().is_none_or(|new| new.request.uid != old.request.uid);
    if !ends {
        return;
    }
    let own = before.request(&old.request.uid);
    let released = own.is_none_or(|r| r.holder != old.holder);
    let due = before.remaining.is_some_and(|left| left <= Millis::ZERO);
    // So much sooner than the hold is due as its deadline lies before its expiry.
    let force = |p: &Preemption| p.force && before.remaining.is_some_and(|left| left <= old.expires - p.deadline);
    let forced = old.preemption.as_ref().is_some_and(force);
    let superseded = plan.next.hold().is_some_and(|new| new.holder == old.holder);
    if !(released || due || forced || superseded) {
        found.push(format!("the hold of {} was ended for no reason", old.holder));
    }
}

/// A hold that is due does not stand, unless it was renewed; and never beyond max_hold.
fn a_hold_ends_by_its_expiry(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    let (State::Held(old), Some(new)) = (&before.record.state, plan.next.hold()) else { return };
    if old.request.uid != new.request.uid {
        return;
    }
    let due = before.remaining.is_some_and(|left| left <= Millis::ZERO);
    if due && new.renewals == old.renewals {
        found.push("a due hold stands".to_owned());
    }
    if let Some(most) = before.settings.max_hold
        && new.expires > old.expires
        && new.expires > new.acquired + most
    {
        found.push("a hold was renewed beyond --max-hold".to_owned());
    }
}

/// What a holder was told is never taken back.
fn expiry_is_never_lowered(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    if let (Some(old), Some(new)) = (before.record.hold(), plan.next.hold())
        && old.request.uid == new.request.uid
        && new.expires < old.expires
    {
        found.push("the expiry of a hold was lowered".to_owned());
    }
}

/// A hold is renewed only while its own request exists, and not during a hand-over.
fn renewal_needs_the_holders_request(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    let (Some(old), Some(new)) = (before.record.hold(), plan.next.hold()) else { return };
    if old.request.uid != new.request.uid || new.renewals == old.renewals {
        return;
    }
    let own = before.request(&old.request.uid);
    if own.is_none_or(|r| r.holder != old.holder) {
        found.push("a hold was renewed without its request".to_owned());
    }
    let preemptor_waits = old.preemption.as_ref().is_some_and(|p| {
        before.request(&p.request).is_some_and(|r| {
            !r.answered.is_some_and(Answered::is_over)
                && r.invalid.is_none()
                && !r.abandoned
                && r.timeout.is_none_or(|t| t == Millis::ZERO || r.untouched < t)
                && !before.record.has_held(&r.id.uid)
                && !before.requests.iter().any(|o| o.holder == r.holder && o.id.uid != r.id.uid)
        })
    });
    if preemptor_waits {
        found.push("a hold was renewed during a hand-over".to_owned());
    }
}

/// Every hold that ends is in the history, once, with its own token and an honest ending; nothing
/// else gets in.
fn history_tells_every_end(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    let (old_history, new_history) = (&before.record.history, &plan.next.history);
    if new_history.len() > HISTORY_MAX {
        found.push("the history is too long".to_owned());
    }
    let hold = match &before.record.state {
        State::Held(hold) | State::Evicted(hold) => Some(hold),
        State::Available | State::Expired(_) => None,
    };
    let ended = hold.filter(|h| plan.next.hold().is_none_or(|new| new.request.uid != h.request.uid));
    match ended {
        None => {
            if new_history != old_history {
                found.push("the history changed though no hold has ended".to_owned());
            }
        }
        Some(hold) => {
            let first = new_history.first();
            let told = first.is_some_and(|p| {
                p.request == hold.request.uid && p.token == before.record.token && p.holder == hold.holder
            });
            if !told {
                found.push("a hold has ended that is not first in the history".to_owned());
            }
            let evicted = matches!(before.record.state, State::Evicted(_));
            if first.is_some_and(|p| (p.how == Ending::ForceReleased) != evicted) {
                found.push("a forced release is told as something else, or something else as one".to_owned());
            }
            if !new_history.iter().skip(1).eq(old_history.iter().take(HISTORY_MAX - 1)) {
                found.push("the history was rewritten".to_owned());
            }
        }
    }
}

/// A request falls out of the history only when it is marked as over, or gone: what is forgotten
/// must not be granted a second time.
fn history_forgets_only_what_is_over(before: &Snapshot, plan: &Plan, found: &mut Vec<Violation>) {
    for past in &before.record.history {
        let live = before.request(&past.request).is_some_and(|r| !r.answered.is_some_and(Answered::is_over));
        if live && !plan.next.has_held(&past.request) {
            found.push(format!("the history forgets {}, which still looks pending", past.request));
        }
    }
}
