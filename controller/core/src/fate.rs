//! What becomes of the hold: what the host knows first, then what the policy proposes for it.

use crate::{
    decision::HoldAction,
    guard::Checked,
    plan::{Notice, WAITING_WRITE_INTERVAL},
    situation::Situation,
    snapshot::{Ending, Hold, Preemption, Record, Request, Snapshot},
    time::Millis,
    transition::Adjustment,
};

/// What becomes of the hold.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, for the length of a plan")]
pub(crate) enum Fate {
    /// There is none.
    Free,
    /// It stands, perhaps changed.
    Stands(Hold, Option<Adjustment>),
    /// It is over.
    Over(Ending),
}

/// What becomes of the hold.
pub(crate) fn fate(
    snapshot: &Snapshot,
    situation: &Situation,
    checked: Option<&Checked>,
    notices: &mut Vec<Notice>,
) -> Fate {
    if let Some((_, how)) = &situation.ended {
        return Fate::Over(*how);
    }
    let Some(hold) = situation.hold.clone() else {
        return Fate::Free;
    };
    let action = checked.map(|c| c.decision().hold);
    if situation.due {
        // Due is due, whatever the policy says or fails to say, unless it renews.
        return match action {
            Some(HoldAction::Renew { ttl }) => match renewed(snapshot, &hold, ttl) {
                Some(hold) => Fate::Stands(hold, Some(Adjustment::Renewed)),
                None => over_when_due(&hold),
            },
            Some(HoldAction::Keep | HoldAction::Expire | HoldAction::Preempt { .. }) | None => over_when_due(&hold),
        };
    }
    let idle = situation.preemption_over.then_some(Adjustment::PreemptionOver);
    let Some(checked) = checked else {
        // Nobody could decide about a renewal: it is neither given nor refused, and asked about
        // again when the policy works, or until the hold is due.
        return Fate::Stands(hold, idle);
    };
    match checked.decision().hold {
        HoldAction::Keep | HoldAction::Expire => {
            if situation.renewal_requested {
                let reason = if let Some(p) = &hold.preemption {
                    format!("a hand-over to {} is under way", p.by)
                } else {
                    checked.decision().reason.clone()
                };
                refuse(snapshot, hold, reason, notices)
            } else {
                Fate::Stands(hold, idle)
            }
        }
        HoldAction::Renew { ttl } => match renewed(snapshot, &hold, ttl) {
            Some(hold) => Fate::Stands(hold, Some(Adjustment::Renewed)),
            None => {
                let reason = match &hold.preemption {
                    Some(p) => format!("a hand-over to {} is under way", p.by),
                    None => "the hold has reached the controller's --max-hold".to_owned(),
                };
                refuse(snapshot, hold, reason, notices)
            }
        },
        HoldAction::Preempt { in_favour_of, grace, force } => {
            let reason = checked.decision().reason.clone();
            let Some(request) = checked.uid(in_favour_of).and_then(|uid| snapshot.request(uid)) else {
                return Fate::Stands(hold, idle);
            };
            preempt(snapshot, situation, hold, request, grace, force, &reason, notices)
        }
    }
}

/// A hold that is due while a hand-over is under way was handed over; else it simply ran out.
fn over_when_due(hold: &Hold) -> Fate {
    Fate::Over(if hold.preemption.is_some() { Ending::Preempted } else { Ending::Expired })
}

/// The hold renewed for `ttl` from now; `None` if that is not allowed: a hand-over is under way, or
/// the hold would outlast `max_hold`.
fn renewed(snapshot: &Snapshot, hold: &Hold, ttl: Millis) -> Option<Hold> {
    if hold.preemption.is_some() {
        return None;
    }
    let mut expires = snapshot.now + ttl;
    if let Some(most) = snapshot.settings.max_hold {
        let latest = hold.acquired + most;
        if snapshot.now >= latest {
            return None;
        }
        expires = expires.min(latest);
    }
    // What the holder was told is never taken back, not by a shorter ttl and not by a clock that
    // has stepped back.
    Some(Hold {
        expires: expires.max(hold.expires),
        renewed: snapshot.now,
        renewals: hold.renewals.saturating_add(1),
        acted_on: counter(snapshot, hold),
        counted: counter(snapshot, hold),
        ..hold.clone()
    })
}

