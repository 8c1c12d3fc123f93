//! A Lease from its first request to its deletion: who gets it, keeps it, loses it, and what everybody is told.

use konductor_crds::{
    Lease, LeaseRequest, LeaseRequestSpec,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons},
};
use konductor_tests::*;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// A controller that does not wait until the last one, which was killed, is out of office.
pub fn alone() -> ControllerOptions {
    ControllerOptions::with("--leader-elect=false")
}

/// A request's spec, to add to.
pub fn ask(lease: &str, holder: &str) -> LeaseRequestSpec {
    LeaseRequestSpec { lease: lease.to_owned(), holder: holder.to_owned(), ..LeaseRequestSpec::default() }
}

pub fn uid(request: &LeaseRequest) -> &str {
    request.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether this request holds the Lease.
pub fn held_by(lease: &Lease, request: &LeaseRequest) -> bool {
    lease.phase() == LeasePhase::Held
        && lease.status.as_ref().and_then(|s| s.request.as_ref()).is_some_and(|r| r.uid == uid(request))
}

/// Waits until a request holds its Lease, and the hold is complete.
pub async fn holds(team: &Namespace<'_>, request: &LeaseRequest) -> Holding {
    let what = format!("held by {}'s request", request.spec.holder);
    let lease = team.lease_is(&request.spec.lease, &what, |l| held_by(l, request)).await;
    lease.holding().expect("complete").expect("held")
}

/// Creates a request on a free Lease and waits until it holds, however short that is.
pub async fn hold(team: &Namespace<'_>, lease: &str, holder: &str) -> (LeaseRequest, Holding) {
    let request = team.request(lease, holder).await;
    let (made, what) = (request.metadata.resource_version.clone(), format!("held by {holder}'s request"));
    let held = team.lease_since(made, lease, &what, |l| held_by(l, &request)).await;
    let holding = held.holding().expect("complete").expect("held");
    (request, holding)
}

/// Creates a request on a Lease that somebody holds and waits until it is told that it waits.
pub async fn wait_for(team: &Namespace<'_>, spec: LeaseRequestSpec) -> LeaseRequest {
    let request = team.request_with(spec).await;
    waits(team, &request).await;
    request
}

pub async fn waits(team: &Namespace<'_>, request: &LeaseRequest) {
    is_told(team, request, RequestPhase::Pending, reasons::WAITING).await;
}

/// Waits until a request's status says this.
pub async fn is_told(team: &Namespace<'_>, request: &LeaseRequest, phase: RequestPhase, reason: &str) -> LeaseRequest {
    let what = format!("told {}/{reason}", phase.as_str());
    team.request_is(request, &what, |r| r.phase() == Some(phase) && r.reason() == reason).await
}

pub async fn is_finished(team: &Namespace<'_>, request: &LeaseRequest, reason: &str) -> LeaseRequest {
    is_told(team, request, RequestPhase::Finished, reason).await
}

/// Raises a request's counter: a renewal, or a sign of life.
pub async fn touch(team: &Namespace<'_>, request: &LeaseRequest, renewals: i64) {
    let patch = Patch::Merge(json!({"spec": {"renewals": renewals}}));
    let name = request.metadata.name.as_deref().unwrap_or_default();
    team.requests().patch(name, &PatchParams::default(), &patch).await.expect("a request can be touched");
}

/// Writes into a Lease's status, with the rights of whoever `leases` belongs to.
pub async fn patch_status(leases: &Api<Lease>, name: &str, status: serde_json::Value) -> kube::Result<Lease> {
    leases.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await
}

/// Waits for an Event about an object, and returns its type and message.
pub async fn event(team: &Namespace<'_>, about: &str, reason: &str) -> (String, String) {
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(team.leases().into_client(), team.name());
    eventually(&format!("an Event {reason} about {about}"), async || {
        let all = events.list(&Default::default()).await.map_err(|e| e.to_string())?.items;
        let mut own = all.iter().filter(|e| e.involved_object.name.as_deref() == Some(about));
        match own.clone().find(|e| e.reason.as_deref() == Some(reason)) {
            Some(e) => Ok((e.type_.clone().unwrap_or_default(), e.message.clone().unwrap_or_default())),
            None => Err(format!("{:?}", own.by_ref().filter_map(|e| e.reason.clone()).collect::<Vec<_>>())),
        }
    })
    .await
}

/// Releases a Lease again and again, and tells in which order its requests held it.
async fn order(team: &Namespace<'_>, lease: &str, requests: &[&LeaseRequest]) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(holding) = team.lease(lease).await.holding().expect("complete") {
        order.push(holding.holder);
        let request = requests.iter().find(|r| uid(r) == holding.request).expect("one of ours");
        team.delete_request(request).await;
        team.lease_is(lease, "released", |l| l.token() != Some(holding.token) || l.phase() != LeasePhase::Held).await;
    }
    order
}

