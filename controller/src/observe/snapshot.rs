//! From the world to one snapshot. The only reader of the world on the way to a decision.

use std::{sync::Arc, time::Duration};

use konductor_core::{Hold, Millis, Request, RequestId, Seen, Settings, Snapshot, State, Time};
use konductor_crds::{Lease, v1::Condition};
use kube::ResourceExt as _;

use super::{
    convert,
    world::{Due, Inner, Key, RequestEntry, SERVER_TIME_UNIT, World, to_duration, version},
};
use crate::clock::{Clock, Reading, elapsed, remaining};

/// A lease as it was seen, and the snapshot of it.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The object: what the write is computed from.
    pub lease: Arc<Lease>,
    /// What the core is given.
    pub snapshot: Snapshot,
    /// The reading of the clocks, the one of this reconcile.
    pub reading: Reading,
    /// How much of the requests was seen.
    pub(super) seen: Seen,
}

impl Observed {
    /// The requests about which the API server must be asked before this one is granted.
    #[must_use]
    pub fn in_doubt(&self, granted: &RequestId) -> Vec<RequestId> {
        self.seen.in_doubt(&self.snapshot, granted)
    }

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

/// Looks at a key. The clocks are read once, and not before what is seen had come in: a client counts
/// its deadline from before it sent what the decision takes into account.
#[must_use]
pub fn observe(world: &World, key: &Key, clock: &dyn Clock, skew: Duration, settings: Settings) -> Sight {
    let mut inner = world.lock();
    let reading = clock.read();
    let requests = requests(&inner, key, reading);
    let Some(entry) = inner.leases.get(key).filter(|e| e.object.metadata.deletion_timestamp.is_none()) else {
        return Sight::NoLease(requests);
    };
    let lease = entry.object.clone();
    let since_write = entry.written.map_or(Millis(i64::MAX), |at| elapsed(at, reading.mono));
    let holder_of = |uid: &str| {
        let seen = entry.holder.as_ref().filter(|(request, _)| request == uid).map(|(_, holder)| holder.clone());
        seen.or_else(|| requests.iter().find(|r| r.id.uid == uid).map(|r| r.holder.clone()))
    };
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
    let deleted = inner.deleted.get(key);
    let deleted = |uid: &str| deleted.is_some_and(|all| all.iter().any(|one| one == uid));
    // API servers write whole seconds, each by its own clock.
    let made = lease.creation_timestamp().map(|made| Time(made.0.as_millisecond()));
    let older_until = made.map(|made| made + SERVER_TIME_UNIT + millis(skew));
    let seen = Seen::beside(&snapshot, inner.requests_version, older_until, deleted);
    Sight::Lease(Box::new(Observed { lease, snapshot, reading, seen }))
}

fn millis(span: Duration) -> Millis {
    Millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
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
    let facts = |entry: &RequestEntry| Request {
        abandoned: inner.is_abandoned(&key.namespace, &entry.object),
        ..request(entry, reading)
    };
    inner.requests.get(key).map(|all| all.values().map(facts).collect()).unwrap_or_default()
}

fn request(entry: &RequestEntry, reading: Reading) -> Request {
    let (age, observed) = entry.touched;
    Request {
        untouched: age + elapsed(observed, reading.mono),
        sequence: entry.sequence,
        known_for: elapsed(entry.first_seen, reading.mono),
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use konductor_crds::{
        LeaseRequest, LeaseRequestSpec, LeaseSpec, LeaseStatus,
        time::format_timestamp,
        v1::{LeasePhase, RequestRef},
    };

    use super::*;

    const SKEW: Duration = Duration::from_secs(1);
    const TTL: i64 = 30_000;

    /// Clocks that tests set.
    struct Hands(Mutex<Reading>);

    impl Hands {
        fn new(wall_ms: i64) -> Self {
            Self(Mutex::new(Reading { wall_ns: i128::from(wall_ms) * 1_000_000, mono: Duration::from_secs(100) }))
        }

        fn pass(&self, ms: u64) {
            let mut now = self.0.lock().expect("one thread");
            now.mono += Duration::from_millis(ms);
            now.wall_ns += i128::from(ms) * 1_000_000;
        }

        fn step_wall(&self, ms: i64) {
            self.0.lock().expect("one thread").wall_ns += i128::from(ms) * 1_000_000;
        }
    }

    impl Clock for Hands {
        fn read(&self) -> Reading {
            *self.0.lock().expect("one thread")
        }
    }

    fn lease(version: i64, expires: i64, renewals: i64) -> Lease {
        let mut lease = Lease::new("l", LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("ns".to_owned());
        lease.metadata.uid = Some("lease-uid".to_owned());
        lease.metadata.resource_version = Some(version.to_string());
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("a".to_owned()),
            acquired: Some(format_timestamp(0)),
            expires: Some(format_timestamp(expires)),
            renewals: Some(renewals),
            fencing_token: Some(7),
            request: Some(RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 0, counted: None }),
            ..LeaseStatus::default()
        });
        lease
    }

