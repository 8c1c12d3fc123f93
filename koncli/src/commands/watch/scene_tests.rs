//! What is told of leases and requests, in virtual time.

use konductor_crds::{
    Lease, LeaseRequest, LeaseRequestSpec, LeaseRequestStatus, LeaseSpec, LeaseStatus,
    time::format_timestamp,
    v1::{HoldEnd, LeasePhase, PastHold, Preemption, RequestPhase, RequestRef},
};

use super::*;
use crate::commands::problem::tests::with;

/// A lease that somebody has, who asked with the request of uid `HOLDER-uid`.
pub(in crate::commands::watch) fn held(name: &str, holder: &str, token: i64, expires_ms: i64) -> Lease {
    let mut lease = free(name);
    lease.status = Some(LeaseStatus {
        phase: Some(LeasePhase::Held),
        holder: Some(holder.into()),
        fencing_token: Some(token),
        acquired: Some(format_timestamp(0)),
        expires: Some(format_timestamp(expires_ms)),
        request: Some(RequestRef { name: holder.into(), uid: format!("{holder}-uid"), renewals: 0, counted: None }),
        ..LeaseStatus::default()
    });
    lease
}

pub(in crate::commands::watch) fn free(name: &str) -> Lease {
    let mut lease = Lease::new(name, LeaseSpec { ttl: "100s".into(), ..LeaseSpec::default() });
    lease.metadata.namespace = Some("prod".into());
    lease.metadata.uid = Some(format!("{name}-uid"));
    lease.status = Some(LeaseStatus { phase: Some(LeasePhase::Available), ..LeaseStatus::default() });
    lease
}

/// The same lease, after holds that have ended; the newest last.
pub(in crate::commands::watch) fn after(mut lease: Lease, holds: &[(&str, i64, HoldEnd)]) -> Lease {
    if let Some(status) = &mut lease.status {
        status.history = holds
            .iter()
            .rev()
            .map(|&(holder, token, how)| PastHold {
                holder: holder.into(),
                request: format!("{holder}-uid"),
                request_name: holder.into(),
                token,
                acquired: format_timestamp(0),
                ended: format_timestamp(1),
                how,
            })
            .collect();
    }
    lease
}

pub(in crate::commands::watch) fn request(
    lease: &str,
    holder: &str,
    phase: Option<RequestPhase>,
    message: &str,
) -> LeaseRequest {
    let spec = LeaseRequestSpec { lease: lease.into(), holder: holder.into(), ..LeaseRequestSpec::default() };
    let mut request = LeaseRequest::new(holder, spec);
    request.metadata.namespace = Some("prod".into());
    request.metadata.uid = Some(format!("{holder}-uid"));
    request.status = phase.map(|phase| LeaseRequestStatus {
        phase: Some(phase),
        message: Some(message.into()).filter(|message: &String| !message.is_empty()),
        ..LeaseRequestStatus::default()
    });
    request
}

fn listed<K>(objects: Vec<K>) -> Followed<K> {
    Followed::Listed("1".into(), objects)
}

/// A scene that has begun, with these leases and requests.
pub(in crate::commands::watch) fn scene(leases: Vec<Lease>, requests: Vec<LeaseRequest>) -> Scene {
    let mut scene = Scene::new(&[]);
    assert!(scene.lease_event(listed(leases), 0).is_empty(), "what there is at the beginning is no change");
    assert!(scene.request_event(listed(requests), 0).is_empty());
    scene.begin(0);
    scene
}

fn says(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| format!("{} {}", change.name(true), change.says(0))).collect()
}

#[test]
fn what_there_is_is_told_at_the_beginning() {
    let mut scene = Scene::new(&[]);
    scene.lease_event(listed(vec![held("db", "ana", 7, 41_000), free("x")]), 0);
    let pending = Some(RequestPhase::Pending);
    scene.request_event(listed(vec![request("db", "ben", pending, ""), request("db", "ana", None, "")]), 0);
    assert_eq!(
        says(&scene.begin(0)),
        ["prod/db held by ana, token 7, expires in 41s; 1 in line", "prod/x free"],
        "who holds does not wait, whatever its request says yet"
    );
    assert!(scene.latest().is_empty());
}

