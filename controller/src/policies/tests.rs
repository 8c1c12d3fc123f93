//! The registry as a whole.

use futures::FutureExt as _;
use konductor_core::Millis;
use konductor_crds::{
    LeaseRequest, LeaseRequestSpec, LeaseSpec,
    v1::{
        PolicySpec,
        reasons::{POLICY_FAULT, POLICY_REJECTED},
    },
};

use super::*;
use crate::{
    clock::Clock as _,
    decide::Decider,
    observe::{Observed, Sight, observe},
};

/// Two good modules, by other bytes: a custom section says nothing.
fn modules(host: &Host) -> [Arc<Policy>; 2] {
    let text = r#"(module (memory (export "memory") 1) (data (i32.const 8) "{}")
        (func (export "konductor_policy_v1"))
        (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x800000002)))"#;
    let module = wat::parse_str(text).expect("wat");
    let other = [module.as_slice(), &[0, 2, 1, b'x']].concat();
    [host.load(&module).expect("good"), host.load(&other).expect("good too")]
}

fn registry() -> (Policies, Key, [Arc<Policy>; 2]) {
    let host = Arc::new(Host::new().expect("a host"));
    let modules = modules(&host);
    let policies = Policies::new(host, "konductor-system".to_owned(), DEFAULT_POLICY.to_owned());
    (policies, Key::new("team", "p"), modules)
}

fn near() -> Vec<String> {
    vec!["team".to_owned()]
}

fn apply(policies: &Policies, key: &Key, outcome: Outcome) -> bool {
    policies.slots_mut().entry(key.clone()).or_default().apply(outcome)
}

fn resolved(policies: &Policies) -> (Option<String>, Option<(&'static str, String)>) {
    let resolved = policies.resolve("team", "p");
    (resolved.policy.map(|policy| policy.digest().to_owned()), resolved.problem)
}

#[test]
fn a_shared_policy_fails_when_it_fails_in_more_than_one_namespace() {
    let (policies, _, [first, second]) = registry();
    let key = Key::new("konductor-system", "p");
    apply(&policies, &key, Outcome::Active(first.clone(), None));
    apply(&policies, &key, Outcome::Active(second.clone(), None));
    policies.report_failing(second.digest(), "5 times in a row: it trapped", &near());
    assert_eq!(resolved(&policies), (Some(second.digest().to_owned()), None), "one team's lease is one team's");
    policies.report_failing(second.digest(), "5 times in a row: it trapped", &["team".to_owned(), "b".to_owned()]);
    assert_eq!(resolved(&policies).0.as_deref(), Some(first.digest()));
}

#[test]
fn a_module_that_fails_again_and_again_gives_way_to_the_one_before() {
    let (policies, key, [first, second]) = registry();
    let digest = |policy: &Arc<Policy>| Some(policy.digest().to_owned());
    assert!(apply(&policies, &key, Outcome::Active(first.clone(), None)));
    assert!(apply(&policies, &key, Outcome::Active(second.clone(), Some("slow".to_owned()))));
    assert_eq!(resolved(&policies), (digest(&second), None));
    assert_eq!(policies.resolve("team", "p").warning.as_deref(), Some("slow"));

    policies.report_failing("sha256:somebody else's", "5 times in a row: it trapped", &near());
    let elsewhere = ["other".to_owned(), "third".to_owned()];
    policies.report_failing(second.digest(), "5 times in a row: it trapped", &elsewhere);
    assert_eq!(resolved(&policies), (digest(&second), None));
    policies.report_failing(second.digest(), "5 times in a row: it trapped", &near());
    let (active, problem) = resolved(&policies);
    let (reason, text) = problem.expect("a problem");
    assert_eq!((active, reason), (digest(&first), POLICY_FAULT));
    let said = format!(
        "the module {} failed 5 times in a row: it trapped and is not asked any more; the last good one, {}, decides",
        second.digest(),
        first.digest()
    );
    assert_eq!(text, said);
    assert_eq!(policies.resolve("team", "p").warning, None);
    // Told twice is told once.
    policies.report_failing(second.digest(), "6 times in a row: it trapped", &near());
    assert_eq!(resolved(&policies).1.expect("a problem").1, said);

    // The one before fails as well, and there is none before it.
    policies.report_failing(first.digest(), "5 times in a row: it looped", &near());
    let (active, problem) = resolved(&policies);
    assert_eq!(active, digest(&first));
    assert!(problem.is_some_and(|(_, text)| text.contains("no earlier one") && text.contains("it looped")));

    // A look at the ConfigMap, changed, ends it, also with the same bytes.
    assert!(apply(&policies, &key, Outcome::Active(second.clone(), None)));
    assert_eq!(resolved(&policies), (digest(&second), None));
    assert!(!apply(&policies, &key, Outcome::Active(second.clone(), None)), "no news");
    assert_eq!(policies.slots()[&key].previous.as_ref().map(|p| p.digest()), Some(first.digest()));
}

#[test]
fn a_refused_module_leaves_the_last_good_one() {
    let (policies, key, [first, second]) = registry();
    assert!(apply(&policies, &key, Outcome::Refused("it is broken".to_owned())));
    let (active, problem) = resolved(&policies);
    assert_eq!((active, problem), (None, Some((POLICY_REJECTED, "the module was refused: it is broken".to_owned()))));
    apply(&policies, &key, Outcome::Active(first.clone(), None));
    assert!(apply(&policies, &key, Outcome::Refused("it is broken".to_owned())));
    let (active, problem) = resolved(&policies);
    assert_eq!(active.as_deref(), Some(first.digest()));
    assert!(problem.is_some_and(|(_, text)| text.contains(&format!("the last good one, {}, decides", first.digest()))));
    // A look that began before a module failed does not bring it back.
    apply(&policies, &key, Outcome::Active(second.clone(), None));
    policies.report_failing(second.digest(), "5 times in a row", &near());
    apply(&policies, &key, Outcome::Refused("the next is broken too".to_owned()));
    assert_eq!(resolved(&policies).0.as_deref(), Some(first.digest()));
    // Gone is gone.
    policies.delete("team", "p");
    let (active, problem) = resolved(&policies);
    assert!(active.is_none() && problem.is_some_and(|(reason, _)| reason == POLICY_NOT_FOUND));
    drop((first, second));
    assert!(policies.slots().is_empty());
}

/// A module that grants, and says of itself which one it is.
fn says(host: &Host, name: &str) -> Arc<Policy> {
    let answer = format!(r#"{{"grant":{{"request":0,"ttlMs":60000}},"reason":"{name}"}}"#);
    let text = format!(
        r#"(module
        (memory (export "memory") 6)
        (data (i32.const 8) "{}")
        (func (export "konductor_policy_v1"))
        (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const {})))"#,
        answer.replace('"', "\\22"),
        8_u64 << 32 | answer.len() as u64,
    );
    host.load(&wat::parse_str(text).expect("wat")).expect("good")
}

