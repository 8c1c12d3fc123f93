//! What the host itself knows to be so, before any policy is asked.

use std::collections::HashMap;

use crate::{
    snapshot::{Answered, Ending, HISTORY_MAX, Hold, PastHold, Request, Snapshot, State},
    time::Millis,
};

/// The facts of a snapshot that no policy can argue with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// A hold that is over by the host's own rules, and how it ended.
    pub ended: Option<(Hold, Ending)>,
    /// The hold that stands.
    pub hold: Option<Hold>,
    /// Whether a hand-over was under way whose preemptor no longer waits; it is not in `hold` any more.
    pub preemption_over: bool,
    /// Whether the standing hold is due.
    pub due: bool,
    /// Whether the standing hold's own request asks for a renewal that was not acted on yet.
    pub renewal_requested: bool,
    /// The requests that may be granted, as indexes into the snapshot's, in order of arrival.
    pub candidates: Vec<usize>,
    /// How many requests wait: all candidates, also where the question is about one of them.
    pub waiting: usize,
    /// Requests that nobody has touched for their timeout, as indexes into the snapshot's.
    pub lapsed: Vec<usize>,
    /// Requests for which there is no place in the line, as indexes.
    pub crowded: Vec<usize>,
    /// Requests in whose place a newer one of the same holder stands, as indexes.
    pub superseded: Vec<usize>,
    /// The history with the hold that has ended in it.
    pub history: Vec<PastHold>,
    /// Whether this is the question about a holder's own newer request: if the policy grants it, the
    /// old hold ends as superseded in the same write; if not, nothing has happened.
    pub superseding: bool,
}

/// The situation as it plainly is, and before it, if the holder itself has made a new request, the
/// one in which that request takes the hold's place. The plain one counts where that one leads to
/// no grant.
pub(crate) fn situations(snapshot: &Snapshot) -> (Option<Situation>, Situation) {
    let plain = Situation::of(snapshot);
    (superseding(snapshot, &plain), plain)
}

impl Situation {
    fn of(snapshot: &Snapshot) -> Self {
        let (hold, ended) = standing(snapshot);
        let mut history = snapshot.record.history.clone();
        if let Some((hold, how)) = &ended {
            history = remember(history, past(snapshot, hold, *how));
        }
        let due = hold.is_some() && snapshot.remaining.is_some_and(|left| left <= Millis::ZERO);
        let renewal_requested = hold
            .as_ref()
            .and_then(|h| snapshot.request(&h.request.uid).map(|r| r.renewals > h.acted_on))
            .unwrap_or(false);
        let mut situation = Self {
            ended,
            hold,
            preemption_over: false,
            due,
            renewal_requested,
            candidates: Vec::new(),
            waiting: 0,
            lapsed: Vec::new(),
            crowded: Vec::new(),
            superseded: Vec::new(),
            history,
            superseding: false,
        };
        situation.sort_requests(snapshot);
        situation.settle_hand_over(snapshot);
        if situation.a_grant_would_forget_a_request(snapshot) {
            situation.candidates.clear();
        }
        situation
    }

    /// Sorts every request that could still wait into candidates, lapsed and superseded.
    fn sort_requests(&mut self, snapshot: &Snapshot) {
        let mut waiting: Vec<usize> =
            (0..snapshot.requests.len()).filter(|&i| self.may_wait(&snapshot.requests[i])).collect();
        waiting.sort_by(|&a, &b| arrival(&snapshot.requests[a]).cmp(&arrival(&snapshot.requests[b])));
        // One claim a holder: the newest. A restarted process must not stand in line twice. What has
        // become of the newest does not matter: if it holds or has held, an older one that was not
        // told yet that its place is taken must not come back to life.
        let mut newest: HashMap<&str, &Request> = HashMap::new();
        for request in snapshot.requests.iter().filter(|r| r.invalid.is_none()) {
            let first = newest.entry(&request.holder).or_insert(request);
            if arrival(first) < arrival(request) {
                *first = request;
            }
        }
        for i in waiting {
            let request = &snapshot.requests[i];
            if newest.get(request.holder.as_str()).is_some_and(|n| arrival(n) > arrival(request)) {
                self.superseded.push(i);
            } else if has_lapsed(request) {
                self.lapsed.push(i);
            } else {
                self.candidates.push(i);
            }
        }
        // Those that came last: a place in the line is not lost to who comes later.
        self.crowded = self.candidates.split_off(self.candidates.len().min(snapshot.settings.waiting_max));
        self.waiting = self.candidates.len();
    }

    /// Drops a hand-over whose preemptor no longer waits, and ends the hold if a forced one is at its
    /// deadline: nobody is forced out in favour of nobody.
    fn settle_hand_over(&mut self, snapshot: &Snapshot) {
        let waits = |uid: &str| self.candidates.iter().any(|&i| snapshot.requests[i].id.uid == uid);
        let Some(hold) = &mut self.hold else { return };
        self.preemption_over = hold.preemption.take_if(|p| !waits(&p.request)).is_some();
        let left = snapshot.left(hold);
        let forced_out = |hold: &mut Hold| {
            let force = hold.preemption.as_ref().is_some_and(|hand_over| hand_over.force);
            force && hold.hand_over_in(left).is_some_and(|left| left <= Millis::ZERO)
        };
        if let Some(hold) = self.hold.take_if(forced_out) {
            let history = std::mem::take(&mut self.history);
            self.history = remember(history, past(snapshot, &hold, Ending::Preempted));
            self.ended = Some((hold, Ending::Preempted));
            self.due = false;
            self.renewal_requested = false;
        }
    }

