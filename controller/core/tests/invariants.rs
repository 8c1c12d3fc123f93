//! The invariants find what they are there for, and nothing in what is legal: a check that cannot fail proves nothing
//! about the tests, the model and the simulation that rely on it. Each step is written by hand, not planned.

use konductor_core::{
    Answered, Ending, HISTORY_MAX, Hold, LeaseFacts, Millis, PastHold, Plan, Preemption, Record, Request, RequestId,
    Settings, Snapshot, State, Time, invariants::violations, transition::Transition,
};

/// What was, and the record that would be written.
#[derive(Clone)]
struct Step {
    before: Snapshot,
    next: Record,
}

impl Step {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut step = self.clone();
        change(&mut step);
        step
    }

    /// The hold that was, to be changed.
    fn was(&mut self) -> &mut Hold {
        match &mut self.before.record.state {
            State::Held(hold) | State::Evicted(hold) => hold,
            State::Available | State::Expired(_) => panic!("nobody held"),
        }
    }

    /// The hold that would be, to be changed.
    fn becomes(&mut self) -> &mut Hold {
        match &mut self.next.state {
            State::Held(hold) => hold,
            State::Available | State::Expired(_) | State::Evicted(_) => panic!("nobody would hold"),
        }
    }

    fn found(&self) -> Vec<String> {
        let plan = Plan {
            next: self.next.clone(),
            transition: Transition::Stay,
            waiting: 0,
            answers: Vec::new(),
            sweep: Vec::new(),
            notices: Vec::new(),
            wake_in: None,
            reason: None,
        };
        violations(&self.before, &plan)
    }
}

fn request(uid: &str, holder: &str) -> Request {
    Request {
        id: RequestId { name: uid.to_owned(), uid: uid.to_owned() },
        holder: holder.to_owned(),
        ..Request::default()
    }
}

fn hold(uid: &str, holder: &str, acquired: i64, expires: i64) -> Hold {
    Hold {
        holder: holder.to_owned(),
        request: request(uid, holder).id,
        acquired: Time(acquired),
        expires: Time(expires),
        renewed: Time(acquired),
        renewals: 0,
        acted_on: 0,
        counted: 0,
        preemption: None,
    }
}

fn past(uid: &str, holder: &str, token: i64, how: Ending) -> PastHold {
    PastHold {
        holder: holder.to_owned(),
        request: uid.to_owned(),
        request_name: uid.to_owned(),
        token,
        acquired: Time(100),
        ended: Time(1_000),
        how,
    }
}

/// A history of so many, the oldest of `u-oldest`.
fn history(many: usize) -> Vec<PastHold> {
    let mut all: Vec<PastHold> = (1..many).map(|n| past(&format!("u-{n}"), "x", 40, Ending::Released)).collect();
    all.push(past("u-oldest", "x", 1, Ending::Released));
    all
}

fn snapshot() -> Snapshot {
    Snapshot {
        now: Time(1_000),
        resource_version: 50,
        lease: LeaseFacts { ttl: Some(Millis(600)), ..LeaseFacts::default() },
        record: Record { token: 7, ..Record::default() },
        remaining: None,
        requests: vec![request("u1", "a")],
        waiting_told: 0,
        since_write: Millis::ZERO,
        settings: Settings::default(),
    }
}

/// A free lease is granted to u1.
fn grant() -> Step {
    let before = snapshot();
    let next = Record { token: 50, state: State::Held(hold("u1", "a", 1_000, 1_600)), ..before.record.clone() };
    Step { before, next }
}

/// u1 holds until 2000, u2 of another waits, and nothing happens.
fn stay() -> Step {
    let mut before = snapshot();
    before.resource_version = 60;
    before.record = Record { token: 50, state: State::Held(hold("u1", "a", 100, 2_000)), ..Record::default() };
    before.remaining = Some(Millis(1_000));
    before.requests[0].answered = Some(Answered::Granted(50));
    before.requests.push(request("u2", "b"));
    let next = before.record.clone();
    Step { before, next }
}

/// The same, and it is renewed until 3000.
fn renewal() -> Step {
    stay().with(|s| (s.becomes().expires, s.becomes().renewals) = (Time(3_000), 1))
}

/// The same, while it is asked to leave for u2.
fn renewal_in_a_hand_over() -> Step {
    renewal().with(|s| s.was().preemption = Some(hand_over(false, 1_500)))
}

