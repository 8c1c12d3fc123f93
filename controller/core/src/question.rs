//! What the policy is asked, if there is anything to ask.

use crate::{
    situation::Situation,
    snapshot::{LeaseFacts, PastHold, Preemption, Request, Snapshot},
    time::{Millis, Time},
};

/// The most requests that a policy is shown. 512 of them fit the input's limit of 256 KiB with
/// names and labels of ordinary length, and no policy needs to see more to choose one.
pub const SHOWN_MAX: usize = 512;

/// Why the policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// Requests are waiting.
    #[default]
    Request,
    /// The holder asks for a renewal.
    Renewal,
    /// The hold is due.
    Due,
    /// The hold has just ended, and requests are waiting.
    Release,
}

impl Cause {
    /// The cause as the ABI writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Renewal => "renewal",
            Self::Due => "due",
            Self::Release => "release",
        }
    }
}

/// What the policy is shown. The default is a free lease that nobody wants: nothing to ask, but what questions begin with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The time of the snapshot.
    pub now: Time,
    /// Why it is asked.
    pub cause: Cause,
    /// The lease. Its ttl is valid.
    pub lease: LeaseFacts,
    /// The lease's ttl.
    pub ttl: Millis,
    /// The hold that stands, if one does.
    pub hold: Option<HoldView>,
    /// The candidates in order of arrival. A decision names them by their index here.
    pub requests: Vec<Candidate>,
    /// How many candidates there are in all; more than `requests` when the limit cut some off.
    pub waiting: usize,
    /// The past holds, newest first, the one that has just ended among them.
    pub history: Vec<PastHold>,
    /// The policy's own memory.
    pub state: String,
}

/// The hold as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldView {
    /// Who holds.
    pub holder: String,
    /// The priority of its request, or the lease's.
    pub priority: i32,
    /// The ttl that its request asks for, or the lease's.
    pub ttl: Millis,
    /// When it was granted.
    pub acquired: Time,
    /// Until when.
    pub expires: Time,
    /// How many times it was renewed.
    pub renewals: i64,
    /// Its fencing token.
    pub token: i64,
    /// Whether the holder asks for a renewal.
    pub renewal_requested: bool,
    /// Whether it is due.
    pub due: bool,
    /// The labels of its request.
    pub labels: Vec<(String, String)>,
    /// The hand-over under way.
    pub preemption: Option<Preemption>,
}

/// A waiting request as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Its uid, by which the host knows what the policy names by index. Not shown to the policy.
    pub uid: String,
    /// Who asks.
    pub holder: String,
    /// Its priority, or the lease's.
    pub priority: i32,
    /// The ttl that it asks for, or the lease's.
    pub ttl: Millis,
    /// When it arrived.
    pub arrived: Time,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

impl Candidate {
    fn of(request: &Request, lease: &LeaseFacts, ttl: Millis) -> Self {
        Self {
            uid: request.id.uid.clone(),
            holder: request.holder.clone(),
            priority: request.priority.unwrap_or(lease.priority),
            ttl: request.ttl.unwrap_or(ttl),
            arrived: request.arrived,
            labels: request.labels.clone(),
        }
    }
}

/// What the policy is to be asked in this situation; `None` when there is nothing to decide.
pub(crate) fn question(snapshot: &Snapshot, situation: &Situation) -> Option<Question> {
    let ttl = snapshot.lease.ttl?;
    let hold = situation.hold.as_ref();
    let cause = match hold {
        Some(_) if situation.due => Cause::Due,
        Some(_) if situation.renewal_requested => Cause::Renewal,
        _ if situation.candidates.is_empty() => return None,
        Some(_) => Cause::Request,
        None if situation.ended.is_some() => Cause::Release,
        None => Cause::Request,
    };
    let holding = hold.and_then(|h| snapshot.request(&h.request.uid));
    Some(Question {
        now: snapshot.now,
        cause,
        lease: snapshot.lease.clone(),
        ttl,
        hold: hold.map(|h| HoldView {
            holder: h.holder.clone(),
            priority: holding.and_then(|r| r.priority).unwrap_or(snapshot.lease.priority),
            ttl: holding.and_then(|r| r.ttl).unwrap_or(ttl),
            acquired: h.acquired,
            expires: h.expires,
            renewals: h.renewals,
            token: snapshot.record.token,
            renewal_requested: situation.renewal_requested,
            due: situation.due,
            labels: holding.map(|r| r.labels.clone()).unwrap_or_default(),
            preemption: h.preemption.clone(),
        }),
        requests: shown(situation, snapshot, ttl),
        waiting: situation.waiting,
        history: situation.history.clone(),
        state: snapshot.record.policy_state.clone(),
    })
}

/// The candidates that are shown: all, or when they are too many the first by priority, then
/// arrival; always in order of arrival.
fn shown(situation: &Situation, snapshot: &Snapshot, ttl: Millis) -> Vec<Candidate> {
    let requests = situation.candidates.iter().map(|&i| &snapshot.requests[i]);
    if situation.candidates.len() <= SHOWN_MAX {
        return requests.map(|r| Candidate::of(r, &snapshot.lease, ttl)).collect();
    }
    let mut ranked: Vec<(usize, &Request)> = requests.enumerate().collect();
    // Stable: equal priorities stay in order of arrival.
    ranked.sort_by_key(|(_, r)| std::cmp::Reverse(r.priority.unwrap_or(snapshot.lease.priority)));
    ranked.truncate(SHOWN_MAX);
    ranked.sort_by_key(|&(place, _)| place);
    ranked.into_iter().map(|(_, r)| Candidate::of(r, &snapshot.lease, ttl)).collect()
}