/// A ConfigMap with bytes that are no module.
fn map(namespace: &str, name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some(namespace.to_owned());
    map.metadata.name = Some(name.to_owned());
    map.metadata.uid = Some(format!("{namespace}-{name}"));
    map
}

/// What a lease in `team` that names `p` finds: the digest, the problem's words, and whether it is looked at.
fn found(policies: &Policies) -> (Option<String>, String, bool) {
    let resolved = policies.resolve("team", "p");
    let digest = resolved.policy.map(|policy| policy.digest().to_owned());
    (digest, resolved.problem.map(|(_, words)| words).unwrap_or_default(), resolved.first_look.is_some())
}

#[test]
fn what_is_uploaded_and_not_looked_at_yet_is_waited_for() {
    let (policies, key, [own, shared]) = registry();
    apply(&policies, &Key::new("konductor-system", "p"), Outcome::Active(shared.clone(), None));
    assert_eq!(found(&policies), (Some(shared.digest().to_owned()), String::new(), false));
    // The team's own comes first, also before it is looked at.
    policies.apply(map("team", "p"), false);
    let looked_at = "the module of ConfigMap team/p is being looked at".to_owned();
    assert_eq!(found(&policies), (None, looked_at.clone(), true));
    apply(&policies, &key, Outcome::Active(own.clone(), None));
    assert_eq!(found(&policies), (Some(own.digest().to_owned()), String::new(), false));
    // The next version is no reason to wait: the last one decides until it is looked at.
    policies.apply(map("team", "p"), false);
    assert_eq!(found(&policies).0.as_deref(), Some(own.digest()));
    policies.delete("team", "p");
    assert_eq!(found(&policies).0.as_deref(), Some(shared.digest()));
}

#[test]
fn nobody_waits_for_a_first_look_for_long() {
    let (policies, key, _) = registry();
    let long_ago = Instant::now().checked_sub(FIRST_LOOK_MOST).expect("the machine has run for longer");
    policies.intake().add(&key, map("team", "p"), false, long_ago);
    let looked_at = "the module of ConfigMap team/p is being looked at".to_owned();
    assert_eq!(found(&policies), (None, looked_at, false));
}

