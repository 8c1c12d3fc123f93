//! `koncli lease watch`, and what a person sees who waits: on real terminals.

use konductor_tests::*;
use serde_json::Value;

use crate::lifecycle::{ask, hold, holds, wait_for};

/// Not taken: the usual screen, with a cursor, and lines that are edited.
const GIVEN_BACK: [bool; 3] = [false; 3];
const TAKEN: [bool; 3] = [true; 3];

async fn is_taken(terminal: &Terminal, expected: [bool; 3]) {
    eventually("the terminal is taken or given back", async || {
        let is = terminal.is_taken();
        if is == expected { Ok(()) } else { Err(format!("{is:?}\n{}", terminal.shows())) }
    })
    .await;
}

#[tokio::test]
async fn a_picture_is_kept_current_and_the_terminal_is_given_back_on_every_way_out() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    team.create_lease("db", "10m").await;
    team.create_lease("report", "10m").await;
    let (ana, _) = hold(&team, "db", "ana").await;

    let mut terminal = viewer.koncli("lease watch").without_env("NO_COLOR").on_terminal(20, 100);
    terminal.says("Leases in namespace team   2 in all, 1 held, 0 in line").await;
    is_taken(&terminal, TAKEN).await;
    assert!(terminal.is_coloured(), "{}", terminal.shows());
    let shown = terminal.says("9m").await;
    assert!(shown.contains("db") && shown.contains("ana") && shown.contains("report"), "{shown}");

    // Time goes by without anything that happens.
    terminal.until("another second", |now| now != shown).await;
    let ben = wait_for(&team, ask("db", "ben")).await;
    terminal.says("1. ben").await;
    team.delete_request(&ana).await;
    holds(&team, &ben).await;
    terminal.says("handed over from ana (Released) to ben").await;

    // Smaller, and the picture is as small: its last row is the last of the terminal.
    terminal.resize(12, 60);
    let small = terminal
        .until("a smaller picture", |now| now.lines().nth(11).is_some_and(|row| row.starts_with("q quit")))
        .await;
    assert!(small.lines().count() == 12 && small.contains("ben"), "{small}");

    terminal.types("q");
    assert_eq!(terminal.ends().await, 0);
    is_taken(&terminal, GIVEN_BACK).await;

    // Stopped by Ctrl-Z and continued, by a shell that does that.
    let job = "set -m; koncli lease watch; echo stopped; read -r; fg; echo ended $?";
    let mut terminal = viewer.script("host", job).on_terminal(20, 100);
    terminal.says("Leases in namespace team").await;
    is_taken(&terminal, TAKEN).await;
    terminal.types("\x1a");
    terminal.says("stopped").await;
    is_taken(&terminal, GIVEN_BACK).await;
    terminal.types("\n");
    terminal.says("Leases in namespace team").await;
    is_taken(&terminal, TAKEN).await;
    terminal.types("q");
    terminal.says("ended 0").await;
    terminal.ends().await;
    is_taken(&terminal, GIVEN_BACK).await;

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut terminal = viewer.koncli("lease top db").on_terminal(20, 100);
        terminal.says("Leases in").await;
        is_taken(&terminal, TAKEN).await;
        terminal.signal(signal);
        assert_eq!(terminal.ends().await, 0, "{signal:?}");
        is_taken(&terminal, GIVEN_BACK).await;
    }
    // Ctrl-C as it is typed, and nobody who wants colours.
    let mut terminal = viewer.koncli("lease watch -n team db nodb").env("NO_COLOR", "1").on_terminal(20, 100);
    let shown = terminal.says("(no such lease)").await;
    assert!(!shown.contains("report") && !terminal.is_coloured(), "{shown}");
    terminal.types("\x03");
    assert_eq!(terminal.ends().await, 0);
    is_taken(&terminal, GIVEN_BACK).await;

    // An error is said on the usual screen.
    let stranger = team.user(&[]).await;
    let mut terminal = stranger.koncli("lease watch").on_terminal(20, 100);
    assert_eq!(terminal.ends().await, 6);
    is_taken(&terminal, GIVEN_BACK).await;
    terminal.says("konductor-lease-user").await;
}

