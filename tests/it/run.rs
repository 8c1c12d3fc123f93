//! `koncli lease run`: real commands under real holds.

use std::path::{Path, PathBuf};

use konductor_crds::{
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase},
};
use konductor_tests::*;
use serde_json::json;

use super::crash::pending;

/// A command that lives until it is killed, and says when it lives.
const BEATS: &str = "echo pid $$; while :; do date +%s%3N >> \"$BEATS\"; sleep 0.05; done";

fn run(user: &User<'_>, words: &str, command: &str) -> Cli {
    user.koncli(&format!("lease run {words} -- sh -c")).arg(command)
}

/// A run of [`BEATS`], with what it prefers to do first, and where it beats.
fn beating(user: &User<'_>, words: &str, first: &str) -> (Running, PathBuf) {
    let cli = run(user, words, &format!("{first} {BEATS}"));
    let beats = cli.directory().join(format!("beats-{}", words.replace(['/', ' '], "_")));
    (cli.env("BEATS", &beats).spawn(), beats)
}

/// The process ids that a command has told, once it has told so many.
async fn pids(running: &Running, count: usize) -> Vec<u32> {
    eventually(&format!("{count} processes say who they are"), async || {
        let said = running.said();
        let pids: Vec<u32> = said.lines().filter_map(|line| line.strip_prefix("pid ")?.trim().parse().ok()).collect();
        if pids.len() >= count { Ok(pids) } else { Err(said) }
    })
    .await
}

/// Whether a process is there, and not only its exit status for an init that does not fetch it.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn dies(pid: u32) {
    eventually(&format!("process {pid} is gone"), async || if lives(pid) { Err("it lives") } else { Ok(()) }).await;
}

/// When it lived last, in milliseconds since the epoch.
fn last_beat(beats: &Path) -> i64 {
    let text = std::fs::read_to_string(beats).expect("it has lived");
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no beats: {text:?}"))
}