#[test]
fn every_way_of_a_hold_is_told_once() {
    use HoldEnd::{Expired, Preempted, Released, Superseded};
    let ana = || held("db", "ana", 7, 60_000);
    for (what, before, now, expected) in [
        ("granted", free("db"), ana(), vec!["granted to ana, token 7, expires in 1m"]),
        ("renewed", ana(), held("db", "ana", 7, 90_000), vec![]),
        (
            "released",
            ana(),
            after(free("db"), &[("ana", 7, Released)]),
            vec!["free: ana's hold has ended (Released), token 7"],
        ),
        (
            "expired",
            ana(),
            after(free("db"), &[("ana", 7, Expired)]),
            vec!["free: ana's hold has ended (Expired), token 7"],
        ),
        (
            "handed over",
            ana(),
            after(held("db", "ben", 8, 90_000), &[("ana", 7, Preempted)]),
            vec!["handed over from ana (Preempted) to ben, token 8, expires in 1m30s"],
        ),
        (
            "the same holder once more",
            ana(),
            after(held("db", "ana", 8, 90_000), &[("ana", 7, Superseded)]),
            vec!["handed over from ana (Superseded) to ana, token 8, expires in 1m30s"],
        ),
        (
            "two hand-overs behind a gap, and what was known before is not told again",
            after(ana(), &[("old", 6, Released)]),
            after(held("db", "cid", 9, 90_000), &[("old", 6, Released), ("ana", 7, Expired), ("ben", 8, Released)]),
            vec![
                "handed over from ana (Expired) to ben, token 8",
                "handed over from ben (Released) to cid, token 9, expires in 1m30s",
            ],
        ),
        (
            "a hold that nobody saw",
            free("db"),
            after(free("db"), &[("ana", 7, Released)]),
            vec!["granted to ana, token 7", "free: ana's hold has ended (Released), token 7"],
        ),
    ] {
        let mut scene = scene(vec![before], vec![]);
        let told = scene.lease_event(Followed::Modified(now.clone()), 0);
        let expected: Vec<String> = expected.into_iter().map(|line| format!("prod/db {line}")).collect();
        assert_eq!(says(&told), expected, "{what}");
        assert!(scene.lease_event(Followed::Modified(now), 0).is_empty(), "{what}: once");
        assert_eq!(scene.latest().len(), expected.len(), "{what}");
    }
}

#[test]
fn leases_come_and_go_and_come_back() {
    let mut scene = scene(vec![], vec![]);
    assert_eq!(says(&scene.lease_event(Followed::Added(free("db")), 0)), ["prod/db created"]);
    let made_and_taken = held("x", "ana", 1, 1_000);
    let told = scene.lease_event(Followed::Added(made_and_taken), 0);
    assert_eq!(says(&told), ["prod/x created", "prod/x granted to ana, token 1, expires in 1s"]);
    let mut again = free("db");
    again.metadata.uid = Some("another".into());
    assert_eq!(says(&scene.lease_event(Followed::Modified(again), 0)), ["prod/db deleted", "prod/db created"]);
    assert_eq!(says(&scene.lease_event(Followed::Deleted(free("x")), 0)), ["prod/x deleted"]);
    assert!(scene.lease_event(Followed::Gap("1".into(), "too old".into()), 0).is_empty());
    assert_eq!(scene.trouble(), Some("too old"));
    assert_eq!(says(&scene.lease_event(listed(vec![free("y")]), 0)), ["prod/db deleted", "prod/y created"]);
    assert_eq!(scene.trouble(), None, "a list mends it");
}

