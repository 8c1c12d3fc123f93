//! Everything that a decision may depend on, as one owned value.

use crate::time::{Millis, Time};

/// How many past holds a record remembers. Eight tell what happened lately and keep the object small.
pub const HISTORY_MAX: usize = 8;

/// One lease, its requests and the time, as they were seen together.
///
/// The builder of a snapshot vouches for these:
/// - `requests` holds every LeaseRequest that names this lease and is not being deleted, once each;
///   a request that is not in it is gone.
/// - `remaining` is there if and only if the state is [`State::Held`].
/// - `now` and every other time were read once, for the whole snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The controller's clock, rounded up to the millisecond, so that what is computed from it is never early.
    pub now: Time,
    /// The lease's resourceVersion as a number: what the write will be conditional on, and a lower
    /// bound of the next fencing token.
    pub resource_version: i64,
    /// Who the lease is and what its spec says.
    pub lease: LeaseFacts,
    /// What its status says.
    pub record: Record,
    /// How long the hold still has by this process's monotonic clock; zero or less: it is due.
    ///
    /// The expiry in the record is not compared with `now`: the wall clock may have jumped, and
    /// another replica with another clock may have written it.
    pub remaining: Option<Millis>,
    /// Every request for this lease, in any order.
    pub requests: Vec<Request>,
    /// How many were waiting when the status was last written.
    pub waiting_told: i64,
    /// How long ago this process last wrote the lease's status.
    pub since_write: Millis,
    /// The controller's settings.
    pub settings: Settings,
}

/// Who a lease is and what its spec says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseFacts {
    /// metadata.name
    pub name: String,
    /// metadata.namespace
    pub namespace: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.labels
    pub labels: Vec<(String, String)>,
    /// spec.ttl; `None` when the spec is invalid, and then nothing is granted or renewed.
    pub ttl: Option<Millis>,
    /// What is wrong with the spec, if something is.
    pub problem: Option<String>,
    /// spec.priority, 0 if absent.
    pub priority: i32,
    /// spec.renewable, true if absent.
    pub renewable: bool,
}

/// The controller's settings that rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The longest that one hold may last however often it is renewed; `None`: without limit.
    pub max_hold: Option<Millis>,
    /// How long a lease shows Expired before it is cleaned up to Available.
    pub expired_retention: Millis,
    /// How long a request that is over is kept for people to read before it is deleted.
    pub finished_retention: Millis,
    /// The most requests that wait for one lease; who comes later is denied. Each is looked at by every
    /// reconcile of the lease, so a flood would be everybody's.
    pub waiting_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_hold: None,
            expired_retention: Millis::from_secs(10),
            finished_retention: Millis::from_secs(600),
            waiting_max: 10_000,
        }
    }
}

/// What a lease's status says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The fencing token of the newest grant; 0 before the first.
    pub token: i64,
    /// Whether somebody holds it.
    pub state: State,
    /// The last holds, newest first, at most [`HISTORY_MAX`].
    pub history: Vec<PastHold>,
    /// The policy's own opaque memory.
    pub policy_state: String,
}

/// Whether somebody holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// It is free.
    #[default]
    Available,
    /// One holder has it.
    Held(Hold),
    /// The last hold ran out at that time with nobody waiting.
    Expired(Time),
    /// A person cleared phase or holder of a held lease, to force its release. The controller never
    /// writes this state; it ends the hold as soon as it sees it.
    Evicted(Hold),
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who holds.
    pub holder: String,
    /// The request that holds.
    pub request: RequestId,
    /// When it was granted.
    pub acquired: Time,
    /// Until when, as the holder was told.
    pub expires: Time,
    /// When that was said: at the grant or the last renewal. The span from here to `expires` is what
    /// a holder may count from before it asked, whatever the two wall clocks say.
    pub renewed: Time,
    /// How many times it was renewed.
    pub renewals: i64,
    /// The value of the request's renewal counter that was last acted on, granted or refused.
    pub acted_on: i64,
    /// The same when `expires` was computed, by the grant or a renewal: what a refusal leaves alone. A
    /// holder counts its deadline from before it sent that, so it must not be a later one.
    pub counted: i64,
    /// The hand-over under way, if there is one.
    pub preemption: Option<Preemption>,
}

