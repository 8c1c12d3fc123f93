//! The rules as tables: `testdata/*.txt`. Each case is its input, a line `----`, and what comes of
//! it, up to an empty line. Comments above a case say why it is there; refusals come first.
//!
//! `REWRITE=1 cargo test -p konductor-core --test tables` writes what comes of every case into the
//! files; review that as you would review code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    ops::ControlFlow,
    path::PathBuf,
};

use konductor_core::{
    Answer, Answered, Candidate, Cause, Clamp, Decision, Denial, Ending, Grant, Hold, HoldAction, HoldView, Inquiry,
    LeaseFacts, Millis, Notice, PastHold, Plan, Preemption, Question, Record, Refusal, Request, RequestId, Settings,
    Snapshot, State, Time, Verdict, check, invariants,
    transition::{Adjustment, Transition, transition},
};

// ---- the runner ----

/// Runs every case of a table and compares, or rewrites. Returns what came of all of them.
fn run(table: &str, mut case: impl FnMut(&[&str]) -> String) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(table);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut rewritten = String::new();
    let mut all = String::new();
    let mut wrong = String::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut input: Vec<&str> = Vec::new();
    while let Some((number, line)) = lines.next() {
        writeln!(rewritten, "{line}").unwrap();
        if line != "----" {
            if !line.is_empty() && !line.starts_with('#') {
                input.push(line);
            }
            continue;
        }
        let mut expected = String::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
            expected.push_str(line);
            expected.push('\n');
        }
        let got = case(&input);
        if got != expected {
            let input = input.join("\n");
            writeln!(wrong, "{table}:{}\n{input}\n---- expected\n{expected}---- got\n{got}", number + 1).unwrap();
        }
        rewritten.push_str(&got);
        all.push_str(&got);
        input.clear();
    }
    assert!(input.is_empty(), "{table} ends within a case: {input:?}");
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, rewritten).unwrap();
    } else {
        assert!(wrong.is_empty(), "\n{wrong}\nREWRITE=1 accepts all of this");
    }
    all
}

/// The words of one line, taken one after the other.
struct Words<'a> {
    line: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { line, rest: line.trim() }
    }

    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    fn text(&mut self) -> &'a str {
        self.next().unwrap_or_else(|| panic!("one more word is needed: {}", self.line))
    }

    fn number<T: std::str::FromStr>(&mut self) -> T {
        let word = self.text();
        word.parse().unwrap_or_else(|_| panic!("{word} is not a number: {}", self.line))
    }

    fn millis(&mut self) -> Millis {
        Millis(self.number())
    }

    fn time(&mut self) -> Time {
        Time(self.number())
    }

    /// All that is left of the line.
    fn remainder(&mut self) -> String {
        std::mem::take(&mut self.rest).to_owned()
    }

    fn unknown(&self, word: &str) -> ! {
        panic!("what is {word:?}? {}", self.line)
    }
}

fn named<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> T {
    *all.iter().find(|x| format!("{x:?}") == name).unwrap_or_else(|| panic!("{name} is none of {all:?}"))
}

const ENDINGS: [Ending; 5] =
    [Ending::Released, Ending::Expired, Ending::Preempted, Ending::ForceReleased, Ending::Superseded];

// ---- guard.txt ----

#[test]
fn guard() {
    let all = run("guard.txt", |lines| {
        let (question, decision) = guard_case(lines);
        match check(&question, decision) {
            Err(refusal) => format!("refused {}: {refusal}\n", refusal.rule()),
            Ok(checked) => {
                let mut out = String::from("legal\n");
                for clamp in checked.clamps() {
                    writeln!(out, "cut {}", clamp.rule()).unwrap();
                }
                show_decision(&mut out, checked.decision());
                out
            }
        }
    });
    let missing: Vec<&str> = every_refusal_and_clamp().into_iter().filter(|rule| !all.contains(rule)).collect();
    assert!(missing.is_empty(), "guard.txt has no case of {missing:?}");
}

