//! The ways of a question that need no cluster.

use futures::FutureExt as _;
use konductor_crds::{DEFAULT_POLICY, Lease, LeaseSpec, v1::PolicySpec};
use konductor_policy::Host;

use super::*;
use crate::{
    clock::SystemClock,
    observe::{Sight, observe},
};

/// What fails a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_built_in_policy_looks_at_params_while_uploaded_modules_use_every_place_they_may() {
    let host = Arc::new(Host::new().expect("a host"));
    let policies = Arc::new(Policies::new(host, "konductor-system".to_owned(), DEFAULT_POLICY.to_owned()));
    let (world, metrics) = (Arc::new(World::default()), Arc::new(Metrics::new()));
    let (events, _jobs) = Events::new(metrics.clone());
    let decider = Arc::new(Decider::new(policies, world.clone(), metrics, events, None, 64));
    let permits = (0..).map_while(|n: usize| decider.bulkhead.enter(&n.to_string()).now_or_never());
    let permits: Vec<_> = permits.collect();
    assert!(permits.iter().all(Result::is_ok) && !permits.is_empty());

    let params = serde_json::Map::from_iter([("nobody knows this".to_owned(), serde_json::json!(1))]);
    let policy = PolicySpec { params: Some(params), ..PolicySpec::default() };
    let mut lease = Lease::new("l", LeaseSpec { ttl: "1m".to_owned(), policy: Some(policy), ..LeaseSpec::default() });
    (lease.metadata.namespace, lease.metadata.uid) = (Some("team".to_owned()), Some("l".to_owned()));
    lease.metadata.resource_version = Some("1".to_owned());
    world.apply_lease(lease);
    let key = Key::new("team", "l");
    let sight = observe(&world, &key, &SystemClock, Duration::ZERO, konductor_core::Settings::default());
    let Sight::Lease(observed) = sight else { panic!("{sight:?}") };
    let consulted = tokio::time::timeout(PATIENCE, decider.decide(&key, &observed)).await;
    let consulted = consulted.expect("it waits for none of them").expect("nor is it sent away");
    assert_eq!(consulted.health.reason, INVALID_PARAMS, "{:?}", consulted.health);
}
