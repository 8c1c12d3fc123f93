//! The end of a hold's time: never early, never forgotten, and one write to the next holder.

use std::time::{Duration, Instant};

use konductor_crds::{
    Lease, LeaseRequestSpec,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons},
};
use konductor_tests::*;
use serde_json::json;

use crate::lifecycle::{alone, ask, event, hold, holds, is_finished, is_told, touch, wait_for, waits};

/// How much later than due a hold may end here, where two cores run everything at once. Alone it takes milliseconds.
const LATE_MOST: i64 = 10_000;

/// The phases that a Lease went through, from its first hold on.
fn phases(history: &History, lease: &str) -> Vec<LeasePhase> {
    let mut phases: Vec<_> = history.lease(lease).map(|(_, _, l)| l.phase()).collect();
    phases.dedup();
    phases.into_iter().skip_while(|phase| *phase != LeasePhase::Held).collect()
}

/// When the hold with this token has ended, and that it expired.
fn expired_at(lease: &Lease, token: i64) -> i64 {
    let past = lease.status.iter().flat_map(|s| &s.history).find(|past| past.token == token).expect("it is told");
    assert_eq!(past.how, HoldEnd::Expired);
    parse_timestamp(&past.ended).expect("a time")
}

/// Waits until somebody else holds a Lease, or nobody.
async fn is_over(team: &Namespace<'_>, lease: &str, hold: &Holding) -> Lease {
    let over = |l: &Lease| l.phase() != LeasePhase::Held || l.token() != Some(hold.token);
    team.lease_is(lease, &format!("no longer held by {}", hold.holder), over).await
}

