//! What users may write into specs, and administrators into statuses: it is understood, or refused in words, and never
//! does harm.

use konductor_crds::{
    Lease, LeaseRequest, LeaseRequestSpec,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons},
};
use konductor_tests::*;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::lifecycle::{ask, held_by, hold, holds, is_finished, is_told, patch_status, touch, wait_for};

/// The message of a condition.
fn message(lease: &Lease, condition: &str) -> String {
    let conditions = lease.status.iter().flat_map(|s| &s.conditions);
    conditions.filter(|c| c.type_ == condition).find_map(|c| c.message.clone()).unwrap_or_default()
}

/// Creates what the API server may refuse already: what it says if it does.
async fn try_request(team: &Namespace<'_>, spec: LeaseRequestSpec) -> Result<LeaseRequest, String> {
    let mut request = LeaseRequest::new("", spec);
    request.metadata.name = None;
    request.metadata.generate_name = Some("request-".to_owned());
    match team.requests().create(&PostParams::default(), &request).await {
        Err(kube::Error::Api(status)) if status.code == 422 => Err(status.message),
        other => Ok(other.expect("accepted, or refused as invalid")),
    }
}

/// Nothing in a controller has gone wrong.
async fn is_unharmed(controller: &Controller, team: &Namespace<'_>) {
    team.create_lease("sound", "10m").await;
    hold(team, "sound", "somebody").await;
    let metrics = controller.metrics().await;
    for outcome in ["panic", "error"] {
        assert_eq!(metrics.sum("konductor_reconciles_total", &[("outcome", outcome)]), Some(0.0), "{}", metrics.text());
    }
}