    fn request() -> LeaseRequest {
        let spec = LeaseRequestSpec { lease: "l".to_owned(), holder: "a".to_owned(), ..LeaseRequestSpec::default() };
        let mut request = LeaseRequest::new("r", spec);
        request.metadata.namespace = Some("ns".to_owned());
        request.metadata.uid = Some("u".to_owned());
        request.metadata.resource_version = Some("5".to_owned());
        request
    }

    fn remaining_at(world: &World, hands: &Hands) -> i64 {
        match observe(world, &Key::new("ns", "l"), hands, SKEW, Settings::default()) {
            Sight::Lease(observed) => observed.snapshot.remaining.expect("it is held").0,
            other => panic!("{other:?}"),
        }
    }

    fn world(hands: &Hands) -> World {
        let world = World::default();
        world.request_watched(request(), hands.read(), Millis(0));
        world
    }

    #[test]
    fn a_hold_of_our_own_is_due_after_its_ttl_whatever_the_wall_clock_does() {
        let hands = Hands::new(0);
        let world = world(&hands);
        world.apply_lease(lease(9, TTL, 0));
        world.wrote_lease(lease(10, TTL, 0), hands.read());
        hands.pass(10_000);
        hands.step_wall(3_600_000);
        assert_eq!(remaining_at(&world, &hands), 20_000);
        hands.step_wall(-7_200_000);
        assert_eq!(remaining_at(&world, &hands), 20_000);
        hands.pass(20_000);
        assert_eq!(remaining_at(&world, &hands), 0);
    }

    // Its client may have died right after: what a list shows is not what happens now.
    #[test]
    fn a_touch_that_a_list_shows_may_be_as_old_as_the_list_before() {
        let untouched = |listed: bool, made: i64| {
            let hands = Hands::new(0);
            let at = |ms: i64| serde_json::from_value(format_timestamp(ms).into()).ok();
            let mut first = request();
            first.metadata.creation_timestamp = at(0);
            let world = World::default();
            world.apply_lease(lease(9, TTL, 0));
            world.request_watched(first.clone(), hands.read(), Millis(0));
            hands.pass(60_000);
            let mut touched = first;
            touched.metadata.creation_timestamp = at(made);
            touched.spec.renewals = 1;
            touched.metadata.resource_version = Some("6".to_owned());
            if listed {
                world.requests_list_begins();
                world.request_listed(touched, hands.read(), Millis(0));
                world.requests_list_done();
            } else {
                world.request_watched(touched, hands.read(), Millis(0));
            }
            hands.pass(500);
            sight(&world, &hands).snapshot.requests[0].untouched.0
        };
        assert_eq!(untouched(false, 0), 500, "the watch shows what happens now");
        assert_eq!(untouched(true, 0), 60_500 - 1_000, "the API server's time has whole seconds");
        // Its time is of another clock, which may be wrong. By our own it was seen untouched a minute ago.
        assert_eq!(untouched(true, -600_000), 60_500);
    }

