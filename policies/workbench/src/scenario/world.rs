//! Plays a scenario: a lease, its requests and their clients in virtual time.
//!
//! What happens at one instant is seen together, as a controller whose watch has caught up sees it.
//! Then it reconciles until there is nothing left to do, and every step is checked against the
//! core's invariants.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    ops::ControlFlow,
    sync::Arc,
};

use konductor_core::{
    Answer, Ending, Inquiry, LeaseFacts, Millis, Notice, Plan, Question, Request, RequestId, Settings, Snapshot, Time,
    Verdict, invariants,
};
use konductor_policy::{Host, Policy, journal::Record};

use super::{
    Scenario, Visit,
    judge::{Failure, FailureKind, Judge},
    story::{Entry, Happening, HoldSpan, Story, Wait, WaitEnd},
};

/// The most reconciles of a scenario: a year in which something happens every five minutes. Each
/// takes about a tenth of a millisecond.
const STEPS_MAX: usize = 100_000;

/// The most reconciles at one instant. Three are ordinary: the lease's write, the requests' answers,
/// and the one that finds nothing to do.
const RESTLESS_MAX: usize = 64;

/// Why a scenario could not be played to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// An invariant of the rules does not hold. A defect of Konductor Lease, not of the policy.
    Invariants {
        /// When, in virtual milliseconds.
        at: i64,
        /// A sentence for each.
        violations: Vec<String>,
    },
    /// There is no end of things to do at one instant. A defect of Konductor Lease too.
    Restless {
        /// When, in virtual milliseconds.
        at: i64,
    },
    /// It has more steps than are played.
    TooLong {
        /// How far it came, in virtual milliseconds.
        at: i64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let defect = "this is a defect of Konductor Lease, please report the scenario";
        match self {
            Self::Invariants { at, violations } => {
                write!(f, "an invariant is broken at {}: {}; {defect}", super::text::clock(*at), violations.join("; "))
            }
            Self::Restless { at } => {
                write!(f, "the lease does not come to rest at {}; {defect}", super::text::clock(*at))
            }
            Self::TooLong { at } => write!(
                f,
                "after {STEPS_MAX} steps it has only come to {}; let it end earlier, or let actors with a short ttl not renew, and look at how often the policy wants to be woken",
                super::text::clock(*at)
            ),
        }
    }
}

impl std::error::Error for Broken {}

/// Plays a scenario with a policy.
///
/// # Errors
/// [`Broken`], when it cannot be played to its end.
pub fn play(scenario: &Scenario, host: &Host, policy: Arc<Policy>) -> Result<Story, Broken> {
    run(scenario, host, policy, None).map(|(story, _)| story)
}

/// Plays a scenario with a policy, and writes down every decision as a controller's journal does.
///
/// # Errors
/// As [`play`].
pub fn play_and_record(scenario: &Scenario, host: &Host, policy: Arc<Policy>) -> Result<(Story, Vec<Record>), Broken> {
    run(scenario, host, policy, Some(Vec::new())).map(|(story, journal)| (story, journal.unwrap_or_default()))
}

fn run(
    scenario: &Scenario,
    host: &Host,
    policy: Arc<Policy>,
    journal: Option<Vec<Record>>,
) -> Result<(Story, Option<Vec<Record>>), Broken> {
    let digest = policy.digest().to_owned();
    let lease = &scenario.lease;
    let judge = Judge::new(host, policy, lease.params.clone(), lease.on_failure);
    let mut world = World {
        scenario,
        judge,
        now: 0,
        version: 1,
        lease: LeaseFacts {
            name: "lease".to_owned(),
            namespace: "default".to_owned(),
            uid: "00000000-0000-0000-0000-000000000001".to_owned(),
            labels: lease.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ttl: Some(Millis(lease.ttl)),
            problem: None,
            priority: lease.priority,
            renewable: lease.renewable,
        },
        record: konductor_core::Record::default(),
        waiting_told: 0,
        written: 0,
        claims: BTreeMap::new(),
        clients: vec![Client::default(); scenario.visits.len()],
        events: BinaryHeap::new(),
        scheduled: 0,
        wake: None,
        failed_at: None,
        journal,
        story: Story::new(scenario, digest),
    };
    for (i, visit) in scenario.visits.iter().enumerate() {
        world.schedule(visit.at, Event::Arrives(i));
        if let Some(leaves) = visit.leaves {
            world.schedule(leaves, Event::Leaves(i));
        }
    }
    world.run()?;
    Ok((world.story, world.journal))
}

