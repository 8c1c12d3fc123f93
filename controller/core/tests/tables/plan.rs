//! `plan.txt`: from a snapshot, and what policies say, to a plan.

use std::{collections::BTreeSet, fmt::Write as _, ops::ControlFlow};

use konductor_core::{
    Answered, Decision, Ending, Hold, Inquiry, LeaseFacts, Millis, PastHold, Preemption, Question, Record, Request,
    Settings, Snapshot, State, Time, Verdict, check, invariants,
};

use crate::{
    runner::run,
    show::{show_plan, show_question},
    words::{ENDINGS, Words, hold, id, named, propose},
};

#[test]
fn every_case() {
    let all = run("plan.txt", |lines| PlanCase::parse(lines).run());
    let wanted: BTreeSet<String> = ENDINGS.iter().map(|how| format!("notice: ended a token 7 {how:?}")).collect();
    let missing: Vec<&String> = wanted.iter().filter(|line| !all.contains(*line)).collect();
    assert!(missing.is_empty(), "plan.txt has no case of {missing:?}");
    assert!(!all.contains("VIOLATION"), "a plan of plan.txt breaks an invariant");
}

/// One case of plan.txt.
struct PlanCase<'a> {
    snapshot: Snapshot,
    /// What the policy says about the plain situation, and about the holder's own newer request.
    says: Option<Vec<&'a str>>,
    says_superseding: Option<Vec<&'a str>>,
    unavailable: Option<String>,
}

impl<'a> PlanCase<'a> {
    fn parse(lines: &[&'a str]) -> Self {
        let mut case = Self {
            snapshot: Snapshot {
                now: Time(1_000),
                resource_version: 50,
                lease: LeaseFacts { ttl: Some(Millis(600)), renewable: true, ..LeaseFacts::default() },
                record: Record::default(),
                remaining: None,
                requests: Vec::new(),
                waiting_told: 0,
                since_write: Millis(10_000),
                settings: Settings::default(),
            },
            says: None,
            says_superseding: None,
            unavailable: None,
        };
        for line in lines {
            case.line(line);
        }
        case
    }

    fn line(&mut self, line: &'a str) {
        let snapshot = &mut self.snapshot;
        let mut words = Words::of(line);
        while let Some(word) = words.next() {
            match word {
                "now" => snapshot.now = words.time(),
                "rv" => snapshot.resource_version = words.number(),
                "token" => snapshot.record.token = words.number(),
                "state" => snapshot.record.policy_state = words.remainder(),
                "ttl" => snapshot.lease.ttl = Some(words.millis()),
                "priority" => snapshot.lease.priority = words.number(),
                "spec-invalid" => {
                    snapshot.lease.ttl = None;
                    snapshot.lease.problem = Some(words.remainder());
                }
                "max-hold" => snapshot.settings.max_hold = Some(words.millis()),
                "expired-retention" => snapshot.settings.expired_retention = words.millis(),
                "waiting-max" => snapshot.settings.waiting_max = words.number(),
                "finished-retention" => snapshot.settings.finished_retention = words.millis(),
                "waiting-told" => snapshot.waiting_told = words.number(),
                "since-write" => snapshot.since_write = words.millis(),
                "expired-at" => snapshot.record.state = State::Expired(words.time()),
                "held" => snapshot.record.state = State::Held(parse_hold(&mut words, snapshot_clocks(snapshot))),
                "evicted" => {
                    let hold = parse_hold(&mut words, snapshot_clocks(snapshot));
                    snapshot.record.state = State::Evicted(hold);
                }
                "past" => snapshot.record.history.push(parse_past(&mut words)),
                "request" => snapshot.requests.push(parse_request(&mut words)),
                "crowd" => {
                    let count: i64 = words.number();
                    let like = parse_request(&mut words);
                    snapshot.requests.extend((0..count).map(|i| Request {
                        id: id(&format!("{}{i}", like.id.uid)),
                        holder: format!("{}{i}", like.holder),
                        arrived: Time(like.arrived.0 + i),
                        ..like.clone()
                    }));
                }
                "unavailable" => self.unavailable = Some(words.remainder()),
                // One line is one answer: `policy expire; grant u2 ttl 600`. The uids stand for indexes.
                "policy" => self.says = Some(proposals(&mut words)),
                "policy-superseding" => self.says_superseding = Some(proposals(&mut words)),
                _ => words.unknown(word),
            }
        }
    }

    fn run(&self) -> String {
        let mut out = String::new();
        let mut inquiry = Inquiry::of(&self.snapshot);
        let plan = loop {
            let says = if inquiry.is_superseding() { &self.says_superseding } else { &self.says };
            let verdict = match inquiry.question() {
                None => Verdict::NotAsked,
                Some(question) => {
                    show_question(&mut out, question, inquiry.is_superseding());
                    match (&self.unavailable, says) {
                        (Some(why), _) => Verdict::Unavailable(why.clone()),
                        (None, says) => match check(question, decide(question, says.as_deref().unwrap_or_default())) {
                            Ok(checked) => Verdict::Decided(checked),
                            Err(refusal) => {
                                writeln!(out, "refused: {}", refusal.rule()).unwrap();
                                Verdict::Unavailable(refusal.to_string())
                            }
                        },
                    }
                }
            };
            if verdict == Verdict::NotAsked && self.unavailable.is_none() && says.is_some() {
                out.push_str("not asked\n");
            }
            inquiry = match inquiry.conclude(&verdict) {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(plan) => break plan,
            };
        };
        show_plan(&mut out, &self.snapshot, &plan);
        for violation in invariants::violations(&self.snapshot, &plan) {
            writeln!(out, "VIOLATION: {violation}").unwrap();
        }
        out
    }
}

fn proposals<'a>(words: &mut Words<'a>) -> Vec<&'a str> {
    std::mem::take(&mut words.rest).split("; ").collect()
}