    #[test]
    fn a_renewal_prolongs_even_where_the_wall_clock_has_stepped_back() {
        let hands = Hands::new(0);
        let world = world(&hands);
        world.apply_lease(lease(9, TTL, 0));
        world.wrote_lease(lease(10, TTL, 0), hands.read());
        hands.pass(20_000);
        hands.step_wall(-20_000);
        // now + ttl is the expiry that the holder was told already.
        world.wrote_lease(lease(11, TTL, 1), hands.read());
        assert_eq!(remaining_at(&world, &hands), TTL);
    }

    #[test]
    fn a_renewal_never_makes_a_hold_shorter() {
        let hands = Hands::new(0);
        let world = world(&hands);
        world.apply_lease(lease(9, TTL, 0));
        world.wrote_lease(lease(10, 600_000, 0), hands.read());
        hands.step_wall(590_000);
        // The wall clock has jumped ahead, so the new expiry is later and yet only 20 s away.
        world.wrote_lease(lease(11, 610_000, 1), hands.read());
        assert_eq!(remaining_at(&world, &hands), 600_000);
    }

    #[test]
    fn what_another_clock_has_written_is_believed_with_an_allowance() {
        let hands = Hands::new(TTL - 10_000);
        let world = world(&hands);
        world.apply_lease(lease(10, TTL, 0));
        assert_eq!(remaining_at(&world, &hands), 11_000);
        hands.pass(11_000);
        assert_eq!(remaining_at(&world, &hands), 0);

        let hands = Hands::new(TTL + 5_000);
        let world = self::world(&hands);
        world.apply_lease(lease(10, TTL, 0));
        assert_eq!(remaining_at(&world, &hands), 0, "long overdue when it is seen first");
    }

    #[test]
    fn a_holders_request_that_was_never_seen_is_asked_for() {
        let hands = Hands::new(0);
        let world = World::default();
        let key = Key::new("ns", "l");
        world.apply_lease(lease(10, TTL, 0));
        let look = || observe(&world, &key, &hands, SKEW, Settings::default());
        assert!(matches!(look(), Sight::Unconfirmed(request) if request.uid == "u"));
        world.confirm_deleted(&key, &RequestId { name: "r".to_owned(), uid: "u".to_owned() });
        assert!(matches!(look(), Sight::Lease(_)), "now its absence is a fact");
    }

    #[test]
    fn a_deletion_that_was_seen_is_proof_and_another_object_of_the_name_is_not() {
        let hands = Hands::new(0);
        let world = world(&hands);
        let key = Key::new("ns", "l");
        world.apply_lease(lease(10, TTL, 0));
        let mut newer = request();
        newer.metadata.uid = Some("v".to_owned());
        newer.metadata.resource_version = Some("20".to_owned());
        world.request_watched(newer, hands.read(), Millis(0));
        let Sight::Lease(observed) = observe(&world, &key, &hands, SKEW, Settings::default()) else {
            panic!("the old object was replaced, so it is gone")
        };
        assert!(observed.snapshot.request("u").is_none() && observed.snapshot.request("v").is_some());
        let mut late = request();
        late.metadata.resource_version = Some("6".to_owned());
        assert_eq!(world.request_deleted(&late), key);
        let Sight::Lease(observed) = observe(&world, &key, &hands, SKEW, Settings::default()) else { panic!("lost") };
        assert!(observed.snapshot.request("v").is_some(), "a late deletion of the old object took the new one along");
    }