#[tokio::test]
async fn a_grant_is_one_write_that_says_everything_and_so_is_a_release() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;

    team.create_lease("db", "10m").await;
    let free = team.lease_is("db", "ready", |l| l.condition("Ready") == Some(("True", reasons::LEASE_READY))).await;
    assert_eq!((free.phase(), free.holder(), free.token(), free.waiting()), (LeasePhase::Available, None, None, 0));
    assert_eq!(free.condition("Held"), Some(("False", reasons::LEASE_AVAILABLE)));
    assert_eq!(free.condition("PolicyReady"), Some(("True", reasons::POLICY_ACTIVE)));
    let ready_at: i64 = free.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).expect("a number");

    let request = team.request("db", "pod-a").await;
    let name = request.metadata.name.clone().expect("a name");
    let told = is_told(&team, &request, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
    // What is asked for later is answered: whatever else the first request could have caused has happened.
    team.create_lease("later", "10m").await;
    hold(&team, "later", "b").await;

    let history = plane.history(&team).await;
    let writes: Vec<_> = history.events.iter().filter(|e| e.revision > ready_at).collect();
    let of = |name: &str| writes.iter().filter(|e| e.name == name).map(|e| e.change).collect::<Vec<_>>();
    assert_eq!(of("db"), [Change::Updated], "a grant is one write of the Lease");
    assert_eq!(of(&name), [Change::Created, Change::Updated], "and one of the request, which is advice");
    let revision = |name: &str| writes.iter().rfind(|e| e.name == name).map(|e| e.revision);
    assert!(revision("db") < revision(&name), "the Lease first");

    let lease = team.lease("db").await;
    let holding = lease.holding().expect("complete").expect("held");
    assert_eq!((holding.holder.as_str(), holding.request.as_str()), ("pod-a", uid(&request)));
    assert_eq!((holding.expires - holding.acquired, holding.renewals), (600_000, 0));
    assert_eq!(holding.token, ready_at, "the first token is the resourceVersion that the grant was computed from");
    let status = lease.status.clone().expect("a status");
    assert_eq!(status.renewed, status.acquired);
    assert_eq!(status.request.map(|r| (r.name, r.renewals)), Some((name, 0)));
    assert_eq!((status.waiting, status.preemption, status.history.len()), (Some(0), None, 0));
    let policy = status.policy.expect("who decided");
    assert_eq!(policy.name, "default");
    assert!(policy.digest.is_some_and(|d| d.starts_with("sha256:") && d.len() == 71));
    assert_eq!(policy.reason.as_deref(), Some("highest priority, then first come"));
    assert_eq!(lease.condition("Held"), Some(("True", reasons::LEASE_HELD)));
    assert_eq!(lease.condition("Ready"), Some(("True", reasons::LEASE_READY)));
    let told = told.status.expect("a status");
    assert_eq!((told.fencing_token, told.expires), (Some(holding.token), status.expires));

    team.delete_request(&request).await;
    let free = team.lease_is("db", "released", |l| l.phase() == LeasePhase::Available).await;
    let status = free.status.clone().expect("a status");
    assert_eq!((free.holder(), free.token()), (None, Some(holding.token)));
    assert_eq!((&status.acquired, &status.expires, &status.request, &status.renewals), (&None, &None, &None, &None));
    assert_eq!(free.condition("Held"), Some(("False", reasons::LEASE_AVAILABLE)));
    let [past] = &status.history[..] else { panic!("one hold has ended: {:?}", status.history) };
    assert_eq!((past.holder.as_str(), past.token, past.how), ("pod-a", holding.token, HoldEnd::Released));
    assert_eq!((parse_timestamp(&past.acquired), past.request.as_str()), (Some(holding.acquired), uid(&request)));
    assert_eq!(Some(&past.request_name), request.metadata.name.as_ref());
    assert!(parse_timestamp(&past.ended) > Some(holding.acquired));
    team.create_lease("later-still", "10m").await;
    hold(&team, "later-still", "c").await;

    let history = plane.history(&team).await;
    assert_eq!(history.lease("db").count(), 4, "created, ready, granted, released, and idle otherwise");
    checker::check(&history).expect("nothing forbidden");
    for reason in [reasons::EVENT_GRANTED, reasons::EVENT_RELEASED] {
        let (type_, message) = event(&team, "db", reason).await;
        assert_eq!(type_, "Normal");
        assert!(message.contains("pod-a") && message.contains(&holding.token.to_string()), "{message}");
    }
    let metrics = controller.metrics().await;
    assert_eq!(metrics.sum("konductor_grants_total", &[]), Some(3.0), "{}", metrics.text());
    assert_eq!(metrics.sum("konductor_holds_ended_total", &[("how", "released")]), Some(1.0));
}

