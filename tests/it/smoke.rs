//! One lease through a whole life with the real controller and the real koncli: the shortest proof that all parts fit.

use konductor_crds::v1::HoldEnd;
use konductor_tests::*;

#[tokio::test]
async fn a_lease_is_acquired_waited_for_handed_over_and_released() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let alice = team.user(&["konductor-lease-user"]).await;

    team.create_lease("db-migration", "10m").await;
    alice.koncli("lease acquire db-migration --holder pod-a").run().await.succeeds();
    alice.koncli("lease acquire db-migration --holder pod-b --timeout 0").run().await.exits_with(1);
    let waiting = alice.koncli("lease acquire db-migration --holder pod-b --wait --timeout=5m").spawn();
    team.lease_is("db-migration", "waited for", |lease| lease.waiting() == 1).await;
    assert!(waiting.runs());

    alice.koncli("lease renew db-migration --holder pod-a").run().await.succeeds();
    alice.koncli("lease release db-migration --holder pod-a").run().await.succeeds();
    waiting.wait().await.succeeds();
    team.lease_is("db-migration", "held by pod-b", |lease| lease.holder() == Some("pod-b")).await;
    alice.koncli("lease release db-migration --holder pod-b").run().await.succeeds();
    team.lease_is("db-migration", "free", |lease| lease.holder().is_none()).await;

    let holds = checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
    let told: Vec<_> = holds.iter().map(|hold| (hold.holding.holder.as_str(), hold.how)).collect();
    assert_eq!(told, [("pod-a", Some(HoldEnd::Released)), ("pod-b", Some(HoldEnd::Released))]);
    assert_eq!(controller.metrics().await.sum("konductor_grants_total", &[]), Some(2.0));
    assert_eq!(controller.terminate().await.code, 0);
}

#[tokio::test]
async fn a_printed_script_runs_in_a_pod_like_environment() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let alice = team.user(&["konductor-lease-user"]).await;
    team.create_lease("daily-report", "2h").await;
    let script = r#"
        if koncli lease acquire daily-report --holder $HOSTNAME --timeout 0; then
          generate-report
          koncli lease release daily-report --holder $HOSTNAME
        else
          echo "Previous job still running, skipping"
        fi"#;
    let pod = |name: &str| alice.script(name, script).stand_in("generate-report", "echo report by $HOSTNAME");
    pod("pod-1").run().await.succeeds().prints("report by pod-1");
    alice.koncli("lease acquire daily-report --holder somebody").run().await.succeeds();
    pod("pod-2").run().await.succeeds().prints("skipping");
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}
