//! What `koncli lease run --once` has completed, the client library's examples, and `lease run` on a terminal.

use konductor_tests::*;
use serde_json::json;

use super::crash::pending;

#[tokio::test]
async fn what_is_done_once_is_done_once() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    team.create_lease("db", "1m").await;
    let journal = plane.directory().join("journal");
    let migrate = |holder: &str, words: &str, command: &str| {
        let line = format!("lease run db --holder {holder} --wait --once v1 {words} -- sh -c");
        user.koncli(&line).arg(command).env("JOURNAL", &journal)
    };
    let migrations = || std::fs::read_to_string(&journal).unwrap_or_default().lines().count();
    const MIGRATE: &str = "echo run >> \"$JOURNAL\"";

    // A failure is not a completion, and neither is a success that was stopped.
    migrate("failing", "", &format!("{MIGRATE}; exit 5")).run().await.exits_with(5);
    let taken = migrate("taken", "", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done").spawn();
    taken.says("ready").await;
    operator.koncli("lease release db --force").run().await.succeeds();
    taken.wait().await.exits_with(124);
    user.koncli("lease once list db").run().await.succeeds().complains("nothing is recorded");
    std::fs::remove_file(&journal).expect("it failed once");

    // Many at once: one does it, and those who wait need not get the lease to know.
    let gate = format!("{MIGRATE}; echo ready; until [ -e open ]; do sleep 0.05; done");
    let first = migrate("pod-0", "", &gate).spawn();
    first.says("ready").await;
    let others: Vec<_> = (1..4).map(|n| migrate(&format!("pod-{n}"), "", MIGRATE).spawn()).collect();
    pending(&team, "db", 3).await;
    std::fs::write(plane.directory().join("open"), "").expect("written");
    first.wait().await.succeeds();
    for other in others {
        other.wait().await.succeeds().complains("v1 was completed by pod-0 at 2");
    }
    assert_eq!(migrations(), 1);
    // Later, also when the lease is taken; another key is another thing.
    user.koncli("lease acquire db --holder other").run().await.succeeds();
    migrate("late", "--timeout 0", MIGRATE).run().await.succeeds().complains("v1 was completed by pod-0");
    user.koncli("lease release db --holder other").run().await.succeeds();
    user.koncli("lease run db --once v2 -- true").run().await.succeeds();
    assert_eq!(migrations(), 1);

    // It can be seen by who may look, and cleared by who may use the lease.
    let listed = viewer.koncli("lease once list db -o json").run().await.succeeds().json();
    let records = listed["completed"].as_array().expect("a list");
    assert_eq!((records.len(), &records[0]["key"], &records[0]["holder"]), (2, &json!("v1"), &json!("pod-0")));
    assert!(records[0]["token"].as_i64() > Some(0));
    viewer.koncli("lease once list db -o name").run().await.succeeds().prints("v1\nv2\n");
    viewer.koncli("lease once list db").run().await.succeeds().prints("COMPLETED");
    viewer.koncli("lease status db").run().await.succeeds().prints("Completed:").prints("by pod-0");
    viewer.koncli("lease once clear db v1").run().await.exits_with(6).complains("patch leases.konductor.io");
    user.koncli("lease once clear db v7").run().await.exits_with(4).complains("recorded is: v1, v2");
    user.koncli("lease once clear db v1").run().await.succeeds().prints("it will run again");
    migrate("again", "", MIGRATE).run().await.succeeds();
    assert_eq!(migrations(), 2);
    user.koncli("lease once clear db --all").run().await.succeeds().prints("v1, v2");

    // It stays when the manifest is applied again.
    let manifest = plane.directory().join("lease.json");
    let object = json!({"apiVersion": "konductor.io/v1", "kind": "Lease", "metadata": {"name": "applied"}, "spec": {"ttl": "1m"}});
    std::fs::write(&manifest, object.to_string()).expect("written");
    user.kubectl("apply -f").arg(&manifest).run().await.succeeds();
    user.koncli("lease run applied --once v1 -- true").run().await.succeeds();
    std::fs::write(&manifest, object.to_string().replace("1m", "2m")).expect("written");
    user.kubectl("apply -f").arg(&manifest).run().await.succeeds();
    let output = user.koncli("lease run applied --once v1 -- false").run().await.succeeds();
    output.complains("was completed");
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}