    fn may_wait(&self, request: &Request) -> bool {
        let holds = self.hold.as_ref().is_some_and(|h| h.request.uid == request.id.uid);
        let has_held = self.history.iter().any(|p| p.request == request.id.uid);
        // A status that says Granted was written after the lease's: it has had its hold, even where
        // the lease's record has forgotten it since.
        let settled = request.answered.is_some_and(|said| said.is_over() || matches!(said, Answered::Granted(_)));
        request.invalid.is_none() && !request.abandoned && !holds && !has_held && !settled
    }

    /// Whether a grant now could make the history forget a request that still looks pending.
    ///
    /// The history is the proof that a request has had its hold. Its oldest entry may only fall out
    /// once the request it names is marked as over, or gone. It falls out when the next hold ends,
    /// which nothing can stop, so what is not granted until then is that next hold. The mark is
    /// written with the answers of every reconcile, so this lasts for one of them.
    fn a_grant_would_forget_a_request(&self, snapshot: &Snapshot) -> bool {
        if self.hold.is_some() && !self.due {
            // Nothing is granted in this situation.
            return false;
        }
        // A hold that is due enters the history in the same write as the grant.
        let kept = HISTORY_MAX - 1 - usize::from(self.due);
        self.history
            .iter()
            .skip(kept)
            .any(|past| snapshot.request(&past.request).is_some_and(|r| !r.answered.is_some_and(Answered::is_over)))
    }
}

/// The order of arrival. The API server's timestamp has whole seconds; within one, the place at
/// which the request was first seen decides, and its uid last, so that the order is total.
fn arrival(request: &Request) -> (i64, i64, &str) {
    (request.arrived.0, request.sequence, &request.id.uid)
}

/// The hold that stands, or the one that is over by the host's own rules.
fn standing(snapshot: &Snapshot) -> (Option<Hold>, Option<(Hold, Ending)>) {
    match &snapshot.record.state {
        State::Available | State::Expired(_) => (None, None),
        State::Evicted(hold) => (None, Some((hold.clone(), Ending::ForceReleased))),
        State::Held(hold) => {
            // A request that was changed to name somebody else, which old API servers allow, is not
            // the request that was granted.
            let own = snapshot.request(&hold.request.uid).is_some_and(|r| r.holder == hold.holder);
            if !own {
                // Who leaves because it is asked to has made room for somebody, and need not have finished.
                let made_room = hold.preemption.as_ref().is_some_and(|p| snapshot.request(&p.request).is_some());
                let how = if made_room { Ending::Preempted } else { Ending::Released };
                return (None, Some((hold.clone(), how)));
            }
            (Some(hold.clone()), None)
        }
    }
}

/// The situation in which the holder's own newer request takes the place of its hold.
fn superseding(snapshot: &Snapshot, plain: &Situation) -> Option<Situation> {
    // A hold that is due or being handed over is not prolonged by asking anew: the line decides.
    let hold = plain.hold.as_ref().filter(|h| !plain.due && h.preemption.is_none())?;
    let newer = plain.candidates.iter().copied().find(|&i| snapshot.requests[i].holder == hold.holder)?;
    let mut history = snapshot.record.history.clone();
    history = remember(history, past(snapshot, hold, Ending::Superseded));
    let mut situation = Situation {
        ended: Some((hold.clone(), Ending::Superseded)),
        hold: None,
        due: false,
        renewal_requested: false,
        candidates: vec![newer],
        history,
        superseding: true,
        ..plain.clone()
    };
    if situation.a_grant_would_forget_a_request(snapshot) {
        situation.candidates.clear();
    }
    Some(situation)
}

/// Whether nobody has touched a request for its timeout. A timeout of zero never lapses by time: it
/// is decided once, and over if that did not grant it.
fn has_lapsed(request: &Request) -> bool {
    request.timeout.is_some_and(|timeout| timeout > Millis::ZERO && request.untouched >= timeout)
}

/// The entry of a hold that ends now.
#[must_use]
pub fn past(snapshot: &Snapshot, hold: &Hold, how: Ending) -> PastHold {
    PastHold {
        holder: hold.holder.clone(),
        request: hold.request.uid.clone(),
        request_name: hold.request.name.clone(),
        token: snapshot.record.token,
        acquired: hold.acquired,
        // The wall clock may have stepped back since: a hold does not end before it began.
        ended: snapshot.now.max(hold.acquired),
        how,
    }
}

/// The history with one more entry, the oldest dropped when it is full.
#[must_use]
pub fn remember(mut history: Vec<PastHold>, entry: PastHold) -> Vec<PastHold> {
    history.insert(0, entry);
    history.truncate(HISTORY_MAX);
    history
}