#[tokio::test]
async fn the_highest_priority_is_next_then_the_first_that_came() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let priority =
        |lease: &str, holder: &str, priority: Option<i32>| LeaseRequestSpec { priority, ..ask(lease, holder) };

    let by_priority = async {
        team.create_lease("plain", "10m").await;
        let (first, _) = hold(&team, "plain", "first").await;
        let mut all = vec![first];
        for (holder, number) in [
            ("low", Some(-5)),
            ("none", None),
            ("high", Some(7)),
            ("zero", Some(0)),
            ("high-too", Some(7)),
            ("top", Some(i32::MAX)),
            ("bottom", Some(i32::MIN)),
        ] {
            all.push(wait_for(&team, priority("plain", holder, number)).await);
        }
        let all: Vec<_> = all.iter().collect();
        let order = order(&team, "plain", &all).await;
        assert_eq!(order, ["first", "top", "high", "high-too", "none", "zero", "low", "bottom"]);
    };
    let by_the_leases_priority = async {
        team.create_lease_with("important", json!({"ttl": "10m", "priority": 3})).await;
        let (first, _) = hold(&team, "important", "first").await;
        let mut all = vec![first];
        for (holder, number) in [("two", Some(2)), ("none", None), ("four", Some(4)), ("three", Some(3))] {
            all.push(wait_for(&team, priority("important", holder, number)).await);
        }
        let all: Vec<_> = all.iter().collect();
        assert_eq!(order(&team, "important", &all).await, ["first", "four", "none", "three", "two"]);
    };
    let by_a_changed_priority = async {
        team.create_lease("changes", "10m").await;
        let (first, holding) = hold(&team, "changes", "first").await;
        let three = wait_for(&team, priority("changes", "three", Some(3))).await;
        let none = wait_for(&team, priority("changes", "none", None)).await;
        let generation = team.patch_lease("changes", json!({"spec": {"priority": 10}})).await.metadata.generation;
        let seen = |l: &Lease| l.status.as_ref().and_then(|s| s.observed_generation) == generation;
        let lease = team.lease_is("changes", "seen with its new priority", seen).await;
        assert_eq!(lease.holding().expect("complete"), Some(holding), "it takes nothing from the holder");
        assert_eq!(order(&team, "changes", &[&first, &three, &none]).await, ["first", "none", "three"]);
    };
    tokio::join!(by_priority, by_the_leases_priority, by_a_changed_priority);
    let history = plane.history(&team).await;
    let holds = checker::check(&history).expect("nothing forbidden");
    assert_eq!(holds.len(), 8 + 5 + 3);
    // Released with somebody waiting: the next one holds after the same write.
    let free_between =
        history.lease("plain").skip_while(|(_, _, l)| l.holder().is_none()).filter(|(_, _, l)| l.holder().is_none());
    assert_eq!(free_between.count(), 1, "free only after the last of them");
}

/// Three requests of one second, in order. The order within a second is the point: the API server's timestamps are
/// whole seconds.
async fn three_of_one_second(team: &Namespace<'_>, lease: &str, holders: [&str; 3]) -> [LeaseRequest; 3] {
    loop {
        let [a, b, c] = holders;
        let three = [team.request(lease, a).await, team.request(lease, b).await, team.request(lease, c).await];
        if three.iter().all(|r| r.metadata.creation_timestamp == three[0].metadata.creation_timestamp) {
            return three;
        }
        for request in &three {
            team.delete_request(request).await;
        }
    }
}