fn decide(question: &Question, says: &[&str]) -> Decision {
    let mut decision = Decision::default();
    for proposal in says {
        let mut words = Words::of(proposal);
        let Some(what) = words.next() else { continue };
        propose(&mut decision, what, &mut words, &|uid| {
            question.requests.iter().position(|r| r.uid == uid).unwrap_or(usize::MAX)
        });
    }
    decision
}

/// Where the words of a hold leave what belongs to the snapshot.
fn snapshot_clocks(snapshot: &mut Snapshot) -> (&mut i64, &mut Option<Millis>) {
    (&mut snapshot.record.token, &mut snapshot.remaining)
}

/// `by a req u1 token 7 acquired 0 expires 600 remaining 0 renewals 2 acted-on 2`, and for a hand-over
/// `preempted-for u2 by b deadline 900 force`.
fn parse_hold(words: &mut Words<'_>, (token, remaining): (&mut i64, &mut Option<Millis>)) -> Hold {
    let mut found = hold("", "", 0, 0);
    while let Some(word) = words.next() {
        match (word, &mut found.preemption) {
            ("by", None) => found.holder = words.text().to_owned(),
            ("by", Some(p)) => p.by = words.text().to_owned(),
            ("deadline", Some(p)) => p.deadline = words.time(),
            ("force", Some(p)) => p.force = true,
            ("preempted-for", none @ None) => {
                *none = Some(Preemption {
                    by: String::new(),
                    request: words.text().to_owned(),
                    deadline: Time(0),
                    force: false,
                    reason: "more urgent".to_owned(),
                });
            }
            ("req", _) => found.request = id(words.text()),
            ("token", _) => *token = words.number(),
            ("acquired", _) => found.acquired = words.time(),
            ("expires", _) => found.expires = words.time(),
            ("renewed", _) => found.renewed = words.time(),
            ("remaining", _) => *remaining = Some(words.millis()),
            ("renewals", _) => found.renewals = words.number(),
            ("acted-on", _) => {
                found.acted_on = words.number();
                found.counted = found.acted_on;
            }
            _ => words.unknown(word),
        }
    }
    found
}

/// `x req u0 token 6 acquired 0 ended 5 Released`
fn parse_past(words: &mut Words<'_>) -> PastHold {
    let mut past = PastHold {
        holder: words.text().to_owned(),
        request: String::new(),
        request_name: String::new(),
        token: 0,
        acquired: Time(0),
        ended: Time(0),
        how: Ending::Released,
    };
    while let Some(word) = words.next() {
        match word {
            "req" => past.request = words.text().to_owned(),
            "token" => past.token = words.number(),
            "acquired" => past.acquired = words.time(),
            "ended" => past.ended = words.time(),
            how => past.how = named(&ENDINGS, how),
        }
    }
    past
}

/// `u2 holder b priority 5 ttl 100 timeout 0 untouched 5 arrived 3 sequence 4 renewals 1 granted 7`
fn parse_request(words: &mut Words<'_>) -> Request {
    let mut request = Request { id: id(words.text()), ..Request::default() };
    while let Some(word) = words.next() {
        match word {
            "holder" => request.holder = words.text().to_owned(),
            "priority" => request.priority = Some(words.number()),
            "ttl" => request.ttl = Some(words.millis()),
            "timeout" => request.timeout = Some(words.millis()),
            "untouched" => request.untouched = words.millis(),
            "arrived" => request.arrived = words.time(),
            "sequence" => request.sequence = words.number(),
            "renewals" => request.renewals = words.number(),
            "no-lease" => request.answered = Some(Answered::NoLease),
            "pending" => request.answered = Some(Answered::Pending),
            "granted" => request.answered = Some(Answered::Granted(words.number())),
            "denied" => request.answered = Some(Answered::Denied),
            "finished" => request.answered = Some(Answered::Finished),
            "abandoned" => request.abandoned = true,
            "over-for" => request.over_for = words.millis(),
            "known-for" => request.known_for = words.millis(),
            "invalid" => request.invalid = Some(words.remainder()),
            _ => words.unknown(word),
        }
    }
    request
}
