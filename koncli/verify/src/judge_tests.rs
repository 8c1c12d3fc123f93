//! Histories as tables, and what is found in them.

use serde_json::{Value, json};

use super::*;

/// A history as a table: what is written to the lease `x`, and which requests come and go.
#[derive(Default)]
struct Story(History);

impl Story {
    fn write(mut self, change: Change, name: &str, object: Stored) -> Self {
        let revision = 100 + i64::try_from(self.0.events.len()).expect("short");
        let (namespace, name) = ("team".to_owned(), name.to_owned());
        self.0.complete = true;
        self.0.events.push(Event { revision, change, namespace, name, object, seen: None, follows: None });
        self
    }

    fn request_of(self, lease: &str, uid: &str, holder: &str, change: Change) -> Self {
        let request = json!({"metadata": {"name": uid, "uid": uid}, "spec": {"lease": lease, "holder": holder}});
        let request = serde_json::from_value(request).expect("a request");
        self.write(change, uid, Stored::Request(Box::new(request)))
    }

    fn asks(self, uid: &str, holder: &str) -> Self {
        self.request_of("x", uid, holder, Change::Created)
    }

    fn leaves(self, uid: &str, holder: &str) -> Self {
        self.request_of("x", uid, holder, Change::Deleted)
    }

    fn lease(self, change: Change, status: Value) -> Self {
        let lease = json!({"metadata": {"name": "x"}, "spec": {"ttl": "10s"}, "status": status});
        let lease = serde_json::from_value(lease).expect("a lease");
        self.write(change, "x", Stored::Lease(Box::new(lease)))
    }

    fn created(self) -> Self {
        self.lease(Change::Created, Value::Null)
    }

    fn is(self, status: Value) -> Self {
        self.lease(Change::Updated, status)
    }

    fn allowed(&self) -> Vec<Hold> {
        check(&self.0, &Options::default()).allowed().unwrap_or_else(|violations| panic!("{violations}"))
    }

    #[track_caller]
    fn refused(&self, because: &str) {
        let violations = check(&self.0, &Options::default()).allowed().expect_err(because);
        assert!(violations.0.iter().any(|v| v.what.contains(because)), "not because {because}: {violations}");
    }
}

fn time(second: i64) -> String {
    konductor_crds::time::format_timestamp(1_790_000_000_000 + second * 1000)
}

fn held(holder: &str, uid: &str, token: i64, from: i64, to: i64) -> Value {
    json!({"phase": "Held", "holder": holder, "acquired": time(from), "expires": time(to), "fencingToken": token,
           "request": {"name": uid, "uid": uid}, "history": []})
}

fn free(token: i64) -> Value {
    json!({"phase": "Available", "fencingToken": token, "history": []})
}

/// The status with a hold of ten seconds from 0 at the head of its history.
fn after(mut status: Value, holder: &str, token: i64, ended: i64, how: &str) -> Value {
    let past = json!({"holder": holder, "request": "", "token": token, "acquired": time(0), "ended": time(ended), "how": how});
    let history = status["history"].as_array_mut().expect("a history");
    history.insert(0, past);
    status
}

fn a_holds() -> Story {
    Story::default().created().asks("u1", "a").is(held("a", "u1", 7, 0, 10))
}

#[test]
fn a_quiet_life_is_allowed() {
    let renewed = held("a", "u1", 7, 0, 15);
    let b_holds = after(held("b", "u2", 9, 15, 25), "a", 7, 15, "Expired");
    let mut b_left = after(free(9), "a", 7, 15, "Expired");
    b_left["history"].as_array_mut().expect("a history").insert(
        0,
        json!({"holder": "b", "request": "", "token": 9, "acquired": time(15), "ended": time(18), "how": "Released"}),
    );
    let holds = a_holds()
        .is(renewed)
        .asks("u2", "b")
        .is(b_holds)
        .leaves("u2", "b")
        .is(b_left)
        .lease(Change::Deleted, free(9))
        .created()
        .asks("u3", "a")
        .is(held("a", "u3", 12, 30, 40))
        .allowed();
    let told: Vec<_> = holds.iter().map(|h| (h.holding.holder.as_str(), h.holding.token, h.how)).collect();
    assert_eq!(told, [("a", 7, Some(HoldEnd::Expired)), ("b", 9, Some(HoldEnd::Released)), ("a", 12, None)]);
    assert!(holds[0].over.is_some() && holds[1].over.is_some() && holds[2].over.is_none());
}

#[test]
fn a_forced_release_by_a_patch_is_allowed() {
    let mut patched = held("a", "u1", 7, 0, 10);
    patched["phase"] = json!("Available");
    patched["holder"] = json!("");
    a_holds()
        .is(patched)
        .asks("u2", "b")
        .is(after(held("b", "u2", 9, 3, 13), "a", 7, 3, "ForceReleased"))
        .allowed();
}

#[test]
fn another_holder_with_the_same_token_is_refused() {
    a_holds().asks("u2", "b").is(held("b", "u2", 7, 0, 10)).refused("the holder changes without a new token");
}