/// A LeaseRequest, and what the controller remembers of it.
struct Claim {
    request: Request,
    visit: usize,
    created: i64,
    touched: i64,
    over_since: Option<i64>,
}

/// The client of a visit.
#[derive(Debug, Clone, Default)]
struct Client {
    state: ClientState,
    /// Its places in the story.
    wait: Option<usize>,
    hold: Option<usize>,
    /// How far apart it renews.
    beat: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ClientState {
    #[default]
    Away,
    Waiting,
    Holding,
    Crashed,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Leaves(usize),
    Crashes(usize),
    Finishes(usize),
    Renews(usize),
}

struct World<'a> {
    scenario: &'a Scenario,
    judge: Judge,
    /// Virtual milliseconds.
    now: i64,
    /// The API server's counter.
    version: i64,
    lease: LeaseFacts,
    record: konductor_core::Record,
    waiting_told: i64,
    written: i64,
    /// By uid.
    claims: BTreeMap<String, Claim>,
    clients: Vec<Client>,
    /// What will happen, the next first; the number keeps the order of equal times.
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    scheduled: u64,
    wake: Option<i64>,
    /// When the policy has last failed, and how: asked again at the same instant it fails again.
    failed_at: Option<(i64, Failure)>,
    /// Every decision, where that is wanted.
    journal: Option<Vec<Record>>,
    story: Story,
}