/// The matches are here so that a new variant does not compile until it stands in this list.
fn every_refusal_and_clamp() -> Vec<&'static str> {
    let refusals = [
        Refusal::UnknownRequest { index: 0, shown: 0 },
        Refusal::GrantWhileHeld,
        Refusal::GrantAndDeny,
        Refusal::NoHold,
        Refusal::RenewalNotAsked,
        Refusal::ExpireNotDue,
        Refusal::Flapping { again_in: Millis(1) },
        Refusal::TtlNotPositive,
        Refusal::StateTooLarge { bytes: 0 },
    ];
    match refusals[0] {
        Refusal::UnknownRequest { .. }
        | Refusal::GrantWhileHeld
        | Refusal::GrantAndDeny
        | Refusal::NoHold
        | Refusal::RenewalNotAsked
        | Refusal::ExpireNotDue
        | Refusal::Flapping { .. }
        | Refusal::TtlNotPositive
        | Refusal::StateTooLarge { .. } => {}
    }
    let clamps = [Clamp::Ttl, Clamp::Grace, Clamp::Wake, Clamp::Reason];
    match clamps[0] {
        Clamp::Ttl | Clamp::Grace | Clamp::Wake | Clamp::Reason => {}
    }
    refusals.iter().map(Refusal::rule).chain(clamps.into_iter().map(Clamp::rule)).collect()
}

fn guard_case(lines: &[&str]) -> (Question, Decision) {
    let mut asked = Question {
        now: Time(1_000),
        cause: Cause::Request,
        lease: LeaseFacts { ttl: Some(Millis(600)), ..LeaseFacts::default() },
        ttl: Millis(600),
        hold: None,
        requests: Vec::new(),
        waiting: 0,
        history: Vec::new(),
        state: String::new(),
    };
    let mut decision = Decision::default();
    for line in lines {
        let mut words = Words::of(line);
        match words.text() {
            "hold" => {
                let mut hold = HoldView {
                    holder: "a".to_owned(),
                    priority: 0,
                    ttl: Millis(600),
                    acquired: Time(0),
                    expires: Time(2_000),
                    renewals: 0,
                    token: 7,
                    renewal_requested: false,
                    due: false,
                    labels: Vec::new(),
                    preemption: None,
                };
                while let Some(word) = words.next() {
                    match word {
                        "due" => hold.due = true,
                        "renewal" => hold.renewal_requested = true,
                        _ => words.unknown(word),
                    }
                }
                asked.hold = Some(hold);
            }
            // `ended HOW AGO…`: past holds, newest first, by how long ago each ended.
            "ended" => {
                let how = named(&ENDINGS, words.text());
                while let Some(ago) = words.next() {
                    let ago: i64 = ago.parse().unwrap_or_else(|_| panic!("{ago} is no time"));
                    let ended = Time(asked.now.0 - ago);
                    asked.history.push(PastHold {
                        holder: "p".to_owned(),
                        request: "u".to_owned(),
                        token: 6,
                        acquired: Time(ended.0 - 1),
                        ended,
                        how,
                    });
                }
            }
            "preempted" => {
                let hold = asked.hold.as_mut().expect("a hold stands above");
                hold.preemption = Some(Preemption {
                    by: "h0".to_owned(),
                    request: "u0".to_owned(),
                    deadline: Time(1_500),
                    force: false,
                    reason: String::new(),
                });
            }
            "shown" => {
                let shown: usize = words.number();
                asked.waiting = shown;
                asked.requests = (0..shown)
                    .map(|i| Candidate {
                        uid: format!("u{i}"),
                        holder: format!("h{i}"),
                        priority: 0,
                        ttl: Millis(600),
                        arrived: Time(0),
                        labels: Vec::new(),
                    })
                    .collect();
            }
            word => propose(&mut decision, word, &mut words, &|index| {
                index.parse().unwrap_or_else(|_| panic!("{index} is no index"))
            }),
        }
    }
    (asked, decision)
}