async fn beats_on(beats: &Path) {
    let before = std::fs::read_to_string(beats).unwrap_or_default().len();
    eventually("the command lives", async || {
        let text = std::fs::read_to_string(beats).unwrap_or_default();
        if text.len() > before { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn held(team: &Namespace<'_>, lease: &str, holder: &str) {
    team.lease_is(lease, &format!("held by {holder}"), |l| l.phase() == LeasePhase::Held && l.holder() == Some(holder))
        .await;
}

async fn is_judged(plane: &ControlPlane, team: &Namespace<'_>) {
    checker::check(&plane.history(team).await).unwrap_or_else(|violations| panic!("{violations}"));
}

#[tokio::test]
async fn a_command_runs_as_if_alone() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let stranger = team.user(&[]).await;
    team.create_lease("db", "1m").await;
    team.create_lease("taken", "1m").await;
    user.koncli("lease acquire taken --holder other").run().await.succeeds();

    // Its exit status, a signal as a shell tells it, and what is koncli's own.
    for (words, command, code, says) in [
        ("db", &["sh", "-c", "exit 3"][..], 3, ""),
        ("db", &["true"], 0, ""),
        ("db", &["sh", "-c", "kill -9 $$"], 137, ""),
        ("db", &["no-such-command"], 127, "cannot run no-such-command"),
        ("db", &["/etc/hostname"], 126, "cannot run /etc/hostname"),
        ("taken", &["true"], 75, "other holds it until"),
        ("taken --timeout 3s", &["true"], 75, "within 3s"),
        ("tkaen", &["true"], 125, "similar name there: taken"),
        ("db --ttl soon", &["true"], 125, "invalid value 'soon'"),
        ("Db", &["true"], 125, "lower-case"),
        ("db --once v1 --on-lost ignore", &["true"], 125, "exclude each other"),
        ("new --create --ttl 30s", &["sh", "-c", "exit 4"], 4, "created lease new"),
    ] {
        let cli = user.koncli(&format!("lease run {words} --")).env("HOSTNAME", "host");
        let output = command.iter().fold(cli, Cli::arg).run().await.exits_with(code).complains(says);
        assert_eq!(output.stdout, "", "stdout is the command's: {output}");
        let lease = team.lease("db").await;
        assert_eq!(lease.phase(), LeasePhase::Available, "released after {words} {command:?}");
    }
    stranger.koncli("lease run db -- true").run().await.exits_with(125).complains("ClusterRole konductor-lease-user");
    user.koncli("lease run db").run().await.exits_with(125).complains("Usage:");

    // Arguments as they are, and the environment.
    let args = user.koncli("lease run db -- printf %s|").arg("a b").arg("$HOME").arg("").arg("'").run().await;
    assert_eq!(args.succeeds().stdout, "a b|$HOME||'|");
    let told = "echo $KONDUCTOR_LEASE $KONDUCTOR_NAMESPACE $KONDUCTOR_HOLDER $KONDUCTOR_TOKEN $KONDUCTOR_EXPIRES; koncli lease status db -o json";
    let told =
        user.script("host", &format!("koncli lease run db --holder me -- sh -c '{told}'")).run().await.succeeds();
    let (line, status) = told.stdout.split_once('\n').expect("lines");
    let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
    let [token, expires] = ["fencingToken", "expires"].map(|field| status["status"][field].to_string());
    assert_eq!(line, format!("db team me {token} {}", expires.trim_matches('"')));

    // Two runs on one host are two holders.
    let one = run(&user, "db", "echo here; sleep 60").env("HOSTNAME", "host").spawn();
    one.says("here").await;
    run(&user, "db", "true").env("HOSTNAME", "host").run().await.exits_with(75).complains("host-");
    one.signal(Signal::TERM);
    one.wait().await.exits_with(143);

    // stdin and stdout are its own.
    let piped = user.script("host", "printf 'a\\nb' | koncli lease run db -- tr a-z A-Z | cat").run().await.succeeds();
    assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("A\nB", ""));

    // Signals are passed on to all of it; how it ends is its own affair.
    let traps: String =
        ["INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"].iter().map(|s| format!("trap 'echo got {s}' {s};")).collect();
    let inner = "trap 'echo inner USR1; exit' USR1; echo inner ready; while :; do sleep 0.02; done";
    let traps = format!("{traps} trap 'echo got TERM; exit 7' TERM; ({inner}) & while :; do sleep 0.02; done");
    let running = user.koncli("lease run db --holder me -- bash -c").arg(&traps).spawn();
    running.says("inner ready").await;
    running.signal(Signal::USR1);
    running.says("inner USR1").await;
    for (signal, name) in [
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ] {
        running.signal(signal);
        running.says(&format!("got {name}")).await;
    }
    running.signal(Signal::TERM);
    running.wait().await.exits_with(7).prints("got TERM");

    // What is ignored stays ignored, as nohup wants it.
    let nohup = user.script(
        "host",
        "trap '' HUP; exec koncli lease run db --holder me -- sh -c 'trap - HUP; echo ready; sleep 60'",
    );
    let nohup = nohup.spawn();
    nohup.says("ready").await;
    nohup.signal(Signal::HUP);
    nohup.signal(Signal::TERM);
    nohup.wait().await.exits_with(143);

    // A signal while it waits ends the wait, and withdraws.
    let waits = user.koncli("lease run taken --wait -- true").spawn();
    pending(&team, "taken", 1).await;
    waits.signal(Signal::TERM);
    waits.wait().await.exits_with(143).complains("terminated");
    pending(&team, "taken", 0).await;
    is_judged(&plane, &team).await;
}

/// PEERS.md: runners that release while the command still shuts down.
#[tokio::test]
async fn the_next_one_begins_when_nothing_of_the_last_is_left() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let operator = team.user(&["konductor-lease-operator"]).await;
    team.create_lease("db", "20s").await;

    // What ends it, what it does then, and what it ends with. Each tells its pids, and one of them takes its time.
    let slow = "trap 'sleep 1; exit 0' TERM; echo pid $BASHPID; while :; do sleep 0.05; done";
    let stubborn = "trap '' TERM; echo pid $BASHPID; while :; do sleep 0.05; done";
    for (what, command, signal, code) in [
        ("a command that cleans up", slow.to_owned(), Some(Signal::TERM), 0),
        ("a part that outlives the command", format!("({slow}) & echo pid $$; sleep 0.2; exit 5"), None, 5),
        ("a part that ignores SIGTERM", format!("({stubborn}) & echo pid $$; sleep 0.2; exit 6"), None, 6),
        (
            "a grandchild",
            format!("bash -c '({}) & exit 0'; echo pid $$; sleep 0.2; exit 8", stubborn.replace('\'', "\"")),
            None,
            8,
        ),
        (
            "a part in a group of its own, as timeout has it",
            format!("timeout 600 bash -c '{}' & echo pid $$; sleep 0.2; exit 9", stubborn.replace('\'', "\"")),
            None,
            9,
        ),
        ("a job in a group of its own", format!("set -m; ({slow}) & echo pid $$; sleep 0.2; exit 4"), None, 4),
        (
            "a daemon, without a parent before the command ends",
            format!("(setsid bash -c '{}' &); echo pid $$; sleep 0.2; exit 3", slow.replace('\'', "\"")),
            None,
            3,
        ),
    ] {
        let first = user.koncli("lease run db --holder first --grace 2s -- bash -c").arg(&command).spawn();
        let of_first = pids(&first, if code > 0 { 2 } else { 1 }).await;
        let all = of_first.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        // The next one looks at once whether anything of the first is left.
        let look = format!("for pid in {all}; do ! kill -0 $pid 2>/dev/null || echo $pid lives; done; echo looked");
        let next = user.koncli("lease run db --holder next --wait -- bash -c").arg(&look).spawn();
        if let Some(signal) = signal {
            pending(&team, "db", 1).await;
            first.signal(signal);
        }
        let first = first.wait().await.exits_with(code);
        let next = next.wait().await.succeeds().prints("looked");
        assert!(!next.stdout.contains("lives"), "{what}: {next}\n{first}");
        if code > 0 {
            first.complains("left processes behind");
        }
    }

    // Taken away by force: there is no time for anything.
    let (taken, beats) = beating(&user, "db --holder first", "trap '' TERM;");
    beats_on(&beats).await;
    let [pid] = pids(&taken, 1).await[..] else { panic!("one process") };
    operator.koncli("lease release db --force").run().await.succeeds();
    taken.wait().await.exits_with(124).complains("is lost").complains("SIGKILL");
    assert!(!lives(pid));

    // Also what has left the group, whose parent still lives then.
    let command =
        "trap '' TERM; timeout 600 bash -c 'trap \"\" TERM; echo pid $$; sleep 600 & wait' & echo pid $$; wait";
    let taken = user.koncli("lease run db --holder first -- bash -c").arg(command).spawn();
    let all = pids(&taken, 2).await;
    operator.koncli("lease release db --force").run().await.succeeds();
    taken.wait().await.exits_with(124).complains("SIGKILL");
    assert!(!all.into_iter().any(lives), "something of it is left");

    // Unless it is to run on.
    let runs_on =
        run(&user, "db --holder first --on-lost ignore", "echo ready; until [ -e go ]; do sleep 0.05; done; exit 9");
    let go = runs_on.directory().join("go");
    let runs_on = runs_on.spawn();
    runs_on.says("ready").await;
    operator.koncli("lease release db --force").run().await.succeeds();
    runs_on.says("runs on").await;
    run(&user, "db --holder next", "true").run().await.succeeds();
    std::fs::write(go, "").expect("written");
    runs_on.wait().await.exits_with(9);
    is_judged(&plane, &team).await;
}

#[tokio::test]
async fn who_is_asked_to_leave_leaves_within_the_grace() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let params = json!({"preemption": "LowerPriority", "gracePeriod": "10s"});
    team.create_lease_with("db", json!({"ttl": "1m", "policy": {"params": params}})).await;

    // It gets SIGTERM, and has the time that it needs.
    let first = run(
        &user,
        "db --holder low --grace 1s",
        "trap 'sleep 2; echo tidy; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
    );
    let first = first.spawn();
    first.says("ready").await;
    let next = run(&user, "db --holder high --priority 9 --wait", "echo mine").spawn();
    first.wait().await.exits_with(124).prints("tidy").complains("asked back for high");
    next.wait().await.succeeds().prints("mine");

    // Who does not listen is killed when that is over, not when the hold would be.
    let (stubborn, beats) = beating(&user, "db --holder low --grace 1s", "trap '' TERM;");
    beats_on(&beats).await;
    let next = run(&user, "db --holder high --priority 9 --wait", "date +%s%3N").spawn();
    stubborn.wait().await.exits_with(124).complains("grace is over");
    let next = next.wait().await.succeeds();
    assert!(last_beat(&beats) <= next.stdout.trim().parse().expect("a time"), "{next}");
    let ends: Vec<_> = team.lease("db").await.status.expect("a status").history.iter().map(|past| past.how).collect();
    assert!(!ends.contains(&HoldEnd::Expired), "{ends:?}");
    is_judged(&plane, &team).await;
}