#[tokio::test]
async fn the_examples_of_the_client_library_work() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    let params = json!({"preemption": "LowerPriority"});
    team.create_lease_with("leader", json!({"ttl": "6s", "policy": {"params": params}})).await;
    team.create_lease("db", "1m").await;
    let example = |name: &str, words: &str| {
        let path = binary(&format!("examples/{name}")).unwrap_or_else(|problem| panic!("{problem:#}"));
        user.script("pod", &format!("exec {name} {words}")).tool(name, &path).spawn()
    };

    let first = example("leader", "leader a");
    first.says("a leads, token").await;
    let second = example("leader", "leader b");
    pending(&team, "leader", 1).await;
    // It is renewed for as long as it leads.
    team.lease_is("leader", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(2))).await;
    operator.koncli("lease release leader --force").run().await.succeeds();
    first.says("a leads no more").await;
    second.says("b leads, token").await;
    // Who is asked to leave hands over, and leads again later.
    let urgent = user.koncli("lease run leader --holder urgent --priority 5 --wait -- echo done").run().await;
    urgent.succeeds().prints("done");
    second.says("b has handed over").await;
    first.says("a leads, token").await;
    // A leader that dies is followed by the next when its hold is over.
    first.kill();
    second.says("urgent is to lead\nb has handed over\nb leads, token").await;
    second.kill();

    let migrations: Vec<_> = ["x", "y", "z"].map(|holder| example("migrate_once", &format!("db v1 {holder}"))).into();
    let mut migrated = 0;
    for migration in migrations {
        migrated += migration.wait().await.succeeds().stdout.matches("migrates with token").count();
    }
    assert_eq!(migrated, 1);
    example("migrate_once", "db v1 late").wait().await.succeeds().prints("v1 was completed by");
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}

/// `script` gives a command a terminal of its own, and types what it reads.
#[tokio::test]
async fn a_command_can_use_its_terminal() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("db", "1m").await;
    let typed = |keys: &str, command: &str| {
        let wait = "until_there() { until [ -e $1 ]; do sleep 0.05; done; }; rm -f keys reads reads-again; mkfifo keys; exec 9<>keys";
        let script = format!("{wait}; ({keys}) >&9 & script -qec '{command}' /dev/null <&9");
        let child = "grep SigBlk /proc/self/status; touch reads; read x; echo \"got $x\"\ntrap 'echo interrupted; exit 9' INT; touch reads-again; read y";
        user.script("host", &script).stand_in("child", child).run()
    };
    // It reads, although it began in the background; afterwards the next one does.
    let output = typed(
        "until_there reads; printf 'one\\ntwo\\nthree\\n';",
        "koncli lease run db -- child; echo code $?; read z; echo then $z; exit 4",
    );
    let output = output.await.exits_with(4).prints("got one").prints("code 0").prints("then three");
    assert!(output.stdout.contains("0000000000000000"), "no signal is blocked in the command: {output}");
    // Ctrl-C goes to who has the foreground.
    let output = typed(
        "until_there reads; printf 'one\\n'; until_there reads-again; printf '\\003';",
        "koncli lease run db -- child",
    );
    output.await.exits_with(9).prints("interrupted");
    // Ctrl-C before it asks for the terminal reaches koncli, which passes it on.
    let output =
        typed("until_there reads; printf '\\003';", "koncli lease run db -- sh -c \"touch reads; exec sleep 60\"");
    output.await.exits_with(130);
    // Ctrl-Z stops both, and a shell with job control continues both.
    let output = typed(
        "until_there reads; printf 'one\\n'; until_there reads-again; printf '\\032'; until_there stopped; printf 'two\\n';",
        "rm -f stopped; bash -c \"set -m; koncli lease run db -- child; echo code \\$?; touch stopped; fg; echo code \\$?\"",
    );
    output.await.succeeds().prints("code 1").prints("code 0");
    checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
}
