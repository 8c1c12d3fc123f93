//! The page of the Lease API, as its users follow it: every command line and every script, taken from the page and run
//! unchanged. (Its manifests: `manifests`; its Jobs, run for real: `jobs`.)

use konductor_crds::v1::{HoldEnd, LeasePhase};
use konductor_tests::*;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    crash::pending,
    jobs::{apply, section},
};

pub(crate) fn page() -> String {
    repo::text("tests/fixtures/lease-api.md")
}

/// The only block of shell that has this text.
fn block(with: &str) -> String {
    let mut found = manifests::fenced(&page(), "bash").into_iter().filter(|block| block.contains(with));
    let block = found.next().unwrap_or_else(|| panic!("no block has {with:?}"));
    assert!(found.next().is_none(), "several blocks have {with:?}");
    block
}

/// Its command lines, without comments.
fn lines(block: &str) -> Vec<&str> {
    block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[tokio::test]
async fn the_command_lines_work_as_printed() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator", "konductor-lease-user"]).await;

    // CLI Usage: one after the other in a Pod, in one shell that stops at the first failure.
    let usage = block("# Check status");
    assert_eq!(lines(&usage).len(), 5);
    apply(&plane, &team, "migration.yaml", &section(&page(), "Job")[..1]).await;
    let output = user.script("pod-a", &format!("set -e\n{usage}")).run().await.succeeds();
    let lease = team.lease("db-migration").await;
    assert_eq!(lease.phase(), LeasePhase::Available);
    let past = &lease.status.as_ref().expect("a status").history;
    let told: Vec<_> = past.iter().map(|past| (past.holder.as_str(), past.how)).collect();
    assert_eq!(
        told,
        [("pod-a", HoldEnd::Released), ("pod-a", HoldEnd::Superseded)],
        "the second acquire is a new hold"
    );
    assert!(past[0].token > past[1].token);
    let output =
        output.prints("db-migration acquired by pod-a, token ").prints("db-migration renewed by pod-a, token ");
    output.prints("db-migration released by pod-a, token ").prints("Available");
    // Each line by itself says by its status what happened.
    let mut codes = Vec::new();
    for line in lines(&usage).into_iter().chain(lines(&usage).into_iter().skip(2)) {
        codes.push(user.script("pod-b", line).run().await.code);
    }
    // Renewing what is released is an error; releasing it again is not.
    assert_eq!(codes, [0, 0, 0, 0, 0, 3, 0, 0]);

    // Graceful Handover.
    let handover = block("$NEW_HOLDER");
    team.create_lease("my-lease", "10m").await;
    user.koncli("lease acquire my-lease --holder old").run().await.succeeds();
    let script = user.script("pod-a", &format!("set -e\n{handover}")).env("OLD_HOLDER", "old").env("NEW_HOLDER", "new");
    script.run().await.succeeds();
    let held = team.lease("my-lease").await;
    assert_eq!(held.holder(), Some("new"));
    assert_eq!(held.status.as_ref().expect("a status").history[0].how, HoldEnd::Released);

    troubleshooting(&plane, &team, &user, &operator).await;
    priorities(&team, &user).await;
    let history = plane.history(&team).await;
    checker::check(&history).unwrap_or_else(|violations| panic!("{violations}"));
}

/// `lease` is what kubectl calls coordination.k8s.io's Lease, which was there first; ours has its full name, or `kl`.
fn ours(line: &str) -> String {
    let line = line.replacen(" lease ", " leases.konductor.io ", 1);
    assert!(line.contains("leases.konductor.io"), "{line}");
    line
}