#[tokio::test]
async fn a_ttl_that_is_none_is_explained_and_nothing_is_granted_until_it_is_mended() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let bad = [
        ("zero", "0s", "zero"),
        ("zeros", "0h0m0s", "zero"),
        ("negative", "-5m", "negative"),
        ("word", "banana", "not a duration"),
        ("float", "1e9h", "not a duration"),
        ("fraction", "1.5h", "not a duration"),
        ("long", "367d", "366 days"),
        ("overflow", "99999999999999999999h", "366 days"),
        ("empty", "", "empty"),
        ("unitless", "600", "not a duration"),
        ("spaces", " 10m", "not a duration"),
        ("month", "1M", "not a duration"),
        ("unicode", "10м", "not a duration"),
        ("newline", "10m\n", "not a duration"),
    ]
    .map(async |(name, ttl, problem)| {
        let lease =
            json!({"apiVersion": "konductor.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {"ttl": ttl}});
        let lease = serde_json::from_value(lease).expect("a Lease");
        match team.leases().create(&PostParams::default(), &lease).await {
            // Its CEL rules say so already.
            Err(kube::Error::Api(status)) if status.code == 422 && plane.version() >= Version(1, 25) => {
                assert!(status.message.contains("spec.ttl"), "{}", status.message);
                return;
            }
            other => drop(other.expect("accepted")),
        }
        let waiter = team.request(name, "waiter").await;
        let impatient = LeaseRequestSpec { timeout: Some("0s".into()), ..ask(name, "impatient") };
        let impatient = team.request_with(impatient).await;
        let said = |l: &Lease| l.condition("Ready") == Some(("False", reasons::INVALID_SPEC));
        let lease = team.lease_is(name, "refused", said).await;
        let text = message(&lease, "Ready");
        assert!(
            text.starts_with("spec.ttl: ") && text.contains(problem) && text.contains("such as 30s"),
            "{ttl:?}: {text}"
        );
        let impatient = is_finished(&team, &impatient, reasons::TIMED_OUT).await;
        let text = impatient.status.and_then(|s| s.message).unwrap_or_default();
        assert!(text.contains("spec is invalid") && text.contains(problem), "{ttl:?}: {text}");
        is_told(&team, &waiter, RequestPhase::Pending, reasons::WAITING).await;
        let lease = team.lease(name).await;
        assert_eq!((lease.holder(), lease.token(), lease.phase()), (None, None, LeasePhase::Available), "{ttl:?}");

        team.patch_lease(name, json!({"spec": {"ttl": "10m"}})).await;
        holds(&team, &waiter).await;
        let ready = |l: &Lease| l.condition("Ready") == Some(("True", reasons::LEASE_READY));
        team.lease_is(name, "mended", ready).await;
    });
    let while_held = async {
        team.create_lease("held", "8s").await;
        let (holder, holding) = hold(&team, "held", "holder").await;
        let waiter = wait_for(&team, ask("held", "waiter")).await;
        // A new server refuses this, and then there is nothing more to test.
        let patch = kube::api::Patch::Merge(json!({"spec": {"ttl": "banana"}}));
        match team.leases().patch("held", &Default::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 422 && plane.version() >= Version(1, 25) => return,
            other => drop(other.expect("accepted")),
        }
        let said = |l: &Lease| l.condition("Ready") == Some(("False", reasons::INVALID_SPEC));
        let lease = team.lease_is("held", "refused", said).await;
        assert_eq!(lease.holding().expect("complete"), Some(holding.clone()), "a hold runs to its end");
        touch(&team, &holder, 1).await;
        let lease = team.lease_is("held", "over", |l| l.phase() != LeasePhase::Held).await;
        assert_eq!(lease.ending_of(holding.token), Some(HoldEnd::Expired));
        assert_eq!((lease.phase(), lease.holder()), (LeasePhase::Expired, None), "and nobody gets it");
        is_finished(&team, &holder, reasons::EXPIRED).await;
        is_told(&team, &waiter, RequestPhase::Pending, reasons::WAITING).await;
        team.patch_lease("held", json!({"spec": {"ttl": "10m"}})).await;
        holds(&team, &waiter).await;
    };
    tokio::join!(futures::future::join_all(bad), while_held);
    is_unharmed(&controller, &team).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_request_that_is_not_understood_is_denied_with_the_reason() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    hold(&team, "x", "holder").await;

    let with = |change: fn(&mut LeaseRequestSpec)| {
        let mut spec = ask("x", "fine");
        change(&mut spec);
        spec
    };
    let refused = [
        (with(|s| s.holder = String::new()), "spec.holder", "empty"),
        (with(|s| s.holder = "x".repeat(300)), "spec.holder", "253"),
        (with(|s| s.holder = "pod a".into()), "spec.holder", "' '"),
        (with(|s| s.holder = "pod\na".into()), "spec.holder", "'\\n'"),
        (with(|s| s.holder = "pod-🦀".into()), "spec.holder", "'🦀'"),
        (with(|s| s.holder = "\u{0}".into()), "spec.holder", "'\\0'"),
        (with(|s| s.ttl = Some("0s".into())), "spec.ttl", "zero"),
        (with(|s| s.ttl = Some("-1s".into())), "spec.ttl", "negative"),
        (with(|s| s.ttl = Some("banana".into())), "spec.ttl", "not a duration"),
        (with(|s| s.ttl = Some(String::new())), "spec.ttl", "empty"),
        (with(|s| s.timeout = Some("soon".into())), "spec.timeout", "not a duration"),
        (with(|s| s.timeout = Some("-1s".into())), "spec.timeout", "negative"),
        (with(|s| s.timeout = Some("1y".into())), "spec.timeout", "not a duration"),
    ];
    let refused = refused.into_iter().flat_map(|(spec, field, problem)| {
        // Also where there is no such Lease.
        let nowhere = LeaseRequestSpec { lease: "nowhere".into(), ..spec.clone() };
        [(spec, field, problem), (nowhere, field, problem)]
    });
    let refused = refused.map(async |(spec, field, problem)| {
        let said = match try_request(&team, spec.clone()).await {
            Ok(request) => {
                let told = is_told(&team, &request, RequestPhase::Denied, reasons::INVALID_REQUEST).await;
                let said = told.status.and_then(|s| s.message).unwrap_or_default();
                assert!(said.contains(problem), "{spec:?}: {said}");
                said
            }
            Err(said) => {
                // The schema; on new servers its CEL rules too, in their own words.
                assert!(spec.holder.len() > 253 || plane.version() >= Version(1, 25), "{spec:?}: {said}");
                said
            }
        };
        assert!(said.contains(field), "{spec:?}: {said}");
    });
    futures::future::join_all(refused).await;
    assert_eq!(team.lease("x").await.holder(), Some("holder"));

    // Odd, and fine.
    let longest = "x".repeat(253);
    let fine = ["%", "a/b:c@d", "$(reboot)", "'\";--", "\\", longest.as_str()].map(async |holder| {
        let name = format!("odd-{}-{}", holder.len(), holder.as_bytes()[0]);
        team.create_lease(&name, "10m").await;
        let (_, holding) = hold(&team, &name, holder).await;
        assert_eq!(holding.holder, holder);
    });
    futures::future::join_all(fine).await;

    // The names of no Lease. Each is answered, whatever it would mean as a path.
    let names = [
        "a/b",
        "..",
        ".",
        "../../secrets",
        "a/../b",
        "%2e%2e",
        "UPPER",
        " x",
        "x ",
        "x\n",
        "🦀",
        "-",
        "x?watch=1",
        "x#y",
    ];
    let nowhere = names.map(async |lease| {
        let request = team.request(lease, "somebody").await;
        is_told(&team, &request, RequestPhase::Pending, reasons::LEASE_NOT_FOUND).await;
        team.delete_request(&request).await;
    });
    futures::future::join_all(nowhere).await;
    let empty = try_request(&team, ask("", "somebody")).await;
    assert!(empty.as_ref().is_err_and(|said| said.contains("spec.lease")), "{empty:?}");
    is_unharmed(&controller, &team).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn huge_labels_hold_up_nobody() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let labels = |count: usize| -> Value {
        let label = |n: usize| (format!("label-{n:057}"), json!("v".repeat(63)));
        Value::Object((0..count).map(label).collect())
    };
    let request = async |lease: &str, holder: &str, count: usize| {
        let request = json!({"apiVersion": "konductor.io/v1", "kind": "LeaseRequest",
            "metadata": {"generateName": "huge-", "labels": labels(count), "annotations": {"note": "n".repeat(200_000)}},
            "spec": {"lease": lease, "holder": holder, "priority": 9}});
        let request: LeaseRequest = serde_json::from_value(request).expect("a request");
        team.requests().create(&PostParams::default(), &request).await.expect("accepted")
    };

    // 130 KB of labels: more than a policy needs, less than it can be shown.
    team.create_lease("large", "10m").await;
    let large = request("large", "large", 1_000).await;
    holds(&team, &large).await;
    let waiter = wait_for(&team, ask("large", "waiter")).await;
    touch(&team, &large, 1).await;
    team.lease_is("large", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals == Some(1))).await;
    team.delete_request(&large).await;
    holds(&team, &waiter).await;

    // 390 KB: more than a policy can be shown. Whoever else waits is served.
    team.create_lease("huge", "10m").await;
    let (holder, _) = hold(&team, "huge", "holder").await;
    let huge = request("huge", "huge", 3_000).await;
    let waiter = wait_for(&team, ask("huge", "waiter")).await;
    team.delete_request(&holder).await;
    holds(&team, &waiter).await;
    team.delete_request(&huge).await;

    // And a Lease of that size says what is wrong with it.
    let lease = json!({"apiVersion": "konductor.io/v1", "kind": "Lease",
        "metadata": {"name": "monster", "labels": labels(3_000)}, "spec": {"ttl": "10m"}});
    team.leases()
        .create(&PostParams::default(), &serde_json::from_value(lease).expect("a Lease"))
        .await
        .expect("accepted");
    let request = team.request("monster", "a").await;
    let lease = team
        .lease_is("monster", "told", |l| l.condition("PolicyReady") == Some(("False", reasons::POLICY_FAULT)))
        .await;
    let said = message(&lease, "PolicyReady");
    assert!(said.contains("256 KiB"), "{said}");
    assert_eq!(lease.holder(), None);
    team.patch_lease("monster", json!({"metadata": {"labels": null}})).await;
    holds(&team, &request).await;
    is_unharmed(&controller, &team).await;
}

