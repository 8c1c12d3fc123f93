//! The harness itself: what the other tests rely on.

use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_tests::*;
use kube::{Api, api::PostParams};
use serde_json::json;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).expect("a ConfigMap")
}

#[tokio::test]
async fn several_at_once_do_not_collide() {
    let planes = futures::future::join_all((0..3).map(|_| ControlPlane::start(Options::default()))).await;
    for plane in &planes {
        let maps: Api<ConfigMap> = Api::namespaced(plane.admin().clone(), "default");
        maps.create(&PostParams::default(), &config_map("only-once")).await.expect("each has a storage of its own");
    }
}

#[tokio::test]
async fn a_restart_keeps_data_address_and_tokens() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    team.create_lease("kept", "10m").await;
    let user = team.user(&["konductor-lease-viewer"]).await;

    plane.kill_apiserver();
    team.leases().get("kept").await.expect_err("nobody answers");
    plane.start_apiserver().await;
    user.kubectl("get leases.konductor.io kept -o name").run().await.succeeds().prints("lease.konductor.io/kept");

    plane.stop_apiserver().await;
    plane.stop_etcd().await;
    plane.start_etcd().await;
    plane.start_apiserver().await;
    team.lease("kept").await;

    plane.kill_etcd();
    plane.start_etcd().await;
    eventually("kube-apiserver finds etcd again", async || team.leases().get("kept").await).await;
}

#[tokio::test]
async fn users_have_the_rights_of_their_roles_and_no_others() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let other = plane.namespace("other").await;
    team.create_lease("x", "10m").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;

    user.kubectl("auth can-i create leaserequests.konductor.io").run().await.succeeds();
    user.kubectl("auth can-i patch leases.konductor.io --subresource=status").run().await.exits_with(1);
    viewer.kubectl("auth can-i create leaserequests.konductor.io").run().await.exits_with(1);
    viewer.kubectl("get kl x").run().await.succeeds();
    let elsewhere: Api<konductor_crds::Lease> = Api::namespaced(user.client().clone(), other.name());
    match elsewhere.list(&Default::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{status:?}"),
        odd => panic!("another namespace answers {odd:?}"),
    }
}

#[tokio::test]
async fn the_history_tells_every_write_in_order() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let other = plane.namespace("other").await;
    team.create_lease("x", "10m").await;
    other.create_lease("x", "10m").await;
    let request = team.request("x", "a").await;
    plane.kill_apiserver();
    plane.start_apiserver().await;
    team.patch_lease("x", json!({"spec": {"ttl": "5m"}})).await;
    team.delete_request(&request).await;
    team.leases().delete("x", &Default::default()).await.expect("deleted");

    let history = plane.history(&team).await;
    let told: Vec<_> = history
        .events
        .iter()
        .map(|event| match &event.object {
            Stored::Lease(lease) => format!("{:?} lease {}", event.change, lease.spec.ttl),
            Stored::Request(request) => format!("{:?} request of {}", event.change, request.spec.holder),
        })
        .collect();
    assert_eq!(
        told,
        ["Created lease 10m", "Created request of a", "Updated lease 5m", "Deleted request of a", "Deleted lease 5m",]
    );
    assert!(history.events.is_sorted_by_key(|event| event.revision));
    assert_eq!(checker::check(&history), Ok(vec![]), "nothing was held");
    assert_eq!(plane.history(&team).await, history, "reading changes nothing");
}

#[tokio::test]
async fn the_controller_manager_makes_pods_of_jobs_and_empties_namespaces() {
    let plane = ControlPlane::start(Options { controller_manager: true, ..Options::default() }).await;
    let team = plane.namespace("team").await;
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "team"},
        "spec": {"parallelism": 2, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }}},
    });
    let job = manifests::Manifest { file: "test".into(), object: job };
    manifests::apply(plane.admin(), &job).await.expect("a Job is accepted");
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(plane.admin().clone(), team.name());
    eventually("the Job has two Pods", async || match pods.list(&Default::default()).await {
        Ok(list) if list.items.len() == 2 => Ok(()),
        Ok(list) => Err(format!("{} Pods", list.items.len())),
        Err(problem) => Err(problem.to_string()),
    })
    .await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(plane.admin().clone());
    namespaces.delete(team.name(), &Default::default()).await.expect("deleted");
    eventually("the namespace is gone", async || match namespaces.get_opt(team.name()).await {
        Ok(None) => Ok(()),
        Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
        Err(problem) => Err(problem.to_string()),
    })
    .await;
}

/// Set in the process that the next test kills.
const VICTIM: &str = "KONDUCTOR_TEST_VICTIM";

#[tokio::test]
async fn nothing_is_left_behind_after_sigkill() {
    if std::env::var_os(VICTIM).is_some() {
        let plane = ControlPlane::start(Options { controller_manager: true, ..Options::default() }).await;
        // A grandchild in a session of its own.
        let _stray = plane.kubectl("").arg("proxy").arg("--port=0").spawn();
        println!("\nvictim {} {}", guard::mark().expect("a mark"), guard::directory().expect("a directory").display());
        std::future::pending::<()>().await;
    }
    let mut victim = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "control_plane::nothing_is_left_behind_after_sigkill", "--nocapture"])
        .env(VICTIM, "1")
        .env(guard::MARK, guard::mark().expect("a mark"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim starts");
    let line = {
        use std::io::{BufRead as _, BufReader};
        let out = BufReader::new(victim.stdout.take().expect("a pipe"));
        out.lines().map_while(Result::ok).find(|line| line.starts_with("victim ")).expect("the victim gets ready")
    };
    let words: Vec<&str> = line.split(' ').collect();
    let [_, mark, directory] = words[..] else { panic!("odd: {line}") };
    // A process that has only just been forked does not show its own environment yet.
    eventually("etcd, kube-apiserver, kube-controller-manager and kubectl carry the mark", async || {
        let marked = guard::marked(mark).len();
        if marked >= 4 { Ok(()) } else { Err(format!("{marked} do")) }
    })
    .await;

    victim.kill().expect("SIGKILL");
    victim.wait().expect("it was ours");
    eventually("nothing is left of the victim", async || {
        let left = guard::marked(mark);
        let files = std::path::Path::new(directory).exists();
        if left.is_empty() && !files {
            Ok(())
        } else {
            Err(format!("processes {left:?}, directory still there: {files}"))
        }
    })
    .await;
}
