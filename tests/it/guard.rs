//! The guard of the client library, on a real control plane.

use std::str::FromStr as _;

use koncli::client::{Acquire, Client, Key, Problem};
use konductor_crds::v1::{HoldEnd, LeasePhase};
use konductor_tests::*;
use serde_json::json;

use super::crash::pending;

#[tokio::test]
async fn a_guard_keeps_its_hold_and_says_what_becomes_of_it() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    let params = json!({"preemption": "LowerPriority", "gracePeriod": "8s"});
    team.create_lease_with("db", json!({"ttl": "9s", "policy": {"params": params}})).await;
    let client = Client::new(user.client().clone(), team.name());
    let key = Key::from_str("v1").expect("a key");
    let want = Acquire::new("db", "a");

    // It is renewed, and work under it goes on for longer than the ttl.
    let guard = client.acquire_guarded(&want).await.expect("free");
    assert_eq!(Some(guard.token()), team.lease("db").await.token());
    let renewed = team.lease_is("db", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(3)));
    guard.while_held(renewed).await.expect("held all the time");
    assert!(guard.is_held() && guard.standing().renewals > 0);

    // It is asked back: told with the time that there is, and still held.
    let next = user.koncli("lease acquire db --holder b --priority 5 --wait").spawn();
    let asked = guard.asked_back().await;
    assert_eq!((asked.by.as_str(), asked.force), ("b", false));
    assert!(asked.until <= guard.standing().deadline && guard.is_held() && next.runs());
    // Completed while it is held, and released: the next one has it at once, and the record stays.
    let done = guard.complete(&key).await.expect("held");
    assert_eq!((done.holder.as_str(), done.token), ("a", guard.token()));
    assert_eq!(guard.complete(&key).await.expect("once is enough"), done);
    guard.release().await.expect("held");
    next.wait().await.succeeds();
    assert_eq!(client.completed("db").await.expect("it is there"), [done]);
    client.clear_completed("db", None).await.expect("a user may");
    user.koncli("lease release db --holder b").run().await.succeeds();

    // Lost: work is dropped, nothing is recorded, and what the next one has is left alone.
    let guard = client.acquire_guarded(&want).await.expect("free");
    operator.koncli("lease release db --force").run().await.succeeds();
    let next = client.acquire_guarded(&Acquire::new("db", "c")).await.expect("free");
    let lost = guard.while_held(std::future::pending::<()>()).await.expect_err("lost");
    assert!(matches!(lost.problem(), Problem::Lost { .. }), "{lost}");
    assert!(!guard.is_held());
    let refused = guard.complete(&key).await.expect_err("lost");
    assert!(matches!(refused.problem(), Problem::Lost { .. }), "{refused}");
    assert_eq!(client.completed("db").await.expect("it is there"), []);
    guard.release().await.expect_err("there is nothing to release");
    assert!(next.is_held());
    assert_eq!(team.lease("db").await.holder(), Some("c"));

    // Dropped: it is not released, only not renewed any more.
    let token = next.token();
    let behind = user.koncli("lease acquire db --holder d --wait").spawn();
    pending(&team, "db", 1).await;
    drop(next);
    behind.wait().await.succeeds();
    let lease = team.lease("db").await;
    assert_eq!((lease.phase(), lease.ending_of(token)), (LeasePhase::Held, Some(HoldEnd::Expired)));
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}
