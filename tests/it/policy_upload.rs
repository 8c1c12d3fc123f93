//! A module's way into use, on a real control plane: what is refused when, who waits for whom, what is kept and freed.

use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::v1::reasons;
use konductor_tests::{
    hostile::slow_to_compile,
    policies::{TRAP, WANTED, always, rules, upload},
    *,
};
use kube::Api;
use serde_json::json;

use crate::{
    lifecycle::{event, hold},
    policy::{decider, digest_of, is_active, named, newest_first, policy_is, with_a_note},
};

const GRANT: &str = r#"{"grant":{"request":0,"ttlMs":60000},"reason":"first come"}"#;

/// Waits until a metric is at least this.
async fn counted(controller: &Controller, name: &str, labels: &[(&str, &str)], least: f64) {
    eventually(&format!("{name}{labels:?} is {least} or more"), async || {
        let metrics = controller.metrics().await;
        if metrics.sum(name, labels) >= Some(least) { Ok(()) } else { Err(format!("{:?}", metrics.sum(name, labels))) }
    })
    .await;
}

/// How many processes this one has started that are still there, dead or alive.
fn children(controller: &Controller) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", controller.pid())).expect("it runs");
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    children.map(|children| children.split_whitespace().count()).sum()
}

#[tokio::test]
async fn a_compile_bomb_delays_nobody_but_its_own_namespace() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::with("--policy-compile-time 10s")).await;
    let (hostile, team) = (plane.namespace("hostile").await, plane.namespace("team").await);
    let old = always(GRANT);
    upload(&hostile, "p", "policy.wasm", &old).await;
    hostile.create_lease_with("x", named("p", "Hold")).await;
    team.create_lease_with("x", named("p", "Hold")).await;
    policy_is(&hostile, "x", "True", reasons::POLICY_ACTIVE).await;

    upload(&hostile, "p", "policy.wasm", &slow_to_compile(8)).await;
    eventually("the bomb is being compiled", async || match children(&controller) {
        0 => Err("no compiler runs".to_owned()),
        _ => Ok(()),
    })
    .await;
    let good = with_a_note(&old, "good");
    let begun = Instant::now();
    upload(&team, "p", "policy.wasm", &good).await;
    policy_is(&team, "x", "True", reasons::POLICY_ACTIVE).await;
    println!("active {:?} after its upload, beside a compile bomb", begun.elapsed());
    let metrics = controller.metrics().await;
    assert_eq!(metrics.sum("konductor_policy_rejects_total", &[]), None, "the bomb is still being compiled");
    assert!(children(&controller) > 0);
    hold(&team, "x", "a").await;
    assert_eq!(decider(&team.lease("x").await).1, digest_of(&good));

    // It is ended, told, and the last good one stays in use.
    let said = policy_is(&hostile, "x", "False", reasons::POLICY_REJECTED).await;
    for part in ["still at work after 10000 ms", "it is tried again in", "the last good one", &digest_of(&old)] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, told) = event(&hostile, "p", reasons::EVENT_POLICY_REJECTED).await;
    assert!(told.contains("still at work after 10000 ms"), "{told}");
    hold(&hostile, "x", "a").await;
    assert_eq!(decider(&hostile.lease("x").await).1, digest_of(&old));
    // By itself, after a pause.
    let timed_out = [("reason", "CompileTimedOut")];
    counted(&controller, "konductor_policy_rejects_total", &timed_out, 2.0).await;
    // Mended.
    upload(&hostile, "p", "policy.wasm", &good).await;
    policy_is(&hostile, "x", "True", reasons::POLICY_ACTIVE).await;
    eventually("every compiler has ended and was reaped", async || match children(&controller) {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
}

#[tokio::test]
async fn a_module_is_asked_what_its_leases_will_ask_before_it_is_in_use() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let good = always(GRANT);
    upload(&team, "p", "policy.wasm", &good).await;
    let odd = json!({"ttl": "10m", "policy": {"name": "p", "onFailure": "Hold", "params": {"mode": "odd"}}});
    team.create_lease_with("x", odd.clone()).await;
    policy_is(&team, "x", "True", reasons::POLICY_ACTIVE).await;

    for (module, problem) in [
        (rules(&[(r#""now""#, TRAP)]), "asked about a free lease that one wants"),
        (rules(&[(r#""due":true"#, "{"), (WANTED, GRANT)]), "asked about a hold whose time is over"),
        (rules(&[(r#""requests":[{"#, GRANT)]), "the policy granted the lease while it is held"),
        // Only with the params of a lease that is there.
        (
            rules(&[(r#""mode":"odd""#, TRAP), (WANTED, GRANT)]),
            r#"with the params {"mode":"odd"}: konductor_decide trapped"#,
        ),
    ] {
        upload(&team, "p", "policy.wasm", &module).await;
        let said = policy_is(&team, "x", "False", reasons::POLICY_REJECTED).await;
        assert!(said.contains(problem) && said.contains(&digest_of(&good)), "{said}");
        upload(&team, "p", "policy.wasm", &good).await;
        policy_is(&team, "x", "True", reasons::POLICY_ACTIVE).await;
    }
    let rejected = [("reason", "ProbeFault")];
    counted(&controller, "konductor_policy_rejects_total", &rejected, 3.0).await;
    counted(&controller, "konductor_policy_rejects_total", &[("reason", "ProbeVetoed")], 1.0).await;

    // The same bytes again, of another ConfigMap: it is known what they do.
    let known = rules(&[(r#""now""#, TRAP)]);
    let compiled = controller.metrics().await.sum("konductor_policy_compile_seconds_count", &[]);
    upload(&team, "q", "policy.wasm", &known).await;
    counted(&controller, "konductor_policy_loads_total", &[("outcome", "refused")], 5.0).await;
    upload(&team, "r", "policy.wasm", &known).await;
    counted(&controller, "konductor_policy_loads_total", &[("outcome", "known_bad")], 1.0).await;
    assert!(controller.metrics().await.sum("konductor_policy_compile_seconds_count", &[]) <= compiled.map(|c| c + 1.0));
}

#[tokio::test]
async fn a_restart_finds_what_was_compiled_and_deleting_frees_it() {
    let plane = ControlPlane::installed().await;
    let cache = plane.directory().join("policies");
    let options = || ControllerOptions::with(&format!("--policy-cache-dir {}", cache.display()));
    let controller = Controller::start(&plane, options()).await;
    let (team, other) = (plane.namespace("team").await, plane.namespace("other").await);
    let module = always(GRANT);
    for namespace in [&team, &other] {
        namespace.create_lease_with("x", named("p", "Hold")).await;
        upload(namespace, "p", "policy.wasm", &module).await;
        policy_is(namespace, "x", "True", reasons::POLICY_ACTIVE).await;
    }
    let metrics = controller.metrics().await;
    let looked = |metrics: &Metrics, result: &str| metrics.sum("konductor_policy_cache_total", &[("result", result)]);
    assert_eq!((looked(&metrics, "miss"), looked(&metrics, "shared")), (Some(1.0), Some(1.0)), "compiled once");
    assert_eq!(metrics.sum("konductor_policies_active", &[]), Some(1.0));
    controller.terminate().await;

    let controller = Controller::start(&plane, options()).await;
    let metrics = controller.metrics().await;
    assert_eq!((looked(&metrics, "hit"), looked(&metrics, "miss")), (Some(1.0), Some(0.0)), "{}", metrics.text());
    hold(&team, "x", "a").await;
    assert_eq!(decider(&team.lease("x").await).1, digest_of(&module));
    controller.terminate().await;

    // Somebody has been at the files: they are not used, it is said, and all goes on.
    let files = std::fs::read_dir(cache.join("compiled")).expect("the cache");
    for file in files.map(|file| file.expect("a file").path()).filter(|p| p.extension().is_some_and(|e| e == "code")) {
        let mut bytes = std::fs::read(&file).expect("read");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(&file, bytes).expect("written");
    }
    let controller = Controller::start(&plane, options()).await;
    let metrics = controller.metrics().await;
    assert_eq!((looked(&metrics, "tampered"), looked(&metrics, "miss")), (Some(1.0), Some(1.0)), "{}", metrics.text());
    controller.logs("not what this program wrote").await;

    for namespace in [&team, &other] {
        let maps: Api<ConfigMap> = Api::namespaced(plane.admin().clone(), namespace.name());
        maps.delete("p", &Default::default()).await.expect("deleted");
        policy_is(namespace, "x", "False", reasons::POLICY_NOT_FOUND).await;
    }
    assert_eq!(controller.metrics().await.sum("konductor_policies_active", &[]), Some(0.0));
}

/// The memory of the controller, in KiB: what is resident and its own.
fn memory(controller: &Controller) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.pid())).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    // Files that are mapped, such as the program itself, can be dropped at any time.
    field("RssAnon:") + field("RssShmem:")
}

#[tokio::test]
async fn fifty_modules_in_use_cost_little_more_than_one() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let module = newest_first();
    let numbered = |n: usize| with_a_note(&module, &format!("number {n:02}"));
    upload(&team, "p-0", "policy.wasm", &numbered(0)).await;
    is_active(&team, "p-0", &numbered(0)).await;
    let one = memory(&controller);
    for n in 1..50 {
        upload(&team, &format!("p-{n}"), "policy.wasm", &numbered(n)).await;
    }
    // One after the other: each takes the compiler its time, and so has each its own patience.
    for n in 1..=50 {
        counted(&controller, "konductor_policies_active", &[], f64::from(n)).await;
    }
    let fifty = memory(&controller);
    println!("one module in use: {one} KiB; fifty: {fifty} KiB; module: {} bytes", module.len());
    assert!(fifty.saturating_sub(one) <= 20 * 1024, "{} KiB more", fifty - one);
}