    #[test]
    fn requests_that_are_older_than_the_lease_are_doubted() {
        let hands = Hands::new(0);
        let key = Key::new("ns", "l");
        let past = |n: usize| konductor_crds::v1::PastHold {
            holder: "x".to_owned(),
            request: format!("past-{n}"),
            request_name: format!("past-{n}"),
            token: 7,
            acquired: format_timestamp(0),
            ended: format_timestamp(1),
            how: konductor_crds::v1::HoldEnd::Released,
        };
        let at = |name: &str, version: &str| {
            let mut request = request();
            (request.metadata.name, request.metadata.uid) = (Some(name.to_owned()), Some(name.to_owned()));
            request.metadata.resource_version = Some(version.to_owned());
            request
        };
        let waiter = RequestId { name: "w".to_owned(), uid: "w".to_owned() };
        for (holds, watched, doubted) in [
            (8, "9", &["w", "past-6", "past-7"][..]),
            (8, "10", &[]),
            (8, "11", &[]),
            // Nothing has been forgotten yet, but a grant may be the first to do it.
            (7, "9", &["past-6"]),
            (6, "9", &[]),
        ] {
            let world = World::default();
            let mut lease = lease(10, TTL, 0);
            lease.status.get_or_insert_default().history = (0..holds).map(past).collect();
            world.apply_lease(lease);
            world.request_watched(request(), hands.read(), Millis(0));
            world.request_watched(at("x", watched), hands.read(), Millis(0));
            // What was read beside the watch says nothing of the other requests.
            world.request_found(at("y", "20"), hands.read(), Millis(0));
            let in_doubt = || match observe(&world, &key, &hands, SKEW, Settings::default()) {
                Sight::Lease(observed) => observed.in_doubt(&waiter).into_iter().map(|id| id.uid).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            };
            assert_eq!(in_doubt(), doubted, "{holds} holds, requests seen up to {watched}");
            // What is known of a request is not doubted.
            world.confirm_deleted(&key, &RequestId { name: "past-6".to_owned(), uid: "past-6".to_owned() });
            world.request_found(at("past-7", "19"), hands.read(), Millis(0));
            assert!(in_doubt().iter().all(|uid| uid == "w"), "{:?}", in_doubt());
        }
    }

    #[test]
    fn a_request_that_is_older_than_the_lease_is_doubted() {
        let hands = Hands::new(0);
        let made = |second: i64| serde_json::from_value(format_timestamp(second * 1_000).into()).ok();
        let waiter = RequestId { name: "r".to_owned(), uid: "u".to_owned() };
        // A lease of the hundredth second, and clocks that differ by one second at most.
        for (request_made, watched, doubted) in
            [(99, "9", true), (100, "9", true), (102, "9", true), (103, "9", false), (99, "10", false)]
        {
            let world = World::default();
            let mut lease = lease(10, TTL, 0);
            lease.metadata.creation_timestamp = made(100);
            lease.status = None;
            world.apply_lease(lease);
            let mut old = request();
            old.metadata.creation_timestamp = made(request_made);
            world.request_watched(old, hands.read(), Millis(0));
            let mut newer = request();
            newer.metadata.name = Some("x".to_owned());
            newer.metadata.uid = Some("x".to_owned());
            newer.metadata.resource_version = Some(watched.to_owned());
            world.request_watched(newer, hands.read(), Millis(0));
            let asked = sight(&world, &hands).in_doubt(&waiter);
            assert_eq!(!asked.is_empty(), doubted, "made at {request_made}, requests seen up to {watched}");
        }
    }

    #[test]
    fn who_was_evicted_is_remembered_where_the_request_is_gone() {
        let hands = Hands::new(0);
        let evicted = |version| {
            let mut lease = lease(version, TTL, 0);
            let status = lease.status.get_or_insert_default();
            (status.phase, status.holder) = (Some(LeasePhase::Available), Some(String::new()));
            lease
        };
        let named = |world: &World| match sight(world, &hands).snapshot.record.state {
            State::Evicted(hold) => hold.holder,
            other => panic!("{other:?}"),
        };
        let world = World::default();
        world.apply_lease(lease(10, TTL, 0));
        world.apply_lease(evicted(11));
        assert_eq!(named(&world), "a", "it was seen to hold");
        world.apply_lease(evicted(12));
        assert_eq!(named(&world), "a", "and not only one write ago");
        let world = World::default();
        world.apply_lease(evicted(11));
        assert_eq!(named(&world), "r", "nobody knows any more: the request's name is what is left");
        let world = World::default();
        world.apply_lease(lease(10, TTL, 0));
        let mut other = evicted(12);
        let reference = RequestRef { name: "r2".to_owned(), uid: "u2".to_owned(), renewals: 0, counted: None };
        other.status.get_or_insert_default().request = Some(reference);
        world.apply_lease(other);
        assert_eq!(named(&world), "r2", "another hold, which was never seen");
    }