#[test]
fn the_holder_is_asked_once_to_leave() {
    let mut scene = scene(vec![held("db", "ana", 7, 60_000)], vec![]);
    let mut asked = held("db", "ana", 7, 60_000);
    if let Some(status) = &mut asked.status {
        status.preemption = Some(Preemption {
            by: "ben".into(),
            request: "ben-uid".into(),
            deadline: format_timestamp(30_000),
            force: false,
            reason: Some("lower priority".into()),
        });
    }
    let told = scene.lease_event(Followed::Modified(asked.clone()), 0);
    assert_eq!(says(&told), ["prod/db asked back from ana for ben, at the latest in 30s: lower priority"]);
    assert!(scene.lease_event(Followed::Modified(asked), 0).is_empty());
}

#[test]
fn who_waits_is_told_with_the_place_and_who_leaves_with_the_reason() {
    use RequestPhase::{Denied, Finished, Granted, Pending};
    let mut scene = scene(vec![held("db", "ana", 7, 60_000)], vec![request("db", "ben", Some(Pending), "")]);
    let mut tell = |event| says(&scene.request_event(event, 0));
    let waits = request("db", "cid", Some(Pending), "held by ana");
    assert_eq!(tell(Followed::Added(waits.clone())), ["prod/db cid waits, 2 of 2 in line: held by ana"]);
    assert!(tell(Followed::Modified(waits)).is_empty(), "once");
    let denied = request("db", "cid", Some(Denied), "no more than one");
    assert_eq!(tell(Followed::Modified(denied.clone())), ["prod/db cid is denied: no more than one"]);
    assert!(tell(Followed::Deleted(denied)).is_empty(), "once");

    tell(Followed::Added(request("db", "dan", Some(Pending), "")));
    assert_eq!(
        tell(Followed::Modified(request("db", "dan", Some(Finished), "lapsed"))),
        ["prod/db dan waits no more: lapsed"]
    );
    tell(Followed::Added(request("db", "eve", Some(Pending), "held by ana")));
    let gone = tell(Followed::Deleted(request("db", "eve", Some(Pending), "held by ana")));
    assert_eq!(gone, ["prod/db eve waits no more"], "what it was told while it waited is no reason to leave");
    tell(Followed::Added(request("db", "fay", Some(Pending), "")));
    assert!(tell(Followed::Modified(request("db", "fay", Some(Granted), ""))).is_empty(), "the lease tells that");
    assert_eq!(tell(listed(vec![])), ["prod/db ben waits no more"], "gone in a gap");

    // Nobody has told it to wait, so it does not.
    assert!(says(&scene.request_event(Followed::Added(request("db", "hal", None, "")), 0)).is_empty());
    let told = scene.request_event(Followed::Modified(request("db", "hal", Some(Pending), "")), 0);
    assert_eq!(says(&told), ["prod/db hal waits, 1 of 1 in line"]);
    scene.request_event(Followed::Added(request("db", "ida", None, "")), 0);
    assert!(scene.request_event(Followed::Deleted(request("db", "ida", None, "")), 0).is_empty());
    scene.request_event(Followed::Added(request("db", "joe", None, "")), 0);
    let told = scene.request_event(Followed::Modified(request("db", "joe", Some(Denied), "no")), 0);
    assert_eq!(says(&told), ["prod/db joe is denied: no"]);

    // Granted and released before its request is seen to go.
    scene.request_event(Followed::Added(request("db", "gus", Some(Pending), "")), 0);
    scene.lease_event(
        Followed::Modified(after(free("db"), &[("ana", 7, HoldEnd::Released), ("gus", 8, HoldEnd::Released)])),
        0,
    );
    assert!(scene.request_event(Followed::Deleted(request("db", "gus", Some(Pending), "")), 0).is_empty());
}

#[test]
fn only_what_was_asked_for_is_known() {
    let mut scene = Scene::new(&["db".to_owned(), "no".to_owned()]);
    scene.lease_event(listed(vec![free("db"), free("other")]), 0);
    scene.request_event(listed(vec![request("other", "ana", None, "")]), 0);
    assert_eq!(says(&scene.begin(0)), ["prod/db free"]);
    assert_eq!(scene.missing().collect::<Vec<_>>(), ["no"]);
    let waits = request("other", "ben", Some(RequestPhase::Pending), "");
    assert!(scene.request_event(Followed::Added(waits), 0).is_empty());
    assert!(scene.lease_event(Followed::Modified(held("other", "ben", 1, 1)), 0).is_empty());
}

