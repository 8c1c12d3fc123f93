//! A little world, random operations on it and a policy that means no good. After every step the
//! invariants of the crate are checked, and some more that only a whole run can show; those are
//! written here from the design, with nothing of the planner's.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
};

use konductor_core::{
    Answer, Answered, Decision, Denial, Ending, Grant, Hold, HoldAction, Inquiry, LeaseFacts, Millis, PastHold, Plan,
    Question, Record, Request, RequestAnswer, RequestId, Settings, Snapshot, State, Time, Verdict, check, invariants,
    snapshot::HISTORY_MAX,
};
use proptest::prelude::*;

// ---- what may happen ----

#[derive(Debug, Clone)]
enum Op {
    Create {
        holder: u8,
        priority: Option<i32>,
        ttl: Option<i64>,
        timeout: Option<i64>,
    },
    /// A client gives up or releases.
    Delete(usize),
    /// A client says that it still waits, or asks for a renewal: the same patch.
    Beat(usize),
    /// A client's Pod ends: the host deletes its request when it looks, or has not come to it yet.
    PodEnds(usize),
    /// The holder asks for a renewal.
    Renew,
    /// The holder releases.
    Release,
    Advance(i64),
    /// An operator or NTP sets the clock.
    JumpClock(i64),
    Spec {
        ttl: Option<i64>,
        priority: i32,
    },
    MaxHold(Option<i64>),
    /// A person clears the holder,
    ForceRelease,
    /// or deletes the Lease and makes it anew.
    Recreate,
    /// From here on the controller's list of requests stands still,
    Freeze,
    /// and now it catches up.
    Thaw,
    /// Answers that were held up arrive now.
    Deliver,
    Reconcile {
        policy: Policy,
        lost_race: bool,
        answers: Delivery,
    },
}

#[derive(Debug, Clone, Copy)]
enum Delivery {
    Now,
    Lost,
    Late,
}

#[derive(Debug, Clone)]
enum Policy {
    /// Renews what asks, expires what is due, grants the candidate at this place.
    Sane {
        place: usize,
        ttl: i64,
    },
    /// Hands over to the candidate at this place.
    Preempting {
        place: usize,
        grace: i64,
        force: bool,
    },
    Hostile(Decision),
    Unavailable,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..90)
}