async fn troubleshooting(plane: &ControlPlane, team: &Namespace<'_>, user: &User<'_>, operator: &User<'_>) {
    // Lease Stuck: my-lease is held by `new`.
    let stuck = block("# Force release");
    let [holder, expires, force] = lines(&stuck)[..] else { panic!("three lines: {stuck}") };
    // As printed it is about the other Lease; "my-lease" is not one of those.
    user.script("x", holder).run().await.exits_with(1);
    let said = user.script("x", &ours(holder)).run().await.succeeds();
    assert_eq!(said.stdout, "new");
    let said = user.script("x", &ours(expires)).run().await.succeeds();
    let status = team.lease("my-lease").await.status.expect("a status");
    assert_eq!(Some(said.stdout), status.expires);

    // The printed patch goes to the Lease and not to its status. Kubernetes drops what is in it, and does not say so.
    let before = team.lease("my-lease").await;
    user.script("x", &ours(force)).run().await.succeeds().prints("patched");
    let after = team.lease("my-lease").await;
    assert_eq!((&after.spec, &after.status), (&before.spec, &before.status));
    // The same patch to the status does it. kubectl can send it there since 1.24; the API always takes it.
    let patch: Value = force
        .split_once("-p='")
        .and_then(|(_, rest)| rest.split_once('\''))
        .map(|(patch, _)| serde_json::from_str(patch).expect("JSON"))
        .expect("a patch");
    let forced: Api<konductor_crds::Lease> = Api::namespaced(operator.client().clone(), team.name());
    let denied: Api<konductor_crds::Lease> = Api::namespaced(user.client().clone(), team.name());
    denied
        .patch_status("my-lease", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect_err("taking it away needs the operator's role");
    if plane.version() < Version(1, 24) {
        forced.patch_status("my-lease", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    } else {
        operator.script("x", &format!("{} --subresource=status", ours(force))).run().await.succeeds();
    }
    let token = before.token().expect("a token");
    let freed = team.lease_is("my-lease", "taken away", |lease| lease.ending_of(token).is_some()).await;
    assert_eq!((freed.phase(), freed.ending_of(token)), (LeasePhase::Available, Some(HoldEnd::ForceReleased)));
    // Whoever was evicted is not given it back.
    user.koncli("lease renew my-lease --holder new").run().await.exits_with(3);

    // kubectl of any age can do it by a whole status, with the right to update one; and koncli.
    user.koncli("lease acquire my-lease --holder again").run().await.succeeds();
    let mut whole = serde_json::to_value(team.lease("my-lease").await).expect("JSON");
    whole["apiVersion"] = json!("konductor.io/v1");
    whole["kind"] = json!("Lease");
    whole["status"]["phase"] = json!("Available");
    whole["status"]["holder"] = json!("");
    let file = plane.directory().join("whole.json");
    std::fs::write(&file, whole.to_string()).expect("written");
    let url = format!("/apis/konductor.io/v1/namespaces/{}/leases/my-lease/status", team.name());
    plane.kubectl("replace --raw").arg(url).arg("-f").arg(&file).run().await.succeeds();
    team.lease_is("my-lease", "taken away", |lease| lease.phase() == LeasePhase::Available && lease.holder().is_none())
        .await;
    user.koncli("lease acquire my-lease --holder third").run().await.succeeds();
    operator.koncli("lease release my-lease --force").run().await.succeeds().prints("evicted third");

    // Acquisition Failures.
    let failures = block("kubectl describe");
    let described = user.script("x", &ours(lines(&failures)[0])).run().await.succeeds();
    described.prints("Fencing Token").prints("ForceReleased").prints("LeaseReady");
}

/// Who states no priority has the lease's, also when that is changed while he waits.
async fn priorities(team: &Namespace<'_>, user: &User<'_>) {
    let conflicts = block("# Update priority");
    let [show, update] = lines(&conflicts)[..] else { panic!("two lines: {conflicts}") };
    user.koncli("lease acquire my-lease --holder first").run().await.succeeds();
    let hold = team.lease("my-lease").await.status.and_then(|status| status.request).expect("held").name;
    let high = user.koncli("lease acquire my-lease --wait --holder twenty --priority 20").spawn();
    pending(team, "my-lease", 1).await;
    let plain = user.koncli("lease acquire my-lease --wait --holder plain").spawn();
    pending(team, "my-lease", 2).await;
    assert_eq!(user.script("x", &ours(show)).run().await.succeeds().stdout, "");
    user.script("x", &ours(update)).run().await.succeeds().prints("patched");
    assert_eq!(user.script("x", &ours(show)).run().await.succeeds().stdout, "50");
    let requests = team.requests();
    requests.delete(&hold, &Default::default()).await.expect("released");
    plain.wait().await.succeeds();
    assert!(high.runs(), "50 goes before 20");
    user.koncli("lease release my-lease --holder plain").run().await.succeeds();
    high.wait().await.succeeds();
}

#[tokio::test]
async fn the_renewal_loop_leads_until_it_dies() {
    /// What the script sleeps for 15 s and the lease's 30 s are here: both shorter by the same factor, and more.
    const TTL_MS: i64 = 6000;
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    let text = block("run-main-process");
    // The script asks for 30s. The default policy gives at most what the lease says.
    team.create_lease("my-service-leader", "6s").await;
    let script = |pod: &str, main: &str| {
        user.script(pod, &text).stand_in("sleep", "exec /bin/sleep 0.3").stand_in("run-main-process", main)
    };
    let for_ever = "echo \"$HOSTNAME leads\"; while :; do /bin/sleep 1; done";

    let first = script("pod-1", for_ever).spawn();
    first.says("pod-1 leads").await;
    let led = team
        .lease_is("my-service-leader", "held for much longer than its ttl", |lease| {
            let holding = lease.holding().expect("a complete hold");
            holding.is_some_and(|hold| hold.renewals >= 5 && hold.expires - hold.acquired > 2 * TTL_MS)
        })
        .await;
    assert_eq!(led.holder(), Some(format!("pod-1-{}", first.pid()).as_str()));
    assert!(first.runs());
    let second = script("pod-2", for_ever).run().await.succeeds();
    assert!(!second.stdout.contains("leads"), "two leaders: {second}");

    // Killed with everything that it has started: who tries next gets it when the ttl is over, and not before.
    first.kill();
    let third = script("pod-3", for_ever);
    let third = {
        let mut third = third.spawn();
        eventually("pod-3 takes over", async || {
            // As its supervisor would: what has ended is started again.
            if !third.runs() {
                third = script("pod-3", for_ever).spawn();
            }
            let holder = team.lease("my-service-leader").await.holder().unwrap_or_default().to_owned();
            if holder.starts_with("pod-3-") { Ok(()) } else { Err(format!("held by {holder}")) }
        })
        .await;
        third
    };
    third.says("pod-3 leads").await;
    let holds = checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
    let [before, after] = &holds[..] else { panic!("{holds:#?}") };
    assert_eq!(before.how, Some(HoldEnd::Expired));
    let gap = after.holding.acquired - before.holding.expires;
    assert!((0..TTL_MS).contains(&gap), "{gap} ms after the end of the ttl");

    // The loop notices that the lease is gone. It ends only itself: `koncli lease run` also stops what it leads.
    operator.koncli("lease release my-service-leader --force").run().await.succeeds();
    third.says("Lost lease, shutting down").await;
    assert!(third.runs(), "the script's exit ends a subshell");
    third.kill();

    // The way out: the main process ends, and the lease is free at once.
    let last = script("pod-4", "echo done").run().await.succeeds().prints("done");
    assert!(last.stdout.contains("my-service-leader released by pod-4-"), "{last}");
    let free = team.lease("my-service-leader").await;
    assert_eq!(free.phase(), LeasePhase::Available);
}