#[tokio::test]
async fn an_api_server_that_is_away() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    // So long that the server can be started anew before it is over, on a machine that does much else.
    team.create_lease("long", "45s").await;
    team.create_lease("short", "10s").await;
    team.create_lease_with("fixed", json!({"ttl": "12s", "renewable": false})).await;

    // A hold that cannot be renewed ends, and the command before it.
    let (fixed, beats) = beating(&user, "fixed --grace 4s", "trap 'echo told to end; exit 0' TERM;");
    fixed.wait().await.exits_with(124).prints("told to end").complains("not renewable");
    let ended = &team.lease("fixed").await.status.expect("a status").history[0];
    assert_eq!(ended.how, HoldEnd::Released, "it was given back before it ran out");
    assert!(last_beat(&beats) <= parse_timestamp(&ended.ended).expect("a time"));

    let (long, undisturbed) = beating(&user, "long --holder me --grace 500ms", "");
    let (short, stopped) = beating(&user, "short --holder me --grace 1s", "trap 'echo told to end' TERM;");
    beats_on(&undisturbed).await;
    beats_on(&stopped).await;
    // Both are renewed once: what is counted from is the last renewal.
    for lease in ["long", "short"] {
        team.lease_is(lease, "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(0))).await;
    }
    plane.kill_apiserver();
    // Longer than the ttl: it is stopped in time, although nobody can be asked.
    short.wait().await.exits_with(124).prints("told to end").complains("not renewed").complains("SIGKILL");
    long.says("is not renewed, trying again").await;
    plane.start_apiserver().await;
    // Shorter: nothing happens to it.
    let renewals = async || team.lease("long").await.status.and_then(|s| s.renewals).unwrap_or_default();
    let before = renewals().await;
    team.lease_is("long", "renewed again", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(before))).await;
    beats_on(&undisturbed).await;
    long.signal(Signal::TERM);
    long.wait().await.exits_with(143);
    let ended = team.lease_is("short", "over", |l| l.phase() != LeasePhase::Held).await;
    let ended = &ended.status.expect("a status").history[0];
    assert!(last_beat(&stopped) < parse_timestamp(&ended.ended).expect("a time"), "dead before the hold was over");
    is_judged(&plane, &team).await;
}

