//! Requests that belong to a Pod: they end with it, and with nothing less. There is no garbage collector here.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use konductor_crds::{LeaseRequest, LeaseRequestSpec, v1::HoldEnd};
use konductor_tests::*;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::lifecycle::{holds, waits};

fn pods(team: &Namespace<'_>) -> Api<Pod> {
    Api::namespaced(team.leases().into_client(), team.name())
}

pub async fn pod(team: &Namespace<'_>, name: &str) -> Pod {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0},
    }))
    .expect("a Pod");
    let pod = pods(team).create(&PostParams::default(), &pod).await.expect("a Pod is accepted");
    has(team, name, json!({"phase": "Running"})).await;
    pod
}

/// As its kubelet, or the node controller, would say.
pub async fn has(team: &Namespace<'_>, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    pods(team).patch_status(name, &PatchParams::default(), &patch).await.expect("a status is accepted");
}

/// A request without a timeout that belongs to a Pod: it needs no sign of life.
pub async fn asks_from(team: &Namespace<'_>, pod: &Pod, lease: &str) -> LeaseRequest {
    let name = pod.metadata.name.clone().expect("a name");
    let spec = LeaseRequestSpec { lease: lease.to_owned(), holder: name.clone(), ..LeaseRequestSpec::default() };
    let mut request = LeaseRequest::new("", spec);
    (request.metadata.name, request.metadata.generate_name) = (None, Some(format!("{name}-")));
    request.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name,
        uid: pod.metadata.uid.clone().expect("a uid"),
        ..OwnerReference::default()
    }]);
    team.requests().create(&PostParams::default(), &request).await.expect("a request is accepted")
}

#[tokio::test]
async fn a_request_ends_with_its_pod_and_the_next_gets_the_lease_at_once() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let mut line = Vec::new();
    for n in 0..5 {
        let pod = pod(&team, &format!("pod-{n}")).await;
        let request = asks_from(&team, &pod, "x").await;
        if n > 0 {
            waits(&team, &request).await;
        } else {
            holds(&team, &request).await;
        }
        line.push(request);
    }
    // One that waits: its place goes to the next.
    has(&team, "pod-1", json!({"phase": "Failed"})).await;
    team.request_is_gone(&line[1]).await;
    assert_eq!(team.lease("x").await.holder(), Some("pod-0"));
    // One that holds, and is done.
    has(&team, "pod-0", json!({"phase": "Succeeded"})).await;
    holds(&team, &line[2]).await;
    team.request_is_gone(&line[0]).await;
    // One that holds, and is deleted.
    pods(&team).delete("pod-2", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    holds(&team, &line[3]).await;
    // One whose place is taken by another Pod of its name: the uid counts.
    pods(&team).delete("pod-3", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    pod(&team, "pod-3").await;
    holds(&team, &line[4]).await;

    let history = team.lease("x").await.status.expect("a status").history;
    let told: Vec<_> = history.iter().map(|past| (past.holder.as_str(), past.how)).collect();
    assert_eq!(told, ["pod-3", "pod-2", "pod-0"].map(|holder| (holder, HoldEnd::Released)));
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_silent_node_ends_nothing() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    team.create_lease("y", "10m").await;
    let (lost, sound) = (pod(&team, "lost").await, pod(&team, "sound").await);
    let holder = asks_from(&team, &lost, "x").await;
    holds(&team, &holder).await;
    let other = asks_from(&team, &sound, "y").await;
    holds(&team, &other).await;
    let waiter = asks_from(&team, &sound, "x").await;
    waits(&team, &waiter).await;

    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "NodeLost"}]});
    has(&team, "lost", not_ready).await;
    has(&team, "lost", json!({"phase": "Unknown", "reason": "NodeLost"})).await;
    // The eviction: it is asked to go, and nobody knows whether it has.
    let patch = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/kubelet"]}}));
    pods(&team).patch("lost", &PatchParams::default(), &patch).await.expect("a finalizer");
    pods(&team).delete("lost", &DeleteParams::default().grace_period(0)).await.expect("being deleted");
    // What happens to another Pod after that has been seen, so that has been too.
    has(&team, "sound", json!({"phase": "Failed"})).await;
    team.request_is_gone(&other).await;
    team.request_is_gone(&waiter).await;
    assert_eq!(team.lease("x").await.holder(), Some("lost"));
    assert!(team.requests().get_opt(holder.metadata.name.as_deref().expect("a name")).await.expect("asked").is_some());

    // When it is known to be gone, it ends.
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods(&team).patch("lost", &PatchParams::default(), &patch).await.expect("no finalizer");
    team.request_is_gone(&holder).await;
    team.lease_is("x", "free", |lease| lease.holder().is_none()).await;
}

#[tokio::test]
async fn a_pod_that_ended_while_nobody_looked_is_found_out() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let controller = Controller::start(&plane, ControllerOptions::with("--leader-elect=false")).await;
    let (gone, failed, fine) = (pod(&team, "gone").await, pod(&team, "failed").await, pod(&team, "fine").await);
    let first = asks_from(&team, &gone, "x").await;
    holds(&team, &first).await;
    let second = asks_from(&team, &failed, "x").await;
    waits(&team, &second).await;
    let third = asks_from(&team, &fine, "x").await;
    waits(&team, &third).await;
    controller.kill();
    pods(&team).delete("gone", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    has(&team, "failed", json!({"phase": "Failed"})).await;

    let _controller = Controller::start(&plane, ControllerOptions::with("--leader-elect=false")).await;
    holds(&team, &third).await;
    for request in [&first, &second] {
        team.request_is_gone(request).await;
    }
    // A request may name a Pod that has never been: then it ends too.
    let mut nobody = fine.clone();
    (nobody.metadata.name, nobody.metadata.uid) = (Some("nobody".to_owned()), Some("0000".to_owned()));
    let claim = asks_from(&team, &nobody, "x").await;
    team.request_is_gone(&claim).await;
    assert_eq!(team.lease("x").await.holder(), Some("fine"));
}