#[test]
fn without_the_right_to_see_requests_there_is_still_a_number() {
    let mut scene = Scene::new(&[]);
    let mut lease = held("db", "ana", 7, 41_000);
    if let Some(status) = &mut lease.status {
        status.waiting = Some(3);
    }
    scene.lease_event(listed(vec![lease]), 0);
    scene.without_requests();
    assert_eq!(says(&scene.begin(0)), ["prod/db held by ana, token 7, expires in 41s; 3 in line"]);
}

#[test]
fn the_json_of_a_change_has_the_names_that_scripts_rely_on() {
    let mut scene = scene(vec![held("db", "ana", 7, 60_000)], vec![]);
    let now = after(held("db", "ben", 8, 90_000), &[("ana", 7, HoldEnd::Expired)]);
    let told = scene.lease_event(Followed::Modified(now), 1_000);
    assert_eq!(
        serde_json::to_value(&told[0]).expect("JSON"),
        serde_json::json!({
            "time": "1970-01-01T00:00:01.000Z", "change": "HandedOver", "namespace": "prod", "lease": "db",
            "holder": "ben", "from": "ana", "how": "Expired", "token": 8, "expires": "1970-01-01T00:01:30.000Z",
        })
    );
}

#[test]
fn what_is_wrong_with_a_lease_is_told_at_the_beginning_and_when_it_changes() {
    const INVALID: [&str; 4] = ["Ready", "False", "InvalidSpec", "spec.ttl is \"1y\""];
    let invalid = || with(free("inv"), &[["Held", "False", "LeaseAvailable", ""], INVALID]);
    let mut scene = Scene::new(&[]);
    scene.lease_event(listed(vec![invalid()]), 0);
    scene.request_event(listed(vec![]), 0);
    let first = scene.begin(0);
    assert_eq!(says(&first), ["prod/inv free; problem: InvalidSpec: spec.ttl is \"1y\""]);
    let json = serde_json::to_value(&first[0]).expect("JSON");
    assert_eq!(
        (&json["problems"][0]["condition"], &json["problems"][0]["reason"]),
        (&"Ready".into(), &"InvalidSpec".into())
    );
    let fault = |message| with(free("inv"), &[["PolicyReady", "False", "PolicyFault", message]]);
    for (now, expected) in [
        (invalid(), vec![]),
        (free("inv"), vec!["prod/inv no problem any more"]),
        (fault("a trap"), vec!["prod/inv problem: PolicyFault: a trap"]),
        (fault("another trap"), vec![]),
        (invalid(), vec!["prod/inv problem: InvalidSpec: spec.ttl is \"1y\""]),
    ] {
        assert_eq!(says(&scene.lease_event(Followed::Modified(now), 0)), expected);
    }
    let mut other = fault("a trap");
    other.metadata.uid = Some("another".into());
    let again = says(&scene.lease_event(Followed::Modified(other), 0));
    assert_eq!(again, ["prod/inv deleted", "prod/inv created", "prod/inv problem: PolicyFault: a trap"]);
    let json = serde_json::to_value(change(What::Granted, &free("x"), 0)).expect("JSON");
    assert_eq!(json.get("problems"), None, "{json}");
}

#[test]
fn a_name_that_no_lease_has_may_have_been_meant_to_be_another() {
    let mut scene = Scene::new(&["r1x".into(), "db".into()]);
    scene.lease_event(listed(vec![free("r1"), free("db"), free("nightly")]), 0);
    assert_eq!(scene.missing().collect::<Vec<_>>(), ["r1x"]);
    assert_eq!(scene.similar("r1x"), ["r1"]);
    assert!(scene.similar("dbs").is_empty(), "db was asked for by its name");
    assert!(scene.similar("backup").is_empty());
}