#[tokio::test]
async fn a_status_that_somebody_has_edited_is_repaired() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let leases = team.leases();
    let ghost = |name: &str| {
        json!({"phase": "Held", "holder": "ghost", "acquired": "2026-01-01T00:00:00.000Z", "fencingToken": 5,
            "expires": "2096-01-01T00:00:00.000Z", "request": {"name": name, "uid": "of-nobody", "renewals": 0}})
    };

    // Nobody holds, and the status is made to say something else.
    let free = [
        ("only-phase", json!({"phase": "Held"})),
        ("phase-and-holder", json!({"phase": "Held", "holder": "ghost"})),
        ("no-times", json!({"phase": "Held", "holder": "ghost", "request": {"name": "r", "uid": "of-nobody", "renewals": 0}})),
        ("ghost", ghost("no-such-request")),
        ("ghost-of-a-path", ghost("../leases/ghost")),
        ("ghost-of-dots", ghost("..")),
        ("ghost-of-nothing", ghost("")),
        ("ghost-of-a-crab", ghost("🦀")),
        ("soon", json!({"phase": "Expired", "expires": "soon"})),
        ("expired-for-ever", json!({"phase": "Expired", "expires": "2096-01-01T00:00:00.000Z"})),
        ("empty", json!({"holder": "", "acquired": "", "expires": "", "renewed": "", "request": {"name": "", "uid": "", "renewals": 0}})),
        ("numbers", json!({"fencingToken": -5, "waiting": -7, "renewals": -1, "observedGeneration": -1})),
        ("history", json!({"history": [{"holder": "", "request": "", "token": -1, "acquired": "", "ended": "?", "how": "Released"}]})),
        ("nothing", json!(null)),
        ("no-conditions", json!({"phase": null, "conditions": [], "policy": null})),
        ("odd-conditions", json!({"conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "Mine", "status": "True"}]})),
        ("hand-over", json!({"preemption": {"by": "", "request": "", "deadline": "never", "force": true}})),
    ]
    .map(async |(name, status)| {
        team.create_lease(name, "10m").await;
        team.lease_is(name, "ready", |l| l.condition("Ready") == Some(("True", reasons::LEASE_READY))).await;
        let (first, before) = hold(&team, name, "before").await;
        is_told(&team, &first, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
        team.delete_request(&first).await;
        let clean = team.lease_is(name, "free", |l| l.phase() == LeasePhase::Available).await;
        // A server may refuse it: a schema is the first defence.
        match patch_status(&leases, name, status.clone()).await {
            Err(kube::Error::Api(refused)) if refused.code == 422 => {
                assert!(refused.message.contains("status."), "{}", refused.message);
            }
            other => drop(other.expect("patched, or refused as invalid")),
        }
        let repaired = |l: &Lease| {
            l.phase() == LeasePhase::Available
                && l.holder().is_none()
                && l.status.as_ref().is_some_and(|s| {
                    let (new, old) = (&s.conditions, &clean.status.as_ref().expect("a status").conditions);
                    s.request.is_none() && s.expires.is_none() && s.preemption.is_none() && s.phase.is_some()
                        && s.waiting == Some(0) && s.renewals.is_none() && s.observed_generation == Some(1)
                        && new.iter().map(|c| (&c.type_, &c.status)).eq(old.iter().map(|c| (&c.type_, &c.status)))
                })
        };
        team.lease_is(name, "repaired", repaired).await;
        let (next, after) = hold(&team, name, "next").await;
        assert!(after.token > before.token, "{name}: the token {} after {}", after.token, before.token);
        team.delete_request(&next).await;
        team.lease_is(name, "free again", repaired).await;
    });

    // Somebody holds, and the status is edited under them. Either the hold stands, or it is over for good.
    let held = [
        ("held-soon", json!({"expires": "soon"}), false),
        ("held-no-expiry", json!({"expires": null}), false),
        ("held-no-acquired", json!({"acquired": null}), false),
        ("held-no-phase", json!({"phase": null}), false),
        ("held-expired", json!({"phase": "Expired"}), false),
        ("held-no-request", json!({"request": null}), false),
        ("held-nothing", json!(null), false),
        ("held-counters", json!({"waiting": 99, "renewals": 7, "conditions": null, "policy": null}), true),
        ("held-hand-over", json!({"preemption": {"by": "x", "request": "of-nobody", "deadline": "2020-01-01T00:00:00.000Z", "force": true}}), true),
    ]
    .map(async |(name, status, stands)| {
        team.create_lease(name, "10m").await;
        let (holder, holding) = hold(&team, name, "holder").await;
        is_told(&team, &holder, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
        match patch_status(&leases, name, status).await {
            Err(kube::Error::Api(refused)) if refused.code == 422 => {
                assert!(refused.message.contains("status."), "{}", refused.message);
                assert!(held_by(&team.lease(name).await, &holder));
                return;
            }
            other => drop(other.expect("patched, or refused as invalid")),
        }
        let complete = |l: &Lease| l.condition("Ready").is_some() && l.waiting() == 0
            && l.status.as_ref().is_some_and(|s| s.phase.is_some() && s.preemption.is_none() && s.policy.is_some());
        if stands {
            let lease = team.lease_is(name, "repaired", complete).await;
            assert!(held_by(&lease, &holder) && lease.token() == Some(holding.token), "{name}: {:?}", lease.status);
            team.delete_request(&holder).await;
        } else {
            let free = |l: &Lease| complete(l) && l.phase() == LeasePhase::Available && l.holder().is_none();
            team.lease_is(name, "repaired", free).await;
            touch(&team, &holder, 1).await;
        }
        let (_, next) = hold(&team, name, "next").await;
        if !stands {
            // Where the token was wiped out too, the next grant is the proof that its own is over.
            team.request_is(&holder, "told that it is over", |r| r.phase() == Some(RequestPhase::Finished)).await;
        }
        assert!(next.token > holding.token, "{name}: the token {} after {}", next.token, holding.token);
    });
    tokio::join!(futures::future::join_all(free), futures::future::join_all(held));
    is_unharmed(&controller, &team).await;
}

#[tokio::test]
async fn a_flood_of_requests_ends_at_the_limit_and_the_line_goes_on() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::with("--max-waiting=3")).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let (holder, _) = hold(&team, "x", "holder").await;
    let mut line = Vec::new();
    for n in 0..3 {
        line.push(wait_for(&team, ask("x", &format!("waiter-{n}"))).await);
    }
    let user = team.user(&["konductor-lease-user"]).await;
    for n in 0..20 {
        let late = team.request_with(ask("x", &format!("late-{n}"))).await;
        is_told(&team, &late, RequestPhase::Denied, reasons::TOO_MANY_WAITING).await;
    }
    let refused = user.koncli("lease acquire x --holder later --wait --timeout 1m").run().await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("3 requests wait for the lease already"), "{}", refused.stderr);
    // A place in the line is kept, and is free again when its turn has come.
    team.delete_request(&holder).await;
    holds(&team, &line[0]).await;
    wait_for(&team, ask("x", "again")).await;
}
