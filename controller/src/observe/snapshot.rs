//! From the world to one snapshot. The only reader of the world on the way to a decision.

use std::{sync::Arc, time::Duration};

use konductor_core::{Hold, Millis, Request, RequestId, Settings, Snapshot, State};
use konductor_crds::{Lease, v1::Condition};
use kube::ResourceExt as _;

use super::{
    convert,
    world::{Due, Inner, Key, RequestEntry, World, to_duration, version},
};
use crate::clock::{Reading, elapsed, remaining};

/// A lease as it was seen, and the snapshot of it.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The object: what the write is computed from.
    pub lease: Arc<Lease>,
    /// What the core is given.
    pub snapshot: Snapshot,
    /// The reading of the clocks, the one of this reconcile.
    pub reading: Reading,
}

impl Observed {
    /// The conditions that the status has now.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        self.lease.status.as_ref().map_or(&[], |s| &s.conditions)
    }
}

/// What there is to see of a key.
#[derive(Debug)]
pub enum Sight {
    /// A lease, seen well enough to decide about it.
    Lease(Box<Observed>),
    /// The lease names a holding request that this replica has neither seen nor seen deleted. Its
    /// cache may only be late: ask the API server before anybody calls it released.
    Unconfirmed(RequestId),
    /// There is no such lease, or it is being deleted; these requests name it.
    NoLease(Vec<Request>),
}

/// Looks at a key.
#[must_use]
pub fn observe(world: &World, key: &Key, reading: Reading, skew: Duration, settings: Settings) -> Sight {
    let mut inner = world.lock();
    let requests = requests(&inner, key, reading);
    let Some(entry) = inner.leases.get(key).filter(|e| e.object.metadata.deletion_timestamp.is_none()) else {
        return Sight::NoLease(requests);
    };
    let lease = entry.object.clone();
    let since_write = entry.written.map_or(Millis(i64::MAX), |at| elapsed(at, reading.mono));
    let holder_of = |uid: &str| requests.iter().find(|r| r.id.uid == uid).map(|r| r.holder.clone());
    let record = convert::record(lease.status.as_ref(), holder_of);

    let mut left = None;
    if let State::Held(hold) = &record.state {
        let seen = requests.iter().any(|r| r.id.uid == hold.request.uid);
        let deleted = inner.deleted.get(key).is_some_and(|d| d.contains(&hold.request.uid));
        if !seen && !deleted {
            return Sight::Unconfirmed(hold.request.clone());
        }
        let due = due(&mut inner, key, record.token, hold, reading, skew);
        left = Some(remaining(due, reading.mono));
    }
    let snapshot = Snapshot {
        now: reading.now(),
        resource_version: version(&*lease),
        lease: convert::facts(&lease),
        record,
        remaining: left,
        requests,
        waiting_told: lease.status.as_ref().and_then(|s| s.waiting).unwrap_or(0),
        since_write,
        settings,
    };
    Sight::Lease(Box::new(Observed { lease, snapshot, reading }))
}

/// When the hold is due by our monotonic clock.
///
/// What this process wrote itself, or has seen before, it remembers; a jump of the wall clock does
/// not matter then. What it sees for the first time was written by another clock: its expiry is
/// believed with an allowance for how much two clocks may differ.
fn due(inner: &mut Inner, key: &Key, token: i64, hold: &Hold, reading: Reading, skew: Duration) -> Duration {
    let Some(entry) = inner.leases.get_mut(key) else { return reading.mono };
    let expires = hold.expires;
    let at = reading.mono + to_duration(expires - reading.now_floor()) + skew_if_ahead(expires, reading, skew);
    let due = Due { token, renewals: hold.renewals, expires, at }.after(entry.due.as_ref());
    let at = due.at;
    entry.due = Some(due);
    at
}

/// The allowance that is still to come: none where the expiry lies further back than the allowance.
fn skew_if_ahead(expires: konductor_core::Time, reading: Reading, skew: Duration) -> Duration {
    let overdue = to_duration(reading.now_floor() - expires);
    skew.saturating_sub(overdue)
}

fn requests(inner: &Inner, key: &Key, reading: Reading) -> Vec<Request> {
    inner.requests.get(key).map(|all| all.values().map(|e| request(e, reading)).collect()).unwrap_or_default()
}

fn request(entry: &RequestEntry, reading: Reading) -> Request {
    let (age, observed) = entry.touched;
    Request {
        untouched: age + elapsed(observed, reading.mono),
        sequence: entry.sequence,
        over_for: entry.over_since.map_or(Millis::ZERO, |since| elapsed(since, reading.mono)),
        ..convert::request_facts(&entry.object)
    }
}

/// The name under which an object is logged.
impl std::fmt::Display for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.lease.namespace().unwrap_or_default(), self.lease.name_any())
    }
}
