//! From a snapshot, a situation and a verdict to a plan.

use crate::{
    answers::{answers, sweep, waiting},
    decision::Verdict,
    fate::{Fate, ask_again_in, fate, granted},
    guard::Checked,
    situation::{Situation, past, remember},
    snapshot::{Ending, Record, Request, RequestId, Snapshot, State},
    time::{Millis, Time},
    transition::{Adjustment, Transition, transition},
    wake::wake_in,
};

pub use crate::answers::{Answer, RequestAnswer};

/// How often a status is written only because the number of waiting requests has changed. Three
/// seconds are soon enough for a person and seldom enough for a storm of requests.
pub const WAITING_WRITE_INTERVAL: Millis = Millis(3_000);

/// What is to be done, as data. Nothing of it has happened yet.
///
/// Order: first the record is written, if it changes; only after that has succeeded are the answers
/// written, the swept requests deleted and the notices told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan does nothing by itself"]
pub struct Plan {
    /// The record that the lease's status should say.
    pub next: Record,
    /// The transition that leads to it.
    pub transition: Transition,
    /// How many requests wait, as the status should say.
    pub waiting: i64,
    /// The requests whose status should change, and to what.
    pub answers: Vec<RequestAnswer>,
    /// Requests that are abandoned, or have been over for long enough, to be deleted.
    pub sweep: Vec<RequestId>,
    /// What there is to tell.
    pub notices: Vec<Notice>,
    /// How long from the snapshot's time until it is worth looking again, if nothing happens before.
    pub wake_in: Option<Millis>,
    /// Why, in the policy's words, where a policy decided.
    pub reason: Option<String>,
}

/// Something to tell: an Event, a metric, a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A request was granted.
    Granted {
        /// Who holds now.
        holder: String,
        /// Its fencing token.
        token: i64,
        /// How long it had waited since this process first saw it. The API server's own timestamps have
        /// whole seconds, and most waits are shorter.
        waited: Millis,
    },
    /// A hold has ended.
    Ended {
        /// Who held.
        holder: String,
        /// The hold's fencing token.
        token: i64,
        /// How it ended.
        how: Ending,
    },
    /// A hold was renewed.
    Renewed {
        /// Who holds.
        holder: String,
    },
    /// A renewal was refused.
    RenewalRefused {
        /// Who holds.
        holder: String,
        /// Why.
        reason: String,
    },
    /// A holder is asked to leave.
    Preempting {
        /// Who holds.
        holder: String,
        /// In whose favour.
        by: String,
        /// Until when.
        deadline: Time,
    },
    /// A request was denied.
    Denied {
        /// Who asked.
        holder: String,
        /// Why.
        reason: String,
    },
}

impl Plan {
    /// Whether somebody gets the lease.
    #[must_use]
    pub fn grants(&self) -> bool {
        self.granted().is_some()
    }

    /// The request that gets the lease, if one does.
    #[must_use]
    pub fn granted(&self) -> Option<&RequestId> {
        match &self.transition {
            Transition::Grant(hold) | Transition::HandOver(_, hold) => Some(&hold.request),
            Transition::Stay | Transition::CleanUp | Transition::End(_) | Transition::Adjust(..) => None,
        }
    }
}

/// Plans one reconcile: legally, whatever the verdict says. The situation is one of this snapshot's,
/// and a decision in the verdict was checked against the question of this situation.
pub(crate) fn plan(snapshot: &Snapshot, situation: &Situation, verdict: &Verdict) -> Plan {
    let checked = match verdict {
        Verdict::Decided(checked) => Some(checked),
        Verdict::NotAsked | Verdict::Unavailable(_) => None,
    };
    let mut notices = Vec::new();
    let fate = fate(snapshot, situation, checked, &mut notices);
    let granted = match &fate {
        Fate::Stands(..) => None,
        Fate::Free | Fate::Over(..) => checked.and_then(|c| granted(snapshot, c)),
    };
    let change = match (fate, granted) {
        (Fate::Free, None) => clean_up_if_shown_long_enough(snapshot),
        (Fate::Free, Some(hold)) => Transition::Grant(hold),
        // The holder's newer request was not granted: the old hold stands, and the plain situation is next.
        (Fate::Over(Ending::Superseded), None) => Transition::Stay,
        (Fate::Over(how), None) => Transition::End(how),
        (Fate::Over(how), Some(hold)) => Transition::HandOver(how, hold),
        (Fate::Stands(hold, Some(what)), _) => Transition::Adjust(hold, what),
        (Fate::Stands(_, None), _) => Transition::Stay,
    };
    let denied = checked.map(|c| denials(snapshot, c)).unwrap_or_default();
    let (next, change) = apply(snapshot, situation, change, checked, !denied.is_empty());
    tell(snapshot, &next, &change, &denied, &mut notices);

    let answers = answers(snapshot, situation, verdict, &next, &denied);
    let (waiting, waiting_wake) = waiting(snapshot, situation, &next, &change, &answers);
    let wake_in = [
        wake_in(snapshot, situation, &next, &change),
        checked.and_then(|c| c.decision().wake_in),
        checked.and_then(|c| ask_again_in(snapshot, &next, c)),
        waiting_wake,
    ]
    .into_iter()
    .flatten()
    .min();
    Plan {
        reason: checked.map(|c| c.decision().reason.clone()).filter(|r| !r.is_empty()),
        sweep: sweep(snapshot, &next),
        next,
        transition: change,
        waiting,
        answers,
        notices,
        wake_in,
    }
}