/// Adds one proposal to a decision.
fn propose(decision: &mut Decision, what: &str, words: &mut Words<'_>, index: &dyn Fn(&str) -> usize) {
    match what {
        "keep" => decision.hold = HoldAction::Keep,
        "renew" => decision.hold = HoldAction::Renew { ttl: words.millis() },
        "expire" => decision.hold = HoldAction::Expire,
        "preempt" => {
            let in_favour_of = index(words.text());
            assert_eq!(words.text(), "grace");
            let grace = words.millis();
            let force = words.next().is_some_and(|word| word == "force");
            decision.hold = HoldAction::Preempt { in_favour_of, grace, force };
        }
        "grant" => {
            let request = index(words.text());
            assert_eq!(words.text(), "ttl");
            decision.grant = Some(Grant { request, ttl: words.millis() });
        }
        "deny" => decision.deny.push(Denial { request: index(words.text()), reason: text(words) }),
        "wake" => decision.wake_in = Some(words.millis()),
        "state" => decision.state = Some(text(words)),
        "reason" => decision.reason = text(words),
        _ => words.unknown(what),
    }
}

/// A text: `300 x é` is é 300 times, and in anything else `\n` is a line's end.
fn text(words: &mut Words<'_>) -> String {
    let rest = words.remainder();
    if let Some((count, what)) = rest.split_once(" x ")
        && let Ok(count) = count.parse()
    {
        return what.repeat(count);
    }
    rest.replace("\\n", "\n")
}

/// A text, or its length if it is long.
fn short(text: &str) -> String {
    if text.len() > 80 { format!("{} bytes", text.len()) } else { text.to_owned() }
}

fn show_decision(out: &mut String, decision: &Decision) {
    match decision.hold {
        HoldAction::Keep => {}
        HoldAction::Renew { ttl } => writeln!(out, "renew {}", ttl.0).unwrap(),
        HoldAction::Expire => out.push_str("expire\n"),
        HoldAction::Preempt { in_favour_of, grace, force } => {
            let force = if force { " force" } else { "" };
            writeln!(out, "preempt {in_favour_of} grace {}{force}", grace.0).unwrap();
        }
    }
    if let Some(grant) = decision.grant {
        writeln!(out, "grant {} ttl {}", grant.request, grant.ttl.0).unwrap();
    }
    for denial in &decision.deny {
        writeln!(out, "deny {} {}", denial.request, short(&denial.reason)).unwrap();
    }
    if let Some(wake) = decision.wake_in {
        writeln!(out, "wake {}", wake.0).unwrap();
    }
    if let Some(state) = &decision.state {
        writeln!(out, "state {}", short(state)).unwrap();
    }
    if !decision.reason.is_empty() {
        writeln!(out, "reason {}", short(&decision.reason)).unwrap();
    }
}

// ---- transition.txt ----

#[test]
fn transitions() {
    let mut seen = BTreeMap::new();
    run("transition.txt", |lines| {
        let mut out = String::new();
        for line in lines {
            let (state, change) = line.split_once(": ").unwrap_or_else(|| panic!("no state: {line}"));
            let all: Vec<(String, State, Transition)> = every_pair();
            let (_, from, by) = all
                .iter()
                .find(|(name, ..)| name == line)
                .unwrap_or_else(|| panic!("there is no pair of {state} and {change}"));
            assert_eq!(seen.insert((*line).to_owned(), ()), None, "{line} is there twice");
            match transition(from, by, Time(1_000)) {
                Ok(state) => writeln!(out, "{line} -> {}", show_state(&state)).unwrap(),
                Err(illegal) => writeln!(out, "{line} -> illegal: {illegal}").unwrap(),
            }
        }
        out
    });
    let missing: Vec<String> =
        every_pair().into_iter().map(|(name, ..)| name).filter(|name| !seen.contains_key(name)).collect();
    assert!(missing.is_empty(), "transition.txt lacks:\n{}", missing.join("\n"));
}