/// The same hold has ended, because its request is gone.
fn release() -> Step {
    stay().with(|s| {
        s.before.requests.remove(0);
        s.next.state = State::Available;
        s.next.history = vec![past("u1", "a", 50, Ending::Released)];
    })
}

/// The same hold is due, and u2 gets the lease.
fn take_over() -> Step {
    release().with(|s| {
        s.before.requests.insert(0, request("u1", "a"));
        s.before.remaining = Some(Millis::ZERO);
        s.next.token = 60;
        s.next.state = State::Held(hold("u2", "b", 1_000, 1_600));
        s.next.history[0].how = Ending::Expired;
    })
}

/// The hold was taken away by a person.
fn eviction() -> Step {
    release().with(|s| {
        s.before.record.state = State::Evicted(s.was().clone());
        s.before.remaining = None;
        s.next.history[0].how = Ending::ForceReleased;
    })
}

fn hand_over(force: bool, deadline: i64) -> Preemption {
    Preemption { by: "b".to_owned(), request: "u2".to_owned(), deadline: Time(deadline), force, reason: String::new() }
}

#[track_caller]
fn finds<const N: usize>(cases: [(&str, Step, &[&str]); N]) {
    for (what, step, expected) in cases {
        assert_eq!(step.found(), expected, "{what}");
    }
}

#[test]
fn a_token_that_does_not_rise_with_a_grant_is_found() {
    finds([
        ("a grant with the resourceVersion", grant(), &[]),
        ("a grant with more", grant().with(|s| s.next.token = 51), &[]),
        (
            "a grant with the last one again",
            grant().with(|s| (s.before.resource_version, s.next.token) = (5, 7)),
            &["a grant has token 7 after 7 at resourceVersion 5"],
        ),
        (
            "a grant with the last one plus one, which a Lease that was made anew may have had",
            grant().with(|s| s.next.token = 8),
            &["a grant has token 8 after 7 at resourceVersion 50"],
        ),
        ("another's grant with a new one", take_over(), &[]),
        (
            "another's grant with the same",
            take_over().with(|s| (s.next.token, s.becomes().acquired) = (50, Time(100))),
            &["a grant has token 50 after 50 at resourceVersion 60"],
        ),
        (
            "a new one without a grant",
            stay().with(|s| s.next.token = 60),
            &["the token went from 50 to 60 without a grant"],
        ),
        ("nothing", stay(), &[]),
    ]);
}

#[test]
fn a_hold_that_lacks_something_is_found() {
    const LACKS: &[&str] = &["a hold without holder, request or token"];
    let nobody = |s: &mut Step| {
        s.before.requests[0].holder.clear();
        s.was().holder.clear();
        s.becomes().holder.clear();
    };
    let nothing = |s: &mut Step| {
        s.before.requests[0].id.uid.clear();
        s.was().request.uid.clear();
        s.becomes().request.uid.clear();
    };
    finds([
        ("no holder", stay().with(nobody), LACKS),
        ("no request", stay().with(nothing), LACKS),
        ("no token", stay().with(|s| (s.before.record.token, s.next.token) = (0, 0)), LACKS),
        (
            "no length",
            stay().with(|s| (s.was().expires, s.becomes().expires) = (Time(100), Time(100))),
            &["a hold that expires before it begins"],
        ),
        (
            "what only a person writes",
            grant().with(|s| (s.next.token, s.next.state) = (7, State::Evicted(hold("u1", "a", 0, 600)))),
            &["the controller writes an eviction"],
        ),
    ]);
}