#[tokio::test]
async fn first_come_is_first_served_across_restarts_of_the_controller() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;

    let controller = Controller::start(&plane, alone()).await;
    let (holder, _) = hold(&team, "x", "r0").await;
    let [r1, r2, r3] = three_of_one_second(&team, "x", ["r1", "r2", "r3"]).await;
    futures::join!(waits(&team, &r1), waits(&team, &r2), waits(&team, &r3));
    controller.kill();

    // While nobody looks: signs of life of those that wait, new ones, and the end of one that waited.
    touch(&team, &r1, 1).await;
    touch(&team, &r2, 1).await;
    let [r4, r5, r6] = three_of_one_second(&team, "x", ["r4", "r5", "r6"]).await;
    team.delete_request(&r3).await;
    let controller = Controller::start(&plane, alone()).await;
    futures::join!(waits(&team, &r4), waits(&team, &r5), waits(&team, &r6));
    touch(&team, &r4, 1).await;
    controller.kill();

    touch(&team, &r5, 1).await;
    touch(&team, &r1, 2).await;
    // And a release: it is honoured by whoever comes.
    team.delete_request(&holder).await;
    let _controller = Controller::start(&plane, alone()).await;
    holds(&team, &r1).await;
    let order = order(&team, "x", &[&r1, &r2, &r4, &r5, &r6]).await;
    assert_eq!(order, ["r1", "r2", "r4", "r5", "r6"]);
    let holds = checker::check(&plane.history(&team).await).expect("nothing forbidden");
    assert!(holds.iter().all(|h| h.how == Some(HoldEnd::Released)), "{holds:?}");
}

#[tokio::test]
async fn a_forced_release_never_gives_the_lease_back_to_the_evicted() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    // Where patches leave a phase Held without a holder, which the checker of histories forbids.
    let odd = plane.namespace("odd").await;
    let operators = [team.user(&["konductor-lease-operator"]).await, odd.user(&["konductor-lease-operator"]).await];
    let [leases, odd_leases] = operators.map(|o| Api::<Lease>::namespaced(o.client().clone(), o.namespace()));

    // As it is documented, and what a person may make of it.
    let alone = [
        (&team, "documented", json!({"phase": "Available", "holder": ""})),
        (&team, "with-null", json!({"phase": "Available", "holder": null})),
        (&team, "only-phase", json!({"phase": "Available"})),
        (&odd, "only-holder", json!({"holder": ""})),
    ]
    .map(async |(team, name, patch)| {
        let leases = if team.name() == "odd" { &odd_leases } else { &leases };
        team.create_lease(name, "10m").await;
        let (evicted, holding) = hold(team, name, "evicted").await;
        patch_status(leases, name, patch).await.expect("an operator may");
        let is = |l: &Lease| l.ending_of(holding.token) == Some(HoldEnd::ForceReleased);
        let free = team.lease_is(name, "force-released", is).await;
        assert_eq!((free.phase(), free.holder(), free.token()), (LeasePhase::Available, None, Some(holding.token)));
        is_finished(team, &evicted, reasons::FORCE_RELEASED).await;
        // It does not know yet, and renews. The next one is granted, and gives back: the evicted gets nothing.
        touch(team, &evicted, 1).await;
        let (next, _) = hold(team, name, "next").await;
        touch(team, &evicted, 2).await;
        team.delete_request(&next).await;
        team.lease_is(name, "free again", |l| l.phase() == LeasePhase::Available).await;
        let (type_, message) = event(team, name, reasons::EVENT_FORCE_RELEASED).await;
        assert!(type_ == "Warning" && message.contains("evicted"), "{type_} {message}");
        // The same process may ask anew, by a new request.
        hold(team, name, "evicted").await;
        assert_eq!(team.lease(name).await.status.expect("a status").history.len(), 2);
    });
    let with_a_line = async {
        team.create_lease("line", "10m").await;
        let (evicted, holding) = hold(&team, "line", "evicted").await;
        let waiter = wait_for(&team, ask("line", "waiter")).await;
        patch_status(&leases, "line", json!({"phase": "Available", "holder": ""})).await.expect("an operator may");
        let after = holds(&team, &waiter).await;
        assert!(after.token > holding.token);
        is_finished(&team, &evicted, reasons::FORCE_RELEASED).await;
        team.delete_request(&waiter).await;
        team.lease_is("line", "free", |l| l.phase() == LeasePhase::Available).await;
        hold(&team, "line", "somebody").await;
    };
    tokio::join!(futures::future::join_all(alone), with_a_line);
    let holds = checker::check(&plane.history(&team).await).expect("nothing forbidden");
    assert_eq!(holds.iter().filter(|h| h.how == Some(HoldEnd::ForceReleased)).count(), 4);
}