/// Every state with every transition, by the name that the table gives the pair.
fn every_pair() -> Vec<(String, State, Transition)> {
    let old = hold("a", "u1", 500, 1_500);
    let new = hold("b", "u2", 1_000, 1_600);
    let states = [
        ("available", State::Available),
        ("held by a", State::Held(old.clone())),
        ("expired", State::Expired(Time(900))),
        ("evicted a", State::Evicted(old.clone())),
    ];
    let mut changes = vec![
        ("stay".to_owned(), Transition::Stay),
        ("clean up".to_owned(), Transition::CleanUp),
        ("grant to b".to_owned(), Transition::Grant(new.clone())),
    ];
    for how in ENDINGS {
        changes.push((format!("end {how:?}"), Transition::End(how)));
        changes.push((format!("hand over {how:?} to b"), Transition::HandOver(how, new.clone())));
    }
    for what in [Adjustment::Renewed, Adjustment::RenewalRefused, Adjustment::Preempting, Adjustment::PreemptionOver] {
        changes.push((format!("adjust {what:?}"), Transition::Adjust(old.clone(), what)));
    }
    let mut pairs: Vec<(String, State, Transition)> = Vec::new();
    for (state, from) in &states {
        pairs.extend(changes.iter().map(|(change, by)| (format!("{state}: {change}"), from.clone(), by.clone())));
    }
    // What depends on the hold besides the state: whose it is, and that nothing is taken back.
    let mut with_a_hold = |state: &str, change: String, from: State, by: Transition| {
        pairs.push((format!("{state}: {change}"), from, by));
    };
    for how in ENDINGS {
        let by = Transition::HandOver(how, old.clone());
        let change = format!("hand over {how:?} to its own request");
        with_a_hold("held by a", change.clone(), State::Held(old.clone()), by.clone());
        with_a_hold("evicted a", change, State::Evicted(old.clone()), by);
    }
    for (change, to) in [
        ("a later expiry", Hold { expires: Time(1_600), ..old.clone() }),
        ("an earlier expiry", Hold { expires: Time(1_499), ..old.clone() }),
        ("another holder", Hold { holder: "b".to_owned(), ..old.clone() }),
        ("another request", Hold { request: new.request, ..old.clone() }),
        ("another beginning", Hold { acquired: Time(501), ..old.clone() }),
    ] {
        let by = Transition::Adjust(to, Adjustment::Renewed);
        with_a_hold("held by a", format!("adjust Renewed to {change}"), State::Held(old.clone()), by);
    }
    pairs
}

fn hold(holder: &str, uid: &str, acquired: i64, expires: i64) -> Hold {
    Hold {
        holder: holder.to_owned(),
        request: id(uid),
        acquired: Time(acquired),
        expires: Time(expires),
        renewed: Time(acquired),
        renewals: 0,
        acted_on: 0,
        preemption: None,
    }
}

fn id(uid: &str) -> RequestId {
    RequestId { name: format!("request-{uid}"), uid: uid.to_owned() }
}

// ---- plan.txt ----

#[test]
fn plans() {
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
            ("acted-on", _) => found.acted_on = words.number(),
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
            "over-for" => request.over_for = words.millis(),
            "known-for" => request.known_for = words.millis(),
            "invalid" => request.invalid = Some(words.remainder()),
            _ => words.unknown(word),
        }
    }
    request
}

// ---- printing ----

fn show_question(out: &mut String, question: &Question, superseding: bool) {
    write!(out, "asked: {}", question.cause.as_str()).unwrap();
    if superseding {
        out.push_str(", may it supersede");
    }
    if let Some(hold) = &question.hold {
        write!(out, ", hold of {}", hold.holder).unwrap();
        for (is, word) in [(hold.due, "due"), (hold.renewal_requested, "asks to renew")] {
            if is {
                write!(out, " {word}").unwrap();
            }
        }
        if let Some(p) = &hold.preemption {
            write!(out, " preempted by {}", p.by).unwrap();
        }
    }
    let uids: Vec<&str> = question.requests.iter().map(|r| r.uid.as_str()).collect();
    if uids.len() <= 8 {
        writeln!(out, ", shown [{}] of {}", uids.join(" "), question.waiting).unwrap();
    } else {
        let (first, last) = (uids[..3].join(" "), uids[uids.len() - 3..].join(" "));
        writeln!(out, ", shown [{first} ... {last}] {} of {}", uids.len(), question.waiting).unwrap();
    }
}

