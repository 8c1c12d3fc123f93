//! Hostile policies on a real control plane: what each comes to, and that nobody else notices.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use futures::future::join_all;
use konductor_crds::v1::{HoldEnd, LeasePhase, reasons};
use konductor_tests::{
    hostile::Siege,
    policies::{WANTED, rules, upload},
    *,
};
use serde_json::json;

use crate::{
    lifecycle::{hold, holds},
    policy::{digest_of, policy_is},
};

/// How much more memory the controller may have after the siege, in KiB. What it keeps: 256 KiB of each place for a
/// guest, the stacks of threads that block (512 KiB of a guest's each, 16 of them at most here), what the allocator
/// holds back of modules of 4 MiB that came in four at a time, and some hundred refusals. One module that leaked its
/// code or its memory of 16 MiB a few times would be above it.
const KEPT_MOST: u64 = 32 * 1024;

/// And how much more after most of the siege a second time: an allocator is never twice in the same state. Less than
/// 150 KiB for each of its modules, which is less than the code and the memory of one.
const LEAKED_MOST: u64 = 8 * 1024;

#[tokio::test]
async fn every_hostile_module_comes_to_its_end_and_nobody_else_notices() {
    let table = hostile::table();
    let plane = ControlPlane::installed().await;
    let options = ControllerOptions::with("--leader-elect=false --policy-compile-time 5s");
    let controller = Controller::start(&plane, options).await;
    let process = controller.pid();
    let siege = Siege::prepare(&plane, &controller).await;
    let (reports, honest) = siege.lay(&table.cases).await;
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| {
            Some(format!("{}: {}\n    got {}", report.case.case, report.problem.as_ref()?, report.got))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), reports.len(), failed.join("\n"));
    assert!(honest >= 20, "the honest lease changed hands only {honest} times");
    let aftermath = siege.lift(honest, KEPT_MOST).await;
    println!("{} cases; {aftermath}", reports.len());

    // What is kept is kept once: those that get into use, compiled and run again, add next to nothing.
    let used: Vec<_> = table.cases.into_iter().filter(|case| case.caught.is_used()).collect();
    let (reports, honest) = siege.lay(&used).await;
    assert!(reports.iter().all(|report| report.problem.is_none()), "{reports:#?}");
    let (before, after) = aftermath.memory;
    let aftermath = siege.lift(honest, after - before.min(after) + LEAKED_MOST).await;
    println!("{} of them again; {aftermath}", reports.len());
    assert_eq!(controller.pid(), process);
    assert!(!controller.log().contains("panicked"), "something has panicked");
}

/// Leases that are used at once, and how often each changes hands.
const LEASES: usize = 20;
const HOLDS: usize = 60;

