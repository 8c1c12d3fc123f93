//! Asks the policy as the controller does (`controller/src/decide.rs`): params first, then the
//! question, then the guard; and when that comes to nothing, what the lease's `onFailure` says.

use std::sync::Arc;

use konductor_core::{Checked, Question, Verdict, check};
use konductor_policy::{
    Host, Policy,
    journal::{self, Record},
};

use super::OnFailure;

/// Who decides about the lease of a scenario.
pub(super) struct Judge {
    own: Arc<Policy>,
    builtin: Arc<Policy>,
    params: String,
    on_failure: OnFailure,
    /// What is wrong with the params; the same every time, so it is asked once.
    params_problem: Option<Failure>,
}

/// How the own policy has failed to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// In a sentence.
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It broke, or refused its params.
    Fault,
    /// The guard refused what it said.
    Veto,
}

/// What came of asking.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// How the own policy has failed, if it has.
    pub(super) failure: Option<Failure>,
    /// The fuel that the own policy took.
    pub(super) fuel: u64,
}

impl Judge {
    pub(super) fn new(host: &Host, own: Arc<Policy>, params: String, on_failure: OnFailure) -> Self {
        let problem = match own.validate(&params) {
            Ok(errors) if errors.is_empty() => None,
            Ok(errors) => Some(format!("the policy refuses its params: {}", errors.join("; "))),
            Err(fault) => Some(format!("while it validated its params: {} ({})", fault, fault.reason())),
        };
        let params_problem = problem.map(|message| Failure { kind: FailureKind::Fault, message });
        Self { own, builtin: host.builtin(), params, on_failure, params_problem }
    }

    /// The question and the own policy's answer as bytes; `None` where it was not asked.
    pub(super) fn record(&self, question: &Question, at: String, applied: bool) -> Option<Record> {
        if self.params_problem.is_some() {
            return None;
        }
        let input = Policy::input(question, &self.params).ok()?;
        let answer = self.own.answer(&input);
        let read = answer.as_ref().map_err(Clone::clone).and_then(|answer| Policy::read(&answer.output));
        Some(Record {
            v: journal::VERSION,
            at,
            lease: format!("{}/{}", question.lease.namespace, question.lease.name),
            uid: question.lease.uid.clone(),
            policy: self.own.describe().map_or_else(String::new, |says| says.name.clone()),
            digest: self.own.digest().to_owned(),
            cause: question.cause.as_str().to_owned(),
            input: String::from_utf8(input).ok()?,
            fuel: answer.as_ref().ok().map(|answer| answer.fuel),
            output: answer.ok().and_then(|answer| String::from_utf8(answer.output).ok()),
            fault: read.err().map(|fault| fault.reason().to_owned()),
            applied,
        })
    }

    pub(super) fn judge(&self, question: &Question) -> Judged {
        let asked = match &self.params_problem {
            Some(failure) => Err(failure.clone()),
            None => ask(&self.own, &self.params, question),
        };
        let failure = match asked {
            Ok((checked, fuel)) => return Judged { verdict: Verdict::Decided(checked), failure: None, fuel },
            Err(failure) => failure,
        };
        let verdict = match self.on_failure {
            OnFailure::Hold => Verdict::Unavailable(failure.message.clone()),
            OnFailure::Default => match ask(&self.builtin, "{}", question) {
                Ok((checked, _)) => Verdict::Decided(checked),
                Err(also) => {
                    Verdict::Unavailable(format!("{}; and the built-in policy: {}", failure.message, also.message))
                }
            },
        };
        Judged { verdict, failure: Some(failure), fuel: 0 }
    }
}

fn ask(policy: &Policy, params: &str, question: &Question) -> Result<(Checked, u64), Failure> {
    let decided = policy
        .decide(question, params)
        .map_err(|fault| Failure { kind: FailureKind::Fault, message: format!("{}: {fault}", fault.reason()) })?;
    match check(question, decided.decision) {
        Ok(checked) => Ok((checked, decided.fuel)),
        Err(refusal) => Err(Failure { kind: FailureKind::Veto, message: format!("{}: {refusal}", refusal.rule()) }),
    }
}
