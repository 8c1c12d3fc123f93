//! Controllers and API servers that die or freeze in the middle of a storm: nothing lost, nothing granted twice.

use std::collections::BTreeMap;

use futures::future::join_all;
use konductor_crds::{
    LeaseRequest,
    v1::{LeasePhase, RequestPhase},
};
use konductor_tests::*;

use super::storm::{Storm, judged};

const LEASES: [&str; 3] = ["north", "east", "south"];
const CLIENTS: u64 = 12;

fn options() -> ControllerOptions {
    ControllerOptions::with("--leader-elect=false --max-clock-skew=0s --expired-retention=1s")
}

/// Processes of koncli that wait, one behind the other, for a lease that somebody holds.
struct Queue<'a> {
    team: &'a Namespace<'a>,
    user: &'a User<'a>,
    hold: LeaseRequest,
    waiting: Vec<(String, Running)>,
}

impl<'a> Queue<'a> {
    async fn new(team: &'a Namespace<'a>, user: &'a User<'a>) -> Self {
        team.create_lease("gate", "10m").await;
        let hold = team.request("gate", "holder").await;
        team.lease_is("gate", "held", |lease| lease.holder() == Some("holder")).await;
        let mut waiting = Vec::new();
        for number in 0..3 {
            let holder = format!("cli-{number}");
            let acquire = user.koncli("lease acquire gate --wait -o json --holder").arg(&holder).spawn();
            pending(team, "gate", number + 1).await;
            waiting.push((holder, acquire));
        }
        Self { team, user, hold, waiting }
    }

    /// Nobody has given up, and the hold still stands.
    async fn still_waits(&self) {
        for (holder, acquire) in &self.waiting {
            assert!(acquire.runs(), "{holder} has given up: {}", acquire.wait().await);
        }
        assert_eq!(self.team.lease("gate").await.holder(), Some("holder"));
    }

    async fn lets_in(&self) {
        self.team.delete_request(&self.hold).await;
    }

    /// Each gets the lease, in the order of arrival, and is told its own token.
    async fn all_get_it(self) {
        for (holder, acquire) in &self.waiting {
            let output = acquire.wait().await.succeeds();
            let lease = self.team.lease("gate").await;
            assert_eq!(lease.holder(), Some(holder.as_str()), "not in the order of arrival");
            assert_eq!(output.json()["token"].as_i64(), lease.token());
            self.user.koncli("lease release gate --holder").arg(holder).run().await.succeeds();
        }
        self.team.lease_is("gate", "free", |lease| lease.phase() == LeasePhase::Available).await;
    }
}

/// Waits until so many requests for a lease are pending.
pub(crate) async fn pending(team: &Namespace<'_>, lease: &str, count: usize) {
    eventually(&format!("{count} wait for {lease}"), async || {
        let all = team.requests().list(&Default::default()).await.map_err(|problem| problem.to_string())?;
        let waits =
            |request: &&LeaseRequest| request.spec.lease == lease && request.phase() == Some(RequestPhase::Pending);
        let found = all.items.iter().filter(waits).count();
        if found == count { Ok(()) } else { Err(format!("{found} do")) }
    })
    .await;
}

/// What was abandoned has run out, and what was allowed has happened; says how often what.
async fn ends_well(plane: &ControlPlane, team: &Namespace<'_>) -> BTreeMap<String, usize> {
    for lease in LEASES {
        team.lease_is(lease, "free", |lease| lease.phase() == LeasePhase::Available).await;
    }
    let (holds, endings) = judged(plane, team).await;
    println!("{} grants, ended {endings:?}", holds.len());
    endings
}

#[tokio::test]
async fn a_storm_outlives_controllers_that_are_killed() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let mut controller = Controller::start(&plane, options()).await;
    let queue = Queue::new(&team, &user).await;
    let storm = Storm::new(&team, &LEASES).await;
    let killing = async {
        for _ in 0..5 {
            storm.more_grants(20).await;
            controller.kill();
            controller = Controller::start(&plane, options()).await;
        }
        storm.more_grants(20).await;
        queue.still_waits().await;
        controller.kill();
        // Released while there is nobody to see it.
        queue.lets_in().await;
        controller = Controller::start(&plane, options()).await;
        queue.all_get_it().await;
    };
    storm.rages(CLIENTS, killing).await;
    ends_well(&plane, &team).await;
}

#[tokio::test]
async fn a_storm_outlives_api_servers_that_are_killed() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    // Two, whose watches come back at different times.
    let pair = [Controller::start(&plane, options()).await, Controller::start(&plane, options()).await];
    let queue = Queue::new(&team, &user).await;
    let storm = Storm::new(&team, &LEASES).await;
    let killing = async {
        for _ in 0..2 {
            storm.more_grants(25).await;
            plane.kill_apiserver();
            plane.start_apiserver().await;
        }
        storm.more_grants(25).await;
        queue.still_waits().await;
        queue.lets_in().await;
        queue.all_get_it().await;
    };
    storm.rages(CLIENTS, killing).await;
    ends_well(&plane, &team).await;
    for controller in &pair {
        let metrics = controller.metrics().await;
        assert_eq!(metrics.sum("konductor_reconciles_total", &[("outcome", "panic")]).unwrap_or_default(), 0.0);
    }
}

/// Whether it reconciles.
async fn leads(controller: &Controller) -> bool {
    controller.metrics().await.sum("konductor_leader", &[]) == Some(1.0)
}

/// Freezes a controller for longer than a ttl while others go on, and lets it go on where it was.
async fn freezes(team: &Namespace<'_>, storm: &Storm<'_>, frozen: &Controller) {
    storm.more_grants(10).await;
    frozen.signal(Signal::STOP);
    // Of a hold that begins now, the whole ttl passes, and somebody else has it after that.
    let name = format!("clock-{}", storm.granted());
    team.create_lease(&name, super::storm::TTL).await;
    super::lifecycle::hold(team, &name, "abandoned").await;
    super::lifecycle::hold(team, &name, "next").await;
    storm.more_grants(10).await;
    frozen.signal(Signal::CONT);
    frozen.ready().await;
    storm.more_grants(10).await;
}

#[tokio::test]
async fn a_frozen_controller_does_no_harm_when_it_thaws() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let storm = Storm::new(&team, &LEASES).await;
    let mut pair = [Controller::start(&plane, options()).await, Controller::start(&plane, options()).await];
    let freezing = async {
        for turn in 0..4 {
            freezes(&team, &storm, &pair[turn % 2]).await;
        }
        // With a leader: the other one takes over, and the old one thaws in the belief that it still leads.
        let elected =
            ControllerOptions::with("--leader-election-duration=3s --max-clock-skew=0s --expired-retention=1s");
        for controller in &pair {
            controller.kill();
        }
        pair = [
            Controller::start_unready(&plane, elected.clone()).await,
            Controller::start_unready(&plane, elected.clone()).await,
        ];
        join_all(pair.iter().map(Controller::ready)).await;
        for _ in 0..2 {
            let leader = eventually("one leads", async || match [leads(&pair[0]).await, leads(&pair[1]).await] {
                [true, false] => Ok(&pair[0]),
                [false, true] => Ok(&pair[1]),
                both => Err(format!("{both:?}")),
            })
            .await;
            freezes(&team, &storm, leader).await;
        }
    };
    storm.rages(CLIENTS, freezing).await;
    let endings = ends_well(&plane, &team).await;
    assert!(endings["Expired"] >= 6, "{endings:?}");
}