#[test]
fn a_grant_to_a_request_that_does_not_wait_is_found() {
    let to = |change: fn(&mut Request)| grant().with(|s| change(&mut s.before.requests[0]));
    let held_before = |s: &mut Step| {
        s.before.record.history = vec![past("u1", "a", 3, Ending::Expired)];
        s.next.history = s.before.record.history.clone();
        s.before.requests[0].answered = Some(Answered::Pending);
    };
    finds([
        (
            "one that nobody made",
            grant().with(|s| s.before.requests.clear()),
            &["a grant to a request that does not exist"],
        ),
        (
            "one that names another holder",
            to(|r| r.holder = "z".to_owned()),
            &["a grant to an invalid request, or to another holder than the request's"],
        ),
        (
            "one that is invalid",
            to(|r| r.invalid = Some("ttl".to_owned())),
            &["a grant to an invalid request, or to another holder than the request's"],
        ),
        ("one that waits", to(|r| r.answered = Some(Answered::Pending)), &[]),
        ("one that is over", to(|r| r.answered = Some(Answered::Finished)), &["a grant to a request that is over"]),
        ("one whose Pod is gone", to(|r| r.abandoned = true), &["a grant to a request whose Pod is gone"]),
        (
            "one that was told of another grant",
            to(|r| r.answered = Some(Answered::Granted(3))),
            &["a grant to a request whose status says that it was granted before"],
        ),
        (
            "one that has lapsed",
            to(|r| (r.timeout, r.untouched) = (Some(Millis(100)), Millis(100))),
            &["a grant to a request that nobody has touched for its timeout"],
        ),
        ("one that has not", to(|r| (r.timeout, r.untouched) = (Some(Millis(100)), Millis(99))), &[]),
        ("now or never", to(|r| (r.timeout, r.untouched) = (Some(Millis::ZERO), Millis(5))), &[]),
        ("one that has held", grant().with(held_before), &["a request is granted twice"]),
        (
            "one that was just evicted",
            eviction().with(|s| {
                s.before.requests.push(request("u1", "a"));
                s.next = Record { token: 60, state: State::Held(hold("u1", "a", 1_000, 1_600)), ..Record::default() };
            }),
            &["a request is granted twice"],
        ),
        (
            "one that holds, anew",
            stay().with(|s| {
                s.before.requests[0].answered = None;
                s.becomes().acquired = Time(1_000);
                s.next.token = 60;
            }),
            &["a request is granted twice"],
        ),
        (
            "one on an invalid lease",
            grant().with(|s| s.before.lease.ttl = None),
            &["a grant on a lease whose spec is invalid"],
        ),
    ]);
}

#[test]
fn an_end_without_a_reason_is_found() {
    const NO_REASON: &[&str] = &["the hold of a was ended for no reason"];
    let stands = || take_over().with(|s| s.before.remaining = Some(Millis(1)));
    let leaving = |force, deadline| {
        stands().with(|s| {
            // It is due at 2000.
            s.before.remaining = Some(Millis(1_000));
            s.was().preemption = Some(hand_over(force, deadline));
            s.next.history[0].how = Ending::Preempted;
        })
    };
    finds([
        ("nothing has happened", stands(), NO_REASON),
        ("released", release(), &[]),
        ("its request names somebody else by now", stands().with(|s| s.before.requests[0].holder = "z".into()), &[]),
        ("due", take_over(), &[]),
        ("not known to be due", take_over().with(|s| s.before.remaining = None), NO_REASON),
        ("forced, and the deadline is here", leaving(true, 1_000), &[]),
        ("forced, and it is not", leaving(true, 1_001), NO_REASON),
        (
            "forced, and only the wall clock says that the deadline is here",
            leaving(true, 1_000).with(|s| s.before.remaining = Some(Millis(1_001))),
            NO_REASON,
        ),
        ("asked to leave, and the deadline is here", leaving(false, 1_000), NO_REASON),
        (
            "its holder has a newer request",
            stands().with(|s| {
                s.before.requests[1].holder = "a".to_owned();
                s.becomes().holder = "a".to_owned();
                s.next.history[0].how = Ending::Superseded;
            }),
            &[],
        ),
    ]);
}

#[test]
fn a_hold_that_outlasts_its_time_is_found() {
    let most = |step: Step, most| step.with(|s| s.before.settings.max_hold = Some(Millis(most)));
    let due = |step: Step| step.with(|s| s.before.remaining = Some(Millis::ZERO));
    finds([
        ("due, and it stands", due(stay()), &["a due hold stands"]),
        ("due, and it is renewed", due(renewal()), &[]),
        ("renewed", renewal(), &[]),
        ("renewed up to the limit", most(renewal(), 2_900), &[]),
        ("renewed beyond it", most(renewal(), 2_899), &["a hold was renewed beyond --max-hold"]),
        ("a limit that came later", most(stay(), 1_000), &[]),
        (
            "less than was told",
            stay().with(|s| s.becomes().expires = Time(1_999)),
            &["the expiry of a hold was lowered"],
        ),
        ("less than another was told", take_over(), &[]),
    ]);
}