#[tokio::test]
async fn anywhere_else_it_is_one_line_a_change() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    team.create_lease("db", "10m").await;
    team.create_lease("other", "10m").await;

    // Who reads them and goes ends them: with the next change at the latest.
    let first_line = |words: &str| viewer.script("host", &format!("koncli {words} | head -1; echo ended")).spawn();
    let gone =
        ["lease watch", "lease watch -o yaml", "lease list --watch", "lease list --watch -o json"].map(first_line);
    for gone in &gone {
        // Two leases are more than what is read, unless both came at once.
        eventually("the first line", async || if gone.said().is_empty() { Err("nothing") } else { Ok(()) }).await;
    }
    let lines = viewer.koncli("lease watch db nodb othr").spawn();
    lines.says("  db  free").await;
    lines.says("there is no lease nodb in namespace team yet").await;
    lines.says("there is no lease othr in namespace team yet; leases with a similar name there: other").await;
    let json = viewer.koncli("lease watch -o json").spawn();
    json.says("\"other\"").await;
    let (ana, _) = hold(&team, "db", "ana").await;
    lines.says("  db  granted to ana, token ").await;
    let ben = wait_for(&team, ask("db", "ben")).await;
    lines.says("  db  ben waits, 1 of 1 in line").await;
    let cid = wait_for(&team, ask("db", "cid")).await;
    lines.says("  db  cid waits, 2 of 2 in line").await;
    team.delete_request(&cid).await;
    lines.says("  db  cid waits no more").await;
    team.delete_request(&ana).await;
    lines.says("  db  handed over from ana (Released) to ben, token ").await;
    // An expiry: ben never says anything again.
    team.patch_lease("db", serde_json::json!({"spec": {"ttl": "1s"}})).await;
    let (fay, _) = hold(&team, "other", "fay").await;
    team.delete_request(&ben).await;
    lines.says("  db  free: ben's hold has ended (Released), token ").await;
    hold(&team, "db", "eve").await;
    lines.says("  db  free: eve's hold has ended (Expired), token ").await;
    team.delete_request(&fay).await;
    json.says("\"fay\",\"how\":\"Released\"").await;
    plane.kubectl("delete lease.konductor.io db -n team").run().await.succeeds();
    lines.says("  db  deleted").await;
    for gone in gone {
        gone.wait().await.succeeds().prints("ended");
    }
    lines.signal(Signal::TERM);
    let lines = lines.wait().await.succeeds();
    assert!(!lines.stdout.contains("other") && !lines.stdout.contains('\u{1b}'), "{lines}");

    json.says("\"Deleted\"").await;
    json.signal(Signal::INT);
    let json = json.wait().await.succeeds();
    assert_eq!(json.stderr, "");
    let changes: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_db: Vec<&str> = changes
        .iter()
        .filter(|change| change["lease"] == "db")
        .map(|change| change["change"].as_str().expect("a change"))
        .collect();
    assert_eq!(
        of_db,
        ["Current", "Granted", "Waiting", "Waiting", "Left", "HandedOver", "Ended", "Granted", "Ended", "Deleted"],
        "{json}"
    );

    // It ends by itself, on a terminal too if nobody wants a picture; and who may not see requests still sees leases.
    let ended = plane.koncli("lease watch -A --for 1ms").run().await.succeeds();
    ended.prints("  team/other  free");
    let refused = viewer.koncli("lease watch -A --for 1ms").run().await.exits_with(6);
    refused.complains("create clusterrolebinding konductor-lease-viewer --clusterrole=konductor-lease-viewer");
    let mut quiet = viewer.koncli("lease watch -q --for 1ms").on_terminal(20, 100);
    quiet.says("  other  free").await;
    assert_eq!(quiet.ends().await, 0);
    let role = "create clusterrole leases-only --verb=list,watch --resource=leases.konductor.io";
    plane.kubectl(role).run().await.succeeds();
    let blinkered = team.user(&["leases-only"]).await;
    let seen = blinkered.koncli("lease watch --for 1ms").run().await.succeeds();
    seen.prints("  other  free").complains("not allowed to list leaserequests.konductor.io");
}

#[tokio::test]
async fn who_waits_sees_the_holder_the_place_and_what_the_policy_says_and_a_script_sees_nothing() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("db", "10m").await;
    let (ana, _) = hold(&team, "db", "ana").await;
    let ben = wait_for(&team, ask("db", "ben")).await;

    let mut terminal = user.koncli("lease acquire db --holder me --wait").on_terminal(10, 120);
    let line = terminal.says("waiting for db: held by ana, expires in 9m").await;
    assert_eq!(line.trim().lines().count(), 1, "{line}");
    terminal.says("; 2 of 2 in line; the policy says: ").await;
    let script = user.koncli("lease acquire db --holder script --wait").spawn();
    team.lease_is("db", "waited for by three", |lease| lease.waiting() == 3).await;
    // It is one line, also where it does not fit, and it follows a hand-over.
    terminal.resize(10, 40);
    team.delete_request(&ana).await;
    holds(&team, &ben).await;
    let narrow = terminal.says("waiting for db: held by ben").await;
    let narrow = narrow.trim();
    assert!(narrow.lines().count() == 1 && narrow.ends_with('…'), "{narrow}");
    terminal.resize(10, 120);
    terminal.says("; 1 of 2 in line").await;
    team.delete_request(&ben).await;
    assert_eq!(terminal.ends().await, 0);
    let done = terminal.says("db acquired by me, token ").await;
    assert!(!done.contains("waiting for"), "the line is taken away: {done}");

    // Quiet is quiet, on a terminal too, until Ctrl-C.
    let mut quiet = user.koncli("lease acquire db --holder quiet --wait -q").on_terminal(10, 120);
    team.lease_is("db", "waited for by two", |lease| lease.waiting() == 2).await;
    quiet.types("\x03");
    assert_eq!(quiet.ends().await, 130);
    let said = quiet.says("interrupted").await;
    assert!(!said.contains("waiting for"), "{said}");

    user.koncli("lease release db --holder me").run().await.succeeds();
    let script = script.wait().await.succeeds();
    assert_eq!(script.stderr, "", "{script}");
}
