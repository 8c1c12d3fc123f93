//! Puts a question to the policy as the controller does (`controller/src/decide.rs`), but without waiting for
//! anything: params first, then the question, then the guard; and when that comes to nothing, what the lease's
//! `onFailure` says.

use std::sync::Arc;

use konductor_core::{Checked, Question, Verdict, check};
use konductor_crds::time::format_timestamp;
use konductor_policy::{Decided, Fault, Host, Policy, journal::Record};

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
    /// The call of the own policy, for the journal; `None` where it was not asked.
    pub(super) record: Option<Record>,
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

    pub(super) fn judge(&self, question: &Question) -> Judged {
        let (asked, record) = match &self.params_problem {
            Some(failure) => (Err(failure.clone()), None),
            None => {
                let (decided, tape) = self.own.decide_taped(question, &self.params);
                let name = self.own.describe().map_or_else(String::new, |says| says.name.clone());
                let record = Record::of(&self.own, name, format_timestamp(question.now.0), question, &decided, tape);
                (checked(question, decided), record)
            }
        };
        let failure = match asked {
            Ok((checked, fuel)) => return Judged { verdict: Verdict::Decided(checked), failure: None, fuel, record },
            Err(failure) => failure,
        };
        let verdict = match self.on_failure {
            OnFailure::Hold => Verdict::Unavailable(failure.message.clone()),
            OnFailure::Default => match checked(question, self.builtin.decide(question, "{}")) {
                Ok((checked, _)) => Verdict::Decided(checked),
                Err(also) => {
                    Verdict::Unavailable(format!("{}; and the built-in policy: {}", failure.message, also.message))
                }
            },
        };
        Judged { verdict, failure: Some(failure), fuel: 0, record }
    }
}

/// A decision that the guard lets pass, and its fuel.
fn checked(question: &Question, decided: Result<Decided, Fault>) -> Result<(Checked, u64), Failure> {
    let decided = decided
        .map_err(|fault| Failure { kind: FailureKind::Fault, message: format!("{}: {fault}", fault.reason()) })?;
    match check(question, decided.decision) {
        Ok(checked) => Ok((checked, decided.fuel)),
        Err(refusal) => Err(Failure { kind: FailureKind::Veto, message: format!("{}: {refusal}", refusal.rule()) }),
    }
}