fn show_state(state: &State) -> String {
    match state {
        State::Available => "available".to_owned(),
        State::Held(hold) => show_hold("held", hold),
        State::Expired(at) => format!("expired at {}", at.0),
        State::Evicted(hold) => show_hold("evicted", hold),
    }
}

fn show_hold(how: &str, hold: &Hold) -> String {
    let Hold { holder, request, acquired, expires, renewed, renewals, acted_on, preemption } = hold;
    let mut out = format!(
        "{how} by {holder} req {} acquired {} expires {} renewed {} renewals {renewals} acted-on {acted_on}",
        request.uid, acquired.0, expires.0, renewed.0
    );
    if let Some(p) = preemption {
        let force = if p.force { " force" } else { "" };
        write!(out, " preempted-for {} by {} deadline {}{force}", p.request, p.by, p.deadline.0).unwrap();
    }
    out
}

fn show_transition(change: &Transition) -> String {
    match change {
        Transition::Stay | Transition::CleanUp | Transition::Grant(_) => change.name().to_owned(),
        Transition::End(how) | Transition::HandOver(how, _) => format!("{} {how:?}", change.name()),
        Transition::Adjust(_, what) => format!("{} {what:?}", change.name()),
    }
}

fn show_plan(out: &mut String, before: &Snapshot, plan: &Plan) {
    let Plan { next, transition, waiting, answers, sweep, notices, wake_in, reason } = plan;
    writeln!(out, "{}", show_transition(transition)).unwrap();
    writeln!(out, "next: token {} {}", next.token, show_state(&next.state)).unwrap();
    if next.history != before.record.history {
        let entries: Vec<String> = next.history.iter().map(show_past).collect();
        writeln!(out, "history: {}", entries.join(", ")).unwrap();
    }
    if next.policy_state != before.record.policy_state {
        writeln!(out, "policy state: {}", next.policy_state).unwrap();
    }
    for told in answers.iter().take(6) {
        writeln!(out, "answer {}: {}", told.request.uid, show_answer(&told.answer)).unwrap();
    }
    if answers.len() > 6 {
        writeln!(out, "answers in all: {}", answers.len()).unwrap();
    }
    for request in sweep {
        writeln!(out, "sweep {}", request.uid).unwrap();
    }
    for notice in notices {
        writeln!(out, "notice: {}", show_notice(notice)).unwrap();
    }
    if let Some(reason) = reason {
        writeln!(out, "reason: {reason}").unwrap();
    }
    let wake = wake_in.map_or("never".to_owned(), |wake| wake.0.to_string());
    writeln!(out, "waiting {waiting}, wake {wake}").unwrap();
}

fn show_past(past: &PastHold) -> String {
    let PastHold { holder, request, token, acquired, ended, how } = past;
    format!("{holder} {request} {token} {}..{} {how:?}", acquired.0, ended.0)
}

fn show_answer(answer: &Answer) -> String {
    match answer {
        Answer::Pending { sequence } => format!("pending, sequence {sequence}"),
        Answer::Granted { token, expires } => format!("granted, token {token} until {}", expires.0),
        Answer::Denied { reason } => format!("denied, {reason}"),
        Answer::Invalid { problem } => format!("invalid, {problem}"),
        Answer::Over(how) => format!("over, {how:?}"),
        Answer::Lost => "lost".to_owned(),
        Answer::NoLease { sequence } => format!("no lease, sequence {sequence}"),
        Answer::Superseded => "superseded".to_owned(),
        Answer::TimedOut { why } => format!("timed out, {why}"),
    }
}

fn show_notice(notice: &Notice) -> String {
    match notice {
        Notice::Granted { holder, token, waited } => format!("granted {holder} token {token} waited {}", waited.0),
        Notice::Ended { holder, token, how } => format!("ended {holder} token {token} {how:?}"),
        Notice::Renewed { holder } => format!("renewed {holder}"),
        Notice::RenewalRefused { holder, reason } => format!("renewal refused {holder}: {reason}"),
        Notice::Preempting { holder, by, deadline } => format!("preempting {holder} for {by} until {}", deadline.0),
        Notice::Denied { holder, reason } => format!("denied {holder}: {reason}"),
    }
}
