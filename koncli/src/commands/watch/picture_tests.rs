//! Pictures of scenes, in virtual time, without a terminal.

use konductor_crds::v1::{HoldEnd, RequestPhase};

use super::{
    super::scene::tests::{after, free, held, request, scene},
    *,
};
use crate::{client::Followed, commands::problem::tests::with};

fn frame(rows: usize, columns: usize, now_ms: i64) -> Frame {
    Frame { rows, columns, now_ms, place: "namespace prod".into(), namespaces: false, scroll: 0 }
}

fn text(picture: &Picture) -> String {
    let rows = picture.rows.iter().map(|row| row.iter().map(|(_, text)| text.as_str()).collect::<String>());
    rows.collect::<Vec<_>>().join("\n")
}

fn waits(lease: &str, holder: &str) -> konductor_crds::LeaseRequest {
    request(lease, holder, Some(RequestPhase::Pending), "")
}

fn hand_over() -> Scene {
    let mut scene = scene(
        vec![held("db", "ana", 7, 100_000), free("report")],
        vec![waits("db", "ben"), request("db", "cid", Some(RequestPhase::Pending), "held by ana\u{1b}[2J")],
    );
    let now = after(held("db", "ben", 8, 110_000), &[("ana", 7, HoldEnd::Expired)]);
    scene.lease_event(Followed::Modified(now), 9_000);
    scene
}

#[test]
fn a_picture_has_leases_the_line_and_the_latest() {
    let picture = picture(&hand_over(), &frame(14, 100, 10_000));
    assert_eq!(
        text(&picture),
        "Leases in namespace prod   2 in all, 1 held, 1 in line   00:00:10 UTC\n\
         LEASE   HOLDER  LEFT              TOKEN  LINE  NEXT\n\
         db      ben     [########] 1m40s  8      1     cid\n\
         \x20   1. cid  priority 0  held by ana [2J\n\
         report  -       -                        0\n\
         \n\n\n\n\n\n\
         Latest\n\
         \x20   1s ago  db  handed over from ana (Expired) to ben, token 8, expires in 1m40s\n\
         q quit   up/down scroll",
        "and nothing from elsewhere steers the terminal"
    );
}

#[test]
fn nothing_is_larger_than_the_terminal() {
    let mut scene = hand_over();
    let long = "a-holder-with-a-very-long-name-日本語-that-fits-nowhere";
    for number in 0..40 {
        let name = format!("lease-with-a-long-name-{number:02}");
        scene.lease_event(Followed::Added(held(&name, long, 1, 50_000)), 0);
        scene.request_event(Followed::Added(waits(&name, &format!("waiter-{number}"))), 0);
    }
    for rows in 0..60 {
        for columns in [0, 1, 5, 20, 40, 79, 80, 90, 200] {
            let picture = picture(&scene, &frame(rows, columns, 10_000));
            assert!(picture.rows.len() <= rows, "{rows}x{columns}");
            assert!(rows < ROOMY || picture.rows.len() == rows, "{rows}x{columns}: the footer is at the bottom");
            for row in &picture.rows {
                let wide: usize = row.iter().map(|(_, text)| width(text)).sum();
                assert!(wide <= columns, "{rows}x{columns}: {row:?}");
            }
        }
    }
    let narrow = text(&picture(&scene, &frame(20, 60, 10_000)));
    assert!(narrow.contains("a-holder") && narrow.contains("40s") && narrow.contains('…'), "{narrow}");
}

#[test]
fn what_does_not_fit_is_scrolled_to() {
    let leases = (0..40).map(|number| held(&format!("lease-{number:02}"), "ana", 1, 50_000)).collect();
    let scene = scene(leases, vec![]);
    let top = picture(&scene, &frame(13, 80, 0));
    assert_eq!((top.page, top.scroll_most), (10, 30));
    assert!(text(&top).contains("lease-09") && !text(&top).contains("lease-10"), "{}", text(&top));
    assert!(text(&top).contains("30 more below"));
    let bottom = picture(&scene, &Frame { scroll: 99, ..frame(13, 80, 0) });
    let bottom = text(&bottom);
    assert!(bottom.contains("lease-39") && !bottom.contains("lease-29") && !bottom.contains("more below"), "{bottom}");
    // A line of those who wait is left out where it would push leases off.
    let mut scene = scene;
    for holder in ["ben", "cid"] {
        scene.request_event(Followed::Added(waits("lease-00", holder)), 0);
    }
    let crowded = text(&picture(&scene, &frame(40, 80, 0)));
    assert!(crowded.contains("ben") && !crowded.contains("1. ben"), "{crowded}");
    let roomy = text(&picture(&scene, &frame(100, 80, 0)));
    assert!(roomy.contains("1. ben") && roomy.contains("2. cid") && roomy.contains("lease-39"), "{roomy}");
}

#[test]
fn the_time_left_runs_out() {
    let lease = held("db", "ana", 1, 100_000);
    for (now_ms, style, words) in [
        (0, Style::Good, "[########] 1m40s"),
        (51_000, Style::Good, "[####    ] 49s"),
        (85_000, Style::Warning, "[##      ] 15s"),
        (99_500, Style::Warning, "[#       ] 0s"),
        (100_000, Style::Bad, "[        ] over"),
        (999_000, Style::Bad, "[        ] over"),
    ] {
        assert_eq!(time_left(&lease, now_ms, true), (style, words.to_owned()), "{now_ms}");
    }
    let mut renewed = lease;
    if let Some(status) = &mut renewed.status {
        status.renewed = Some(format_timestamp(90_000));
        status.expires = Some(format_timestamp(190_000));
    }
    assert_eq!(time_left(&renewed, 90_000, true), (Style::Good, "[########] 1m40s".into()), "counted from the renewal");
    assert_eq!(time_left(&free("x"), 0, true), (Style::Faint, "-".into()));
}

#[test]
fn what_is_wrong_is_seen() {
    let broken = with(free("db"), &[["PolicyReady", "False", "PolicyFault", "out of fuel"]]);
    let invalid = with(free("invalid"), &[["Ready", "False", "InvalidSpec", "no such ttl"]]);
    let mut new = free("new");
    new.status = None;
    let mut scene = Scene::new(&["db".into(), "invalid".into(), "new".into(), "typo".into()]);
    scene.lease_event(Followed::Listed("1".into(), vec![broken, invalid, new]), 0);
    scene.begin(0);
    scene.lease_event(Followed::Trouble("connection refused".into()), 0);
    let picture = picture(&scene, &frame(20, 100, 0));
    let seen = text(&picture);
    for words in [
        "policy: out of fuel",
        "spec: no such ttl",
        "(no controller yet)",
        "(no such lease)",
        "may be old: connection refused",
    ] {
        assert!(seen.contains(words), "{words} in {seen}");
        let row = picture.rows.iter().find(|row| row.iter().any(|(_, text)| text.contains(words)));
        assert!(row.is_some_and(|row| row.iter().any(|(style, _)| *style == Style::Bad)), "{words}");
    }
}
