//! The page of the Lease API, as its users follow it: every command line and every script, taken from the page and run
//! unchanged. (Its manifests: `manifests`.)

use std::path::{Path, PathBuf};

use futures::future::join_all;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use konductor_crds::v1::{HoldEnd, LeasePhase};
use konductor_tests::{
    kubelet::{Kubelet, pods_of_job},
    manifests::Manifest,
    *,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{crash::pending, manifests::completed};

fn page() -> String {
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

/// The manifests of the section that has this kind.
fn section(kind: &str) -> Vec<Manifest> {
    let blocks = manifests::fenced(&page(), "yaml");
    let objects = |block: &String| manifests::objects(block, Path::new("lease-api.md")).expect("YAML");
    let mut found = blocks.iter().map(objects).filter(|all| all.iter().any(|one| one.object["kind"] == kind));
    found.next().unwrap_or_else(|| panic!("no example has a {kind}"))
}

async fn apply(plane: &ControlPlane, team: &Namespace<'_>, name: &str, objects: &[Manifest]) {
    let texts: Vec<_> = objects.iter().map(|one| serde_yaml::to_string(&one.object).expect("YAML")).collect();
    let path = plane.directory().join(name);
    std::fs::write(&path, texts.join("---\n")).expect("written");
    plane.kubectl("apply -f").arg(&path).arg("-n").arg(team.name()).run().await.succeeds();
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
    apply(&plane, &team, "migration.yaml", &section("Job")[..1]).await;
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
    const TTL_MS: i64 = 3000;
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    let text = block("run-main-process");
    // The script asks for 30s. The default policy gives at most what the lease says.
    team.create_lease("my-service-leader", "3s").await;
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

/// The policy of the library for what is to be done once.
pub(crate) fn once_policy() -> PathBuf {
    konductor_policy_library::build_one("once").unwrap_or_else(|problem| panic!("{problem}")).path
}

/// The phases of a Job's Pods, once there are so many.
async fn pods(plane: &ControlPlane, team: &Namespace<'_>, job: &str, count: usize, phase: &str) -> Vec<Pod> {
    eventually(&format!("{count} Pods of {job} are {phase}"), async || {
        let all = pods_of_job(plane.admin(), team.name(), job).await.map_err(|problem| problem.to_string())?;
        let is = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let phases: Vec<_> = all.iter().map(is).collect();
        let found: Vec<_> = all.into_iter().filter(|pod| is(pod) == phase).collect();
        if found.len() == count { Ok(found) } else { Err(format!("{phases:?}")) }
    })
    .await
}

async fn completes(plane: &ControlPlane, team: &Namespace<'_>, job: &str) {
    let jobs: Api<Job> = Api::namespaced(plane.admin().clone(), team.name());
    eventually(&format!("the Job {job} is complete"), async || {
        let job = jobs.get(job).await.map_err(|problem| problem.to_string())?;
        let status = job.status.unwrap_or_default();
        let conditions = status.conditions.clone().unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True") {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}

/// The lines of a file that stand-ins write.
fn written(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_jobs_run_for_real() {
    let plane = ControlPlane::start(Options::default()).await;
    // In this order, so that its garbage collector knows our resources from its start.
    plane.install().await;
    plane.start_server(Server::ControllerManager).await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    tokio::join!(a_migration(&plane), a_migration_that_is_done_once(&plane), a_report_every_day(&plane));
}

/// What stands in for `run-migrations`: notes who runs it and whether two ever do at once; takes until the file `go` is
/// there; and, as migration tools do, records what is applied and does not apply it again.
fn migrator(state: &Path) -> String {
    format!(
        r#"cd {}
exec 9>>lock
flock --nonblock 9 || echo "$HOSTNAME" >>overlaps
echo "$HOSTNAME" >>runs
until [ -e go ]; do /bin/sleep 0.05; done
grep -qsx 0042-add-index schema || echo 0042-add-index >>schema"#,
        state.display()
    )
}

fn state(plane: &ControlPlane, name: &str) -> PathBuf {
    let state = plane.directory().join(name);
    std::fs::create_dir_all(&state).expect("made");
    state
}

/// Three Pods, as printed. Never two migrate at the same time; but each of them that gets the lease in its 5 minutes
/// runs the migration, after the one before: the script has no notion of "done". What must not happen twice has to be
/// recorded where it happens, as migration tools do, or in a policy: see the next one.
async fn a_migration(plane: &ControlPlane) {
    let team = plane.namespace("migration").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "migration");
    let kubelet = Kubelet::start(plane, &user, &[("run-migrations", &migrator(&state))]);
    let manifests: Vec<_> = section("Job").into_iter().map(|one| completed(one, plane.version())).collect();
    apply(plane, &team, "migration.yaml", &manifests).await;

    pods(plane, &team, "migrate-db", 3, "Running").await;
    pending(&team, "db-migration", 2).await;
    let held = team.lease_is("db-migration", "held", |lease| lease.holder().is_some()).await;
    let first = held.holder().expect("held").to_owned();
    eventually("it migrates", async || match &written(&state.join("runs"))[..] {
        [one] if *one == first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Each request belongs to its Pod.
    let requests = team.requests().list(&Default::default()).await.expect("a list").items;
    assert_eq!(requests.len(), 3);
    for request in requests {
        let owners = request.metadata.owner_references.unwrap_or_default();
        let owners: Vec<_> = owners.iter().map(|owner| (owner.kind.as_str(), owner.name.as_str())).collect();
        assert_eq!(owners, [("Pod", request.spec.holder.as_str())]);
    }

    // The Pod that migrates is deleted: its request goes with it, and the next one need not wait for 15 minutes.
    let all: Api<Pod> = Api::namespaced(plane.admin().clone(), team.name());
    all.delete(&first, &Default::default()).await.expect("deleted");
    let next = team.lease_is("db-migration", "handed on", |l| l.holder().is_some_and(|holder| holder != first)).await;
    assert_eq!(next.status.as_ref().expect("a status").history[0].how, HoldEnd::Released);

    std::fs::write(state.join("go"), "").expect("written");
    completes(plane, &team, "migrate-db").await;
    let done = pods(plane, &team, "migrate-db", 3, "Succeeded").await;
    let mut expected = names(&done);
    expected.sort();
    let mut runs = written(&state.join("runs"));
    assert_eq!(runs.remove(0), first);
    runs.sort();
    assert_eq!(runs, expected, "the three ran it one after the other");
    assert_eq!(written(&state.join("overlaps")), [""; 0], "never two at once");
    assert_eq!(written(&state.join("schema")), ["0042-add-index"], "applied once, by whoever was first");
    for pod in &expected {
        assert!(kubelet.log(pod).contains("Running migration..."), "{pod}: {}", kubelet.log(pod));
    }
    let holds = checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
    assert_eq!(holds.len(), 4);
}

/// The same script with a policy that knows when it is done: exactly one of the three migrates, and the others say so.
async fn a_migration_that_is_done_once(plane: &ControlPlane) {
    let team = plane.namespace("once").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let author = team.user(&["konductor-policy-author"]).await;
    author.koncli("policy upload once").arg(once_policy()).run().await.succeeds();
    let state = state(plane, "once");
    let kubelet = Kubelet::start(plane, &user, &[("run-migrations", &migrator(&state))]);
    let mut manifests: Vec<_> = section("Job").into_iter().map(|one| completed(one, plane.version())).collect();
    manifests[0].object["spec"]["policy"] =
        json!({"name": "once", "onFailure": "Hold", "params": {"key": "0042-add-index"}});
    apply(plane, &team, "once.yaml", &manifests).await;

    pending(&team, "db-migration", 2).await;
    std::fs::write(state.join("go"), "").expect("written");
    completes(plane, &team, "migrate-db").await;
    let runs = written(&state.join("runs"));
    assert_eq!(runs.len(), 1, "exactly one migrates: {runs:?}");
    let mut said: Vec<_> =
        names(&pods(plane, &team, "migrate-db", 3, "Succeeded").await).iter().map(|pod| kubelet.log(pod)).collect();
    said.retain(|log| !log.contains("Running migration..."));
    assert_eq!(said.len(), 2);
    for log in said {
        assert!(log.contains("Migration already completed by another pod"), "{log}");
        assert!(log.contains("denied by policy: it is done already: 0042-add-index"), "{log}");
    }
}

/// A run that overlaps with the one before is skipped; the next one works.
async fn a_report_every_day(plane: &ControlPlane) {
    let team = plane.namespace("reports").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "reports");
    let generate =
        format!(r#"echo "$HOSTNAME" >>{0}/reports; until [ -e {0}/go ]; do /bin/sleep 0.05; done"#, state.display());
    let kubelet = Kubelet::start(plane, &user, &[("generate-report", &generate)]);
    let manifests: Vec<_> = section("CronJob").into_iter().map(|one| completed(one, plane.version())).collect();
    apply(plane, &team, "report.yaml", &manifests).await;
    let starts = async |job: &str| {
        let create = plane.kubectl("create job --from=cronjob/daily-report-job -n").arg(team.name()).arg(job);
        create.run().await.succeeds();
    };

    starts("monday").await;
    let monday = names(&pods(plane, &team, "monday", 1, "Running").await).remove(0);
    team.lease_is("daily-report", "held", |lease| lease.holder() == Some(&monday)).await;
    starts("tuesday").await;
    let tuesday = names(&pods(plane, &team, "tuesday", 1, "Succeeded").await).remove(0);
    assert!(kubelet.log(&tuesday).contains("Previous job still running, skipping"), "{}", kubelet.log(&tuesday));
    assert_eq!(team.lease("daily-report").await.holder(), Some(monday.as_str()), "undisturbed");
    std::fs::write(state.join("go"), "").expect("written");
    completes(plane, &team, "monday").await;
    assert_eq!(team.lease("daily-report").await.phase(), LeasePhase::Available);
    starts("wednesday").await;
    let wednesday = names(&pods(plane, &team, "wednesday", 1, "Succeeded").await).remove(0);
    assert!(kubelet.log(&wednesday).contains("Acquired lease, generating report..."), "{}", kubelet.log(&wednesday));
    assert_eq!(written(&state.join("reports")), [monday, wednesday]);
    join_all(["monday", "tuesday", "wednesday"].map(|job| completes(plane, &team, job))).await;
}
