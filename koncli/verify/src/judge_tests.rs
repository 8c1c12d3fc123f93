//! Histories as tables, and what is found in them.

use serde_json::{Value, json};

use super::*;
use crate::Violations;

/// A history as a table: what is written to the lease `x`, and which requests come and go.
#[derive(Default)]
struct Story(History, Option<i64>);

impl Story {
    fn write(mut self, change: Change, name: &str, object: Stored) -> Self {
        let revision = 100 + i64::try_from(self.0.events.len()).expect("short");
        let (namespace, name) = ("team".to_owned(), name.to_owned());
        // Whoever looks has a clock, or was there from the first write on.
        self.0.complete = self.1.is_none();
        self.0.events.push(Event {
            revision,
            change,
            namespace,
            name,
            object,
            seen: self.1,
            follows: Follows::Unknown,
        });
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

    #[track_caller]
    fn allowed(&self) -> Vec<Hold> {
        self.allowed_with(&Options::default())
    }

    #[track_caller]
    fn allowed_with(&self, options: &Options) -> Vec<Hold> {
        check(&self.0, options).allowed().unwrap_or_else(|violations| panic!("{violations}"))
    }

    #[track_caller]
    fn refused(&self, because: &str) {
        self.refused_with(&Options::default(), because);
    }

    #[track_caller]
    fn refused_with(&self, options: &Options, because: &str) {
        let violations = check(&self.0, options).allowed().expect_err(because);
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
    let past =
        json!({"holder": holder, "request": "", "token": token, "acquired": time(0), "ended": time(ended), "how": how});
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
    a_holds().is(patched).asks("u2", "b").is(after(held("b", "u2", 9, 3, 13), "a", 7, 3, "ForceReleased")).allowed();
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
    freed().is(after(held("b", "u2", 7, 4, 14), "a", 7, 3, "Released")).refused("a grant with the token 7, after 7");
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

/// The clocks of the replicas differ by so many seconds at most.
fn skew(seconds: i64) -> Options {
    Options { max_clock_skew: seconds * 1_000, ..Options::default() }
}

#[test]
fn an_early_expiry_is_refused() {
    let next = |ended| a_holds().asks("u2", "b").is(after(held("b", "u2", 9, ended, 19), "a", 7, ended, "Expired"));
    let nobody = |ended| {
        let mut expired = free(7);
        expired["phase"] = json!("Expired");
        a_holds().is(after(expired, "a", 7, ended, "Expired"))
    };
    for early in [next(8), nobody(8)] {
        early.refused("expired 2000 ms early");
        early.refused_with(&skew(0), "expired 2000 ms early");
        early.allowed_with(&skew(2));
    }
    // The replica that ended it may have a clock that is behind that of the one that granted it.
    for within in [next(9), nobody(9)] {
        within.allowed();
        within.refused_with(&skew(0), "expired 1000 ms early");
    }
}

#[test]
fn a_hold_that_ends_in_the_moment_it_began_has_the_time_of_another_clock() {
    let released = |acquired, ended| {
        let of_b = after(held("b", "u2", 9, acquired, 19), "a", 7, ended, "Released");
        a_holds().asks("u2", "b").leaves("u1", "a").is(of_b)
    };
    released(-1, 0).allowed();
    released(-1, 0).refused_with(&skew(0), "the end of the last");
    released(-2, 0).refused("the end of the last");
    // This end was read from the clock that begins the next hold, and one clock does not differ from itself.
    released(4, 5).refused_with(&skew(60), "the end of the last");
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

/// What somebody saw who has a clock, and came at some time.
impl Story {
    /// From now on this is the time.
    fn at(mut self, second: i64) -> Self {
        self.1 = Some(parse_timestamp(&time(second)).expect("a time"));
        self
    }

    fn next(&self) -> i64 {
        100 + i64::try_from(self.0.events.len()).expect("short")
    }

    fn listed(mut self, of: Kind, mut objects: Vec<Stored>) -> Self {
        let revision = self.next() - 1;
        for object in &mut objects {
            let metadata = match object {
                Stored::Lease(lease) => &mut lease.metadata,
                Stored::Request(request) => &mut request.metadata,
            };
            metadata.namespace = Some("team".into());
            metadata.resource_version.get_or_insert_with(|| revision.to_string());
        }
        self.0.complete = false;
        self.0.lists.push(List { of, revision, seen: self.1, scope: crate::Scope::default(), objects });
        self
    }

    fn gap(mut self) -> Self {
        let after = self.next() - 1;
        let lists_before = self.0.lists.len();
        self.0.gaps.extend([Kind::Lease, Kind::LeaseRequest].map(|of| crate::Gap { of, after, lists_before }));
        // Something happened that nobody saw.
        self.touch("somebody", "unseen", json!({}))
    }

    /// A request with more than a holder, created in this second.
    fn touch(self, uid: &str, holder: &str, spec: Value) -> Self {
        let request = request(uid, holder, spec, self.1.unwrap_or(1_790_000_000_000));
        self.write(Change::Created, uid, request)
    }

    fn report(&self) -> Report {
        check(&self.0, &Options { lag: 2_000, tolerance: 500, order: true, ..Options::default() })
    }

    #[track_caller]
    fn fine(&self) -> Figures {
        let report = self.report();
        assert!(report.violations.is_empty(), "{}", Violations(report.violations));
        report.figures
    }

    #[track_caller]
    fn breaks(&self, rule: Rule) -> Violation {
        let report = self.report();
        let found = report.violations.iter().find(|violation| violation.rule == rule);
        found.unwrap_or_else(|| panic!("no {rule:?}: {}", Violations(report.violations.clone()))).clone()
    }
}

fn request(uid: &str, holder: &str, spec: Value, created: i64) -> Stored {
    let mut object = json!({"metadata": {"name": uid, "uid": uid, "creationTimestamp": time((created - 1_790_000_000_000) / 1000)},
        "spec": {"lease": "x", "holder": holder}, "status": {"phase": "Pending"}});
    object["spec"].as_object_mut().expect("a spec").extend(spec.as_object().expect("an object").clone());
    Stored::Request(Box::new(serde_json::from_value(object).expect("a request")))
}

fn lease(status: Value) -> Stored {
    let lease = json!({"metadata": {"name": "x"}, "spec": {"ttl": "10s"}, "status": status});
    Stored::Lease(Box::new(serde_json::from_value(lease).expect("a lease")))
}

/// As the built-in policy has decided it.
fn by_default(mut status: Value) -> Value {
    status["policy"] = json!({"name": "default"});
    status
}

fn unjudged(figures: &Figures) -> Vec<(Unjudged, usize)> {
    figures
        .unjudged
        .iter()
        .map(|(why, count)| (*why, *count))
        .filter(|(why, _)| *why != Unjudged::OrdersOfPolicies)
        .collect()
}

#[test]
fn a_history_that_begins_in_the_middle_is_no_false_alarm() {
    let begins = || {
        Story::default()
            .at(5)
            .listed(Kind::LeaseRequest, vec![request("u1", "a", json!({}), 1_790_000_000_000)])
            .listed(
                Kind::Lease,
                // Holds that were never seen are told of.
                vec![lease(after(held("a", "u1", 7, 0, 10), "z", 3, 0, "Released"))],
            )
    };
    let figures = begins().fine();
    assert_eq!(unjudged(&figures), [(Unjudged::GrantsNotSeen, 1)]);
    // What is seen from then on is judged.
    begins().at(7).is(held("a", "u1", 7, 0, 9)).breaks(Rule::HoldChanges);
    begins().at(7).asks("u2", "b").is(held("b", "u2", 9, 7, 17)).breaks(Rule::Overlap);
    begins().at(7).is(after(free(7), "a", 7, 7, "Released")).breaks(Rule::FalseEnding);
    begins()
        .at(7)
        .asks("u2", "b")
        .is(after(held("b", "u2", 6, 7, 17), "a", 7, 10, "Expired"))
        .breaks(Rule::TokenDoesNotRise);
    let figures = begins().at(8).leaves("u1", "a").is(after(free(7), "a", 7, 8, "Released")).fine();
    assert_eq!((figures.holds, figures.grants, figures.endings["Released"]), (1, 0, 1));
}

#[test]
fn a_gap_hides_and_what_it_hides_is_counted() {
    let hidden = || {
        a_holds().at(3).gap().at(20).listed(Kind::LeaseRequest, vec![request("u3", "c", json!({}), 1_790_000_019_000)])
    };
    // Two hand-overs were missed.
    let status = || held("c", "u3", 12, 19, 29);
    let figures = hidden().listed(Kind::Lease, vec![lease(after(status(), "b", 9, 5, "Released"))]).fine();
    assert_eq!(figures.gaps, 2);
    assert!(figures.unjudged.contains_key(&Unjudged::WritesMissed), "{figures:?}");
    assert_eq!(figures.endings["NotSeen"], 1);
    // Without the gap it would be an overlap, and a token goes back even in the dark.
    a_holds().asks("u3", "c").is(held("c", "u3", 12, 19, 29)).breaks(Rule::Overlap);
    hidden().listed(Kind::Lease, vec![lease(held("c", "u3", 5, 19, 29))]).breaks(Rule::TokenDoesNotRise);
    hidden().listed(Kind::Lease, vec![lease(held("c", "u1", 12, 19, 29))]).breaks(Rule::GrantedTwice);
}

#[test]
fn a_lease_that_was_deleted_in_a_gap_is_over() {
    let figures = a_holds().at(3).gap().at(20).listed(Kind::LeaseRequest, vec![]).listed(Kind::Lease, vec![]).fine();
    assert_eq!(figures.endings["NotSeen"], 1);
}

#[test]
fn the_same_event_twice_is_one() {
    let mut twice = a_holds();
    let again = twice.0.events.clone();
    twice.0.events.extend(again);
    assert_eq!(twice.fine().grants, 1);
}

#[test]
fn a_write_from_an_unseen_state_is_a_gap_of_its_own() {
    let mut story = a_holds().asks("u2", "b").is(held("b", "u2", 9, 5, 15));
    story.0.events.last_mut().expect("an event").follows = Follows::Revision(102);
    story.breaks(Rule::Overlap);
    story.0.events.last_mut().expect("an event").follows = Follows::Revision(77);
    assert!(story.fine().unjudged.contains_key(&Unjudged::WritesMissed));
}

#[test]
fn the_end_of_a_hold_that_was_not_seen_may_be_told_later() {
    let released = || a_holds().leaves("u1", "a").is(after(free(7), "a", 7, 5, "Released"));
    let taken = after(free(9), "a", 7, 5, "Released");
    let told = |token| {
        let mut told = taken.clone();
        let past =
            json!({"holder": "b", "token": token, "how": "ForceReleased", "acquired": time(6), "ended": time(8)});
        told["history"].as_array_mut().expect("a history").insert(0, past);
        told
    };
    // Somebody is evicted by a patch, after a grant that was not seen.
    for follows in [Follows::Revision(77), Follows::Token] {
        let mut story = released().is(taken.clone());
        story.0.events.last_mut().expect("an event").follows = follows;
        let figures = story.is(told(9)).fine();
        assert!(figures.unjudged.contains_key(&Unjudged::WritesMissed), "{figures:?}");
    }
    // Every write was seen, or it is a token that nobody can have had.
    released().is(taken.clone()).is(told(9)).breaks(Rule::FalseEnding);
    let mut story = released().is(taken.clone());
    story.0.events.last_mut().expect("an event").follows = Follows::Token;
    story.is(told(10)).breaks(Rule::FalseEnding);
}

#[test]
fn a_grant_to_who_is_long_gone_is_refused_and_to_who_has_just_left_is_not() {
    let gone = |granted| {
        let story = Story::default().at(0).created().asks("u1", "a").at(1).leaves("u1", "a");
        story.at(granted).is(held("a", "u1", 7, granted, granted + 10))
    };
    gone(2).fine();
    let violation = gone(4).breaks(Rule::GrantWithoutRequest);
    assert!(violation.what.contains("gone for 3000 ms"), "{violation}");
    assert!(violation.before.expect("evidence").says.contains("has withdrawn"));
    // Decided before, and seen late.
    Story::default().at(0).created().asks("u1", "a").at(1).leaves("u1", "a").at(9).is(held("a", "u1", 7, 1, 11)).fine();
}

#[test]
fn a_grant_to_who_was_not_listed_is_refused() {
    let story = |granted| {
        let begins = Story::default().at(0).created().listed(Kind::LeaseRequest, vec![]);
        begins.at(granted).is(held("a", "u1", 7, granted, granted + 10))
    };
    assert_eq!(unjudged(&story(1).fine()), [(Unjudged::RequestsNotSeen, 1)]);
    assert!(story(3).breaks(Rule::GrantWithoutRequest).what.contains("not there when all were listed"));
}

#[test]
fn a_grant_to_who_has_given_up_is_refused() {
    let story = |timeout: &str, granted| {
        let story = Story::default().at(0).created().touch("u1", "a", json!({"timeout": timeout}));
        story.at(granted).is(held("a", "u1", 7, granted, granted + 10))
    };
    story("5s", 7).fine();
    assert!(story("5s", 8).breaks(Rule::GrantWithoutRequest).what.contains("nobody had touched for 8000 ms"));
    // Now or never has no time to lapse in.
    story("0s", 60).fine();
}

#[test]
fn an_expiry_that_another_clock_knows_to_be_early_is_refused() {
    let ends = |seen| {
        let story = Story::default().at(0).created().asks("u1", "a").is(held("a", "u1", 7, 0, 10));
        story.at(seen).is(after(free(7), "a", 7, 10, "Expired"))
    };
    ends(10).fine();
    let violation = ends(9).breaks(Rule::EarlyExpiry);
    assert!(
        violation.what.contains("1000 ms early by the clock of who saw it: after 9000 ms of 10000 ms"),
        "{violation}"
    );
    // A clock that only shows another time of day: so much time has gone by all the same.
    let behind = Story::default().at(-100).created().asks("u1", "a").is(held("a", "u1", 7, 0, 10));
    behind.at(-90).is(after(free(7), "a", 7, 10, "Expired")).fine();
}

#[test]
fn overtaking_among_equals_is_refused() {
    // b came first, c is served; and b after that.
    let overtakes = |b: Value, c: Value, policy: fn(Value) -> Value, c_came: i64| {
        Story::default()
            .at(0)
            .created()
            .touch("u1", "a", json!({}))
            .is(policy(held("a", "u1", 7, 0, 10)))
            .touch("u2", "b", b)
            .at(c_came)
            .touch("u3", "c", c)
            .at(10)
            .is(policy(after(held("c", "u3", 9, 10, 20), "a", 7, 10, "Expired")))
            .leaves("u3", "c")
            .is(policy({
                let mut status = after(held("b", "u2", 11, 11, 21), "a", 7, 10, "Expired");
                let past = json!({"holder": "c", "request": "", "token": 9, "acquired": time(10), "ended": time(11), "how": "Released"});
                status["history"].as_array_mut().expect("a history").insert(0, past);
                status
            }))
    };
    let none = || json!({});
    let violation = overtakes(none(), none(), by_default, 2).breaks(Rule::Overtaking);
    assert!(violation.what.contains("c was served at revision 105, before b"), "{violation}");
    // Another policy, a higher priority, a second in which both came, and a controller that cannot have known yet.
    assert_eq!(overtakes(none(), none(), |status| status, 2).fine().unjudged[&Unjudged::OrdersOfPolicies], 3);
    overtakes(none(), json!({"priority": 1}), by_default, 2).fine();
    overtakes(json!({"priority": 1}), json!({"priority": 1}), by_default, 2).breaks(Rule::Overtaking);
    overtakes(none(), none(), by_default, 0).fine();
    let slow = check(&overtakes(none(), none(), by_default, 2).0, &Options { lag: 9_001, ..Options::default() });
    assert_eq!(slow.violations, []);
    let any = Options { lag: 0, order: false, ..Options::default() };
    assert_eq!(check(&overtakes(none(), none(), by_default, 2).0, &any).violations, []);
}

#[test]
fn who_is_never_served_and_waits_is_overtaken_too() {
    let waits = |b: Value| {
        Story::default()
            .at(0)
            .created()
            .touch("u2", "b", b)
            .at(2)
            .touch("u3", "c", json!({}))
            .at(10)
            .is(by_default(held("c", "u3", 9, 10, 20)))
    };
    assert!(waits(json!({})).breaks(Rule::Overtaking).what.contains("never was"));
    // It may have lapsed, it has gone before, it was told no.
    waits(json!({"timeout": "5s"})).fine();
    let left = Story::default().at(0).created().touch("u2", "b", json!({})).at(2).touch("u3", "c", json!({}));
    left.at(5).leaves("u2", "b").at(10).is(by_default(held("c", "u3", 9, 10, 20))).fine();
}

#[test]
fn who_asks_anew_for_what_it_holds_overtakes_nobody() {
    let story = |how: &str| {
        Story::default()
            .at(0)
            .created()
            .touch("u1", "a", json!({}))
            .is(by_default(held("a", "u1", 7, 0, 10)))
            .touch("u2", "b", json!({}))
            .at(4)
            .touch("u3", "a", json!({}))
            .at(5)
            .is(by_default(after(held("a", "u3", 9, 5, 15), "a", 7, 5, how)))
    };
    story("Superseded").fine();
    story("ForceReleased").breaks(Rule::Overtaking);
}

#[test]
fn a_hold_whose_end_is_never_told_is_refused() {
    // Between the two it is free, and nobody says since when and why.
    a_holds().is(free(7)).asks("u2", "b").is(held("b", "u2", 9, 5, 15)).refused("nothing tells why");
}

#[test]
fn what_else_goes_back_or_is_forgotten_is_refused() {
    let renewed = |renewals| {
        let mut status = held("a", "u1", 7, 0, 10);
        status["renewals"] = json!(renewals);
        status
    };
    a_holds().is(renewed(2)).is(renewed(1)).refused("the renewals go back");
    a_holds().is(json!({"phase": "Available", "history": []})).refused("the token of a hold is forgotten");
}

#[test]
fn another_policy_has_an_order_of_its_own() {
    let by_another = |mut status: Value| {
        status["policy"] = json!({"name": "newest-first"});
        status
    };
    let story = Story::default().at(0).created().touch("u2", "b", json!({})).at(2).touch("u3", "c", json!({}));
    let figures = story.at(10).is(by_another(held("c", "u3", 9, 10, 20))).fine();
    assert_eq!(figures.unjudged[&Unjudged::OrdersOfPolicies], 1);
}

#[test]
fn who_was_told_no_waits_no_more() {
    let mut denied = request("u2", "b", json!({}), 1_790_000_000_000);
    if let Stored::Request(request) = &mut denied {
        request.status.as_mut().expect("a status").phase = Some(RequestPhase::Denied);
    }
    let story = Story::default().at(0).created().touch("u2", "b", json!({})).write(Change::Updated, "u2", denied);
    story.at(2).touch("u3", "c", json!({})).at(10).is(by_default(held("c", "u3", 9, 10, 20))).fine();
}

#[test]
fn in_a_gap_nothing_is_known_of_leases_and_requests() {
    let begins = || {
        Story::default()
            .at(0)
            .listed(Kind::LeaseRequest, vec![request("u1", "a", json!({}), 1_790_000_000_000)])
            .listed(Kind::Lease, vec![lease(held("a", "u1", 7, 0, 10))])
    };
    // A state that is seen before the list that ends the gap, and requests that came in it.
    let figures = begins().at(3).gap().at(20).is(held("c", "u9", 12, 19, 29)).fine();
    assert_eq!(figures.unjudged[&Unjudged::RequestsNotSeen], 1, "{figures:?}");
    begins().at(20).is(held("c", "u9", 12, 19, 29)).breaks(Rule::GrantWithoutRequest);
    // Whether the request of a hold is still there.
    let released = || after(free(7), "a", 7, 3, "Released");
    let figures = begins().at(3).gap().is(released()).fine();
    assert_eq!(figures.unjudged[&Unjudged::EndingsNotSeen], 1, "{figures:?}");
    let figures = begins().at(3).gap().listed(Kind::LeaseRequest, vec![]).is(released()).fine();
    assert!(!figures.unjudged.contains_key(&Unjudged::EndingsNotSeen), "{figures:?}");
}

#[test]
fn a_request_that_is_being_deleted_is_withdrawn() {
    let mut deleting = request("u1", "a", json!({}), 1_790_000_000_000);
    if let Stored::Request(request) = &mut deleting {
        request.metadata.deletion_timestamp = request.metadata.creation_timestamp.clone();
    }
    a_holds().write(Change::Updated, "u1", deleting).is(after(free(7), "a", 7, 3, "Released")).allowed();
}

#[test]
fn a_sign_of_life_is_what_a_timeout_counts_from() {
    let story = |beats: i64| {
        let asks = json!({"timeout": "5s", "renewals": beats});
        let again = request("u1", "a", asks, 1_790_000_000_000);
        let story = Story::default().at(0).created().touch("u1", "a", json!({"timeout": "5s"}));
        story.at(4).write(Change::Updated, "u1", again).at(10).is(held("a", "u1", 7, 10, 20))
    };
    story(1).fine();
    story(0).breaks(Rule::GrantWithoutRequest);
}

#[test]
fn in_a_gap_of_requests_alone_a_grant_is_not_judged() {
    let story = |gap: bool| {
        let mut story = Story::default()
            .at(0)
            .listed(Kind::LeaseRequest, vec![request("u1", "a", json!({}), 1_790_000_000_000)])
            .listed(Kind::Lease, vec![lease(held("a", "u1", 7, 0, 10))])
            .at(3);
        if gap {
            let (after, lists_before) = (story.next() - 1, story.0.lists.len());
            story.0.gaps.push(crate::Gap { of: Kind::LeaseRequest, after, lists_before });
        }
        story.at(20).is(after(held("c", "u9", 12, 20, 30), "a", 7, 10, "Expired"))
    };
    assert_eq!(story(true).fine().unjudged[&Unjudged::RequestsNotSeen], 1);
    story(false).breaks(Rule::GrantWithoutRequest);
}

#[test]
fn who_has_asked_anew_does_not_stand_in_the_line_with_the_old_request() {
    let story = Story::default().at(0).created().touch("u2", "b", json!({})).at(2).touch("u3", "c", json!({}));
    story.touch("u4", "b", json!({})).at(10).is(by_default(held("c", "u3", 9, 10, 20))).fine();
}