#[test]
fn a_renewal_without_a_request_or_in_a_hand_over_is_found() {
    const WITHOUT: &[&str] = &["a hold was renewed without its request"];
    const LEAVING: &[&str] = &["a hold was renewed during a hand-over"];
    let gone = |step: Step| step.with(|s| drop(s.before.requests.remove(0)));
    let preemptor = |change: fn(&mut Request)| renewal_in_a_hand_over().with(|s| change(&mut s.before.requests[1]));
    let has_held = |s: &mut Step| {
        s.before.record.history = vec![past("u2", "b", 3, Ending::Expired)];
        s.next.history = s.before.record.history.clone();
    };
    finds([
        ("its request is gone", gone(renewal()), WITHOUT),
        ("its request names somebody else", renewal().with(|s| s.before.requests[0].holder = "z".into()), WITHOUT),
        ("its request is gone, and it stands", gone(stay()), &[]),
        ("its request is gone, and another holds", gone(take_over()).with(|s| s.was().renewals = 2), &[]),
        ("the preemptor waits", renewal_in_a_hand_over(), LEAVING),
        ("it waits, now or never", preemptor(|r| (r.timeout, r.untouched) = (Some(Millis(0)), Millis(5))), LEAVING),
        ("it waits, in time", preemptor(|r| (r.timeout, r.untouched) = (Some(Millis(9)), Millis(5))), LEAVING),
        ("it has lapsed", preemptor(|r| (r.timeout, r.untouched) = (Some(Millis(9)), Millis(9))), &[]),
        ("it is over", preemptor(|r| r.answered = Some(Answered::Denied)), &[]),
        ("it is invalid", preemptor(|r| r.invalid = Some("ttl".to_owned())), &[]),
        ("its Pod is gone", preemptor(|r| r.abandoned = true), &[]),
        ("it has held", renewal_in_a_hand_over().with(has_held), &[]),
        (
            "its holder has another request",
            renewal_in_a_hand_over().with(|s| s.before.requests.push(request("u3", "b"))),
            &[],
        ),
    ]);
}

#[test]
fn a_history_that_does_not_tell_what_happened_is_found() {
    const UNTOLD: &[&str] = &["a hold has ended that is not first in the history"];
    const FORCED: &[&str] = &["a forced release is told as something else, or something else as one"];
    const REWRITTEN: &[&str] = &["the history was rewritten"];
    let unchanged = |many| {
        stay().with(|s| {
            s.before.record.history = history(many);
            s.next.history = history(many);
        })
    };
    let first = |change: fn(&mut PastHold)| release().with(|s| change(&mut s.next.history[0]));
    finds([
        ("as long as it may be", unchanged(HISTORY_MAX), &[]),
        ("longer", unchanged(HISTORY_MAX + 1), &["the history is too long"]),
        (
            "an end that was none",
            stay().with(|s| s.next.history = history(1)),
            &["the history changed though no hold has ended"],
        ),
        ("an end", release(), &[]),
        ("the end of another's", first(|p| p.request = "u9".to_owned()), UNTOLD),
        ("with another token", first(|p| p.token = 49), UNTOLD),
        ("with another holder", first(|p| p.holder = "z".to_owned()), UNTOLD),
        ("no end", release().with(|s| s.next.history.clear()), UNTOLD),
        ("forced", eviction(), &[]),
        ("forced, and it was not", first(|p| p.how = Ending::ForceReleased), FORCED),
        ("it was forced", eviction().with(|s| s.next.history[0].how = Ending::Released), FORCED),
        ("without what was there", release().with(|s| s.before.record.history = history(1)), REWRITTEN),
    ]);
}

#[test]
fn a_history_that_forgets_who_could_be_granted_again_is_found() {
    let full = || {
        release().with(|s| {
            s.before.record.history = history(HISTORY_MAX);
            s.next.history.extend(history(HISTORY_MAX).into_iter().take(HISTORY_MAX - 1));
        })
    };
    let known = |answered| full().with(|s| s.before.requests.push(Request { answered, ..request("u-oldest", "x") }));
    const FORGETS: &[&str] = &["the history forgets u-oldest, which still looks pending"];
    finds([
        ("the oldest is gone", full(), &[]),
        ("it has been told that it is over", known(Some(Answered::Finished)), &[]),
        ("it has been told that it waits", known(Some(Answered::Pending)), FORGETS),
        ("it has been told nothing", known(None), FORGETS),
        ("the second-oldest is remembered", full().with(|s| s.before.requests.push(request("u-7", "x"))), &[]),
    ]);
}
