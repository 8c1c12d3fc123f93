//! Policies: which one a Lease means, what becomes of it while its module changes, and what the built-in one does with
//! its params.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{
    Lease, LeaseRequestSpec,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons},
};
use konductor_tests::{
    policies::{WANTED, always, rules, upload},
    *,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::lifecycle::{ask, event, held_by, hold, holds, is_finished, is_told, touch, wait_for, waits};

/// A policy of the library, built as `make policies` does.
pub(crate) fn newest_first() -> Vec<u8> {
    konductor_policy_library::build_one("newest-first").unwrap_or_else(|problem| panic!("{problem}")).bytes
}

/// The same module with other bytes: a custom section says nothing.
pub(crate) fn with_a_note(module: &[u8], note: &str) -> Vec<u8> {
    let length = |n: usize| u8::try_from(n).expect("short");
    let mut module = module.to_vec();
    module.extend([0, length(note.len() + 1), length(note.len())]);
    module.extend(note.bytes());
    module
}

/// A module that imports `env.now`.
fn with_an_import() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend([1, 4, 1, 0x60, 0, 0]);
    module.extend([2, 11, 1, 3]);
    module.extend(b"env\x03now\0\0");
    module
}

/// Waits until the author of a policy is told that this module is in use.
pub(crate) async fn is_active(team: &Namespace<'_>, policy: &str, module: &[u8]) {
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(team.leases().into_client(), team.name());
    let digest = digest_of(module);
    eventually(&format!("an Event says that {policy} is {digest}"), async || {
        let all = events.list(&Default::default()).await.map_err(|e| e.to_string())?.items;
        let of = |e: &&k8s_openapi::api::core::v1::Event| {
            e.involved_object.name.as_deref() == Some(policy)
                && e.reason.as_deref() == Some(reasons::EVENT_POLICY_ACTIVATED)
        };
        let told: Vec<_> = all.iter().filter(of).filter_map(|e| e.message.clone()).collect();
        if told.iter().any(|message| message.contains(&digest)) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// What a tool of the machine makes of bytes.
pub(crate) fn piped(program: &str, arg: &str, input: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("written");
    let output = Command::new(program).arg(arg).arg(file.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn digest_of(module: &[u8]) -> String {
    let sum = String::from_utf8(piped("sha256sum", "--binary", module)).expect("ASCII");
    format!("sha256:{}", sum.split(' ').next().unwrap_or_default())
}

/// Who decided last: the policy's name and digest.
pub(crate) fn decider(lease: &Lease) -> (String, String) {
    let policy = lease.status.as_ref().and_then(|s| s.policy.clone()).unwrap_or_default();
    (policy.name, policy.digest.unwrap_or_default())
}

pub(crate) async fn policy_is(team: &Namespace<'_>, lease: &str, status: &str, reason: &str) -> String {
    let what = format!("PolicyReady={status}/{reason}");
    let lease = team.lease_is(lease, &what, |l| l.condition("PolicyReady") == Some((status, reason))).await;
    let conditions = lease.status.map(|s| s.conditions).unwrap_or_default();
    conditions.into_iter().find(|c| c.type_ == "PolicyReady").and_then(|c| c.message).unwrap_or_default()
}

pub(crate) fn named(policy: &str, on_failure: &str) -> Value {
    json!({"ttl": "10m", "policy": {"name": policy, "onFailure": on_failure}})
}

#[tokio::test]
async fn a_policy_uploaded_with_kubectl_decides_from_then_on() {
    let module = newest_first();
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let author = team.user(&["konductor-policy-author"]).await;

    // Named, but not there: the built-in rules decide, or nobody does.
    // Older ones wait: who is next is then seen several times.
    let params = json!({"denyOlder": false});
    team.create_lease_with("goes-on", json!({"ttl": "10m", "policy": {"name": "newest-first", "params": params}}))
        .await;
    let mut hold_on = named("newest-first", "Hold");
    hold_on["policy"]["params"] = params;
    team.create_lease_with("holds-on", hold_on).await;
    let said = policy_is(&team, "goes-on", "False", reasons::POLICY_NOT_FOUND).await;
    for part in ["newest-first", "konductor.io/policy-module=true", "team", "konductor-system"] {
        assert!(said.contains(part), "{said}");
    }
    event(&team, "goes-on", reasons::EVENT_POLICY_FAILED).await;
    let (holder, _) = hold(&team, "goes-on", "holder").await;
    let builtin = decider(&team.lease("goes-on").await);
    assert!(builtin.0 == "default" && builtin.1.starts_with("sha256:"), "{builtin:?}");

    policy_is(&team, "holds-on", "False", reasons::POLICY_NOT_FOUND).await;
    let first = wait_for(&team, ask("holds-on", "first")).await;
    let second = wait_for(&team, ask("holds-on", "second")).await;
    let impatient = LeaseRequestSpec { timeout: Some("0s".into()), ..ask("holds-on", "impatient") };
    let impatient = team.request_with(impatient).await;
    let impatient = is_finished(&team, &impatient, reasons::TIMED_OUT).await;
    let why = impatient.status.and_then(|s| s.message).unwrap_or_default();
    assert!(why.contains("there is no policy newest-first"), "{why}");
    // A hold of a lease whose policy has gone still ends.
    team.create_lease("held", "2s").await;
    let (held, holding) = hold(&team, "held", "holder").await;
    team.patch_lease("held", json!({"spec": named("newest-first", "Hold")})).await;
    policy_is(&team, "held", "False", reasons::POLICY_NOT_FOUND).await;
    let waiter = wait_for(&team, ask("held", "waiter")).await;
    let over = team.lease_is("held", "over", |l| l.phase() != LeasePhase::Held).await;
    assert_eq!((over.phase(), over.ending_of(holding.token)), (LeasePhase::Expired, Some(HoldEnd::Expired)));
    is_finished(&team, &held, reasons::EXPIRED).await;
    waits(&team, &waiter).await;
    assert_eq!(team.lease("holds-on").await.holder(), None);

    let mut line = Vec::new();
    for holder in ["a", "b", "c"] {
        line.push(wait_for(&team, ask("goes-on", holder)).await);
    }
    std::fs::write(plane.directory().join("policy.wasm"), &module).expect("written");
    author.kubectl("create configmap newest-first --from-file=policy.wasm").run().await.succeeds();
    // Without its label it is somebody's ConfigMap. With it, it decides.
    assert_eq!(team.lease("holds-on").await.condition("PolicyReady"), Some(("False", reasons::POLICY_NOT_FOUND)));
    let labelled = author.kubectl("label configmap newest-first konductor.io/policy-module=true");
    let started = Instant::now();
    labelled.run().await.succeeds();
    holds(&team, &second).await;
    println!("active {:?} after kubectl was started", started.elapsed());
    let own = ("newest-first".to_owned(), digest_of(&module));
    let lease = team.lease("holds-on").await;
    assert_eq!(decider(&lease), own);
    assert_eq!(lease.status.and_then(|s| s.policy).and_then(|p| p.reason).as_deref(), Some("newest first"));
    waits(&team, &first).await;
    holds(&team, &waiter).await;
    for lease in ["goes-on", "holds-on", "held"] {
        policy_is(&team, lease, "True", reasons::POLICY_ACTIVE).await;
    }
    let (type_, said) = event(&team, "newest-first", reasons::EVENT_POLICY_ACTIVATED).await;
    assert!(type_ == "Normal" && said.contains(&own.1), "{type_} {said}");

    assert_eq!(decider(&team.lease("goes-on").await), builtin, "who decided last, and nothing was decided since");
    team.delete_request(&holder).await;
    holds(&team, &line[2]).await;
    assert_eq!(decider(&team.lease("goes-on").await), own);
    team.delete_request(&line[2]).await;
    holds(&team, &line[1]).await;

    // Replaced as the page for policy authors says.
    let newer = with_a_note(&module, "newer");
    std::fs::write(plane.directory().join("policy.wasm"), &newer).expect("written");
    let page = repo::text("policies/README.md");
    let replace = manifests::fenced(&page, "bash").into_iter().find(|block| block.contains("apply --server-side"));
    let replace = replace.expect("it is there").replace("configmap newest ", "configmap newest-first ");
    author.script("laptop", &replace).run().await.succeeds();
    is_active(&team, "newest-first", &newer).await;
    team.delete_request(&line[1]).await;
    holds(&team, &line[0]).await;
    assert_eq!(decider(&team.lease("goes-on").await), ("newest-first".to_owned(), digest_of(&newer)));
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_module_that_is_refused_leaves_the_last_good_one_in_use() {
    let good = newest_first();
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let maps: Api<ConfigMap> = Api::namespaced(plane.admin().clone(), team.name());
    upload(&team, "p", "policy.wasm", &good).await;
    team.create_lease_with("x", named("p", "Hold")).await;
    // Asks a question and says who has answered.
    let who_decides = async |holder: &str| {
        let (request, _) = hold(&team, "x", holder).await;
        let decider = decider(&team.lease("x").await);
        team.delete_request(&request).await;
        team.lease_is("x", "free", |l| l.phase() == LeasePhase::Available).await;
        decider.1
    };
    assert_eq!(who_decides("a").await, digest_of(&good));

    for (module, problem) in [
        (b"\xde\xad\xbe\xef, and more of that".to_vec(), ""),
        (with_an_import(), "env.now"),
        (Vec::new(), ""),
        (good[..good.len() / 2].to_vec(), ""),
    ] {
        upload(&team, "p", "policy.wasm", &module).await;
        let refused = |l: &Lease| {
            let status = l.status.as_ref().expect("a status");
            let condition = status.conditions.iter().find(|c| c.type_ == "PolicyReady").expect("it is there");
            let said = condition.message.as_deref().unwrap_or_default();
            condition.reason.as_deref() == Some(reasons::POLICY_REJECTED)
                && condition.status == "False"
                && said.contains(problem)
                && said.contains(&format!("the last good one, {}, decides", digest_of(&good)))
        };
        team.lease_is("x", "told of it", refused).await;
        assert_eq!(who_decides("b").await, digest_of(&good));
        // Mended in between, so that each of them is news.
        upload(&team, "p", "policy.wasm", &good).await;
        policy_is(&team, "x", "True", reasons::POLICY_ACTIVE).await;
    }
    let (type_, said) = event(&team, "p", reasons::EVENT_POLICY_REJECTED).await;
    assert!(type_ == "Warning" && said.contains("refused"), "{type_} {said}");
    let metrics = controller.metrics().await;
    assert!(metrics.sum("konductor_policy_loads_total", &[("outcome", "refused")]) >= Some(4.0), "{}", metrics.text());

    // Compressed: the module is what counts.
    let other = with_a_note(&good, "other");
    maps.delete("p", &Default::default()).await.expect("deleted");
    let said = policy_is(&team, "x", "False", reasons::POLICY_NOT_FOUND).await;
    assert!(said.contains("there is no policy p"), "{said}");
    let waiter = wait_for(&team, ask("x", "waiter")).await;
    upload(&team, "p", "policy.wasm.gz", &piped("gzip", "--stdout", &other)).await;
    holds(&team, &waiter).await;
    assert_eq!(decider(&team.lease("x").await).1, digest_of(&other));
    team.delete_request(&waiter).await;

    // A ConfigMap without a module, and one with a module where only text can be.
    let patch = Patch::Merge(json!({"binaryData": null, "data": {"policy.wasm": "AGFzbQ=="}}));
    maps.patch("p", &PatchParams::default(), &patch).await.expect("patched");
    let said = policy_is(&team, "x", "False", reasons::POLICY_REJECTED).await;
    assert!(said.contains("binaryData"), "{said}");
    assert_eq!(who_decides("c").await, digest_of(&other));
    // Without its label it is none.
    let patch = Patch::Merge(json!({"metadata": {"labels": null}}));
    maps.patch("p", &PatchParams::default(), &patch).await.expect("patched");
    policy_is(&team, "x", "False", reasons::POLICY_NOT_FOUND).await;
    maps.delete("p", &Default::default()).await.expect("deleted");
    upload(&team, "p", "policy.wasm", &good).await;
    policy_is(&team, "x", "True", reasons::POLICY_ACTIVE).await;

    // After a restart there is no last good one to remember: a broken module is none at all.
    upload(&team, "p", "policy.wasm", b"broken").await;
    policy_is(&team, "x", "False", reasons::POLICY_REJECTED).await;
    controller.terminate().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let waiter = wait_for(&team, ask("x", "waiter")).await;
    upload(&team, "p", "policy.wasm", &good).await;
    holds(&team, &waiter).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_policy_may_deny_and_is_overruled_where_it_must_not() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let reason = "outside the change window";
    upload(&team, "no", "policy.wasm", &always(&format!(r#"{{"deny":[{{"request":0,"reason":"{reason}"}}]}}"#))).await;
    // Grants whatever happens, and to somebody who is not there: both are never allowed. That is found before a module
    // is in use, unless it behaves until it sees a lease of a certain name.
    let mine = r#"{"grant":{"request":0,"ttlMs":5000},"reason":"mine"}"#;
    upload(&team, "greedy", "policy.wasm", &rules(&[(r#""name":"overruled""#, mine), (WANTED, mine)])).await;
    let seventh = r#"{"grant":{"request":7,"ttlMs":5000}}"#;
    upload(&team, "blind", "policy.wasm", &rules(&[(r#""name":"blind"#, seventh)])).await;
    upload(&team, "mute", "policy.wasm", &rules(&[(r#""name":"mute""#, "")])).await;
    let idle = rules(&[]);
    upload(&team, "idle", "policy.wasm", &idle).await;
    // Of one namespace they are looked at one after the other.
    is_active(&team, "idle", &idle).await;

    let denies = async {
        team.create_lease_with("denied", named("no", "Hold")).await;
        for holder in ["a", "b"] {
            let request = team.request("denied", holder).await;
            let told = is_told(&team, &request, RequestPhase::Denied, reasons::DENIED_BY_POLICY).await;
            assert_eq!(told.status.and_then(|s| s.message).as_deref(), Some(reason));
            touch(&team, &request, 1).await;
        }
        let (_, said) = event(&team, "denied", reasons::EVENT_DENIED).await;
        assert!(said.contains(reason), "{said}");
        // What it was refused it does not get when the policy changes its mind.
        let yes = always(r#"{"grant":{"request":0,"ttlMs":5000},"reason":"now"}"#);
        upload(&team, "no", "policy.wasm", &yes).await;
        is_active(&team, "no", &yes).await;
        let (_, holding) = hold(&team, "denied", "c").await;
        assert_eq!(holding.expires - holding.acquired, 5_000);
    };
    let overruled = async {
        team.create_lease_with("overruled", named("greedy", "Default")).await;
        let (first, holding) = hold(&team, "overruled", "first").await;
        assert_eq!(holding.expires - holding.acquired, 5_000, "the policy's own ttl");
        let second = team.request("overruled", "second").await;
        let said = policy_is(&team, "overruled", "False", reasons::POLICY_VETOED).await;
        assert!(said.contains("granted the lease while it is held"), "{said}");
        waits(&team, &second).await;
        assert!(held_by(&team.lease("overruled").await, &first));
        event(&team, "overruled", reasons::EVENT_POLICY_FAILED).await;
        team.delete_request(&first).await;
        holds(&team, &second).await;
        policy_is(&team, "overruled", "True", reasons::POLICY_ACTIVE).await;
    };
    let goes_on = async {
        team.create_lease_with("blind", named("blind", "Default")).await;
        hold(&team, "blind", "a").await;
        let said = policy_is(&team, "blind", "False", reasons::POLICY_VETOED).await;
        assert!(said.contains("request 7"), "{said}");
        assert_eq!(decider(&team.lease("blind").await).0, "default");
    };
    let holds_on = async {
        team.create_lease_with("blind-hold", named("blind", "Hold")).await;
        let request = wait_for(&team, ask("blind-hold", "a")).await;
        policy_is(&team, "blind-hold", "False", reasons::POLICY_VETOED).await;
        assert_eq!(team.lease("blind-hold").await.token(), None);
        team.patch_lease("blind-hold", json!({"spec": {"policy": {"name": "greedy"}}})).await;
        holds(&team, &request).await;
    };
    let says_nothing = async {
        team.create_lease_with("mute", named("mute", "Hold")).await;
        let request = wait_for(&team, ask("mute", "a")).await;
        policy_is(&team, "mute", "False", reasons::POLICY_FAULT).await;
        team.patch_lease("mute", json!({"spec": {"policy": {"name": "idle"}}})).await;
        policy_is(&team, "mute", "True", reasons::POLICY_ACTIVE).await;
        waits(&team, &request).await;
        let impatient = LeaseRequestSpec { timeout: Some("0s".into()), ..ask("mute", "impatient") };
        let impatient = team.request_with(impatient).await;
        is_finished(&team, &impatient, reasons::TIMED_OUT).await;
        assert_eq!(team.lease("mute").await.token(), None, "to change nothing is an answer, and no failure");
    };
    tokio::join!(denies, overruled, goes_on, holds_on, says_nothing);
    let metrics = controller.metrics().await;
    for rule in ["GrantWhileHeld", "UnknownRequest"] {
        assert!(metrics.sum("konductor_guard_total", &[("rule", rule)]) >= Some(1.0), "{rule}\n{}", metrics.text());
    }
    assert_eq!(metrics.sum("konductor_requests_denied_total", &[]), Some(2.0));
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn the_default_policy_obeys_its_params_or_says_what_is_wrong_with_them() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let with_params = |ttl: &str, params: Value, on_failure: &str| json!({"ttl": ttl, "policy": {"params": params, "onFailure": on_failure}});
    let urgent = |lease: &str| LeaseRequestSpec { priority: Some(5), ..ask(lease, "urgent") };
    let preempting = json!({"preemption": "LowerPriority", "gracePeriod": "1m"});

    let wrong = async {
        let params = json!({"preemption": "Sometimes", "lockdelay": "5s"});
        team.create_lease_with("wrong", with_params("10m", params.clone(), "Hold")).await;
        // Before anybody asks for it.
        let said = policy_is(&team, "wrong", "False", reasons::INVALID_PARAMS).await;
        for part in ["preemption: \"Sometimes\" is neither Never nor LowerPriority", "lockdelay", "knows preemption"] {
            assert!(said.contains(part), "{said}");
        }
        let waiter = wait_for(&team, ask("wrong", "waiter")).await;
        assert_eq!(team.lease("wrong").await.token(), None);
        team.patch_lease("wrong", json!({"spec": {"policy": {"params": {"preemption": "Never", "lockdelay": null}}}}))
            .await;
        holds(&team, &waiter).await;
        policy_is(&team, "wrong", "True", reasons::POLICY_ACTIVE).await;
        // Made wrong and mended while nobody asks.
        team.patch_lease("wrong", json!({"spec": {"policy": {"params": {"aging": "much"}}}})).await;
        policy_is(&team, "wrong", "False", reasons::INVALID_PARAMS).await;
        team.patch_lease("wrong", json!({"spec": {"policy": {"params": {"aging": 1}}}})).await;
        policy_is(&team, "wrong", "True", reasons::POLICY_ACTIVE).await;

        team.create_lease_with("wrong-but", with_params("10m", params, "Default")).await;
        hold(&team, "wrong-but", "a").await;
        policy_is(&team, "wrong-but", "False", reasons::INVALID_PARAMS).await;
    };
    let at_release = async {
        team.create_lease_with("leaves", with_params("10m", preempting.clone(), "Default")).await;
        let (holder, holding) = hold(&team, "leaves", "holder").await;
        let urgent = wait_for(&team, urgent("leaves")).await;
        let asked = |l: &Lease| l.status.as_ref().is_some_and(|s| s.preemption.is_some());
        let lease = team.lease_is("leaves", "asked to be left", asked).await;
        assert!(held_by(&lease, &holder), "cooperative: nobody is thrown out");
        let preemption = lease.status.and_then(|s| s.preemption).expect("it is there");
        assert_eq!(
            (preemption.by.as_str(), preemption.request.as_str()),
            ("urgent", urgent.metadata.uid.as_deref().unwrap_or_default())
        );
        assert!(!preemption.force && preemption.reason.is_some_and(|r| r.contains("higher priority")));
        let deadline = parse_timestamp(&preemption.deadline).expect("a time");
        assert!(deadline >= holding.acquired + 60_000 && deadline < holding.expires, "the grace period");
        let (_, said) = event(&team, "leaves", reasons::EVENT_PREEMPTED).await;
        assert!(said.contains("holder is asked to hand over to urgent"), "{said}");
        // It wants to stay, and is told no.
        touch(&team, &holder, 1).await;
        let (_, said) = event(&team, "leaves", reasons::EVENT_RENEWAL_REFUSED).await;
        assert!(said.contains("hand-over to urgent"), "{said}");
        let lease = team.lease("leaves").await;
        assert_eq!(lease.holding().expect("complete").map(|h| (h.expires, h.renewals)), Some((holding.expires, 0)));
        assert_eq!(lease.status.and_then(|s| s.request).map(|r| r.renewals), Some(1), "the refusal is acknowledged");
        team.delete_request(&holder).await;
        holds(&team, &urgent).await;
        let lease = team.lease("leaves").await;
        assert_eq!(lease.ending_of(holding.token), Some(HoldEnd::Preempted));
        assert_eq!(lease.status.and_then(|s| s.preemption), None);
    };
    let at_expiry = async {
        team.create_lease_with("runs-out", with_params("8s", preempting.clone(), "Default")).await;
        let (holder, holding) = hold(&team, "runs-out", "holder").await;
        let urgent = team.request_with(urgent("runs-out")).await;
        team.lease_is("runs-out", "asked to be left", |l| l.status.as_ref().is_some_and(|s| s.preemption.is_some()))
            .await;
        touch(&team, &holder, 1).await;
        let next = holds(&team, &urgent).await;
        assert!(next.acquired >= holding.expires, "not before what the holder was told");
        assert_eq!(team.lease("runs-out").await.ending_of(holding.token), Some(HoldEnd::Preempted));
        is_finished(&team, &holder, reasons::PREEMPTED).await;
    };
    let in_vain = async {
        team.create_lease_with("withdrawn", with_params("10m", preempting.clone(), "Default")).await;
        let (holder, holding) = hold(&team, "withdrawn", "holder").await;
        let urgent = team.request_with(urgent("withdrawn")).await;
        let asked = |l: &Lease| l.status.as_ref().is_some_and(|s| s.preemption.is_some());
        team.lease_is("withdrawn", "asked to be left", asked).await;
        // Who waits no more preempts nobody, and the holder may renew again.
        team.delete_request(&urgent).await;
        team.lease_is("withdrawn", "left in peace", |l| !asked(l)).await;
        touch(&team, &holder, 1).await;
        let lease =
            team.lease_is("withdrawn", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals == Some(1))).await;
        assert_eq!(lease.token(), Some(holding.token));
        // An equal does not preempt.
        let equal = wait_for(&team, ask("withdrawn", "equal")).await;
        touch(&team, &holder, 2).await;
        let lease =
            team.lease_is("withdrawn", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals == Some(2))).await;
        assert!(!asked(&lease));
        waits(&team, &equal).await;
    };
    let nobody_is_asked = async {
        // The default: never.
        team.create_lease("never", "10m").await;
        let (holder, _) = hold(&team, "never", "holder").await;
        wait_for(&team, urgent("never")).await;
        touch(&team, &holder, 1).await;
        let lease =
            team.lease_is("never", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals == Some(1))).await;
        assert_eq!(lease.status.and_then(|s| s.preemption), None);
    };
    let a_pause = async {
        team.create_lease_with("paused", with_params("3s", json!({"lockDelay": "6s"}), "Default")).await;
        let (_, first) = hold(&team, "paused", "first").await;
        let (second, after) = hold(&team, "paused", "second").await;
        assert!(after.acquired >= first.expires + 6_000, "{} ms after", after.acquired - first.expires);
        // What is given back can be had at once.
        team.delete_request(&second).await;
        let lease = team.lease_is("paused", "over", |l| l.ending_of(after.token).is_some()).await;
        if lease.ending_of(after.token) == Some(HoldEnd::Released) {
            let (_, third) = hold(&team, "paused", "third").await;
            let ended = lease.status.and_then(|s| parse_timestamp(&s.history[0].ended)).expect("a time");
            assert!(third.acquired - ended < 6_000, "{} ms after", third.acquired - ended);
        }
    };
    tokio::join!(wrong, at_release, at_expiry, in_vain, nobody_is_asked, a_pause);
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_lease_finds_its_policy_near_before_far() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let other = plane.namespace("other").await;
    let system = plane.namespace("konductor-system").await;
    let answer = |reason: &str| always(&format!(r#"{{"grant":{{"request":0,"ttlMs":60000}},"reason":"{reason}"}}"#));
    let (far, near) = (answer("far"), answer("near"));
    upload(&system, "house", "policy.wasm", &far).await;
    // Asks a question and says who has answered: name and digest.
    let who_decides = async |namespace: &Namespace<'_>, lease: &str| {
        let (request, _) = hold(namespace, lease, "asker").await;
        let decider = decider(&namespace.lease(lease).await);
        namespace.delete_request(&request).await;
        namespace.lease_is(lease, "free", |l| l.phase() == LeasePhase::Available).await;
        decider
    };
    let becomes = async |namespace: &Namespace<'_>, lease: &str, name: &str, module: Option<&[u8]>| {
        eventually(&format!("{name} decides about {lease}"), async || {
            let decider = who_decides(namespace, lease).await;
            let same = decider.0 == name && module.is_none_or(|module| decider.1 == digest_of(module));
            if same { Ok(()) } else { Err(format!("{decider:?}")) }
        })
        .await;
    };

    // Named: the controller's namespace is for everybody, one's own comes first.
    team.create_lease_with("named", named("house", "Hold")).await;
    other.create_lease_with("named", named("house", "Hold")).await;
    policy_is(&team, "named", "True", reasons::POLICY_ACTIVE).await;
    assert_eq!(who_decides(&team, "named").await, ("house".to_owned(), digest_of(&far)));
    upload(&team, "house", "policy.wasm", &near).await;
    becomes(&team, "named", "house", Some(&near)).await;
    assert_eq!(who_decides(&other, "named").await.1, digest_of(&far), "a neighbour's policy is not mine");
    let maps: Api<ConfigMap> = Api::namespaced(plane.admin().clone(), team.name());
    maps.delete("house", &Default::default()).await.expect("deleted");
    becomes(&team, "named", "house", Some(&far)).await;

    // Unnamed: what the namespace says, else the controller.
    team.create_lease("unnamed", "10m").await;
    other.create_lease("unnamed", "10m").await;
    assert_eq!(who_decides(&team, "unnamed").await.0, "default");
    plane.kubectl("annotate namespace team konductor.io/default-policy=house").run().await.succeeds();
    becomes(&team, "unnamed", "house", Some(&far)).await;
    assert_eq!(who_decides(&other, "unnamed").await.0, "default", "elsewhere nothing changes");
    upload(&team, "house", "policy.wasm", &near).await;
    becomes(&team, "unnamed", "house", Some(&near)).await;
    plane.kubectl("annotate namespace team --overwrite konductor.io/default-policy=nowhere").run().await.succeeds();
    policy_is(&team, "unnamed", "False", reasons::POLICY_NOT_FOUND).await;
    plane.kubectl("annotate namespace team konductor.io/default-policy-").run().await.succeeds();
    becomes(&team, "unnamed", "default", None).await;
    policy_is(&team, "unnamed", "True", reasons::POLICY_ACTIVE).await;

    // "default" is built in: a ConfigMap of that name takes nothing over, and its author is told so.
    upload(&team, "default", "policy.wasm", &near).await;
    let (type_, said) = event(&team, "default", reasons::EVENT_POLICY_REJECTED).await;
    assert!(type_ == "Warning" && said.contains("give the ConfigMap another name"), "{type_} {said}");
    assert_ne!(who_decides(&team, "unnamed").await.1, digest_of(&near));
    for namespace in [&team, &other] {
        checker::check(&plane.history(namespace).await).expect("nothing forbidden");
    }
}

#[tokio::test]
async fn the_controllers_own_default_is_what_its_flag_says() {
    let plane = ControlPlane::installed().await;
    let system = plane.namespace("konductor-system").await;
    let team = plane.namespace("team").await;
    let house = always(r#"{"grant":{"request":0,"ttlMs":60000},"reason":"house rules"}"#);
    upload(&system, "house", "policy.wasm", &house).await;
    team.create_lease("x", "10m").await;
    team.create_lease_with("y", json!({"ttl": "10m", "policy": {"name": "default"}})).await;
    let waiting = team.request("x", "a").await;
    let _controller = Controller::start(&plane, ControllerOptions::with("--default-policy house")).await;
    // Known before anything is decided: nobody is granted by the wrong rules at start.
    let holding = holds(&team, &waiting).await;
    assert_eq!(Duration::from_millis(u64::try_from(holding.expires - holding.acquired).unwrap_or(0)).as_secs(), 60);
    assert_eq!(decider(&team.lease("x").await), ("house".to_owned(), digest_of(&house)));
    hold(&team, "y", "b").await;
    assert_eq!(decider(&team.lease("y").await).0, "default");
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}