#[tokio::test]
async fn while_modules_are_swapped_each_decision_is_one_modules_and_none_is_lost() {
    let plane = ControlPlane::installed().await;
    let options = ControllerOptions::with("--leader-elect=false --max-hold 12s");
    let controller = Controller::start(&plane, options).await;
    let (team, stubborn) = (plane.namespace("team").await, plane.namespace("stubborn").await);
    let module =
        |word: &str| rules(&[(WANTED, &format!(r#"{{"grant":{{"request":0,"ttlMs":600000}},"reason":"{word}"}}"#))]);
    let modules = [module("one"), module("two")];
    let digests: BTreeMap<String, &str> = modules.iter().map(|m| digest_of(m)).zip(["one", "two"]).collect();
    upload(&team, "p", "policy.wasm", &modules[0]).await;
    let names: Vec<String> = (0..LEASES).map(|n| format!("lease-{n}")).collect();
    for name in &names {
        team.create_lease_with(name, json!({"ttl": "10m", "policy": {"name": "p", "onFailure": "Hold"}})).await;
        policy_is(&team, name, "True", reasons::POLICY_ACTIVE).await;
    }

    // Beside it, a policy that renews every hold that is due, for ever: what the host says counts.
    let keeps = rules(&[
        (WANTED, r#"{"grant":{"request":0,"ttlMs":2000},"reason":"mine"}"#),
        (r#""due":true"#, r#"{"hold":{"action":"renew","ttlMs":3000},"reason":"still mine"}"#),
    ]);
    upload(&stubborn, "keeps", "policy.wasm", &keeps).await;
    stubborn.create_lease_with("kept", json!({"ttl": "2s", "policy": {"name": "keeps", "onFailure": "Hold"}})).await;
    policy_is(&stubborn, "kept", "True", reasons::POLICY_ACTIVE).await;

    let over = AtomicBool::new(false);
    let decided = async || controller.metrics().await.sum("konductor_policy_decisions_total", &[("result", "ok")]);
    let loads = async || {
        let metrics = controller.metrics().await;
        metrics.sum("konductor_policy_loads_total", &[("outcome", "active")]).unwrap_or_default()
    };
    let swaps = async {
        let mut swaps = 0;
        let mut next = modules.iter().cycle().skip(1);
        while !over.load(Ordering::Relaxed) {
            let before = loads().await;
            upload(&team, "p", "policy.wasm", next.next().expect("endless")).await;
            eventually("the next module is in use", async || match loads().await {
                now if now > before => Ok(()),
                now => Err(format!("{now} loads")),
            })
            .await;
            swaps += 1;
        }
        swaps
    };
    let work = async {
        let (begun, before) = (Instant::now(), decided().await.unwrap_or_default());
        // Many wait for each lease, so that a release is at once the next decision.
        join_all(names.iter().map(async |name| {
            let requests = (0..HOLDS).map(|n| format!("holder-{n}")).collect::<Vec<_>>();
            let requests = join_all(requests.iter().map(|holder| team.request(name, holder))).await;
            // In whatever order they came in.
            let mut left: BTreeMap<String, _> =
                requests.iter().map(|r| (r.metadata.uid.clone().unwrap_or_default(), r)).collect();
            while !left.is_empty() {
                let lease = team.lease_is(name, "held by one that has not held", |l| {
                    l.holding().ok().flatten().is_some_and(|h| left.contains_key(&h.request))
                });
                let holding = lease.await.holding().expect("complete").expect("held");
                let request = left.remove(&holding.request).expect("it is there");
                team.delete_request(request).await;
            }
        }))
        .await;
        over.store(true, Ordering::Relaxed);
        (decided().await.unwrap_or_default() - before, begun.elapsed())
    };
    let never = async {
        let (_, holding) = hold(&stubborn, "kept", "keeper").await;
        let next = stubborn.request("kept", "next").await;
        stubborn
            .lease_is("kept", "renewed by its policy", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(0)))
            .await;
        holds(&stubborn, &next).await;
        let lease = stubborn.lease("kept").await;
        assert_eq!(lease.ending_of(holding.token), Some(HoldEnd::Expired), "it ends at --max-hold");
    };
    let (swaps, (decisions, took), ()) = tokio::join!(swaps, work, never);

    let history = plane.history(&team).await;
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &names {
        let mut tokens = BTreeMap::new();
        for (_, _, lease) in history.lease(name) {
            let Some(status) = &lease.status else { continue };
            if let (LeasePhase::Held, Some(token)) = (lease.phase(), lease.token()) {
                let policy = status.policy.clone().unwrap_or_default();
                let (digest, reason) = (policy.digest.unwrap_or_default(), policy.reason.unwrap_or_default());
                let own = digests.get(&digest).copied();
                assert_eq!(own, Some(reason.as_str()), "{name}: one module's words and another's name");
                tokens.entry(token).or_insert(own.unwrap_or_default());
            }
        }
        assert_eq!(tokens.len(), HOLDS, "{name}: a request was not granted, or more than once");
        tokens.values().for_each(|word| *made.entry(word).or_default() += 1);
    }
    println!(
        "{} grants ({made:?}) and {swaps} swaps in {:.1} s; {:.0} decisions a second",
        LEASES * HOLDS,
        took.as_secs_f64(),
        decisions / took.as_secs_f64()
    );
    assert!(swaps >= 4 && made.len() == 2, "{swaps} swaps, {made:?}: nothing was swapped under load");
    checker::check(&history).expect("nothing forbidden");
}