#[tokio::test]
async fn a_hold_ends_at_its_expiry_and_never_before() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::with("--expired-retention 3s")).await;
    let team = plane.namespace("team").await;

    let nobody_waits = async {
        team.create_lease("alone", "1s").await;
        // Our own clock, from before the request was made: whatever the controller's timestamps say.
        let asked = Instant::now();
        let (request, holding) = hold(&team, "alone", "a").await;
        let expired = is_over(&team, "alone", &holding).await;
        assert!(asked.elapsed() >= Duration::from_secs(1), "after {:?}", asked.elapsed());
        assert_eq!(
            (expired.phase(), expired.holder(), expired.token()),
            (LeasePhase::Expired, None, Some(holding.token))
        );
        assert_eq!(expired.condition("Held"), Some(("False", reasons::LEASE_EXPIRED)));
        let late = expired_at(&expired, holding.token) - holding.expires;
        assert!((0..LATE_MOST).contains(&late), "{late} ms after its expiry");
        is_finished(&team, &request, reasons::EXPIRED).await;
        let (type_, message) = event(&team, "alone", reasons::EVENT_EXPIRED).await;
        assert!(type_ == "Warning" && message.starts_with("a (fencing token"), "{type_} {message}");

        let free = team.lease_is("alone", "cleaned up", |l| l.phase() == LeasePhase::Available).await;
        assert!(asked.elapsed() >= Duration::from_secs(1 + 3), "after {:?}", asked.elapsed());
        assert_eq!(free.condition("Held"), Some(("False", reasons::LEASE_AVAILABLE)));
        assert_eq!(free.status.and_then(|s| s.expires), None);
        // It is late with its renewal, and gets nothing for it.
        touch(&team, &request, 1).await;
        hold(&team, "alone", "b").await;
        is_finished(&team, &request, reasons::EXPIRED).await;
    };
    let somebody_comes = async {
        team.create_lease("shown", "500ms").await;
        let (_, first) = hold(&team, "shown", "a").await;
        assert_eq!(first.expires - first.acquired, 500);
        team.lease_is("shown", "expired", |l| l.phase() == LeasePhase::Expired).await;
        hold(&team, "shown", "b").await;
    };
    let a_line = async {
        // Before there is anything to hold, so that none of them can be too late to wait.
        let [a, b, c] =
            [team.request("line", "a").await, team.request("line", "b").await, team.request("line", "c").await];
        let asked = Instant::now();
        team.create_lease("line", "500ms").await;
        for (number, request) in (1..).zip([&a, &b, &c]) {
            is_finished(&team, request, reasons::EXPIRED).await;
            assert!(asked.elapsed() >= Duration::from_millis(500) * number, "{number} holds in {:?}", asked.elapsed());
        }
    };
    let renewed = async {
        team.create_lease("renewed", "4s").await;
        let asked = Instant::now();
        let (request, first) = hold(&team, "renewed", "a").await;
        let mut beats = 0;
        eventually("it was renewed for more than twice its ttl", async || {
            beats += 1;
            touch(&team, &request, beats).await;
            let lease = team.lease("renewed").await;
            assert_eq!(lease.token(), Some(first.token), "it is renewed in time");
            assert_eq!(lease.phase(), LeasePhase::Held, "it is renewed in time");
            if asked.elapsed() > Duration::from_secs(9) { Ok(()) } else { Err(format!("{beats} beats")) }
        })
        .await;
        let acted = |l: &Lease| l.status.as_ref().and_then(|s| s.request.as_ref()).is_some_and(|r| r.renewals == beats);
        let last = team.lease_is("renewed", "renewed for the last time", acted).await;
        let last = last.holding().expect("complete").expect("held");
        let lease = is_over(&team, "renewed", &last).await;
        assert!(expired_at(&lease, last.token) >= last.expires && last.expires > first.expires + 6_000);
    };
    tokio::join!(nobody_waits, somebody_comes, a_line, renewed);

    let history = plane.history(&team).await;
    let holds = checker::check(&history).expect("nothing forbidden");
    use LeasePhase::{Available, Expired, Held};
    assert_eq!(phases(&history, "alone")[..4], [Held, Expired, Available, Held]);
    assert_eq!(phases(&history, "shown")[..3], [Held, Expired, Held], "what is expired can be had at once");
    // From holder to holder in one write: no state in between was ever stored.
    let of_line = phases(&history, "line");
    assert_eq!(of_line.iter().filter(|phase| **phase == Held).count(), 1, "{of_line:?}");
    let line: Vec<_> = holds.iter().filter(|h| h.lease == "line").collect();
    assert_eq!(line.iter().map(|h| h.holding.holder.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for pair in line.windows(2) {
        assert_eq!(pair[0].over, Some(pair[1].granted), "the write that ends the one hold is the next grant");
        assert!(pair[1].holding.acquired >= pair[0].holding.expires);
        assert_eq!(pair[0].how, Some(HoldEnd::Expired));
    }
}

#[tokio::test]
async fn a_restart_ends_no_hold_early_and_forgets_none() {
    let plane = ControlPlane::installed().await;
    let flags = || ControllerOptions::with("--leader-elect=false --max-clock-skew 2s --expired-retention 1h");
    let controller = Controller::start(&plane, flags()).await;
    let team = plane.namespace("team").await;
    // What is over while nobody looks, what is over afterwards, and what is not over: alone and with a line.
    let start = async |name: &'static str, ttl: &str, waited_for: bool| {
        team.create_lease(name, ttl).await;
        let (holder, holding) = hold(&team, name, "holder").await;
        let waiter = if waited_for { Some(wait_for(&team, ask(name, "waiter")).await) } else { None };
        (holder, holding, waiter)
    };
    let (long, later, later_line, early, early_line) = tokio::join!(
        start("long", "10m", true),
        start("later", "14s", false),
        start("later-line", "14s", true),
        start("early", "500ms", false),
        start("early-line", "600ms", false),
    );
    controller.kill();
    let waiter = team.request("early-line", "waiter").await;
    let lease = team.lease("later").await;
    assert_eq!(lease.holding().expect("complete"), Some(later.1.clone()), "this machine is too slow for this test");
    let _controller = Controller::start(&plane, flags()).await;

    for (name, holding) in
        [("later", &later.1), ("later-line", &later_line.1), ("early", &early.1), ("early-line", &early_line.1)]
    {
        let lease = is_over(&team, name, holding).await;
        let late = expired_at(&lease, holding.token) - holding.expires;
        if name.starts_with("later") {
            // What another process wrote is believed with an allowance for the difference of the clocks.
            assert!((2_000..2_000 + LATE_MOST).contains(&late), "{name}: {late} ms");
        } else {
            assert!(late >= 0, "{name}: {late} ms");
        }
    }
    holds(&team, &later_line.2.expect("it waits")).await;
    team.lease_is("early", "expired", |l| l.phase() == LeasePhase::Expired).await;
    is_finished(&team, &early.0, reasons::EXPIRED).await;
    is_finished(&team, &later.0, reasons::EXPIRED).await;
    let seen = plane.history(&team).await;
    assert!(seen.lease("early-line").any(|(_, _, l)| l.holder() == Some("waiter")), "{waiter:?}");

    let lease = team.lease("long").await;
    assert_eq!(lease.holding().expect("complete"), Some(long.1.clone()), "what is not over stands");
    touch(&team, &long.0, 1).await;
    let lease = team.lease_is("long", "renewed", |l| l.status.as_ref().and_then(|s| s.renewals) == Some(1)).await;
    assert_eq!(lease.token(), Some(long.1.token));
    waits(&team, &long.2.expect("it waits")).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_new_leader_takes_nothing_from_those_that_hold_or_wait() {
    let plane = ControlPlane::installed().await;
    let flags = || ControllerOptions::with("--leader-election-duration 3s");
    let mut replicas = vec![
        Controller::start(&plane, flags().named("one")).await,
        Controller::start(&plane, flags().named("two")).await,
    ];
    let leaders = async |replicas: &[Controller]| {
        let mut leaders = Vec::new();
        for (index, replica) in replicas.iter().enumerate() {
            if replica.metrics().await.sum("konductor_leader", &[]) == Some(1.0) {
                leaders.push(index);
            }
        }
        leaders
    };
    let leader = async |replicas: &[Controller]| {
        eventually("one of them leads", async || match leaders(replicas).await[..] {
            [leader] => Ok(leader),
            ref odd => Err(format!("{odd:?}")),
        })
        .await
    };
    let first = leader(&replicas).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    team.create_lease("short", "1s").await;
    let (holder, holding) = hold(&team, "x", "holder").await;
    let old = wait_for(&team, LeaseRequestSpec { timeout: Some("40s".into()), ..ask("x", "old") }).await;
    let important = wait_for(&team, LeaseRequestSpec { priority: Some(5), ..ask("x", "important") }).await;
    hold(&team, "short", "a").await;

    replicas.remove(first).kill();
    // In the time without a leader: a sign of life, a new request, and nobody to end what runs out.
    touch(&team, &old, 1).await;
    let new = team.request("x", "new").await;
    assert_eq!(leader(&replicas).await, 0);
    waits(&team, &new).await;
    for request in [&old, &important] {
        is_told(&team, request, RequestPhase::Pending, reasons::WAITING).await;
    }
    assert_eq!(team.lease("x").await.holding().expect("complete"), Some(holding));
    team.lease_is("short", "over", |l| l.phase() != LeasePhase::Held).await;
    team.delete_request(&holder).await;
    holds(&team, &important).await;

    // A leader that is asked to stop hands its office over at once.
    replicas.push(Controller::start(&plane, flags().named("three")).await);
    assert_eq!(leaders(&replicas).await, [0]);
    let exit = replicas.remove(0).terminate().await;
    assert_eq!(exit.code, 0);
    assert_eq!(leader(&replicas).await, 0);
    team.delete_request(&important).await;
    holds(&team, &old).await;
    team.delete_request(&old).await;
    holds(&team, &new).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn who_stands_by_takes_over_at_once_when_the_leader_stops() {
    let plane = ControlPlane::installed().await;
    // A term that no test waits for: only the leader's stepping down can end it.
    let flags = || ControllerOptions::with("--leader-election-duration 10m");
    let leads = async |replica: &Controller| replica.metrics().await.sum("konductor_leader", &[]) == Some(1.0);
    let first = Controller::start(&plane, flags().named("one")).await;
    eventually("it leads", async || leads(&first).await.then_some(()).ok_or("not yet")).await;
    let second = Controller::start(&plane, flags().named("two")).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let (holder, _) = hold(&team, "x", "holder").await;
    let waiter = wait_for(&team, ask("x", "waiter")).await;
    assert!(!leads(&second).await);
    team.delete_request(&holder).await;
    holds(&team, &waiter).await;

    let next = team.request("x", "next").await;
    waits(&team, &next).await;
    // Both at once: what is given back while nobody leads is granted by the one that comes.
    let (exit, ()) = tokio::join!(first.terminate(), team.delete_request(&waiter));
    assert_eq!(exit.code, 0);
    holds(&team, &next).await;
    eventually("the other leads", async || leads(&second).await.then_some(()).ok_or("not yet")).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn no_hold_outlasts_the_longest_hold_that_is_allowed() {
    let plane = ControlPlane::installed().await;
    let options = ControllerOptions { args: vec!["--max-hold=8s".into()], ..alone() };
    let _controller = Controller::start(&plane, options).await;
    let team = plane.namespace("team").await;
    team.create_lease("long", "10m").await;
    team.create_lease_with("short", json!({"ttl": "5s"})).await;
    let (_, long) = hold(&team, "long", "a").await;
    assert_eq!(long.expires - long.acquired, 8_000);
    let (request, first) = hold(&team, "short", "a").await;
    let waiter = team.request("short", "b").await;
    let mut beats = 0;
    let lease = eventually("it is over, however often it is renewed", async || {
        beats += 1;
        touch(&team, &request, beats).await;
        let lease = team.lease("short").await;
        if lease.token() == Some(first.token) { Err(format!("{:?}", lease.status)) } else { Ok(lease) }
    })
    .await;
    let ended = expired_at(&lease, first.token);
    assert!((8_000..8_000 + LATE_MOST).contains(&(ended - first.acquired)), "after {} ms", ended - first.acquired);
    let seen = plane.history(&team).await;
    assert!(
        seen.lease("short").any(|(_, _, l)| l.status.as_ref().is_some_and(|s| s.renewals > Some(0))),
        "it was renewed"
    );
    assert_eq!(lease.holder(), Some(waiter.spec.holder.as_str()));
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}