#[tokio::test]
async fn deleting_a_lease_ends_its_hold_and_no_token_ever_comes_back() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, alone()).await;
    let team = plane.namespace("team").await;
    let delete = async |name: &str| team.leases().delete(name, &Default::default()).await.map(drop).expect("deleted");

    let seen = async {
        team.create_lease("seen", "10m").await;
        let (holder, holding) = hold(&team, "seen", "holder").await;
        let waiter = wait_for(&team, ask("seen", "waiter")).await;
        delete("seen").await;
        is_finished(&team, &holder, reasons::LEASE_DELETED).await;
        is_told(&team, &waiter, RequestPhase::Pending, reasons::LEASE_NOT_FOUND).await;
        touch(&team, &holder, 1).await;

        team.create_lease("seen", "10m").await;
        let second = holds(&team, &waiter).await;
        assert!(second.token > holding.token, "{} after {}", second.token, holding.token);
        touch(&team, &holder, 2).await;
        team.delete_request(&waiter).await;
        let free = team.lease_is("seen", "released", |l| l.phase() == LeasePhase::Available).await;
        assert_eq!(free.status.expect("a status").history.len(), 1, "of the new Lease");
        let (_, third) = hold(&team, "seen", "somebody").await;
        assert!(third.token > second.token);
        is_finished(&team, &holder, reasons::LEASE_DELETED).await;
    };
    let early = async {
        let waiter = team.request("early", "waiter").await;
        let told = is_told(&team, &waiter, RequestPhase::Pending, reasons::LEASE_NOT_FOUND).await;
        let told = told.status.and_then(|s| s.message).unwrap_or_default();
        assert!(told.contains("no Lease of that name"), "{told}");
        let now_or_never = LeaseRequestSpec { timeout: Some("0s".into()), ..ask("early", "impatient") };
        let now_or_never = team.request_with(now_or_never).await;
        is_finished(&team, &now_or_never, reasons::TIMED_OUT).await;
        team.create_lease("early", "10m").await;
        holds(&team, &waiter).await;
        is_told(&team, &waiter, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
        is_finished(&team, &now_or_never, reasons::TIMED_OUT).await;
    };
    let unseen = async {
        team.create_lease("unseen", "10m").await;
        let (holder, holding) = hold(&team, "unseen", "holder").await;
        is_told(&team, &holder, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
        let waiter = wait_for(&team, ask("unseen", "waiter")).await;
        (holder, holding, waiter)
    };
    let (_, _, (holder, holding, waiter)) = tokio::join!(seen, early, unseen);

    // Deleted and made anew while nobody looks.
    controller.kill();
    delete("unseen").await;
    team.create_lease("unseen", "10m").await;
    touch(&team, &holder, 1).await;
    let _controller = Controller::start(&plane, alone()).await;
    let second = holds(&team, &waiter).await;
    assert!(second.token > holding.token);
    is_finished(&team, &holder, reasons::LEASE_DELETED).await;
    team.delete_request(&waiter).await;
    team.lease_is("unseen", "released", |l| l.phase() == LeasePhase::Available).await;
    hold(&team, "unseen", "somebody").await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_new_request_of_the_same_holder_takes_the_place_of_its_old_one() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;

    let while_it_holds = async {
        team.create_lease("held", "10m").await;
        let (old, first) = hold(&team, "held", "a").await;
        let waiter = wait_for(&team, LeaseRequestSpec { priority: Some(9), ..ask("held", "b") }).await;
        let new = team.request("held", "a").await;
        let second = holds(&team, &new).await;
        assert!(second.token > first.token && second.acquired >= first.acquired && second.renewals == 0);
        is_finished(&team, &old, reasons::SUPERSEDED).await;
        assert_eq!(team.lease("held").await.ending_of(first.token), Some(HoldEnd::Superseded));
        event(&team, "held", reasons::EVENT_SUPERSEDED).await;
        // What the old process still does harms nobody.
        touch(&team, &old, 1).await;
        team.delete_request(&old).await;
        assert_eq!(waiter.status, None, "as it was created");
        waits(&team, &waiter).await;
        let third = team.request("held", "a").await;
        assert!(holds(&team, &third).await.token > second.token);
        is_finished(&team, &new, reasons::SUPERSEDED).await;
        team.delete_request(&third).await;
        holds(&team, &waiter).await;
    };
    let while_it_waits = async {
        team.create_lease("waits", "10m").await;
        let (holder, _) = hold(&team, "waits", "x").await;
        let old = wait_for(&team, ask("waits", "y")).await;
        let between = wait_for(&team, ask("waits", "z")).await;
        let new = team.request("waits", "y").await;
        is_finished(&team, &old, reasons::SUPERSEDED).await;
        waits(&team, &new).await;
        team.lease_is("waits", "waited for by two", |l| l.waiting() == 2).await;
        team.delete_request(&holder).await;
        holds(&team, &between).await;
        team.delete_request(&between).await;
        holds(&team, &new).await;
    };
    let and_withdraws = async {
        team.create_lease("withdraws", "10m").await;
        let (holder, _) = hold(&team, "withdraws", "x").await;
        let old = wait_for(&team, ask("withdraws", "y")).await;
        let new = wait_for(&team, ask("withdraws", "y")).await;
        is_finished(&team, &old, reasons::SUPERSEDED).await;
        team.delete_request(&new).await;
        touch(&team, &old, 1).await;
        let other = wait_for(&team, ask("withdraws", "z")).await;
        team.delete_request(&holder).await;
        holds(&team, &other).await;
        team.delete_request(&other).await;
        team.lease_is("withdraws", "free", |l| l.phase() == LeasePhase::Available).await;
        is_finished(&team, &old, reasons::SUPERSEDED).await;
    };
    tokio::join!(while_it_holds, while_it_waits, and_withdraws);
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_request_that_nobody_touches_for_its_timeout_lapses() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let with_timeout =
        |holder: &str, timeout: &str| LeaseRequestSpec { timeout: Some(timeout.to_owned()), ..ask("x", holder) };
    team.create_lease("x", "10m").await;

    // Now or never: now.
    let holder = team.request_with(with_timeout("holder", "0s")).await;
    holds(&team, &holder).await;
    // Or never.
    let impatient = team.request_with(with_timeout("impatient", "0s")).await;
    let told = is_finished(&team, &impatient, reasons::TIMED_OUT).await;
    assert_eq!(told.status.and_then(|s| s.message).as_deref(), Some("the lease is held by holder"));

    let started = std::time::Instant::now();
    let alive = team.request_with(with_timeout("alive", "4s")).await;
    let dead = team.request_with(with_timeout("dead", "4s")).await;
    let patient = team.request("x", "patient").await;
    // One of them beats, until the other has lapsed and then for as long again.
    let mut beats = 0;
    let requests = team.requests();
    let mut lapsed = None;
    eventually("the one that nobody touches lapses, and the other one outlives it by as long again", async || {
        beats += 1;
        touch(&team, &alive, beats).await;
        let now = requests.get(dead.metadata.name.as_deref().unwrap_or_default()).await.map_err(|e| e.to_string())?;
        if lapsed.is_none() && now.phase() == Some(RequestPhase::Finished) {
            assert_eq!(now.reason(), reasons::TIMED_OUT);
            lapsed = Some(started.elapsed());
        }
        match lapsed {
            Some(lapsed) if started.elapsed() > lapsed * 2 => Ok(()),
            _ => Err(format!("{:?}: {:?}", started.elapsed(), now.status)),
        }
    })
    .await;
    let lapsed = lapsed.expect("it has");
    assert!(lapsed >= std::time::Duration::from_secs(4), "it lapsed after {lapsed:?}");
    waits(&team, &alive).await;
    waits(&team, &patient).await;

    // Whatever comes: those that are over are not granted.
    touch(&team, &dead, 1).await;
    touch(&team, &impatient, 1).await;
    team.delete_request(&holder).await;
    let holding = holds(&team, &alive).await;
    // Signs of life while waiting are not renewals.
    let status = team.lease("x").await.status.expect("a status");
    assert_eq!(status.request.map(|r| r.renewals), Some(beats));
    assert_eq!((holding.renewals, holding.expires - holding.acquired), (0, 600_000));
    is_told(&team, &alive, RequestPhase::Granted, reasons::LEASE_GRANTED).await;
    team.delete_request(&alive).await;
    holds(&team, &patient).await;
    team.delete_request(&patient).await;
    let free = team.lease_is("x", "free", |l| l.phase() == LeasePhase::Available).await;
    assert!(free.status.expect("a status").history.iter().all(|h| h.holder != "dead" && h.holder != "impatient"));
    let holds = checker::check(&plane.history(&team).await).expect("nothing forbidden");
    assert_eq!(holds.len(), 3);
}

#[tokio::test]
async fn raising_the_counter_renews_a_hold() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let acted_on = |lease: &Lease, counter| {
        lease.status.as_ref().and_then(|s| s.request.as_ref()).is_some_and(|r| r.renewals == counter)
    };

    let renewable = async {
        team.create_lease("renewable", "10m").await;
        let (request, first) = hold(&team, "renewable", "a").await;
        touch(&team, &request, 1).await;
        let lease = team.lease_is("renewable", "renewed", |l| acted_on(l, 1)).await;
        let second = lease.holding().expect("complete").expect("held");
        assert_eq!((second.token, second.renewals, second.acquired), (first.token, 1, first.acquired));
        assert!(second.expires > first.expires, "{second:?} after {first:?}");
        let renewed = lease.status.and_then(|s| s.renewed).as_deref().and_then(parse_timestamp);
        assert_eq!(renewed.map(|at| at + 600_000), Some(second.expires), "for the ttl from now");

        // A counter that has jumped is one renewal. A longer ttl counts from the next one on.
        team.patch_lease("renewable", json!({"spec": {"ttl": "20m"}})).await;
        let seen = |l: &Lease| l.status.as_ref().and_then(|s| s.observed_generation) == Some(2);
        let lease = team.lease_is("renewable", "seen with its new ttl", seen).await;
        assert_eq!(lease.holding().expect("complete"), Some(second.clone()), "a new ttl changes no hold");
        touch(&team, &request, 7).await;
        let lease = team.lease_is("renewable", "renewed", |l| acted_on(l, 7)).await;
        let third = lease.holding().expect("complete").expect("held");
        assert_eq!((third.token, third.renewals), (first.token, 2));
        assert!(third.expires >= first.acquired + 1_200_000);

        // A shorter one takes nothing back of what the holder was told.
        team.patch_lease("renewable", json!({"spec": {"ttl": "1m"}})).await;
        touch(&team, &request, 8).await;
        let lease = team.lease_is("renewable", "renewed", |l| acted_on(l, 8)).await;
        let fourth = lease.holding().expect("complete").expect("held");
        assert_eq!((fourth.renewals, fourth.expires), (3, third.expires));
    };
    let asks_for_a_ttl = async {
        team.create_lease("asked", "10m").await;
        let with_ttl = |holder: &str, ttl: &str| LeaseRequestSpec { ttl: Some(ttl.into()), ..ask("asked", holder) };
        let short = team.request_with(with_ttl("short", "5m")).await;
        let first = holds(&team, &short).await;
        assert_eq!(first.expires - first.acquired, 300_000, "the request's own ttl");
        touch(&team, &short, 1).await;
        let lease = team.lease_is("asked", "renewed", |l| acted_on(l, 1)).await;
        let renewed = lease.status.as_ref().and_then(|s| s.renewed.as_deref()).and_then(parse_timestamp);
        assert_eq!(lease.holding().expect("complete").map(|h| h.expires), renewed.map(|at| at + 300_000));
        team.delete_request(&short).await;
        let long = team.request_with(with_ttl("long", "1h")).await;
        let second = holds(&team, &long).await;
        assert_eq!(second.expires - second.acquired, 600_000, "never above the Lease's");
    };
    let not_renewable = async {
        team.create_lease_with("once", json!({"ttl": "6s", "renewable": false})).await;
        let (request, first) = hold(&team, "once", "a").await;
        touch(&team, &request, 1).await;
        let lease = team.lease_is("once", "answered", |l| acted_on(l, 1)).await;
        assert_eq!(lease.holding().expect("complete").map(|h| (h.expires, h.renewals)), Some((first.expires, 0)));
        let reason = lease.status.and_then(|s| s.policy).and_then(|p| p.reason).unwrap_or_default();
        assert!(reason.contains("not renewable"), "{reason}");
        let (type_, message) = event(&team, "once", reasons::EVENT_RENEWAL_REFUSED).await;
        assert!(type_ == "Warning" && message.contains("not renewable"), "{type_} {message}");
        touch(&team, &request, 2).await;
        let lease = team.lease_is("once", "over", |l| l.phase() != LeasePhase::Held).await;
        assert_eq!(lease.ending_of(first.token), Some(HoldEnd::Expired));
        is_finished(&team, &request, reasons::EXPIRED).await;
        touch(&team, &request, 3).await;
        hold(&team, "once", "b").await;
    };
    tokio::join!(renewable, asks_for_a_ttl, not_renewable);
    let history = plane.history(&team).await;
    checker::check(&history).expect("nothing forbidden");
    // Every renewal is one write, and so is a refusal.
    let writes = |lease: &str, told: fn(&Lease) -> Option<i64>| {
        let states = history.lease(lease).map(|(_, _, l)| l.clone()).collect::<Vec<_>>();
        states.windows(2).filter(|w| told(&w[1]).is_some() && told(&w[0]) != told(&w[1])).count()
    };
    assert_eq!(writes("renewable", |l| l.status.as_ref()?.request.as_ref().map(|r| r.renewals)), 1 + 3);
    assert_eq!(writes("asked", |l| l.status.as_ref()?.renewals), 1 + 1 + 1);
}