#[test]
fn what_is_deleted_before_it_was_looked_at_is_not_waited_for() {
    let (policies, ..) = registry();
    policies.apply(map("team", "p"), false);
    policies.delete("team", "p");
    let (digest, words, waits) = found(&policies);
    assert!(digest.is_none() && !waits && words.starts_with("there is no policy p"), "{words}");
    assert!(policies.gone.pop().now_or_never().is_some(), "the leases that have waited are looked at again");
}

#[test]
fn modules_have_room_by_number_and_by_size() {
    let (_, key, [first, second]) = registry();
    let slots = |count: usize, namespace: &str| -> HashMap<Key, Slot> {
        let slot = Slot { active: Some(first.clone()), previous: Some(second.clone()), ..Slot::default() };
        (0..count).map(|n| (Key::new(namespace, format!("p{n}")), slot.clone())).collect()
    };
    let both = first.size() + second.size();
    let all = room_for(&key, &HashMap::new());
    assert_eq!(room_for(&key, &slots(3, "team")), all - 3 * both, "with the one before, which is kept");
    assert_eq!(room_for(&key, &slots(3, "elsewhere")), all, "a namespace has its own");
    assert!(room_for(&key, &slots(99, "team")) > 0);
    assert_eq!(room_for(&key, &slots(100, "team")), 0, "too many in its namespace");
    assert_eq!(room_for(&key, &slots(1000, "elsewhere")), 0, "too many in all");
    let mut own = slots(100, "team");
    let (name, slot) = own.drain().next().expect("there are some");
    assert_eq!(
        room_for(&name, &HashMap::from([(name.clone(), slot)])),
        all - first.size(),
        "it replaces the one before"
    );
}

fn decider(policies: &Arc<Policies>, world: &Arc<World>, workers: usize) -> Arc<Decider> {
    let metrics = Arc::new(Metrics::new());
    let (events, _events) = Events::new(metrics.clone());
    Arc::new(Decider::new(policies.clone(), world.clone(), metrics, events, None, workers))
}

/// A free lease of `team` that names the policy `p`, and which somebody wants.
fn wanted(world: &World, name: &str) -> (Key, Box<Observed>) {
    let _ = idle(world, name);
    let spec = LeaseRequestSpec { lease: name.to_owned(), holder: "a".to_owned(), ..LeaseRequestSpec::default() };
    let mut request = LeaseRequest::new(&format!("r-{name}"), spec);
    (request.metadata.namespace, request.metadata.uid) = (Some("team".to_owned()), Some(format!("u-{name}")));
    request.metadata.resource_version = Some("2".to_owned());
    world.request_watched(request, crate::clock::SystemClock.read(), Millis(0));
    seen(world, name)
}

/// The same lease, and nobody wants it.
fn idle(world: &World, name: &str) -> (Key, Box<Observed>) {
    let policy = PolicySpec { name: Some("p".to_owned()), ..PolicySpec::default() };
    let spec = LeaseSpec { ttl: "1m".to_owned(), policy: Some(policy), ..LeaseSpec::default() };
    let mut lease = Lease::new(name, spec);
    (lease.metadata.namespace, lease.metadata.uid) = (Some("team".to_owned()), Some(name.to_owned()));
    lease.metadata.resource_version = Some("1".to_owned());
    world.apply_lease(lease);
    seen(world, name)
}

