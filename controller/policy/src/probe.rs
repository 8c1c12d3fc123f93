//! What a new policy is asked before any lease may be decided by it.
//!
//! A corpus of questions, one for each kind of situation that a lease can be in, and some at the
//! edges of what the API lets through. Each is asked twice, in fresh instances: other bytes or other
//! fuel, and the policy is not a function of its input. A fault, or a decision that the guard
//! refuses, is found here and not in the middle of the night. A policy that passes may still fail
//! later; what it does then is bounded by the same guard and the same budget.
//!
//! Only what is always illegal is refused. The corpus does not judge who should get a lease.

use std::{
    fmt,
    time::{Duration, Instant},
};

use konductor_core::{
    Candidate, Cause, Ending, HoldView, LeaseFacts, Millis, PastHold, Preemption, Question, Refusal, Time,
};

use crate::{
    decision,
    fault::Fault,
    input,
    limits::{Fuel, NEAR_BUDGET_PERCENT, PROBE_PARAMS_MAX, PROBE_TIME},
    policy::{Answer, Policy},
    text,
};

/// With what a policy is probed.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The params of the leases that will use it, as JSON objects. The first
    /// [`PROBE_PARAMS_MAX`] that the policy does not refuse are taken; `{}` if there are none.
    pub params: Vec<String>,
    /// How long it may take in all.
    pub time: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self { params: Vec::new(), time: PROBE_TIME }
    }
}

/// What came of probing a policy that has passed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probed {
    /// How many questions it has answered, each of them twice.
    pub questions: usize,
    /// With how many params.
    pub params: usize,
    /// With how many more it could have been asked, if there had been time.
    pub params_left: usize,
    /// The fuel of the dearest answer.
    pub fuel: u64,
    /// What it had.
    pub budget: u64,
    /// What it was asked there.
    pub dearest: &'static str,
}

impl Probed {
    /// What its author should know though it has passed.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let mut warnings = Vec::new();
        if self.questions == 0 {
            warnings.push(
                "it was asked nothing yet: it refuses the params in use, or all that there are are none".to_owned(),
            );
        }
        if self.is_near_budget() {
            warnings.push(format!(
                "NearBudget: asked about {} it needed {} of its {}",
                self.dearest,
                self.fuel,
                Fuel(self.budget)
            ));
        }
        if self.params_left > 0 {
            warnings.push(format!(
                "it is slow: within {} ms it answered with {} of the {} params in use",
                PROBE_TIME.as_millis(),
                self.params,
                self.params + self.params_left
            ));
        }
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    /// Whether an answer was close to the end of its fuel.
    #[must_use]
    pub fn is_near_budget(&self) -> bool {
        u128::from(self.fuel) * 100 > u128::from(self.budget) * u128::from(NEAR_BUDGET_PERCENT)
    }
}

/// Why a policy has not passed. Its text says the whole: there is no source behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure {
    /// What it was asked about.
    pub case: &'static str,
    /// With which params, cut to what can be shown.
    pub params: String,
    /// What was wrong.
    pub problem: ProbeProblem,
}

impl std::error::Error for ProbeFailure {}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked about {}", self.case)?;
        if self.params != "{}" {
            write!(f, ", with the params {}", self.params)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl ProbeFailure {
    /// The failure in one word, for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match &self.problem {
            ProbeProblem::Fault(_) => "ProbeFault",
            ProbeProblem::Vetoed(_) => "ProbeVetoed",
            ProbeProblem::NotDeterministic { .. } => "NotDeterministic",
            ProbeProblem::TooSlow { .. } => "ProbeTooSlow",
        }
    }

    /// Whether this says something of the machine as well as of the policy, so that trying again may help.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        match &self.problem {
            ProbeProblem::Fault(fault) => fault.is_infrastructure(),
            ProbeProblem::TooSlow { .. } => true,
            ProbeProblem::Vetoed(_) | ProbeProblem::NotDeterministic { .. } => false,
        }
    }
}

/// What was wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeProblem {
    /// There was none.
    Fault(Fault),
    /// It was one that no policy may give.
    Vetoed(Refusal),
    /// The same question got two.
    NotDeterministic {
        /// What was different.
        what: &'static str,
        /// The first, cut to what can be shown.
        first: String,
        /// The second.
        second: String,
    },
    /// They took too long, together.
    TooSlow {
        /// How long they might take.
        limit: Duration,
        /// How many questions were answered by then.
        answered: usize,
    },
}

