//! Jobs, CronJobs and Deployments: those of the Lease API's page and of the tutorials, created by the real
//! kube-controller-manager, their commands run as processes by a kubelet for tests.

use std::path::{Path, PathBuf};

use futures::future::join_all;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use konductor_crds::v1::{HoldEnd, LeasePhase};
use konductor_tests::{
    kubelet::{Kubelet, pods_of_job},
    manifests::Manifest,
    *,
};
use kube::Api;
use serde_json::json;

use super::{crash::pending, lease_api::page, manifests::completed};

/// The manifests of the block of a page that has this kind.
pub(crate) fn section(page: &str, kind: &str) -> Vec<Manifest> {
    let blocks = manifests::fenced(page, "yaml");
    let objects = |block: &String| manifests::objects(block, Path::new("a page")).expect("YAML");
    let mut found = blocks.iter().map(objects).filter(|all| all.iter().any(|one| one.object["kind"] == kind));
    found.next().unwrap_or_else(|| panic!("no example has a {kind}"))
}

pub(crate) async fn apply(plane: &ControlPlane, team: &Namespace<'_>, name: &str, objects: &[Manifest]) {
    let texts: Vec<_> = objects.iter().map(|one| serde_yaml::to_string(&one.object).expect("YAML")).collect();
    let path = plane.directory().join(name);
    std::fs::write(&path, texts.join("---\n")).expect("written");
    plane.kubectl("apply -f").arg(&path).arg("-n").arg(team.name()).run().await.succeeds();
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

#[tokio::test]
async fn the_manifests_of_the_tutorials_run_for_real() {
    let plane = ControlPlane::start(Options::default()).await;
    plane.install().await;
    plane.start_server(Server::ControllerManager).await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    tokio::join!(the_tutorials_migration(&plane), the_tutorials_report(&plane), the_tutorials_leaders(&plane));
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
    let manifests: Vec<_> = section(&page(), "Job").into_iter().map(|one| completed(one, plane.version())).collect();
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
    let mut manifests: Vec<_> =
        section(&page(), "Job").into_iter().map(|one| completed(one, plane.version())).collect();
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

/// A run of the CronJob `daily-report-job`, now.
async fn starts(plane: &ControlPlane, team: &Namespace<'_>, job: &str) {
    let create = plane.kubectl("create job --from=cronjob/daily-report-job -n").arg(team.name()).arg(job);
    create.run().await.succeeds();
}

/// Two runs that overlap: the first holds the lease and works, the second says so and is done. Returns their Pods.
async fn two_reports(plane: &ControlPlane, team: &Namespace<'_>, kubelet: &Kubelet) -> (String, String) {
    starts(plane, team, "monday").await;
    let monday = names(&pods(plane, team, "monday", 1, "Running").await).remove(0);
    team.lease_is("daily-report", "held", |lease| lease.holder() == Some(&monday)).await;
    starts(plane, team, "tuesday").await;
    let tuesday = names(&pods(plane, team, "tuesday", 1, "Succeeded").await).remove(0);
    assert!(kubelet.log(&tuesday).contains("Previous job still running, skipping"), "{}", kubelet.log(&tuesday));
    (monday, tuesday)
}

/// A run that overlaps with the one before is skipped; the next one works.
async fn a_report_every_day(plane: &ControlPlane) {
    let team = plane.namespace("reports").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "reports");
    let generate =
        format!(r#"echo "$HOSTNAME" >>{0}/reports; until [ -e {0}/go ]; do /bin/sleep 0.05; done"#, state.display());
    let kubelet = Kubelet::start(plane, &user, &[("generate-report", &generate)]);
    let manifests: Vec<_> =
        section(&page(), "CronJob").into_iter().map(|one| completed(one, plane.version())).collect();
    apply(plane, &team, "report.yaml", &manifests).await;
    let (monday, _) = two_reports(plane, &team, &kubelet).await;
    assert_eq!(team.lease("daily-report").await.holder(), Some(monday.as_str()), "undisturbed");
    std::fs::write(state.join("go"), "").expect("written");
    completes(plane, &team, "monday").await;
    assert_eq!(team.lease("daily-report").await.phase(), LeasePhase::Available);
    starts(plane, &team, "wednesday").await;
    let wednesday = names(&pods(plane, &team, "wednesday", 1, "Succeeded").await).remove(0);
    assert!(kubelet.log(&wednesday).contains("Acquired lease, generating report..."), "{}", kubelet.log(&wednesday));
    assert_eq!(written(&state.join("reports")), [monday, wednesday]);
    join_all(["monday", "tuesday", "wednesday"].map(|job| completes(plane, &team, job))).await;
}

/// The manifests of a tutorial, in a namespace that has their service account.
async fn tutorial(plane: &ControlPlane, team: &Namespace<'_>, page: &str, kind: &str, account: &str) {
    plane.kubectl("create serviceaccount -n").arg(team.name()).arg(account).run().await.succeeds();
    let printed = section(&repo::text(&format!("docs/tutorials/{page}.md")), kind);
    // Unchanged, but for the older name of a CronJob's API where the API server is that old.
    let renamed = |mut one: Manifest| {
        if plane.version() < Version(1, 21) && kind == "CronJob" && one.object["kind"] == kind {
            one.object["apiVersion"] = json!("batch/v1beta1");
        }
        one
    };
    let manifests: Vec<_> = printed.into_iter().map(renamed).collect();
    apply(plane, team, &format!("{page}.yaml"), &manifests).await;
}

/// `lease run --once`: who fails is followed by the next, who succeeds by nobody, and all three Pods succeed.
async fn the_tutorials_migration(plane: &ControlPlane) {
    let team = plane.namespace("tutorial-migration").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "tutorial-migration");
    let fails_first = format!("cd {}; [ -e failed ] || {{ touch failed; exit 3; }}", state.display());
    let kubelet = Kubelet::start(plane, &user, &[("run-migrations", &format!("{fails_first}\n{}", migrator(&state)))]);
    tutorial(plane, &team, "migrations", "Job", "migrator").await;

    eventually("one migrates", async || match written(&state.join("runs")).len() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    pending(&team, "db-migration", 2).await;
    assert!(state.join("failed").exists(), "one has tried before");
    std::fs::write(state.join("go"), "").expect("written");
    completes(plane, &team, "migrate-db").await;

    let runs = written(&state.join("runs"));
    let [migrated] = &runs[..] else { panic!("exactly one migrates: {runs:?}") };
    assert_eq!(written(&state.join("schema")), ["0042-add-index"]);
    assert_eq!(written(&state.join("overlaps")), [""; 0]);
    for pod in names(&pods(plane, &team, "migrate-db", 3, "Succeeded").await) {
        let log = kubelet.log(&pod);
        let told = log.contains(&format!("v42 was completed by {migrated}"));
        assert!(told != (pod == *migrated), "{pod}, of which {migrated} has migrated: {log}");
    }
    let recorded = user.koncli("lease once list db-migration").run().await.succeeds();
    recorded.prints("v42").prints(migrated);
    assert_eq!(team.lease("db-migration").await.phase(), LeasePhase::Available);
}

/// `lease run` in a CronJob: a run that overlaps is skipped and is no failure; one that fails is one.
async fn the_tutorials_report(plane: &ControlPlane) {
    let team = plane.namespace("tutorial-report").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "tutorial-report");
    let generate = format!(
        r#"cd {}; echo "$HOSTNAME" >>reports; until [ -e go ]; do /bin/sleep 0.05; done; [ ! -e broken ]"#,
        state.display()
    );
    let kubelet = Kubelet::start(plane, &user, &[("generate-report", &generate)]);
    tutorial(plane, &team, "cronjob", "CronJob", "reporter").await;
    let (monday, tuesday) = two_reports(plane, &team, &kubelet).await;
    std::fs::write(state.join("broken"), "").expect("written");
    std::fs::write(state.join("go"), "").expect("written");
    let failed = names(&pods(plane, &team, "monday", 1, "Failed").await);
    assert_eq!(failed.join(" "), monday);
    std::fs::remove_file(state.join("broken")).expect("it was there");
    completes(plane, &team, "monday").await;
    assert_eq!(written(&state.join("reports"))[0], monday);
    assert!(!written(&state.join("reports")).contains(&tuesday));
    assert_eq!(team.lease("daily-report").await.phase(), LeasePhase::Available);
}

/// `lease run` in a Deployment: one leads, two wait; when its main process ends the next one leads, and the first waits.
async fn the_tutorials_leaders(plane: &ControlPlane) {
    let team = plane.namespace("tutorial-leaders").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let state = state(plane, "tutorial-leaders");
    let leads = format!(
        r#"cd {}
exec 9>>lock
flock --nonblock 9 || echo "$HOSTNAME" >>overlaps
echo "$HOSTNAME $KONDUCTOR_TOKEN" >>leaders
until [ -e "leave-$HOSTNAME" ]; do /bin/sleep 0.05; done"#,
        state.display()
    );
    let _kubelet = Kubelet::start(plane, &user, &[("run-main-process", &leads)]);
    tutorial(plane, &team, "leader-election", "Deployment", "service").await;

    let leaders = async |count: usize| {
        eventually(&format!("{count} have led"), async || {
            let leaders = written(&state.join("leaders"));
            if leaders.len() == count { Ok(leaders) } else { Err(format!("{leaders:?}")) }
        })
        .await
    };
    let first = leaders(1).await.remove(0);
    let (first, token) = first.split_once(' ').expect("a token");
    pending(&team, "service-leader", 2).await;
    std::fs::write(state.join(format!("leave-{first}")), "").expect("written");
    let second = leaders(2).await.remove(1);
    let (second, higher) = second.split_once(' ').expect("a token");
    assert_ne!(first, second, "the next in line");
    let number = |token: &str| token.parse::<i64>().expect("a number");
    assert!(number(higher) > number(token), "{token}, {higher}");
    pending(&team, "service-leader", 2).await;
    let lease = team.lease_is("service-leader", "held", |lease| lease.holder() == Some(second)).await;
    assert_eq!(lease.status.expect("a status").history[0].how, HoldEnd::Released);
    assert_eq!(written(&state.join("overlaps")), [""; 0], "never two at once");
}