fn seen(world: &World, name: &str) -> (Key, Box<Observed>) {
    let clock = crate::clock::SystemClock;
    let key = Key::new("team", name);
    match observe(world, &key, &clock, Duration::ZERO, konductor_core::Settings::default()) {
        Sight::Lease(observed) => (key, observed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_granted_by_other_rules_while_a_policy_is_looked_at_first() {
    let (policies, key, [module, _]) = registry();
    let (policies, world) = (Arc::new(policies), Arc::new(World::default()));
    let decider = decider(&policies, &world, 2);
    let (lease, observed) = wanted(&world, "l");
    let decides = async || {
        let consulted = decider.decide(&lease, &observed).await.expect("nobody else asks");
        let by = consulted.decider.map(|(name, _)| name);
        (consulted.plan.grants(), by, consulted.plan.wake_in.is_some_and(|wake| wake <= Millis(20_000)))
    };
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(decides().await, (true, by("default"), false), "nobody has uploaded it: spec.policy.onFailure counts");
    policies.apply(map("team", "p"), false);
    assert_eq!(decides().await, (false, None, true), "it is looked at again when the time for that is over");
    // This module grants nothing.
    apply(&policies, &key, Outcome::Active(module, None));
    assert_eq!(decides().await, (false, by("p"), false));
}

/// What the cluster adds to this are writes, and it makes some hundred decisions a second; here it is the
/// registry and the sandbox alone, as fast as they go.
#[tokio::test(flavor = "multi_thread")]
async fn each_decision_is_made_by_one_digest_and_none_is_lost_while_modules_are_swapped() {
    const DECISIONS: usize = 20_000;
    const TASKS: usize = 8;
    let host = Arc::new(Host::new().expect("a host"));
    let modules = [says(&host, "v1"), says(&host, "v2")];
    let policies = Arc::new(Policies::new(host, "konductor-system".to_owned(), DEFAULT_POLICY.to_owned()));
    let key = Key::new("team", "p");
    apply(&policies, &key, Outcome::Active(modules[0].clone(), None));

    let world = Arc::new(World::default());
    let decider = decider(&policies, &world, 2 * TASKS);
    let observed: Vec<_> = (0..TASKS).map(|n| wanted(&world, &format!("l{n}"))).collect();

    let begun = Instant::now();
    let tasks: Vec<_> = observed
        .into_iter()
        .map(|(key, observed)| {
            let decider = decider.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                for _ in 0..DECISIONS / TASKS {
                    let consulted = decider.decide(&key, &observed).await.expect("there is room for all of them");
                    made.push((
                        consulted.decider.expect("somebody decided"),
                        consulted.plan.reason,
                        consulted.health.ready,
                    ));
                }
                made
            })
        })
        .collect();
    let mut swaps = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        swaps += 1;
        apply(&policies, &key, Outcome::Active(modules[swaps % 2].clone(), None));
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    let mut by = [0_usize; 2];
    for task in tasks {
        for ((name, digest), reason, ready) in task.await.expect("no panic") {
            let module = modules.iter().position(|module| module.digest() == digest).expect("one of the two");
            assert_eq!((name.as_str(), reason.as_deref(), ready), ("p", Some(["v1", "v2"][module]), true));
            by[module] += 1;
        }
    }
    assert_eq!(by.iter().sum::<usize>(), DECISIONS);
    assert!(by.iter().all(|&count| count > 100), "both had their share: {by:?} in {swaps} swaps");
    println!(
        "{DECISIONS} decisions in {took:?}, {:.0} a second, {swaps} swaps, {by:?}",
        DECISIONS as f64 / took.as_secs_f64()
    );
}

#[tokio::test]
async fn a_module_that_breaks_again_and_again_over_params_gives_way_also_while_nobody_asks_for_the_lease() {
    let (policies, key, [good, _]) = registry();
    let text = r#"(module (memory (export "memory") 1) (data (i32.const 8) "{}")
        (func (export "konductor_policy_v1"))
        (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "konductor_validate") (param i32 i32) (result i64) unreachable)
        (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x800000002)))"#;
    let bad = policies.host.load(&wat::parse_str(text).expect("wat")).expect("it is not asked anything yet");
    apply(&policies, &key, Outcome::Active(good.clone(), None));
    apply(&policies, &key, Outcome::Active(bad.clone(), None));
    let (policies, world) = (Arc::new(policies), Arc::new(World::default()));
    let decider = decider(&policies, &world, 2);
    for n in 0..crate::decide::breaker::IN_A_ROW {
        assert_eq!(resolved(&policies).0.as_deref(), Some(bad.digest()), "{n} failures are not enough");
        let (lease, observed) = idle(&world, &format!("l{n}"));
        let consulted = decider.decide(&lease, &observed).await.expect("nobody else asks");
        assert!(!consulted.health.ready && consulted.decider.is_none(), "{:?}", consulted.health);
    }
    assert_eq!(resolved(&policies).0.as_deref(), Some(good.digest()), "the one before is back");
}

#[test]
fn a_config_map_with_the_name_of_the_built_in_policy_is_refused() {
    let (policies, ..) = registry();
    let text = r#"(module (memory (export "memory") 6) (data (i32.const 8) "{}")
        (func (export "konductor_policy_v1"))
        (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x800000002)))"#;
    let good = k8s_openapi::ByteString(wat::parse_str(text).expect("wat"));
    let looked = |name: &str| {
        let mut map = map("team", name);
        map.binary_data = Some([(konductor_crds::POLICY_MODULE_KEY.to_owned(), good.clone())].into());
        let (params, metrics) = (Vec::new(), Metrics::new());
        let Policies { host, refusals, turns, .. } = &policies;
        Look { host, refusals, turns, metrics: &metrics, active: None, params, room: usize::MAX }.at(&map)
    };
    assert!(matches!(looked("other"), Looked::Passed { .. }));
    let Looked::Refused { refusal, again: None, .. } = looked(DEFAULT_POLICY) else { panic!("not refused") };
    assert_eq!(refusal.reason, "ReservedName");
    assert!(refusal.why.contains("another name"), "{}", refusal.why);
    // Its bytes are good, also under another name afterwards.
    assert!(matches!(looked("another"), Looked::Passed { .. }));
}