/// Half of the runs begin with a history that is full or nearly so.
fn past() -> impl Strategy<Value = Vec<Option<bool>>> {
    let said = prop_oneof![3 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    prop_oneof![Just(0_usize..=0), Just(6..=HISTORY_MAX)]
        .prop_flat_map(move |many| prop::collection::vec(said.clone(), many))
}

fn op() -> impl Strategy<Value = Op> {
    let ttl = prop_oneof![Just(1_i64), Just(50), Just(600), Just(600), Just(10_000)];
    let timeout = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 2 => Just(Some(100)), 2 => Just(Some(1_000))];
    let span = prop_oneof![Just(0_i64), Just(1), 2_i64..100, 100_i64..1_000, Just(600), Just(5_000), Just(20_000)];
    let delivery = prop_oneof![4 => Just(Delivery::Now), 1 => Just(Delivery::Lost), 1 => Just(Delivery::Late)];
    let reconcile = (policy(), prop::bool::weighted(0.1), delivery);
    prop_oneof![
        12 => (0_u8..4, prop::option::of(-1..9), prop::option::of(ttl.clone()), timeout)
            .prop_map(|(holder, priority, ttl, timeout)| Op::Create { holder, priority, ttl, timeout }),
        2 => (0_usize..8).prop_map(Op::Delete),
        3 => (0_usize..8).prop_map(Op::Beat),
        1 => (0_usize..8).prop_map(Op::PodEnds),
        4 => Just(Op::Renew),
        4 => Just(Op::Release),
        9 => span.clone().prop_map(Op::Advance),
        3 => prop_oneof![span.clone(), span.prop_map(|ms| -ms), Just(86_400_000), Just(-86_400_000)]
            .prop_map(Op::JumpClock),
        1 => (prop::option::weighted(0.8, ttl), 0..5).prop_map(|(ttl, priority)| Op::Spec { ttl, priority }),
        1 => prop::option::of(prop_oneof![Just(1_i64), Just(700), Just(3_000)]).prop_map(Op::MaxHold),
        1 => Just(Op::ForceRelease),
        1 => Just(Op::Recreate),
        1 => Just(Op::Freeze),
        2 => Just(Op::Thaw),
        2 => Just(Op::Deliver),
        30 => reconcile.prop_map(|(policy, lost_race, answers)| Op::Reconcile { policy, lost_race, answers }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let ttl = prop_oneof![Just(1_i64), Just(50), Just(600)];
    let grace = prop_oneof![Just(0_i64), Just(30), Just(500)];
    prop_oneof![
        5 => (0_usize..3, ttl).prop_map(|(place, ttl)| Policy::Sane { place, ttl }),
        2 => (0_usize..3, grace, any::<bool>())
            .prop_map(|(place, grace, force)| Policy::Preempting { place, grace, force }),
        4 => hostile().prop_map(Policy::Hostile),
        1 => Just(Policy::Unavailable),
    ]
}

fn hostile() -> impl Strategy<Value = Decision> {
    let index = || prop_oneof![6 => 0_usize..3, 1 => Just(700), 1 => Just(usize::MAX)];
    let number = || {
        let odd = prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(1), Just(i64::MAX)];
        prop_oneof![3 => 1_i64..700, 1 => odd].prop_map(Millis)
    };
    let hold = prop_oneof![
        3 => Just(HoldAction::Keep),
        3 => Just(HoldAction::Expire),
        2 => number().prop_map(|ttl| HoldAction::Renew { ttl }),
        2 => (index(), number(), any::<bool>())
            .prop_map(|(in_favour_of, grace, force)| HoldAction::Preempt { in_favour_of, grace, force }),
    ];
    let grant = (index(), number()).prop_map(|(request, ttl)| Grant { request, ttl });
    let denial = (index(), "[a\n]{0,3}").prop_map(|(request, reason)| Denial { request, reason });
    (
        hold,
        prop::option::weighted(0.7, grant),
        prop::collection::vec(denial, 0..2),
        prop::option::of(number()),
        prop::option::of("s{0,4}"),
    )
        .prop_map(|(hold, grant, deny, wake_in, state)| Decision {
            hold,
            grant,
            deny,
            wake_in,
            state,
            reason: "\u{7}because".to_owned(),
        })
}

impl Policy {
    fn decide(&self, question: &Question) -> Option<Decision> {
        let shown = question.requests.len();
        let grant = |place: usize, ttl| (shown > 0).then(|| Grant { request: place % shown, ttl: Millis(ttl) });
        match (self, &question.hold) {
            (Self::Unavailable, _) => None,
            (Self::Hostile(decision), _) => Some(decision.clone()),
            (Self::Sane { ttl, .. }, Some(hold)) if hold.renewal_requested => {
                Some(Decision { hold: HoldAction::Renew { ttl: Millis(*ttl) }, ..Decision::default() })
            }
            (Self::Sane { place, ttl }, Some(hold)) if hold.due => {
                Some(Decision { hold: HoldAction::Expire, grant: grant(*place, *ttl), ..Decision::default() })
            }
            (Self::Sane { .. }, Some(_)) => Some(Decision::default()),
            (Self::Sane { place, ttl }, None) => Some(Decision { grant: grant(*place, *ttl), ..Decision::default() }),
            (Self::Preempting { place, grace, force }, Some(_)) if shown > 0 => Some(Decision {
                hold: HoldAction::Preempt { in_favour_of: place % shown, grace: Millis(*grace), force: *force },
                ..Decision::default()
            }),
            (Self::Preempting { .. }, Some(_)) => Some(Decision::default()),
            (Self::Preempting { place, .. }, None) => {
                Some(Decision { grant: grant(*place, 600), ..Decision::default() })
            }
        }
    }
}

// ---- the world ----

/// A LeaseRequest as the API server has it.
#[derive(Debug, Clone)]
struct Claim {
    request: Request,
    /// By the monotonic clock.
    touched: i64,
    over_since: Option<i64>,
    /// How often its status was written: every answer is conditional on what its snapshot had.
    written: u64,
}

/// The holder's side of a hold: what an honest client believes.
#[derive(Debug, Clone)]
struct Believes {
    uid: String,
    /// By the monotonic clock: no client counts further than this.
    until: i64,
    /// The latest that it was told.
    expires: Time,
    /// By the monotonic clock: when it was granted or renewed last. What it is told of a hand-over is counted from there.
    counted_from: i64,
}

#[derive(Debug, Default)]
struct World {
    mono: i64,
    wall: i64,
    version: i64,
    created: u32,
    lease: LeaseFacts,
    settings: Settings,
    record: Record,
    /// When the hold is due by the controller's monotonic clock.
    due: Option<i64>,
    claims: BTreeMap<String, Claim>,
    frozen: Option<Vec<Claim>>,
    held_up: Vec<(RequestAnswer, u64)>,
    waiting_told: i64,
    written: i64,

    // What the whole run has shown.
    granted: HashSet<String>,
    grants_since_freeze: usize,
    tokens: Vec<i64>,
    ends: Vec<(String, i64, Ending)>,
    holder: Option<Believes>,
}

impl World {
    /// A lease that had as many holds as there are words about them: what the requests' statuses say,
    /// where anybody got round to writing them.
    fn new(past: &[Option<bool>]) -> Self {
        let mut world = Self {
            mono: 1_000_000,
            wall: 50_000_000,
            version: 10,
            lease: LeaseFacts { ttl: Some(Millis(600)), renewable: true, ..LeaseFacts::default() },
            ..Self::default()
        };
        for (i, over) in past.iter().enumerate() {
            world.step(&Op::Create { holder: 9 + i as u8, priority: Some(9), ttl: None, timeout: None });
            let token = world.version;
            let claim = world.claims.values_mut().next_back().expect("it was just made");
            claim.request.answered = over.map(|over| if over { Answered::Finished } else { Answered::Granted(token) });
            claim.over_since = claim.request.answered.filter(|said| said.is_over()).map(|_| world.mono);
            let uid = claim.request.id.uid.clone();
            let entry = PastHold {
                holder: claim.request.holder.clone(),
                request: uid.clone(),
                request_name: claim.request.id.name.clone(),
                token,
                acquired: Time(0),
                ended: Time(1),
                how: Ending::Expired,
            };
            world.record.token = token;
            world.record.history.insert(0, entry);
            world.tokens.push(token);
            world.granted.insert(uid.clone());
            world.ends.push((uid, token, Ending::Expired));
        }
        world
    }

    fn holding(&self) -> Option<String> {
        self.record.hold().map(|h| h.request.uid.clone())
    }

    fn nth(&self, n: usize) -> Option<String> {
        let count = self.claims.len();
        self.claims.keys().nth(n.checked_rem(count)?).cloned()
    }

    fn beat(&mut self, uid: &str) {
        let mono = self.mono;
        if let Some(claim) = self.claims.get_mut(uid) {
            claim.request.renewals += 1;
            claim.touched = mono;
            self.version += 1;
        }
    }

    fn delete(&mut self, uid: &str) {
        self.claims.remove(uid);
        self.version += 1;
        // A client that deletes its request has stopped.
        self.holder.take_if(|h| h.uid == uid);
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Create { holder, priority, ttl, timeout } => {
                self.version += 1;
                self.created += 1;
                let uid = format!("u{:04}", self.created);
                let request = Request {
                    id: RequestId { name: uid.clone(), uid: uid.clone() },
                    holder: format!("holder-{holder}"),
                    priority: *priority,
                    ttl: ttl.map(Millis),
                    timeout: timeout.map(Millis),
                    // The API server's clock is right; it writes whole seconds.
                    arrived: Time(self.mono - self.mono % 1_000),
                    sequence: self.version,
                    ..Request::default()
                };
                self.claims.insert(uid, Claim { request, touched: self.mono, over_since: None, written: 0 });
            }
            Op::Delete(n) => {
                if let Some(uid) = self.nth(*n) {
                    self.delete(&uid);
                }
            }
            Op::Beat(n) => {
                if let Some(uid) = self.nth(*n) {
                    self.beat(&uid);
                }
            }
            Op::PodEnds(n) => {
                if let Some(claim) = self.nth(*n).and_then(|uid| self.claims.get_mut(&uid)) {
                    claim.request.abandoned = true;
                }
            }
            Op::Renew => {
                if let Some(uid) = self.holding() {
                    self.beat(&uid);
                }
            }
            Op::Release => {
                if let Some(uid) = self.holding() {
                    self.delete(&uid);
                }
            }
            Op::Advance(ms) => {
                self.mono += ms;
                self.wall += ms;
            }
            Op::JumpClock(ms) => self.wall += ms,
            Op::Spec { ttl, priority } => {
                self.version += 1;
                self.lease.ttl = ttl.map(Millis);
                self.lease.problem = ttl.is_none().then(|| "ttl".to_owned());
                self.lease.priority = *priority;
            }
            Op::MaxHold(most) => self.settings.max_hold = most.map(Millis),
            Op::ForceRelease => {
                if let State::Held(hold) = &self.record.state {
                    self.version += 1;
                    self.record.state = State::Evicted(hold.clone());
                    self.due = None;
                    // A person has taken it away and answers for it.
                    self.holder = None;
                }
            }
            Op::Recreate => {
                self.version += 2;
                self.record = Record::default();
                self.waiting_told = 0;
                self.due = None;
                self.holder = None;
                // What is known of the former Lease is what the requests say.
                self.granted.clear();
                self.ends.clear();
            }
            Op::Freeze => {
                self.frozen.get_or_insert_with(|| self.claims.values().cloned().collect());
                self.grants_since_freeze = 0;
            }
            Op::Thaw => self.frozen = None,
            Op::Deliver => {
                for (answer, written) in std::mem::take(&mut self.held_up) {
                    self.answer(&answer, written);
                }
            }
            Op::Reconcile { policy, lost_race, answers } => {
                let (before, plan, unavailable) = self.plan(policy);
                if !lost_race {
                    self.apply(&before, &plan, unavailable, *answers);
                }
            }
        }
        // The history vouches for as many grants as it is long. No list is older than that.
        if self.grants_since_freeze >= HISTORY_MAX - 1 {
            self.frozen = None;
        }
    }

    fn snapshot(&self) -> Snapshot {
        let seen: Vec<&Claim> = match &self.frozen {
            Some(frozen) => frozen.iter().collect(),
            None => self.claims.values().collect(),
        };
        let mut requests: Vec<Request> = seen
            .into_iter()
            .map(|claim| Request {
                untouched: Millis(self.mono - claim.touched),
                known_for: Millis::ZERO,
                over_for: claim.over_since.map_or(Millis::ZERO, |since| Millis(self.mono - since)),
                ..claim.request.clone()
            })
            .collect();
        // In any order.
        if self.version % 2 == 0 {
            requests.reverse();
        }
        Snapshot {
            now: Time(self.wall),
            resource_version: self.version,
            lease: self.lease.clone(),
            record: self.record.clone(),
            remaining: self.due.map(|due| Millis(due - self.mono)),
            requests,
            waiting_told: self.waiting_told,
            since_write: Millis(self.mono - self.written),
            settings: self.settings,
        }
    }

    /// One reconcile up to the plan. Says also whether nobody could decide.
    fn plan(&self, policy: &Policy) -> (Snapshot, Plan, bool) {
        let before = self.snapshot();
        let mut inquiry = Inquiry::of(&before);
        let (plan, undecided) = loop {
            let verdict = match inquiry.question() {
                None => Verdict::NotAsked,
                Some(question) => match policy.decide(question).map(|decision| check(question, decision)) {
                    None => Verdict::Unavailable("it is down".to_owned()),
                    Some(Err(refusal)) => Verdict::Unavailable(refusal.to_string()),
                    Some(Ok(checked)) => Verdict::Decided(checked),
                },
            };
            inquiry = match inquiry.conclude(&verdict) {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(plan) => break (plan, !matches!(verdict, Verdict::Decided(_))),
            };
        };
        (before, plan, undecided)
    }

    /// The write of the lease, then its consequences, each checked.
    fn apply(&mut self, before: &Snapshot, plan: &Plan, undecided: bool, delivery: Delivery) {
        let violations = invariants::violations(before, plan);
        assert!(violations.is_empty(), "{violations:?}\nbefore: {before:#?}\nplan: {plan:#?}");

        self.check_the_hold(before, plan);
        self.check_the_wake_up(before, plan);
        if undecided {
            assert!(!plan.grants(), "granted though nobody could decide");
            let renewed = |hold: &Hold| plan.next.hold().is_some_and(|new| new.renewals != hold.renewals);
            assert!(!before.record.hold().is_some_and(renewed), "renewed though nobody could decide");
            let denied = plan.answers.iter().any(|a| matches!(a.answer, Answer::Denied { .. }));
            assert!(!denied, "denied though nobody could decide");
        }

        if plan.next != before.record || plan.waiting != before.waiting_told {
            self.version += 1;
            self.written = self.mono;
        }
        self.record = plan.next.clone();
        self.waiting_told = plan.waiting;
        for answer in &plan.answers {
            let uid = &answer.request.uid;
            let seen = match &self.frozen {
                Some(frozen) => frozen.iter().find(|claim| claim.request.id.uid == *uid),
                None => self.claims.get(uid),
            };
            let written = seen.expect("only a request that was seen is answered").written;
            match delivery {
                Delivery::Now => self.answer(answer, written),
                Delivery::Lost => {}
                Delivery::Late => self.held_up.push((answer.clone(), written)),
            }
        }
        for swept in &plan.sweep {
            let abandoned = before.request(&swept.uid).is_some_and(|request| request.abandoned);
            let holds = self.holding().as_ref() == Some(&swept.uid);
            assert!(!holds || abandoned, "the holder's request was swept");
            self.delete(&swept.uid);
        }
    }

    /// What must be so about the hold over a whole run.
    fn check_the_hold(&mut self, before: &Snapshot, plan: &Plan) {
        let old = match &before.record.state {
            State::Held(hold) | State::Evicted(hold) => Some(hold),
            State::Available | State::Expired(_) => None,
        };
        let new = plan.next.hold();
        let same = old.zip(new).is_some_and(|(old, new)| old.request.uid == new.request.uid);

        // An end.
        if let Some(old) = old.filter(|_| !same) {
            let ended = plan.next.history.first().expect("an end is in the history");
            self.ends.push((old.request.uid.clone(), before.record.token, ended.how));
            let forced = ended.how == Ending::Preempted && old.preemption.as_ref().is_some_and(|p| p.force);
            let by_itself = new.is_some_and(|new| new.holder == old.holder);
            if let Some(holder) = self.holder.take()
                && !by_itself
            {
                assert_eq!(holder.uid, old.request.uid);
                // As a client counts it: the times of the status are compared with each other only.
                let span = old.preemption.as_ref().filter(|_| forced).map(|p| (p.deadline - old.renewed).0);
                let asked = span.map_or(i64::MAX, |span| holder.counted_from + span);
                let until = holder.until.min(asked);
                assert!(until <= self.mono, "{} ended {} ms early", holder.uid, until - self.mono);
            }
            if forced {
                let by = &old.preemption.as_ref().expect("a forced end has a preemption").request;
                assert!(before.requests.iter().any(|r| r.id.uid == *by), "forced out in favour of nobody");
            }
            self.due = None;
        }
        // A grant.
        if let Some(new) = new.filter(|_| !same) {
            assert!(self.granted.insert(new.request.uid.clone()), "{} was granted twice", new.request.uid);
            assert!(self.tokens.last().is_none_or(|last| plan.next.token > *last), "the token did not rise");
            if self.frozen.is_none() {
                let claim = &self.claims[&new.request.uid];
                let alive = claim.request.timeout.is_none_or(|t| t.0 == 0 || self.mono - claim.touched < t.0);
                assert!(alive && !claim.request.answered.is_some_and(Answered::is_over), "a dead request was granted");
            }
            self.tokens.push(plan.next.token);
            self.grants_since_freeze += 1;
            let until = self.mono + (new.expires - new.acquired).0;
            self.due = Some(until);
            // A list that is not up to date may name a request whose client has given up since.
            let believes =
                || Believes { uid: new.request.uid.clone(), until, expires: new.expires, counted_from: self.mono };
            self.holder = self.claims.contains_key(&new.request.uid).then(believes);
        }
        // A hold that goes on.
        if let (Some(old), Some(new), true) = (old, new, same) {
            assert!(new.renewals >= old.renewals && new.acted_on >= old.acted_on, "a counter fell");
            if new.renewals > old.renewals {
                let lasts = self.mono + (new.expires - before.now).0;
                self.due = self.due.map(|due| due.max(lasts));
                if let Some(holder) = &mut self.holder {
                    assert!(new.expires >= holder.expires, "the holder was told more");
                    holder.expires = new.expires;
                    holder.counted_from = self.mono;
                    holder.until = holder.until.max(lasts);
                }
            }
            if let (Some(was), Some(is)) = (&old.preemption, &new.preemption)
                && was.request == is.request
            {
                assert!(is.deadline <= was.deadline, "the deadline of a hand-over was put off");
                assert!(is.force || !was.force, "a forced hand-over was softened");
            }
        }
        let history: Vec<_> = plan.next.history.iter().map(|p| (p.request.clone(), p.token, p.how)).collect();
        let expected: Vec<_> = self.ends.iter().rev().take(HISTORY_MAX).cloned().collect();
        assert_eq!(history, expected, "the history does not tell what happened");
        assert!(plan.next.history.iter().all(|p| p.ended >= p.acquired), "a hold ended before it began");
    }

    /// Whatever has to be done by the host alone is not slept through.
    fn check_the_wake_up(&self, before: &Snapshot, plan: &Plan) {
        let by = |what: &str, left: i64| {
            let wake = plan.wake_in.unwrap_or_else(|| panic!("no wake-up for {what}"));
            assert!((0..=left.max(1)).contains(&wake.0), "woken after {} for {what} in {left}", wake.0);
        };
        if plan.next.hold().is_some() {
            by("the end of the hold", self.due.expect("a hold is due some time") - self.mono);
        }
        if let State::Expired(at) = plan.next.state {
            by("the clean-up", (at + before.settings.expired_retention - before.now).0);
        }
        for request in before.requests.iter().filter(|request| !request.abandoned) {
            if let Some(timeout) = request.timeout.filter(|t| t.0 > 0)
                && !plan.grants()
                && !plan.answers.iter().any(|a| a.request == request.id)
                && request.answered == Some(Answered::Pending)
                && !request.answered.is_some_and(Answered::is_over)
                && request.untouched < timeout
                && self.ends.len() < HISTORY_MAX
            {
                by("a request that lapses", (timeout - request.untouched).0);
            }
        }
    }

    /// Writes a request's status, if it is still what it was in the snapshot of the answer.
    fn answer(&mut self, answer: &RequestAnswer, written: u64) {
        let mono = self.mono;
        let Some(claim) = self.claims.get_mut(&answer.request.uid) else { return };
        if written != claim.written {
            return;
        }
        let said = answer.answer.said();
        // What was told to be over is told otherwise only if it holds: a list that was not up to date
        // has let it be granted all the same, and then the record is the truth.
        let over = claim.request.answered.is_some_and(Answered::is_over);
        let holds = matches!(said, Answered::Granted(_));
        assert!(!over || said.is_over() || holds, "{} is over and was told otherwise", claim.request.id.uid);
        claim.request.answered = Some(said);
        claim.written += 1;
        self.version += 1;
        if said.is_over() {
            claim.over_since.get_or_insert(mono);
        }
    }

    /// Left alone, the world comes to rest: every reconcile is woken for something, and there is an end
    /// to it.
    fn settle(&mut self) {
        self.frozen = None;
        self.step(&Op::Deliver);
        let sane = Policy::Sane { place: 0, ttl: 600 };
        for _ in 0..400 {
            let (before, plan, unavailable) = self.plan(&sane);
            let idle = plan.next == before.record
                && plan.answers.is_empty()
                && plan.sweep.is_empty()
                && plan.waiting == before.waiting_told;
            let wake = plan.wake_in;
            self.apply(&before, &plan, unavailable, Delivery::Now);
            match wake {
                None if idle => return,
                // A write is news by itself.
                _ if !idle => {}
                None => {}
                Some(wake) => {
                    self.mono += wake.0;
                    self.wall += wake.0;
                }
            }
        }
        panic!("the controller does not come to rest: {self:#?}");
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_500);
    // What fails is printed, in full and as short as possible; nothing is written beside the sources.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_policy_breaks_a_lease(past in past(), ops in ops()) {
        let mut world = World::new(&past);
        for op in &ops {
            world.step(op);
        }
        world.settle();
    }
}