    fn sight(world: &World, hands: &Hands) -> Box<Observed> {
        match observe(world, &Key::new("ns", "l"), hands, SKEW, Settings::default()) {
            Sight::Lease(observed) => observed,
            other => panic!("{other:?}"),
        }
    }

    // The answer to a question may be on its way for longer than the news that it is out of date.
    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let hands = Hands::new(0);
        let world = world(&hands);
        world.apply_lease(lease(10, TTL, 0));
        let mut gone = request();
        gone.metadata.resource_version = Some("12".to_owned());
        world.request_deleted(&gone);
        world.request_found(request(), hands.read(), Millis(0));
        assert!(sight(&world, &hands).snapshot.requests.is_empty(), "a request that was deleted");

        world.delete_lease(&lease(13, TTL, 0));
        world.wrote_lease(lease(11, TTL, 1), hands.read());
        assert!(matches!(
            observe(&world, &Key::new("ns", "l"), &hands, SKEW, Settings::default()),
            Sight::NoLease(requests) if requests.is_empty()
        ));
    }

    // A watch that is late tells of a request's past after the API server has said that it is gone.
    #[test]
    fn a_late_watch_does_not_bring_back_what_is_gone() {
        let hands = Hands::new(0);
        let world = world(&hands);
        world.apply_lease(lease(10, TTL, 0));
        world.request_watched(request(), hands.read(), Millis(0));
        world.confirm_deleted(
            &Key::new("ns", "l"),
            &RequestId { name: "r".to_owned(), uid: request().metadata.uid.unwrap_or_default() },
        );
        let mut beat = request();
        beat.metadata.resource_version = Some("7".to_owned());
        world.request_watched(beat.clone(), hands.read(), Millis(0));
        assert!(sight(&world, &hands).snapshot.requests.is_empty(), "its watch is late");
        world.requests_list_begins();
        world.request_listed(beat, hands.read(), Millis(0));
        world.requests_list_done();
        assert!(sight(&world, &hands).snapshot.requests.is_empty(), "a list was begun before it was gone");
    }

    // A list is as old as its beginning. What was found since then and is not in it may have come after.
    #[test]
    fn a_list_does_not_prove_the_absence_of_what_was_found_meanwhile() {
        let hands = Hands::new(0);
        let key = Key::new("ns", "l");
        let listed = |found_meanwhile: bool| {
            let world = World::default();
            world.apply_lease(lease(10, TTL, 0));
            if !found_meanwhile {
                world.request_found(request(), hands.read(), Millis(0));
            }
            world.requests_list_begins();
            if found_meanwhile {
                world.request_found(request(), hands.read(), Millis(0));
            }
            world.requests_list_done();
            observe(&world, &key, &hands, SKEW, Settings::default())
        };
        assert!(matches!(listed(true), Sight::Unconfirmed(request) if request.uid == "u"), "it has to be asked for");
        assert!(matches!(listed(false), Sight::Lease(observed) if observed.snapshot.requests.is_empty()), "it is gone");
    }

    #[test]
    fn what_was_granted_before_it_was_seen_keeps_its_place_in_the_order_of_arrival() {
        let hands = Hands::new(0);
        let world = World::default();
        world.apply_lease(lease(10, TTL, 0));
        let mut granted = request();
        granted.metadata.resource_version = Some("30".to_owned());
        world.request_found(granted, hands.read(), Millis(0));
        assert_eq!(sight(&world, &hands).snapshot.requests[0].sequence, 30);
        world.request_watched(request(), hands.read(), Millis(0));
        assert_eq!(sight(&world, &hands).snapshot.requests[0].sequence, 5, "it came with the version 5");
    }

    #[test]
    fn a_list_says_how_new_it_is_when_it_is_complete() {
        let hands = Hands::new(0);
        let world = World::default();
        world.requests_list_begins();
        world.request_listed(request(), hands.read(), Millis(0));
        assert_eq!(world.lock().requests_version, 0);
        world.requests_list_done();
        assert_eq!(world.lock().requests_version, 5);
    }
}