/// The value of the holder's renewal counter.
fn counter(snapshot: &Snapshot, hold: &Hold) -> i64 {
    snapshot.request(&hold.request.uid).map_or(hold.acted_on, |r| r.renewals.max(hold.acted_on))
}

fn refuse(snapshot: &Snapshot, mut hold: Hold, reason: String, notices: &mut Vec<Notice>) -> Fate {
    hold.acted_on = counter(snapshot, &hold);
    let reason = if reason.is_empty() { "the policy gave no reason".to_owned() } else { reason };
    notices.push(Notice::RenewalRefused { holder: hold.holder.clone(), reason });
    Fate::Stands(hold, Some(Adjustment::RenewalRefused))
}

/// How long until a policy that changes its mind, and would now have the hold handed over to this request, is listened to.
/// Each change is a write, whose news has the policy asked again: without pause, if it always changed it.
fn listened_to_in(snapshot: &Snapshot, hold: &Hold, request: &Request) -> Option<Millis> {
    let is_for_another = hold.preemption.as_ref().is_some_and(|p| p.request != request.id.uid);
    let left = WAITING_WRITE_INTERVAL - snapshot.since_write;
    (is_for_another && left > Millis::ZERO).then_some(left)
}

/// When to ask again, since the policy was not listened to.
pub(crate) fn ask_again_in(snapshot: &Snapshot, next: &Record, checked: &Checked) -> Option<Millis> {
    let HoldAction::Preempt { in_favour_of, .. } = checked.decision().hold else { return None };
    listened_to_in(snapshot, next.hold()?, snapshot.request(checked.uid(in_favour_of)?)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one proposal's fields and where it happens; a struct would name them twice"
)]
fn preempt(
    snapshot: &Snapshot,
    situation: &Situation,
    mut hold: Hold,
    request: &Request,
    grace: Millis,
    force: bool,
    reason: &str,
    notices: &mut Vec<Notice>,
) -> Fate {
    if listened_to_in(snapshot, &hold, request).is_some() {
        return match &hold.preemption {
            Some(p) if situation.renewal_requested => {
                let reason = format!("a hand-over to {} is under way", p.by);
                refuse(snapshot, hold, reason, notices)
            }
            _ => Fate::Stands(hold, None),
        };
    }
    // No later than the hold's own end, and told as a distance to it: a wall clock may have jumped since that was
    // computed.
    let left = snapshot.left(&hold);
    let soonest = hold.expires + (grace.min(left) - left);
    let deadline = match &hold.preemption {
        // Saying it again does not move the deadline: the first word counts, however often it is repeated.
        Some(under_way) if under_way.request == request.id.uid => under_way.deadline,
        // Neither does saying it for somebody else, unless to an earlier one.
        Some(under_way) => under_way.deadline.min(soonest),
        None => soonest,
    };
    let wanted = Preemption {
        by: request.holder.clone(),
        request: request.id.uid.clone(),
        deadline,
        force: force || hold.preemption.as_ref().is_some_and(|p| p.force),
        reason: reason.to_owned(),
    };
    let same = hold.preemption.as_ref().is_some_and(|p| p.request == wanted.request && p.force == wanted.force);
    if !same {
        notices.push(Notice::Preempting { holder: hold.holder.clone(), by: wanted.by.clone(), deadline });
        hold.preemption = Some(wanted);
    }
    if situation.renewal_requested {
        let reason = format!("a hand-over to {} is under way", request.holder);
        return refuse(snapshot, hold, reason, notices);
    }
    Fate::Stands(hold, (!same).then_some(Adjustment::Preempting))
}

/// The hold of the request that the decision grants.
pub(crate) fn granted(snapshot: &Snapshot, checked: &Checked) -> Option<Hold> {
    let grant = checked.decision().grant?;
    let request = snapshot.request(checked.uid(grant.request)?)?;
    let ttl = snapshot.settings.max_hold.map_or(grant.ttl, |most| grant.ttl.min(most));
    Some(Hold {
        holder: request.holder.clone(),
        request: request.id.clone(),
        acquired: snapshot.now,
        expires: snapshot.now + ttl,
        renewed: snapshot.now,
        renewals: 0,
        // Beats made while it waited are not renewals.
        acted_on: request.renewals,
        counted: request.renewals,
        preemption: None,
    })
}