fn denials<'a>(snapshot: &'a Snapshot, checked: &'a Checked) -> Vec<(&'a Request, &'a str)> {
    let mut denied: Vec<(&Request, &str)> = Vec::new();
    for denial in &checked.decision().deny {
        let request = checked.uid(denial.request).and_then(|uid| snapshot.request(uid));
        if let Some(request) = request
            && !denied.iter().any(|(r, _)| r.id.uid == request.id.uid)
        {
            denied.push((request, &denial.reason));
        }
    }
    denied
}

fn clean_up_if_shown_long_enough(snapshot: &Snapshot) -> Transition {
    match &snapshot.record.state {
        State::Expired(at) => {
            let shown = snapshot.now - *at;
            // A time in the future is from a clock that was wrong; there is nothing to wait for.
            let done = shown >= snapshot.settings.expired_retention || shown < Millis::ZERO;
            if done { Transition::CleanUp } else { Transition::Stay }
        }
        State::Available | State::Held(_) | State::Evicted(_) => Transition::Stay,
    }
}

/// The next record. A transition that the table does not allow changes nothing: that would be a
/// defect of the planner, and a lease that stays as it is harms nobody.
fn apply(
    snapshot: &Snapshot,
    situation: &Situation,
    change: Transition,
    checked: Option<&Checked>,
    denies: bool,
) -> (Record, Transition) {
    let record = &snapshot.record;
    let Ok(state) = transition(&record.state, &change, snapshot.now) else {
        debug_assert!(false, "planned an illegal transition: {change:?} from {:?}", record.state);
        return (record.clone(), Transition::Stay);
    };
    let mut next = Record { state, ..record.clone() };
    match &change {
        Transition::Stay | Transition::CleanUp | Transition::Adjust(..) => {}
        Transition::Grant(_) => next.token = next_token(snapshot),
        Transition::End(how) | Transition::HandOver(how, _) => {
            next.history = match (&situation.ended, &situation.hold) {
                (Some(_), _) => situation.history.clone(),
                (None, Some(hold)) => remember(record.history.clone(), past(snapshot, hold, *how)),
                (None, None) => record.history.clone(),
            };
            if matches!(change, Transition::HandOver(..)) {
                next.token = next_token(snapshot);
            }
        }
    }
    if let Some(state) = checked.and_then(|c| c.decision().state.as_ref())
        && (denies || change != Transition::Stay)
    {
        next.policy_state.clone_from(state);
    }
    (next, change)
}

/// The token of a grant: above the last one, and at least the resourceVersion that it was computed
/// from. The second half is what survives deleting and recreating the Lease: the API server's
/// counter is never behind a token that was computed from it.
fn next_token(snapshot: &Snapshot) -> i64 {
    snapshot.record.token.saturating_add(1).max(snapshot.resource_version)
}

fn tell(
    snapshot: &Snapshot,
    next: &Record,
    change: &Transition,
    denied: &[(&Request, &str)],
    notices: &mut Vec<Notice>,
) {
    match change {
        Transition::Stay | Transition::CleanUp | Transition::Grant(_) => {}
        Transition::End(how) | Transition::HandOver(how, _) => {
            if let Some(ended) = next.history.first() {
                notices.push(Notice::Ended { holder: ended.holder.clone(), token: ended.token, how: *how });
            }
        }
        Transition::Adjust(hold, Adjustment::Renewed) => {
            notices.push(Notice::Renewed { holder: hold.holder.clone() });
        }
        Transition::Adjust(_, Adjustment::RenewalRefused | Adjustment::Preempting | Adjustment::PreemptionOver) => {}
    }
    match change {
        Transition::Grant(hold) | Transition::HandOver(_, hold) => {
            notices.push(Notice::Granted {
                holder: hold.holder.clone(),
                token: next.token,
                waited: snapshot.request(&hold.request.uid).map_or(Millis::ZERO, |r| r.known_for),
            });
        }
        Transition::Stay | Transition::CleanUp | Transition::End(_) | Transition::Adjust(..) => {}
    }
    notices.extend(
        denied
            .iter()
            .map(|(request, reason)| Notice::Denied { holder: request.holder.clone(), reason: (*reason).to_owned() }),
    );
}
