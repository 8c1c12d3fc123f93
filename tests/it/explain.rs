//! `koncli lease explain`: what it foretells is what happens.

use konductor_crds::Lease;
use konductor_tests::*;
use serde_json::json;

use crate::lifecycle::{ask, hold, holds, wait_for};

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    let explain = |words: &str| viewer.koncli(&format!("lease explain {words}")).run();
    team.create_lease_with(
        "x",
        json!({"ttl": "10m", "policy": {"params": {"preemption": "LowerPriority", "minHold": "1h"}}}),
    )
    .await;
    explain("x").await.succeeds().prints("Nobody holds x.").prints("Nobody waits.");

    let (ana, _) = hold(&team, "x", "ana").await;
    let asks = |holder: &str, priority: i32| {
        let mut spec = ask("x", holder);
        spec.priority = Some(priority);
        wait_for(&team, spec)
    };
    let ben = asks("ben", -3).await;
    let cid = asks("cid", 0).await;
    let dan = asks("dan", 0).await;

    let told = explain("x").await.succeeds();
    let told = told
        .prints("ana holds x until")
        .prints("Policy: default (built in), sha256:")
        .prints("Next, when the holder is done: cid");
    let before = |text: &str| told.stdout.find(text).unwrap_or_else(|| panic!("no {text} in {told}"));
    assert!(before("2. dan") < before("3. ben"), "{told}");
    let json = explain("x -o json").await.succeeds().json();
    let next: Vec<_> = json["explanation"]["next"].as_array().expect("a line").iter().map(|s| &s["holder"]).collect();
    assert_eq!(next, ["cid", "dan", "ben"], "{json:#}");
    assert_eq!(json["digest"], json["decided"]["digest"], "{json:#}");

    // Ben came before cid, so as much as cid has is enough; whoever comes now needs more.
    let ben_told = explain("x --holder ben").await.succeeds();
    ben_told.prints("ben (priority -3) is number 3").prints("With priority 0 it would be next.");
    let new = explain("x --holder eve").await.succeeds();
    new.prints("eve (priority 0) is number 3").prints("With priority 1 it would be next.");
    explain("x --holder eve --priority 7").await.succeeds().prints("eve (priority 7) is next");
    explain("x --priority 7").await.exits_with(2).complains("--holder");
    explain("y").await.exits_with(4).complains("there is no lease \"y\"");

    // So it goes.
    team.delete_request(&ana).await;
    for (request, holder) in [(cid, "cid"), (dan, "dan"), (ben, "ben")] {
        holds(&team, &request).await;
        assert_eq!(team.lease("x").await.holder(), Some(holder));
        team.delete_request(&request).await;
    }
}

#[tokio::test]
async fn an_uploaded_policy_is_asked_too_by_who_may_read_it() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let (viewer, author) = tokio::join!(
        team.user(&["konductor-lease-viewer"]),
        team.user(&["konductor-policy-author", "konductor-lease-viewer"])
    );
    let answer = r#"{"deny":[{"request":0,"reason":"not on a Saturday"}]}"#;
    policies::upload(&team, "saturdays", "policy.wasm", &policies::always(answer)).await;
    team.create_lease_with("x", json!({"ttl": "10m", "policy": {"name": "saturdays"}})).await;
    let told = author.koncli("lease explain x --holder me").run().await.succeeds();
    told.prints("Policy: saturdays, sha256:").prints("me (priority 0) is denied: not on a Saturday");
    let told = viewer.koncli("lease explain x --holder me").run().await.succeeds();
    told.prints("Who is next cannot be said").prints("konductor-policy-author");
}

#[tokio::test]
async fn a_lease_that_does_not_work_is_marked_and_nobody_is_foretold_who_is_not_granted() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    let koncli = |words: &str| viewer.koncli(&format!("lease {words}")).run();
    team.create_lease_with("x", json!({"ttl": "10m", "policy": {"name": "gone", "onFailure": "Hold"}})).await;
    let fails = |lease: &Lease| {
        let status = lease.status.clone().unwrap_or_default();
        status.conditions.iter().any(|condition| condition.reason.as_deref() == Some("PolicyNotFound"))
    };
    team.lease_is("x", "without its policy", fails).await;

    let told = koncli("explain x --holder me").await.succeeds();
    assert!(told.stdout.starts_with("PolicyReady is False, PolicyNotFound: "), "{told}");
    assert!(!told.stdout.contains("me gets the lease now"), "{told}");
    told.prints("onFailure is Hold: nobody is granted").prints("waits in vain");
    koncli("list -o wide").await.succeeds().prints("PROBLEM").prints("PolicyNotFound");
    let listed =
        koncli("list").await.succeeds().complains("1 lease has a problem: x (PolicyNotFound); koncli lease status");
    assert!(!listed.stdout.contains("PolicyNotFound"), "{listed}");
    assert_eq!(koncli("list -q").await.succeeds().stderr, "");
    koncli("watch --for 1ms").await.succeeds().prints("  x  free; problem: PolicyNotFound: ");

    // The built-in rules decide, and who they grant is foretold.
    team.patch_lease("x", json!({"spec": {"policy": {"onFailure": "Default"}}})).await;
    let told = koncli("explain x --holder me").await.succeeds();
    told.prints("the built-in rules decide meanwhile").prints("me (priority 0) gets the lease now.");
    let (me, _) = hold(&team, "x", "me").await;
    team.delete_request(&me).await;
}