impl Hold {
    /// How long until the hand-over's deadline, if one is under way, where the hold itself is due in `left`.
    ///
    /// What the status says of the deadline is how much sooner it comes than the hold's own end. So it is counted as that
    /// is, by a clock that nobody sets, and a holder may do the same with its own. A comparison with a wall clock would end
    /// the hold early when that clock is set, or is another replica's.
    #[must_use]
    pub fn hand_over_in(&self, left: Millis) -> Option<Millis> {
        self.preemption.as_ref().map(|hand_over| left - (self.expires - hand_over.deadline))
    }
}

/// The name and uid of a LeaseRequest. Only the uid identifies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestId {
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
}

/// A hand-over under way: the holder is asked to leave and is not renewed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The holder of the request in whose favour it is.
    pub by: String,
    /// The uid of that request.
    pub request: String,
    /// Until when the holder should have released: so much before the hold's `expires`, by the same clock as that. It is
    /// compared with nothing else, see [`Hold::hand_over_in`].
    pub deadline: Time,
    /// Whether the hold ends at the deadline even if it was not released.
    pub force: bool,
    /// The policy's words.
    pub reason: String,
}

/// A hold that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastHold {
    /// Who held.
    pub holder: String,
    /// The uid of the request that held. It is never granted again.
    pub request: String,
    /// Its name, for whoever has to ask the API server what has become of it.
    pub request_name: String,
    /// Its fencing token.
    pub token: i64,
    /// When it was granted.
    pub acquired: Time,
    /// When it ended.
    pub ended: Time,
    /// How it ended.
    pub how: Ending,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its request is gone: the holder gave it back.
    Released,
    /// It was due.
    Expired,
    /// It was handed over: due while a preemption was under way, or at a forced preemption's deadline.
    Preempted,
    /// A person took it away.
    ForceReleased,
    /// A new request of the same holder took its place.
    Superseded,
}

/// A LeaseRequest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Its name and uid.
    pub id: RequestId,
    /// spec.holder
    pub holder: String,
    /// spec.priority
    pub priority: Option<i32>,
    /// spec.ttl
    pub ttl: Option<Millis>,
    /// spec.renewals
    pub renewals: i64,
    /// spec.timeout: how long it stays valid while pending and untouched; zero: now or never.
    pub timeout: Option<Millis>,
    /// How long ago it was created or last touched, as this process observed it.
    pub untouched: Millis,
    /// metadata.creationTimestamp, which the API server writes.
    pub arrived: Time,
    /// The resourceVersion at which it was seen: what an answer is conditional on.
    pub version: i64,
    /// Its place in the order of arrival: the resourceVersion at which it was first seen.
    pub sequence: i64,
    /// metadata.labels
    pub labels: Vec<(String, String)>,
    /// What is wrong with its spec, if something is.
    pub invalid: Option<String>,
    /// What its status says now. Never proof of a hold.
    pub answered: Option<Answered>,
    /// How long this process has known it.
    pub known_for: Millis,
    /// How long ago it was first seen to be over, by its status.
    pub over_for: Millis,
    /// Whether the Pod that it belongs to is gone or has ended. Nobody is left to withdraw it, so it is
    /// deleted; if it holds, that releases the lease, as any deletion does.
    pub abandoned: bool,
}

/// What a request's status says, as far as rules depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It waits.
    Pending,
    /// It waits for a lease that does not exist.
    NoLease,
    /// It holds with this token.
    Granted(i64),
    /// It will never be granted.
    Denied,
    /// Its hold or its wait is over.
    Finished,
}

impl Answered {
    /// Whether nothing will come of the request any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::NoLease | Self::Granted(_) => false,
            Self::Denied | Self::Finished => true,
        }
    }
}

impl Snapshot {
    /// How long this hold, which is the record's, still has. Where the builder did not say, its expiry does.
    #[must_use]
    pub fn left(&self, hold: &Hold) -> Millis {
        self.remaining.unwrap_or(hold.expires - self.now)
    }

    /// The request with this uid, if it still exists.
    #[must_use]
    pub fn request(&self, uid: &str) -> Option<&Request> {
        self.requests.iter().find(|r| r.id.uid == uid)
    }
}

impl Record {
    /// The hold, if somebody holds the lease.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        match &self.state {
            State::Held(hold) => Some(hold),
            State::Available | State::Expired(_) | State::Evicted(_) => None,
        }
    }

    /// Whether this request has held the lease and lost it.
    #[must_use]
    pub fn has_held(&self, uid: &str) -> bool {
        self.history.iter().any(|past| past.request == uid)
    }
}
