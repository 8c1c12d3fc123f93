//! How many there are of what, and how long the longest has taken: counted when it is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use konductor_crds::{
    time::parse_timestamp,
    v1::{
        LeasePhase, RequestPhase,
        reasons::{POLICY_READY, READY},
    },
};
use kube::ResourceExt as _;

use super::world::{World, to_duration};
use crate::clock::Reading;

/// For how long a count is given to whoever asks. Counting holds up what is observed and decided meanwhile; whoever
/// scrapes, scrapes every some seconds, and nobody else may make us count more often.
const FRESH: Duration = Duration::from_secs(1);

/// The last count, for those who ask soon after.
#[derive(Debug, Default)]
pub struct LastCensus(Mutex<Option<(Duration, Census)>>);

impl LastCensus {
    /// What there is in a world, or was a moment ago.
    pub fn of(&self, world: &World, reading: Reading) -> Census {
        // Locked while it counts: who comes meanwhile waits, and gets the same count.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, census)) = &*last
            && reading.mono.saturating_sub(*at) < FRESH
        {
            return census.clone();
        }
        let census = world.census(reading);
        *last = Some((reading.mono, census.clone()));
        census
    }
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Leases by phase.
    pub leases: HashMap<&'static str, i64>,
    /// Requests by phase.
    pub requests: HashMap<&'static str, i64>,
    /// Leases that have this condition with the status False.
    pub not: HashMap<&'static str, i64>,
    /// For how long the request has waited that has waited longest.
    pub oldest_wait: Duration,
    /// How long ago the hold should have ended that should have ended first and still stands.
    pub overdue: Duration,
}

impl World {
    /// Counts what there is.
    ///
    /// The two spans compare the API server's and another replica's timestamps with our wall clock. Nothing is decided by
    /// them: they are for people, to whom a clock that is wrong by a second makes no difference.
    #[must_use]
    pub fn census(&self, reading: Reading) -> Census {
        let inner = self.lock();
        let since = |ms: i64| to_duration(reading.now_floor() - konductor_core::Time(ms));
        let mut census = Census {
            leases: HashMap::from([("Available", 0), ("Held", 0), ("Expired", 0)]),
            requests: HashMap::from([("Pending", 0), ("Granted", 0), ("Denied", 0), ("Finished", 0)]),
            not: HashMap::from([(READY, 0), (POLICY_READY, 0)]),
            oldest_wait: Duration::ZERO,
            overdue: Duration::ZERO,
        };
        for lease in inner.leases.values().map(|entry| &entry.object) {
            let status = lease.status.as_ref();
            let phase = status.and_then(|s| s.phase).unwrap_or_default();
            *census.leases.entry(phase.as_str()).or_insert(0) += 1;
            for (condition, count) in &mut census.not {
                let conditions = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
                *count += i64::from(conditions.iter().any(|c| c.type_ == *condition && c.status == "False"));
            }
            let expires = status.and_then(|s| s.expires.as_deref()).filter(|_| phase == LeasePhase::Held);
            if let Some(expires) = expires.and_then(parse_timestamp) {
                census.overdue = census.overdue.max(since(expires));
            }
        }
        for request in inner.requests.values().flat_map(BTreeMap::values) {
            let object = &request.object;
            let phase = object.status.as_ref().and_then(|s| s.phase).unwrap_or(RequestPhase::Pending);
            *census.requests.entry(phase.as_str()).or_insert(0) += 1;
            if phase == RequestPhase::Pending {
                // By both clocks: a restart forgets when it was first seen, and the wall clock may be behind.
                let created = object.creation_timestamp().map_or(Duration::ZERO, |t| since(t.0.as_millisecond()));
                let known = reading.mono.saturating_sub(request.first_seen);
                census.oldest_wait = census.oldest_wait.max(created).max(known);
            }
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        Lease, LeaseRequest, LeaseRequestSpec, LeaseRequestStatus, LeaseSpec, LeaseStatus, time::format_timestamp,
        v1::Condition,
    };

    use super::*;

    fn reading(seconds: u32) -> Reading {
        Reading { wall_ns: i128::from(seconds) * 1_000_000_000, mono: Duration::from_secs(seconds.into()) }
    }

    fn lease(name: &str, phase: LeasePhase, expires: i64) -> Lease {
        let mut lease = Lease::new(name, LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("ns".to_owned());
        lease.metadata.uid = Some(name.to_owned());
        lease.status = Some(LeaseStatus {
            phase: Some(phase),
            expires: Some(format_timestamp(expires * 1000)),
            conditions: vec![Condition {
                type_: POLICY_READY.to_owned(),
                status: if name == "a" { "False" } else { "True" }.to_owned(),
                reason: None,
                message: None,
                last_transition_time: None,
                observed_generation: None,
            }],
            ..LeaseStatus::default()
        });
        lease
    }

    #[test]
    fn who_asks_within_a_second_gets_the_same_count() {
        let (world, last) = (World::default(), LastCensus::default());
        let held = |seconds| last.of(&world, reading(seconds)).leases["Held"];
        assert_eq!(held(1), 0);
        world.apply_lease(lease("a", LeasePhase::Held, 90));
        assert_eq!(held(1), 0, "not counted again");
        assert_eq!(held(2), 1, "a second later it is");
    }

    #[test]
    fn what_waits_and_what_is_overdue_is_told() {
        let world = World::default();
        assert_eq!((world.census(reading(99)).oldest_wait, world.census(reading(99)).overdue), Default::default());
        world.apply_lease(lease("a", LeasePhase::Held, 90));
        world.apply_lease(lease("b", LeasePhase::Held, 200));
        world.apply_lease(lease("c", LeasePhase::Expired, 10));
        let spec = LeaseRequestSpec { lease: "a".to_owned(), holder: "h".to_owned(), ..LeaseRequestSpec::default() };
        for (name, at, phase) in [
            ("first", 20, Some(RequestPhase::Granted)),
            ("second", 60, None),
            ("third", 70, Some(RequestPhase::Pending)),
        ] {
            let mut request = LeaseRequest::new(name, spec.clone());
            request.metadata.namespace = Some("ns".to_owned());
            request.metadata.uid = Some(name.to_owned());
            request.status =
                phase.map(|phase| LeaseRequestStatus { phase: Some(phase), ..LeaseRequestStatus::default() });
            world.request_watched(request, reading(at), konductor_core::Millis(0));
        }
        let census = world.census(reading(100));
        assert_eq!(census.leases, HashMap::from([("Available", 0), ("Held", 2), ("Expired", 1)]));
        assert_eq!(census.requests["Pending"], 2);
        assert_eq!(census.not, HashMap::from([(READY, 0), (POLICY_READY, 1)]));
        assert_eq!(census.oldest_wait, Duration::from_secs(40), "the one that nobody has answered yet waits too");
        assert_eq!(census.overdue, Duration::from_secs(10), "what has expired already is not overdue");
    }
}