impl World<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        loop {
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = [event, self.wake].into_iter().flatten().min() else { break };
            if next > self.scenario.until {
                break;
            }
            self.now = next.max(self.now);
            while let Some(Reverse((at, _, event))) = self.events.peek().copied()
                && at <= self.now
            {
                self.events.pop();
                self.happen(event);
            }
            self.settle()?;
        }
        self.now = self.scenario.until;
        Ok(())
    }

    fn schedule(&mut self, at: i64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn visit(&self, i: usize) -> &Visit {
        &self.scenario.visits[i]
    }

    fn tell(&mut self, what: Happening, holder: &str, token: Option<i64>, text: impl Into<String>) {
        self.story.entries.push(Entry { at: self.now, what, holder: holder.to_owned(), token, text: text.into() });
    }

    // ---- what clients do ----

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(i) => self.arrive(i),
            Event::Leaves(i) if self.clients[i].state == ClientState::Waiting => {
                self.delete_request(i);
                self.end_wait(i, WaitEnd::Left);
                self.clients[i].state = ClientState::Done;
                let holder = self.visit(i).holder.clone();
                self.tell(Happening::Leaves, &holder, None, "");
            }
            Event::Crashes(i) if self.clients[i].state == ClientState::Holding => {
                self.clients[i].state = ClientState::Crashed;
                if let Some(hold) = self.clients[i].hold {
                    self.story.holds[hold].crashed = Some(self.now);
                }
                let (holder, token) = (self.visit(i).holder.clone(), self.record.token);
                self.tell(Happening::Crashes, &holder, Some(token), "");
            }
            Event::Finishes(i) if self.clients[i].state == ClientState::Holding => {
                self.delete_request(i);
            }
            Event::Renews(i) if self.clients[i].state == ClientState::Holding => {
                self.version += 1;
                let now = self.now;
                if let Some(claim) = self.claims.values_mut().find(|claim| claim.visit == i) {
                    claim.request.renewals += 1;
                    claim.request.version = self.version;
                    claim.touched = now;
                }
                self.schedule(now + self.clients[i].beat, Event::Renews(i));
            }
            // It has become something else in the meantime.
            Event::Leaves(_) | Event::Crashes(_) | Event::Finishes(_) | Event::Renews(_) => {}
        }
    }

    fn arrive(&mut self, i: usize) {
        self.version += 1;
        let visit = self.visit(i).clone();
        let uid = format!("request-{:04}", i + 1);
        let wall = self.scenario.start + self.now;
        let request = Request {
            id: RequestId { name: uid.clone(), uid: uid.clone() },
            holder: visit.holder.clone(),
            priority: visit.priority,
            ttl: visit.ttl.map(Millis),
            timeout: visit.timeout.map(Millis),
            // The API server writes whole seconds.
            arrived: Time(wall - wall.rem_euclid(1_000)),
            version: self.version,
            sequence: self.version,
            labels: visit.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..Request::default()
        };
        let claim = Claim { request, visit: i, created: self.now, touched: self.now, over_since: None };
        self.claims.insert(uid, claim);
        self.story.waits.push(Wait { holder: visit.holder.clone(), from: self.now, to: None, end: WaitEnd::Waiting });
        self.clients[i] =
            Client { state: ClientState::Waiting, wait: Some(self.story.waits.len() - 1), ..Client::default() };
        let priority = visit.priority.map_or_else(String::new, |priority| format!("priority {priority}"));
        self.tell(Happening::Arrives, &visit.holder, None, priority);
    }

    fn delete_request(&mut self, i: usize) {
        self.version += 1;
        self.claims.retain(|_, claim| claim.visit != i);
    }

    fn end_wait(&mut self, i: usize, end: WaitEnd) {
        let now = self.now;
        if let Some(wait) = self.clients[i].wait.take() {
            let wait = &mut self.story.waits[wait];
            (wait.to, wait.end) = (Some(now), end);
        }
    }

    /// A client has seen that it holds the lease.
    fn begin_hold(&mut self, i: usize, lasts: i64, waited: i64, reason: &str) {
        self.end_wait(i, WaitEnd::Granted);
        let visit = self.visit(i).clone();
        self.story.holds.push(HoldSpan {
            holder: visit.holder.clone(),
            token: self.record.token,
            from: self.now,
            to: None,
            how: None,
            renewals: 0,
            crashed: None,
        });
        let beat = (lasts / 3).max(1);
        self.clients[i].state = ClientState::Holding;
        self.clients[i].hold = Some(self.story.holds.len() - 1);
        self.clients[i].beat = beat;
        if let Some(work) = visit.work {
            self.schedule(self.now + work, Event::Finishes(i));
        }
        if let Some(crash) = visit.crash {
            self.schedule(self.now + crash, Event::Crashes(i));
        }
        if visit.renews {
            self.schedule(self.now + beat, Event::Renews(i));
        }
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let waited = format!("waited {}{reason}", super::text::clock(waited));
        self.tell(Happening::Granted, &visit.holder, Some(self.record.token), waited);
    }

    // ---- what the controller does ----

    /// Reconciles until there is nothing to do.
    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..RESTLESS_MAX {
            self.story.summary.steps += 1;
            if self.story.summary.steps > STEPS_MAX {
                return Err(Broken::TooLong { at: self.now });
            }
            let before = self.snapshot();
            let plan = self.decide(&before);
            let violations = invariants::violations(&before, &plan);
            if !violations.is_empty() {
                return Err(Broken::Invariants { at: self.now, violations });
            }
            self.wake = plan.wake_in.map(|Millis(span)| self.now + span);
            if !self.apply(&before, &plan) {
                // A wake-up at this very instant would be this reconcile again.
                self.wake = self.wake.map(|at| at.max(self.now + 1));
                return Ok(());
            }
        }
        Err(Broken::Restless { at: self.now })
    }

    fn snapshot(&self) -> Snapshot {
        let now = Time(self.scenario.start + self.now);
        Snapshot {
            now,
            resource_version: self.version,
            lease: self.lease.clone(),
            record: self.record.clone(),
            remaining: self.record.hold().map(|hold| hold.expires - now),
            requests: self
                .claims
                .values()
                .map(|claim| Request {
                    untouched: Millis(self.now - claim.touched),
                    known_for: Millis(self.now - claim.created),
                    over_for: claim.over_since.map_or(Millis::ZERO, |since| Millis(self.now - since)),
                    ..claim.request.clone()
                })
                .collect(),
            waiting_told: self.waiting_told,
            since_write: Millis(self.now - self.written),
            settings: Settings::default(),
        }
    }

    fn decide(&mut self, snapshot: &Snapshot) -> Plan {
        let mut inquiry = Inquiry::of(snapshot);
        loop {
            let verdict = inquiry.question().map_or(Verdict::NotAsked, |question| self.consult(question));
            inquiry = match inquiry.conclude(&verdict) {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(plan) => return plan,
            };
            // What was decided about that is not what became of it.
            if let Some(record) = self.journal.as_mut().and_then(|journal| journal.last_mut()) {
                record.applied = false;
            }
        }
    }

    fn consult(&mut self, question: &Question) -> Verdict {
        let judged = self.judge.judge(question);
        if let Some(journal) = &mut self.journal {
            journal.extend(judged.record.map(|record| Record { applied: judged.failure.is_none(), ..record }));
        }
        let summary = &mut self.story.summary;
        summary.questions += 1;
        summary.fuel_max = summary.fuel_max.max(judged.fuel);
        if let Some(failure) = judged.failure {
            let again = self.failed_at.as_ref().is_some_and(|(at, last)| *at == self.now && *last == failure);
            if !again {
                let what = match failure.kind {
                    FailureKind::Fault => {
                        summary.faults += 1;
                        Happening::Fault
                    }
                    FailureKind::Veto => {
                        summary.vetoes += 1;
                        Happening::Veto
                    }
                };
                let then = match &judged.verdict {
                    Verdict::Unavailable(_) => "nothing is granted",
                    Verdict::Decided(_) | Verdict::NotAsked => "the built-in policy decides",
                };
                self.tell(what, "", None, format!("{}; {then}", failure.message));
                self.failed_at = Some((self.now, failure));
            }
        }
        judged.verdict
    }

    /// Writes what was planned, and lets the clients see it. Says whether anything was written.
    fn apply(&mut self, before: &Snapshot, plan: &Plan) -> bool {
        let mut wrote = false;
        if plan.next != before.record || plan.waiting != before.waiting_told {
            self.version += 1;
            self.written = self.now;
            wrote = true;
        }
        self.record = plan.next.clone();
        self.waiting_told = plan.waiting;
        self.see_notices(before, plan);
        for answer in &plan.answers {
            wrote = true;
            self.version += 1;
            let said = answer.answer.said();
            let (now, version) = (self.now, self.version);
            let Some(claim) = self.claims.get_mut(&answer.request.uid) else { continue };
            claim.request.answered = Some(said);
            claim.request.version = version;
            if said.is_over() {
                claim.over_since.get_or_insert(now);
            }
            let (i, holder) = (claim.visit, claim.request.holder.clone());
            self.see_answer(i, &holder, &answer.answer);
        }
        for swept in &plan.sweep {
            wrote = true;
            self.version += 1;
            self.claims.remove(&swept.uid);
        }
        wrote
    }

    fn see_notices(&mut self, before: &Snapshot, plan: &Plan) {
        let reason = plan.reason.clone().unwrap_or_default();
        let visit_of = |uid: &str, claims: &BTreeMap<String, Claim>| claims.get(uid).map(|claim| claim.visit);
        for notice in &plan.notices {
            match notice {
                Notice::Ended { holder, token, how } => {
                    let span = self.story.holds.iter_mut().rev().find(|span| span.token == *token);
                    if let Some(span) = span {
                        (span.to, span.how) = (Some(self.now), Some(ending(*how)));
                    }
                    let uid = before.record.hold().map(|hold| hold.request.uid.clone()).unwrap_or_default();
                    // Released: the client has deleted its request, and is not found by it any more.
                    for (i, client) in self.clients.iter_mut().enumerate() {
                        let its = self.scenario.visits[i].holder == *holder;
                        let holds = matches!(client.state, ClientState::Holding | ClientState::Crashed);
                        if its && holds && format!("request-{:04}", i + 1) == uid {
                            client.state = ClientState::Done;
                        }
                    }
                    self.tell(Happening::Ended, holder, Some(*token), ending(*how));
                }
                Notice::Granted { waited, .. } => {
                    let Some(hold) = self.record.hold() else { continue };
                    let lasts = (hold.expires - hold.renewed).0;
                    if let Some(i) = visit_of(&hold.request.uid, &self.claims) {
                        self.begin_hold(i, lasts, waited.0, &reason);
                    }
                }
                Notice::Renewed { holder } => {
                    self.story.summary.renewals += 1;
                    if let Some(span) = self.story.holds.last_mut() {
                        span.renewals += 1;
                    }
                    let until = self.record.hold().map_or(0, |hold| hold.expires.0 - self.scenario.start);
                    let text = format!("until {}", super::text::clock(until));
                    self.tell(Happening::Renewed, holder, Some(self.record.token), text);
                }
                Notice::RenewalRefused { holder, reason } => {
                    self.story.summary.renewals_refused += 1;
                    self.tell(Happening::RenewalRefused, holder, Some(self.record.token), reason.clone());
                }
                Notice::Preempting { holder, by, deadline } => {
                    self.story.summary.preemptions += 1;
                    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                    let until = super::text::clock(deadline.0 - self.scenario.start);
                    let text = format!("to make room for {by} until {until}{reason}");
                    self.tell(Happening::Preempting, holder, Some(self.record.token), text);
                    self.ask_to_leave();
                }
                // The answer to the request says it.
                Notice::Denied { .. } => {}
            }
        }
    }

    /// The holder sees that it should make room. Asked again it does not stay longer: the first time counts.
    fn ask_to_leave(&mut self) {
        let Some(hold) = self.record.hold() else { return };
        let Some(i) = self.claims.get(&hold.request.uid).map(|claim| claim.visit) else { return };
        if let (ClientState::Holding, Some(after)) = (self.clients[i].state, self.visit(i).makes_room_after) {
            self.schedule(self.now + after, Event::Finishes(i));
        }
    }

    fn see_answer(&mut self, i: usize, holder: &str, answer: &Answer) {
        let (end, what, text) = match answer {
            Answer::Denied { reason } => (WaitEnd::Denied, Happening::Denied, reason.clone()),
            Answer::Invalid { problem } => (WaitEnd::Denied, Happening::Denied, problem.clone()),
            Answer::TimedOut { why } => (WaitEnd::TimedOut, Happening::TimedOut, why.clone()),
            Answer::Crowded { most } => (WaitEnd::Denied, Happening::Denied, format!("{most} wait already")),
            Answer::Superseded => {
                (WaitEnd::Superseded, Happening::TimedOut, "a newer request of the same holder stands".to_owned())
            }
            Answer::Pending | Answer::Granted { .. } | Answer::Over(_) | Answer::Lost | Answer::NoLease => {
                return;
            }
        };
        if self.clients[i].state == ClientState::Waiting {
            self.clients[i].state = ClientState::Done;
            self.end_wait(i, end);
            self.tell(what, holder, None, text);
        }
    }
}

fn ending(how: Ending) -> &'static str {
    match how {
        Ending::Released => "Released",
        Ending::Expired => "Expired",
        Ending::Preempted => "Preempted",
        Ending::ForceReleased => "ForceReleased",
        Ending::Superseded => "Superseded",
    }
}