impl fmt::Display for ProbeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Vetoed(refusal) => refusal.fmt(f),
            Self::NotDeterministic { what, first, second } => write!(
                f,
                "the same input gave {what} twice, and not the same: {first} and {second}; a policy must depend on nothing but its input"
            ),
            Self::TooSlow { limit, answered } => write!(
                f,
                "the policy has answered {answered} questions in {} ms and is too slow; it will be tried again",
                limit.as_millis()
            ),
        }
    }
}

/// Asks a policy the questions of the corpus.
///
/// It blocks for at most the probe's time and one call, and takes places for calls that no decision waits for.
///
/// # Errors
/// The first question that it did not answer as a policy must.
pub fn probe(policy: &Policy, with: &Probe) -> Result<Probed, ProbeFailure> {
    let begun = Instant::now();
    let mut probed = Probed { budget: policy.limits().call_fuel.0, ..Probed::default() };
    let params_in_use = accepted(policy, &with.params)?;
    let corpus = corpus();
    for params in &params_in_use {
        match ask_all(policy, &corpus, params, begun, with.time, &mut probed) {
            Ok(()) => probed.params += 1,
            // The first params have all been answered; the others are more than it must show.
            Err(failure) if probed.params > 0 && matches!(failure.problem, ProbeProblem::TooSlow { .. }) => {
                probed.params_left = params_in_use.len() - probed.params;
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(probed)
}

/// Asks every question with the same params.
fn ask_all(
    policy: &Policy,
    corpus: &[(&'static str, Question)],
    params: &str,
    begun: Instant,
    time: Duration,
    probed: &mut Probed,
) -> Result<(), ProbeFailure> {
    for (case, question) in corpus {
        let failed = |case, problem| ProbeFailure { case, params: shown(params), problem };
        if begun.elapsed() > time {
            let problem = ProbeProblem::TooSlow { limit: time, answered: probed.questions };
            return Err(failed(case, problem));
        }
        let (fuel, state) = ask(policy, question, params).map_err(|problem| failed(case, problem))?;
        probed.count(case, fuel);
        if let Some(state) = state {
            let case = "what it was asked before, with the state that it answered";
            let again = Question { state, ..question.clone() };
            let (fuel, _) = ask(policy, &again, params).map_err(|problem| failed(case, problem))?;
            probed.count(case, fuel);
        }
    }
    Ok(())
}

impl Probed {
    fn count(&mut self, case: &'static str, fuel: u64) {
        self.questions += 1;
        if fuel > self.fuel {
            (self.fuel, self.dearest) = (fuel, case);
        }
    }
}

/// Those of the params that the policy itself does not refuse; a lease with others is not decided
/// by it. None at all is `{}`, unless the policy refuses that too: then there is nothing to ask it.
fn accepted(policy: &Policy, params: &[String]) -> Result<Vec<String>, ProbeFailure> {
    let mut accepted: Vec<String> = Vec::new();
    let none = "{}".to_owned();
    for params in params.iter().chain([&none]).take(PROBE_PARAMS_MAX + 1) {
        let is_last_resort = std::ptr::eq(params, &raw const none) && !accepted.is_empty();
        if is_last_resort || accepted.len() == PROBE_PARAMS_MAX || accepted.contains(params) {
            continue;
        }
        match policy.validate_in_background(params) {
            Ok(errors) if errors.is_empty() => accepted.push(params.clone()),
            Ok(_) => {}
            Err(fault) => {
                let (params, problem) = (shown(params), ProbeProblem::Fault(fault));
                return Err(ProbeFailure { case: "whether params are valid", params, problem });
            }
        }
    }
    Ok(accepted)
}

fn shown(params: &str) -> String {
    text::cleaned(params, 120)
}

/// Asks one question twice. Gives the fuel, and the state that the answer wants to be kept.
fn ask(policy: &Policy, question: &Question, params: &str) -> Result<(u64, Option<String>), ProbeProblem> {
    let input =
        input::params(params).and_then(|params| input::encode(question, params)).map_err(ProbeProblem::Fault)?;
    let answer = || policy.answer_in_background(&input.json).map_err(ProbeProblem::Fault);
    let (first, second) = (answer()?, answer()?);
    same(&first, &second)?;
    let decoded = decision::decode(&first.output, |index| input.index(index)).map_err(ProbeProblem::Fault)?;
    let state = decoded.decision.state.clone();
    konductor_core::check(question, decoded.decision).map_err(ProbeProblem::Vetoed)?;
    Ok((first.fuel, state.filter(|state| *state != question.state)))
}

/// Whether a policy has said the same thing twice, at the same cost.
fn same(first: &Answer, second: &Answer) -> Result<(), ProbeProblem> {
    if first.output != second.output {
        let shown = |output: &[u8]| text::cleaned(String::from_utf8_lossy(output), 120);
        let (first, second) = (shown(&first.output), shown(&second.output));
        return Err(ProbeProblem::NotDeterministic { what: "an answer", first, second });
    }
    if first.fuel != second.fuel {
        let (first, second) = (Fuel(first.fuel).to_string(), Fuel(second.fuel).to_string());
        return Err(ProbeProblem::NotDeterministic { what: "a cost", first, second });
    }
    Ok(())
}

/// The time of the questions, a day in 2026.
const NOW: Time = Time(1_790_000_000_000);
const MINUTE: Millis = Millis(60_000);
/// The longest ttl that the API lets through: 366 days.
const LONGEST: Millis = Millis(366 * 24 * 60 * 60 * 1000);

/// A free lease that nobody wants: what every case begins with, and never a question by itself. The
/// host asks only where somebody waits, a holder asks for more time, or a hold is due.
fn free() -> Question {
    Question {
        now: NOW,
        lease: LeaseFacts {
            name: "probe".to_owned(),
            namespace: "probe".to_owned(),
            uid: "00000000-0000-4000-8000-000000000000".to_owned(),
            ttl: Some(Millis(600_000)),
            renewable: true,
            ..LeaseFacts::default()
        },
        ttl: Millis(600_000),
        ..Question::default()
    }
}

impl Case for Question {}

/// Little changes that make one question of another.
trait Case: Into<Question> + Sized {
    fn waiting(self, priorities: &[i32]) -> Question {
        let mut question = self.into();
        question.requests = (0..).zip(priorities).map(|(n, &priority)| candidate(n, priority)).collect();
        question.waiting = question.requests.len();
        question
    }

    fn with(self, change: impl FnOnce(&mut Question)) -> Question {
        let mut question = self.into();
        change(&mut question);
        question
    }

    fn held(self, change: impl FnOnce(&mut HoldView)) -> Question {
        let mut hold = HoldView {
            holder: "pod-held".to_owned(),
            ttl: Millis(600_000),
            acquired: Time(NOW.0 - 300_000),
            expires: Time(NOW.0 + 300_000),
            renewals: 3,
            token: 7,
            ..HoldView::default()
        };
        change(&mut hold);
        self.with(|question| question.hold = Some(hold))
    }
}

fn candidate(n: u16, priority: i32) -> Candidate {
    Candidate {
        uid: format!("probe-{n}"),
        holder: format!("pod-{n}"),
        priority,
        ttl: Millis(600_000),
        arrived: Time(NOW.0 - 60_000 + i64::from(n)),
        ..Candidate::default()
    }
}

fn asks(hold: &mut HoldView) {
    hold.renewal_requested = true;
}

fn is_due(hold: &mut HoldView) {
    (hold.due, hold.expires) = (true, NOW);
}

fn past(how: Ending, n: i64) -> PastHold {
    PastHold {
        holder: format!("pod-past-{n}"),
        request: format!("probe-past-{n}"),
        request_name: format!("probe-past-{n}"),
        token: 7 - n,
        acquired: Time(NOW.0 - (n + 2) * 600_000),
        ended: Time(NOW.0 - (n + 1) * 600_000),
        how,
    }
}

/// The questions, and what each is about.
fn corpus() -> Vec<(&'static str, Question)> {
    let labels = || {
        vec![
            ("app.kubernetes.io/name".to_owned(), "zäh–ler \u{1f512}\"\\ \u{202e}x".to_owned()),
            ("empty".to_owned(), String::new()),
        ]
    };
    let endings = || {
        let all = [Ending::Released, Ending::Expired, Ending::Preempted, Ending::ForceReleased, Ending::Superseded];
        (0..).zip(all).map(|(n, how)| past(how, n)).collect::<Vec<_>>()
    };
    let preempted = |force, deadline: Millis| {
        move |hold: &mut HoldView| {
            hold.preemption = Some(Preemption {
                by: "pod-0".to_owned(),
                request: "probe-0".to_owned(),
                deadline: NOW + deadline,
                force,
                reason: "it is more urgent".to_owned(),
            });
        }
    };
    let due = |question: Question| question.held(is_due).with(|q| q.cause = Cause::Due);
    let renewal = |question: Question| question.held(asks).with(|q| q.cause = Cause::Renewal);
    let many: Vec<i32> = (0..512).map(|n| n % 7).collect();
    vec![
        ("a free lease that one wants", free().waiting(&[0])),
        ("a free lease that two want alike", free().waiting(&[5, 5])),
        ("a free lease that three want, the last the most", free().waiting(&[0, 5, 10])),
        (
            "a lease just given back that two want",
            free().waiting(&[0, 1]).with(|q| {
                q.cause = Cause::Release;
                q.history = vec![PastHold { ended: NOW, ..past(Ending::Released, 0) }];
            }),
        ),
        (
            "a lease just run out that two want",
            free().waiting(&[0, 1]).with(|q| {
                q.cause = Cause::Release;
                q.history = vec![PastHold { ended: NOW, ..past(Ending::Expired, 0) }];
            }),
        ),
        ("a held lease that an equal wants", free().held(|_| {}).waiting(&[0])),
        ("a held lease that somebody wants more", free().held(|_| {}).waiting(&[100])),
        ("a held lease that somebody wants less", free().held(|hold| hold.priority = 100).waiting(&[0])),
        ("a holder that asks for more time", renewal(free())),
        ("a holder that asks for more time while others wait", renewal(free()).waiting(&[0, 100])),
        ("a holder that may not renew and asks", renewal(free()).waiting(&[0]).with(|q| q.lease.renewable = false)),
        ("a hold whose time is over, with nobody waiting", due(free())),
        ("a hold whose time is over, with two waiting", due(free()).waiting(&[0, 3])),
        (
            "a hold whose time is over and whose holder asks for more",
            due(free()).waiting(&[0]).with(|q| {
                q.hold.iter_mut().for_each(asks);
            }),
        ),
        ("a holder that is asked to leave", free().held(preempted(false, MINUTE)).waiting(&[100])),
        (
            "a holder that is asked to leave and asks for more time",
            renewal(free())
                .with(|q| {
                    q.hold.iter_mut().for_each(preempted(false, MINUTE));
                })
                .waiting(&[100]),
        ),
        (
            "a holder that is made to leave now",
            due(free())
                .with(|q| {
                    q.hold.iter_mut().for_each(preempted(true, Millis::ZERO));
                })
                .waiting(&[100]),
        ),
        ("a lease with a history of every ending", free().waiting(&[0, 0]).with(|q| q.history = endings())),
        (
            "labels beyond ASCII",
            free().held(|hold| hold.labels = labels()).waiting(&[1, 2]).with(|q| {
                q.lease.labels = labels();
                q.requests.iter_mut().for_each(|request| request.labels = labels());
            }),
        ),
        (
            "names of the greatest length",
            free().waiting(&[0, 0]).with(|q| {
                q.lease.name = "n".repeat(253);
                q.lease.namespace = "n".repeat(63);
                q.requests.iter_mut().for_each(|request| request.holder = "ü".repeat(126));
            }),
        ),
        (
            "the greatest numbers",
            free()
                .held(|hold| {
                    // As far as languages that know only floats count exactly; a resourceVersion stays below it.
                    let most = (1 << 53) - 1;
                    (hold.token, hold.renewals, hold.priority) = (most, most, i32::MAX);
                    (hold.ttl, hold.expires) = (LONGEST, NOW + LONGEST);
                })
                .waiting(&[i32::MAX, i32::MIN])
                .with(|q| {
                    (q.ttl, q.lease.ttl, q.lease.priority) = (LONGEST, Some(LONGEST), i32::MAX);
                    q.requests.iter_mut().for_each(|request| request.ttl = LONGEST);
                }),
        ),
        (
            "the least numbers",
            free().waiting(&[i32::MIN, i32::MIN]).with(|q| {
                (q.ttl, q.lease.ttl, q.lease.priority) = (Millis(1), Some(Millis(1)), i32::MIN);
                q.requests.iter_mut().for_each(|request| (request.ttl, request.arrived) = (Millis(1), Time(0)));
            }),
        ),
        (
            "clocks that disagree",
            free()
                .held(|hold| {
                    // Written by a replica whose clock was ahead: not due, and expired by the numbers.
                    (hold.acquired, hold.expires) = (NOW + MINUTE, Time(NOW.0 - 1));
                })
                .waiting(&[0])
                .with(|q| q.requests.iter_mut().for_each(|request| request.arrived = NOW + MINUTE)),
        ),
        ("a state that it did not write", free().waiting(&[0, 1]).with(|q| q.state = "\u{0}{\"a\":[".to_owned())),
        ("512 requests", free().waiting(&many)),
        (
            "512 requests of more than fit, while it is held",
            free().held(|_| {}).waiting(&many).with(|q| {
                q.waiting = 100_000;
                q.requests.iter_mut().for_each(|request| {
                    request.labels = vec![("team".to_owned(), "x".repeat(600))];
                });
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_question_of_the_corpus_is_another_and_fits() {
        let corpus = corpus();
        assert!(corpus.len() >= 25, "{} questions", corpus.len());
        let names: HashSet<_> = corpus.iter().map(|(name, _)| name).collect();
        let params = input::params("{}").expect("params");
        let inputs: HashSet<_> =
            corpus.iter().map(|(name, question)| input::encode(question, params).expect(name).json).collect();
        assert_eq!((names.len(), inputs.len()), (corpus.len(), corpus.len()));
        let is = |test: fn(&Question) -> bool| corpus.iter().any(|(_, question)| test(question));
        // The host does not ask where there is nothing to decide, so neither is a policy refused for its answer.
        let is_asked =
            |q: &Question| !q.requests.is_empty() || q.hold.as_ref().is_some_and(|h| h.due || h.renewal_requested);
        assert!(corpus.iter().all(|(_, question)| is_asked(question)));
        assert!(is(|q| q.hold.as_ref().is_some_and(|h| h.due) && q.requests.is_empty()));
        assert!(is(|q| q.hold.as_ref().is_some_and(|h| h.preemption.as_ref().is_some_and(|p| p.force))));
        assert!(is(|q| q.requests.len() == 512));
        let cut = |q: &Question| input::encode(q, params).expect("it fits").index(511) == usize::MAX;
        assert!(corpus.iter().any(|(_, q)| q.requests.len() == 512 && cut(q)), "one that is shown only in part");
        for cause in [Cause::Request, Cause::Renewal, Cause::Due, Cause::Release] {
            assert!(corpus.iter().any(|(_, q)| q.cause == cause), "{cause:?}");
        }
    }

    #[test]
    fn the_built_in_policy_passes_with_all_kinds_of_params() {
        let host = crate::Host::new().expect("a host");
        let params = [
            "{}",
            r#"{"preemption":"LowerPriority","gracePeriod":"1m","minHold":"1s"}"#,
            r#"{"lockDelay":"15s","aging":1}"#,
            r#"{"preemption":"Sometimes"}"#,
        ];
        let with = Probe { params: params.map(str::to_owned).to_vec(), time: Duration::from_secs(60) };
        let probed = probe(&host.builtin(), &with).expect("it passes");
        assert_eq!((probed.params, probed.params_left, probed.warning()), (3, 0, None), "{probed:?}");
        assert!(probed.questions >= 3 * 25 && probed.fuel > 0 && probed.dearest.contains("512"), "{probed:?}");
    }

    /// No module that is let in is known to do this; should a way be found, here it ends.
    #[test]
    fn other_bytes_or_another_cost_are_not_the_same() {
        let answer = |output: &str, fuel| Answer { output: output.into(), fuel, duration: Duration::ZERO, memory: 0 };
        assert_eq!(same(&answer("{}", 1), &Answer { duration: Duration::MAX, ..answer("{}", 1) }), Ok(()));
        let bytes = same(&answer("{}", 1), &answer("{ }", 1)).expect_err("other bytes");
        assert!(bytes.to_string().contains("an answer twice, and not the same: {} and { };"), "{bytes}");
        let cost = same(&answer("{}", 1), &answer("{}", 2)).expect_err("another cost");
        assert!(cost.to_string().contains("a cost twice, and not the same: 1 units of fuel and 2"), "{cost}");
    }

    #[test]
    fn a_probe_ends_in_time() {
        let host = crate::Host::new().expect("a host");
        let with = Probe { params: Vec::new(), time: Duration::ZERO };
        let failure = probe(&host.builtin(), &with).expect_err("no time at all");
        assert!(matches!(failure.problem, ProbeProblem::TooSlow { .. }) && failure.is_infrastructure(), "{failure}");
    }

    #[test]
    fn what_an_author_should_know_is_said() {
        let near =
            Probed { questions: 1, fuel: 81, budget: 100, dearest: "512 requests", params: 1, ..Probed::default() };
        assert!(near.warning().is_some_and(|w| w.starts_with("NearBudget: asked about 512 requests")));
        assert_eq!(Probed { fuel: 80, ..near.clone() }.warning(), None);
        let left = Probed { fuel: 1, params_left: 2, ..near };
        assert!(left.warning().is_some_and(|w| w.contains("1 of the 3 params")));
        assert!(Probed::default().warning().is_some_and(|w| w.contains("asked nothing yet")));
    }
}
