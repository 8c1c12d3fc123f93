//! When it is worth looking again, if nothing happens before.

use crate::{
    situation::Situation,
    snapshot::{Answered, Record, Snapshot, State},
    time::Millis,
    transition::{Adjustment, Transition},
};

/// How long from the snapshot's time until the record or a request needs a look.
pub(crate) fn wake_in(
    snapshot: &Snapshot,
    situation: &Situation,
    next: &Record,
    change: &Transition,
) -> Option<Millis> {
    [hold_wake(snapshot, next, change), retention_wake(snapshot, next), requests_wake(snapshot, situation, next)]
        .into_iter()
        .flatten()
        .min()
}

/// When the hold that stands after this plan is due, or a forced preemption's deadline.
fn hold_wake(snapshot: &Snapshot, next: &Record, change: &Transition) -> Option<Millis> {
    let hold = next.hold()?;
    let due = match change {
        Transition::Grant(_) | Transition::HandOver(..) => hold.expires - snapshot.now,
        // A wall clock that has jumped forward makes what is left look shorter than it is.
        Transition::Adjust(_, Adjustment::Renewed) => {
            (hold.expires - snapshot.now).max(snapshot.remaining.unwrap_or_default())
        }
        Transition::Stay
        | Transition::CleanUp
        | Transition::End(_)
        | Transition::Adjust(_, Adjustment::RenewalRefused | Adjustment::Preempting | Adjustment::PreemptionOver) => {
            snapshot.left(hold)
        }
    };
    let forced = hold.preemption.as_ref().is_some_and(|p| p.force);
    let deadline = hold.hand_over_in(due).filter(|_| forced);
    Some(deadline.map_or(due, |d| d.min(due)).max(Millis::ZERO))
}

fn retention_wake(snapshot: &Snapshot, next: &Record) -> Option<Millis> {
    match &next.state {
        State::Expired(at) => Some((*at + snapshot.settings.expired_retention - snapshot.now).max(Millis::ZERO)),
        State::Available | State::Held(_) | State::Evicted(_) => None,
    }
}

/// When the next waiting request lapses or the next finished one is to be swept. One that is swept
/// now is seen to be gone, and a failure to delete it is retried as such: neither needs a timer.
fn requests_wake(snapshot: &Snapshot, situation: &Situation, next: &Record) -> Option<Millis> {
    let holding = next.hold().map(|h| h.request.uid.as_str());
    let waiting = situation.candidates.iter().map(|&i| &snapshot.requests[i]);
    let lapse = waiting
        .filter(|r| holding != Some(r.id.uid.as_str()))
        .filter_map(|request| request.timeout.filter(|t| *t > Millis::ZERO).map(|t| t - request.untouched));
    let sweep = snapshot
        .requests
        .iter()
        .filter(|r| r.answered.is_some_and(Answered::is_over))
        .map(|r| snapshot.settings.finished_retention - r.over_for)
        .filter(|left| *left > Millis::ZERO);
    lapse.chain(sweep).min().map(|wake| wake.max(Millis(1)))
}