#[tokio::test]
async fn what_is_over_is_swept_and_those_that_wait_are_counted() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::with("--finished-retention 10s")).await;
    let team = plane.namespace("team").await;
    team.create_lease("x", "10m").await;
    let (holder, _) = hold(&team, "x", "holder").await;

    let started = std::time::Instant::now();
    let spec = |holder: &str, timeout: &str| LeaseRequestSpec { timeout: Some(timeout.into()), ..ask("x", holder) };
    let timed_out = team.request_with(spec("timed-out", "0s")).await;
    let invalid = team.request_with(LeaseRequestSpec { ttl: Some("banana".into()), ..ask("x", "invalid") }).await;
    let nowhere = team.request_with(LeaseRequestSpec { lease: "nowhere".into(), ..spec("nowhere", "0s") }).await;
    is_finished(&team, &timed_out, reasons::TIMED_OUT).await;
    is_told(&team, &invalid, RequestPhase::Denied, reasons::INVALID_REQUEST).await;
    is_finished(&team, &nowhere, reasons::TIMED_OUT).await;

    let counting = std::time::Instant::now();
    let mut waiters = Vec::new();
    for holder in ["a", "b", "c"] {
        waiters.push(wait_for(&team, ask("x", holder)).await);
    }
    team.lease_is("x", "waited for by three", |l| l.waiting() == 3).await;
    team.delete_request(&waiters[0]).await;
    team.lease_is("x", "waited for by two", |l| l.waiting() == 2).await;
    let before = plane.history(&team).await.lease("x").count() as u64;
    // Made, looked at and held; then one at most in three seconds, and one at either end.
    let most = 5 + counting.elapsed().as_secs() / 3;
    assert!(before <= most, "counting is worth few writes: {before}, and {most} would do");

    futures::join!(team.request_is_gone(&timed_out), team.request_is_gone(&invalid), team.request_is_gone(&nowhere));
    assert!(started.elapsed() >= std::time::Duration::from_secs(10), "kept for as long as it is said");
    let told = eventually("the metrics count what is left", async || {
        let metrics = controller.metrics().await;
        let count = |phase| metrics.sum("konductor_lease_requests", &[("phase", phase)]);
        let counts = (count("Granted"), count("Pending"), count("Finished"), count("Denied"));
        let same = counts == (Some(1.0), Some(2.0), Some(0.0), Some(0.0));
        if same { Ok(counts) } else { Err(format!("{counts:?}")) }
    });
    told.await;
    assert!(held_by(&team.lease("x").await, &holder), "who holds is not swept");
    waits(&team, &waiters[1]).await;
    team.delete_request(&holder).await;
    holds(&team, &waiters[1]).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}
