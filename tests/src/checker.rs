//! Is what happened allowed? Judges a complete [`History`] without knowing how the controller works.
//!
//! - A hold is complete: holder, acquired, expires, token, request. Whoever does not hold has no hold.
//! - Within a hold only the expiry and the counters move, and the expiry never goes back.
//! - Tokens strictly rise from hold to hold of a name, also across deleting and recreating the Lease, and never go back.
//! - Never two holders: a hold begins when the one before is over and it is told how it ended. Expired is never early,
//!   Released is only after the request is gone, Superseded is only by the same holder.
//! - Only a request that exists, of this lease and of this holder, is granted, and only once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use konductor_crds::{
    Lease, LeaseRequest,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, PastHold},
};

use crate::{Change, History, Holding, LeaseExt as _, Stored};

/// One hold, from its grant to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The Lease.
    pub lease: String,
    /// The last state of the hold.
    pub holding: Holding,
    /// The revision of the grant.
    pub granted: i64,
    /// The revision of the first write after which it did not hold any more.
    pub over: Option<i64>,
    /// How it ended, if that was told.
    pub how: Option<HoldEnd>,
}

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The revision of the write.
    pub revision: i64,
    /// The Lease.
    pub lease: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}, lease {}: {}", self.revision, self.lease, self.what)
    }
}

/// Everything that must never happen and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.0 {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// Judges a history. What is allowed is returned as its holds, in the order of their grants.
///
/// # Errors
/// Everything that is not allowed.
pub fn check(history: &History) -> Result<Vec<Hold>, Violations> {
    let mut judge = Judge::default();
    for event in &history.events {
        match &event.object {
            Stored::Request(request) => judge.request(event.revision, event.change, request),
            Stored::Lease(lease) => judge.lease(event.revision, event.change, &event.name, lease),
        }
    }
    if judge.violations.is_empty() { Ok(judge.holds) } else { Err(Violations(judge.violations)) }
}

#[derive(Debug, Default)]
struct Judge {
    /// Every request that ever was, by uid: its lease, its holder, and since when it is gone.
    requests: BTreeMap<String, (String, String, Option<i64>)>,
    granted: BTreeSet<String>,
    /// By name of a lease; outlives its deletion.
    names: BTreeMap<String, Name>,
    holds: Vec<Hold>,
    violations: Vec<Violation>,
}

#[derive(Debug, Default)]
struct Name {
    /// The highest token so far.
    token: i64,
    /// The index of the hold that stands.
    current: Option<usize>,
    /// By token: the index of every hold.
    by_token: BTreeMap<i64, usize>,
    /// By token: what the history says of it.
    told: BTreeMap<i64, PastHold>,
}

impl Judge {
    fn request(&mut self, revision: i64, change: Change, request: &LeaseRequest) {
        let Some(uid) = request.metadata.uid.clone() else { return };
        let gone = (change == Change::Deleted).then_some(revision);
        self.requests.insert(uid, (request.spec.lease.clone(), request.spec.holder.clone(), gone));
    }