/// The second process of a run.
fn watchdog_of(running: &Running) -> rustix::process::Pid {
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = std::fs::read_to_string(&children).expect("Linux");
    let is_watchdog = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("__watchdog"))
    };
    let pid = children.split_whitespace().find(is_watchdog).expect("it watches");
    rustix::process::Pid::from_raw(pid.parse().expect("a pid")).expect("a pid")
}

#[tokio::test]
async fn a_koncli_that_is_suspended_or_killed() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::with("--max-clock-skew=0s")).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("db", "6s").await;

    // Suspended alone: the command is dead when the next one begins, although nobody of the first runs.
    let (first, beats) = beating(&user, "db --holder first", "trap '' TERM;");
    beats_on(&beats).await;
    first.signal(Signal::STOP);
    let next = run(&user, "db --holder second --wait", "date +%s%3N; while :; do sleep 0.05; done").spawn();
    next.says("1").await;
    let begun: i64 = next.said().trim().parse().expect("a time");
    assert!(last_beat(&beats) < begun, "two at a time");
    let token = team.lease("db").await.token();
    first.signal(Signal::CONT);
    first.wait().await.exits_with(124).complains("did not run").complains("SIGKILL");
    let lease = team.lease("db").await;
    assert_eq!((lease.holder(), lease.token()), (Some("second"), token), "it took nothing from the next one");
    assert!(next.runs());
    next.signal(Signal::TERM);
    next.wait().await.exits_with(143);

    // Both processes are suspended, as on a machine that sleeps: it is killed as soon as the first one wakes.
    let (first, beats) = beating(&user, "db --holder third", "trap '' TERM;");
    beats_on(&beats).await;
    let [pid] = pids(&first, 1).await[..] else { panic!("one process") };
    let watchdog = watchdog_of(&first);
    rustix::process::kill_process(watchdog, Signal::STOP).expect("it lives");
    first.signal(Signal::STOP);
    let next = run(&user, "db --holder fourth --wait", "echo mine; while :; do sleep 0.05; done").spawn();
    next.says("mine").await;
    assert!(lives(pid), "nobody could have stopped it: this is what fencing tokens are for");
    first.signal(Signal::CONT);
    dies(pid).await;
    rustix::process::kill_process(watchdog, Signal::CONT).expect("it lives");
    first.wait().await.exits_with(124);
    held(&team, "db", "fourth").await;

    // Killed: all of the command dies with it, at once; the lease stays until it expires.
    next.signal(Signal::TERM);
    next.wait().await.exits_with(143);
    let killed = user.koncli("lease run db --holder fifth -- bash -c");
    let killed = killed.arg("trap '' TERM; (echo pid $BASHPID; sleep 600) & echo pid $$; wait; sleep 600").spawn();
    let command = pids(&killed, 2).await;
    assert!(command.iter().all(|&pid| lives(pid)));
    killed.signal(Signal::KILL);
    for pid in command {
        dies(pid).await;
    }
    let ended = team.lease_is("db", "over", |l| l.phase() != LeasePhase::Held).await;
    assert_eq!(ended.status.expect("a status").history[0].how, HoldEnd::Expired);

    // The watchdog itself is not needed for anything else, and leaves when all is well.
    let (alone, beats) = beating(&user, "db --holder sixth", "");
    beats_on(&beats).await;
    let watchdog = watchdog_of(&alone);
    rustix::process::kill_process(watchdog, Signal::KILL).expect("it lives");
    let lease = team.lease("db").await.status.and_then(|s| s.renewals).unwrap_or_default();
    team.lease_is("db", "renewed", |l| l.status.as_ref().is_some_and(|s| s.renewals > Some(lease))).await;
    alone.signal(Signal::TERM);
    alone.wait().await.exits_with(143);
    is_judged(&plane, &team).await;
}