#[test]
fn another_request_with_the_same_token_is_refused() {
    a_holds().asks("u2", "a").is(held("a", "u2", 7, 0, 10)).refused("the request changes without a new token");
}

#[test]
fn a_token_that_does_not_rise_is_refused() {
    let freed = || a_holds().leaves("u1", "a").is(after(free(7), "a", 7, 3, "Released")).asks("u2", "b");
    freed()
        .is(after(held("b", "u2", 7, 4, 14), "a", 7, 3, "Released"))
        .refused("a grant with the token 7, after 7");
    freed().is(after(held("b", "u2", 6, 4, 14), "a", 7, 3, "Released")).refused("the token goes back");
    freed().is(after(free(3), "a", 7, 3, "Released")).refused("the token goes back");
}

#[test]
fn a_token_that_starts_again_after_recreation_is_refused() {
    a_holds()
        .lease(Change::Deleted, held("a", "u1", 7, 0, 10))
        .created()
        .asks("u2", "b")
        .is(held("b", "u2", 5, 20, 30))
        .refused("a grant with the token 5, after 7");
}

#[test]
fn a_token_that_is_forgotten_is_refused() {
    let mut status = held("a", "u1", 7, 0, 10);
    status["fencingToken"] = Value::Null;
    a_holds().is(status).refused("Held, but without fencingToken");
}

#[test]
fn an_incomplete_hold_is_refused() {
    for (missing, named) in [
        ("holder", "holder"),
        ("acquired", "acquired"),
        ("expires", "expires"),
        ("fencingToken", "fencingToken"),
        ("request", "request.uid"),
    ] {
        let mut status = held("a", "u1", 7, 0, 10);
        status.as_object_mut().expect("an object").remove(missing);
        Story::default().created().asks("u1", "a").is(status).refused(&format!("Held, but without {named}"));
    }
}

#[test]
fn a_hand_over_without_an_end_is_refused() {
    a_holds().asks("u2", "b").is(held("b", "u2", 9, 5, 15)).refused("nothing tells why");
}

#[test]
fn an_overlap_is_refused() {
    a_holds()
        .asks("u2", "b")
        .is(after(held("b", "u2", 9, 9, 19), "a", 7, 10, "Expired"))
        .refused("before 1790000010000, the end of the last");
}

#[test]
fn an_early_expiry_is_refused() {
    a_holds()
        .asks("u2", "b")
        .is(after(held("b", "u2", 9, 9, 19), "a", 7, 9, "Expired"))
        .refused("expired 1000 ms early");
    let mut expired = free(7);
    expired["phase"] = json!("Expired");
    a_holds().is(after(expired, "a", 7, 9, "Expired")).refused("expired 1000 ms early");
}

#[test]
fn a_release_that_nobody_asked_for_is_refused() {
    a_holds().is(after(free(7), "a", 7, 3, "Released")).refused("its request is still there");
}

#[test]
fn superseding_somebody_else_is_refused() {
    a_holds()
        .asks("u2", "b")
        .is(after(held("b", "u2", 9, 5, 15), "a", 7, 5, "Superseded"))
        .refused("supersedes a, another holder");
    a_holds().asks("u2", "a").is(after(held("a", "u2", 9, 5, 15), "a", 7, 5, "Superseded")).allowed();
}

#[test]
fn a_request_that_is_not_there_or_not_theirs_is_refused() {
    Story::default().created().is(held("a", "u1", 7, 0, 10)).refused("which has never existed");
    Story::default().created().asks("u1", "a").is(held("b", "u1", 7, 0, 10)).refused("gets what a has asked for");
    Story::default()
        .created()
        .request_of("y", "u1", "a", Change::Created)
        .is(held("a", "u1", 7, 0, 10))
        .refused("has asked for on y");
}

#[test]
fn a_request_that_is_granted_twice_is_refused() {
    a_holds()
        .is(after(free(7), "a", 7, 10, "Expired"))
        .is(after(held("a", "u1", 9, 20, 30), "a", 7, 10, "Expired"))
        .refused("is granted twice");
}

#[test]
fn an_expiry_that_goes_back_is_refused() {
    a_holds().is(held("a", "u1", 7, 0, 9)).refused("the expiry goes back");
    Story::default().created().asks("u1", "a").is(held("a", "u1", 7, 0, 0)).refused("ends before it begins");
}

#[test]
fn a_history_that_lies_is_refused() {
    a_holds().is(after(free(7), "a", 6, 10, "Expired")).refused("never granted");
    a_holds().is(after(free(7), "b", 7, 10, "Expired")).refused("the history tells");
    a_holds().is(after(held("a", "u1", 7, 0, 10), "a", 7, 10, "Expired")).refused("a hold that stands");
    a_holds()
        .is(after(free(7), "a", 7, 10, "Expired"))
        .is(after(free(7), "a", 7, 11, "Expired"))
        .refused("the history is rewritten");
}