    fn lease(&mut self, revision: i64, change: Change, name: &str, lease: &Lease) {
        let mut found = Vec::new();
        let state = self.names.entry(name.to_owned()).or_default();
        if change == Change::Deleted {
            // The lease goes with its hold; what comes next under this name must have a higher token.
            if let Some(hold) = state.current.take().and_then(|index| self.holds.get_mut(index)) {
                hold.over = Some(revision);
            }
            return;
        }
        let holding = lease.holding().unwrap_or_else(|missing| {
            found.push(missing);
            None
        });
        let token = lease.token();
        if token.is_some_and(|token| token < state.token) {
            found.push(format!("the token goes back from {} to {}", state.token, token.unwrap_or_default()));
        }
        if change == Change::Updated
            && token.is_none()
            && state.by_token.values().any(|&i| self.holds[i].over.is_none())
        {
            found.push("the token of a hold is forgotten".to_owned());
        }
        for past in lease.status.iter().flat_map(|status| &status.history) {
            match state.told.get(&past.token) {
                None => {
                    state.told.insert(past.token, past.clone());
                }
                Some(told) if told == past => {}
                Some(told) => found.push(format!("the history is rewritten: {told:?} becomes {past:?}")),
            }
        }

        let current = state.current.map(|index| self.holds[index].clone());
        let same = match (&current, &holding) {
            (Some(old), Some(new)) => old.holding.token == new.token,
            _ => false,
        };
        if let (true, Some(old), Some(new), Some(index)) = (same, &current, &holding, state.current) {
            let old = &old.holding;
            for (what, changed) in [
                ("holder", old.holder != new.holder),
                ("request", old.request != new.request),
                ("time of acquisition", old.acquired != new.acquired),
            ] {
                if changed {
                    found.push(format!("the {what} changes without a new token: {old:?} becomes {new:?}"));
                }
            }
            if new.expires < old.expires {
                found.push(format!("the expiry goes back: {old:?} becomes {new:?}"));
            }
            if new.renewals < old.renewals {
                found.push(format!("the renewals go back: {old:?} becomes {new:?}"));
            }
            self.holds[index].holding = new.clone();
        } else {
            if let Some(index) = state.current.take() {
                self.holds[index].over = Some(revision);
            }
            if let Some(new) = &holding {
                if new.token <= state.token {
                    found.push(format!("a grant with the token {}, after {}", new.token, state.token));
                }
                if new.expires <= new.acquired {
                    found.push(format!("a hold that ends before it begins: {new:?}"));
                }
                match self.requests.get(&new.request) {
                    None => found.push(format!("a grant to the request {}, which has never existed", new.request)),
                    Some((lease, holder, _)) if lease != name || *holder != new.holder => {
                        found.push(format!("{} gets what {holder} has asked for on {lease}", new.holder));
                    }
                    Some(_) => {}
                }
                if !self.granted.insert(new.request.clone()) {
                    found.push(format!("the request {} is granted twice", new.request));
                }
                if let Some(old) = &current {
                    // In one write from one holder to the next: then it says how the first hold ended.
                    match state.told.get(&old.holding.token) {
                        None => found.push(format!(
                            "{} takes over from {} and nothing tells why",
                            new.holder, old.holding.holder
                        )),
                        Some(past) => {
                            if let Some(ended) = parse_timestamp(&past.ended).filter(|&ended| ended > new.acquired) {
                                found.push(format!(
                                    "a hold begins at {}, before {ended}, the end of the last",
                                    new.acquired
                                ));
                            }
                            if past.how == HoldEnd::Superseded && old.holding.holder != new.holder {
                                found.push(format!("{} supersedes {}, another holder", new.holder, old.holding.holder));
                            }
                        }
                    }
                }
                let index = self.holds.len();
                self.holds.push(Hold {
                    lease: name.to_owned(),
                    holding: new.clone(),
                    granted: revision,
                    over: None,
                    how: None,
                });
                state.current = Some(index);
                state.by_token.insert(new.token, index);
            } else if lease.phase() == LeasePhase::Expired && lease.holder().is_some() {
                found.push("Expired, and somebody holds it".to_owned());
            }
        }
        state.token = state.token.max(token.unwrap_or_default());

        // What the history tells for the first time has to fit the hold that was seen.
        for (token, past) in &state.told {
            let Some(&index) = state.by_token.get(token) else {
                found.push(format!("the history tells of a hold that was never granted: {past:?}"));
                continue;
            };
            let hold = &mut self.holds[index];
            if hold.how.is_some() {
                continue;
            }
            hold.how = Some(past.how);
            if hold.over.is_none() {
                found.push(format!("the history tells of the end of a hold that stands: {past:?}"));
            }
            if past.holder != hold.holding.holder || parse_timestamp(&past.acquired) != Some(hold.holding.acquired) {
                found.push(format!("the history tells {past:?} of {:?}", hold.holding));
            }
            match (past.how, parse_timestamp(&past.ended)) {
                (_, None) => found.push(format!("no time: {past:?}")),
                (HoldEnd::Expired, Some(ended)) if ended < hold.holding.expires => {
                    found.push(format!("expired {} ms early: {past:?}", hold.holding.expires - ended));
                }
                (HoldEnd::Released, _)
                    if self.requests.get(&hold.holding.request).is_some_and(|request| request.2.is_none()) =>
                {
                    found.push(format!("told as released, but its request is still there: {past:?}"));
                }
                _ => {}
            }
        }
        self.violations.extend(found.into_iter().map(|what| Violation { revision, lease: name.to_owned(), what }));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Event;

    /// A history as a table: what is written to the lease `x`, and which requests come and go.
    #[derive(Default)]
    struct Story(History);

    impl Story {
        fn write(mut self, change: Change, name: &str, object: Stored) -> Self {
            let revision = 100 + i64::try_from(self.0.events.len()).expect("short");
            self.0.events.push(Event { revision, change, name: name.into(), object });
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
            check(&self.0).unwrap_or_else(|violations| panic!("{violations}"))
        }

        #[track_caller]
        fn refused(&self, because: &str) {
            let violations = check(&self.0).expect_err(because);
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
}
