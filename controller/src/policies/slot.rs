//! What is known of one ConfigMap: the module that decides, the one before it, and what is wrong.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use konductor_crds::v1::reasons::{POLICY_FAULT, POLICY_REJECTED};
use konductor_policy::Policy;

/// What is known of one ConfigMap.
#[derive(Clone, Default)]
pub(super) struct Slot {
    pub(super) active: Option<Arc<Policy>>,
    /// The one that was active before, kept warm to go back to.
    pub(super) previous: Option<Arc<Policy>>,
    /// The uid and resourceVersion that were looked at last, good or not.
    pub(super) seen: Option<(String, String)>,
    /// Why the newest module is not the active one, or should not be.
    pub(super) problem: Option<Problem>,
    /// What the author of the active one should know.
    pub(super) warning: Option<String>,
    /// The ConfigMap as it was looked at last, for Events.
    pub(super) reference: ObjectReference,
}

/// What is wrong with a ConfigMap's newest module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It was refused on its way into use.
    Refused(String),
    /// It failed again and again while it was in use.
    Failing {
        digest: String,
        /// How often and how.
        why: String,
    },
}

/// What a look means for a slot.
pub(super) enum Outcome {
    Same,
    Active(Arc<Policy>, Option<String>),
    Refused(String),
}

impl Slot {
    /// Takes in what came of a look, whatever has happened to the slot since it began. Says whether
    /// a lease can see a difference.
    pub(super) fn apply(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Same => false,
            Outcome::Active(policy, warning) => {
                let is_other = |other: &Arc<Policy>| other.digest() != policy.digest();
                let is_news =
                    self.active.as_ref().is_none_or(is_other) || self.problem.is_some() || self.warning != warning;
                self.previous = self.active.take().filter(is_other).or(self.previous.take().filter(is_other));
                (self.active, self.problem, self.warning) = (Some(policy), None, warning);
                is_news
            }
            Outcome::Refused(why) => {
                let problem = Some(Problem::Refused(why));
                let is_news = self.problem != problem;
                self.problem = problem;
                is_news
            }
        }
    }

    /// Goes back to the module before, because this one fails. Says how that went; `None` if there
    /// was nothing to do.
    pub(super) fn fail(&mut self, digest: &str, why: &str) -> Option<&'static str> {
        let is_known = matches!(&self.problem, Some(Problem::Failing { digest: known, .. }) if known == digest);
        if is_known || self.active.as_ref().is_none_or(|active| active.digest() != digest) {
            return None;
        }
        self.problem = Some(Problem::Failing { digest: digest.to_owned(), why: why.to_owned() });
        let Some(previous) = self.previous.take() else { return Some("failing") };
        self.active = Some(previous);
        self.warning = None;
        Some("rolled_back")
    }

    /// The condition's reason and sentence.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let active = self.active.as_ref().map(|policy| policy.digest());
        Some(match (self.problem.as_ref()?, active) {
            (Problem::Refused(why), Some(active)) => {
                (POLICY_REJECTED, format!("the newest module was refused: {why}; the last good one, {active}, decides"))
            }
            (Problem::Refused(why), None) => (POLICY_REJECTED, format!("the module was refused: {why}")),
            (Problem::Failing { digest, why }, Some(active)) if active != digest => (
                POLICY_FAULT,
                format!(
                    "the module {digest} failed {why} and is not asked any more; the last good one, {active}, decides"
                ),
            ),
            (Problem::Failing { digest, why }, _) => (
                POLICY_FAULT,
                format!("the module {digest} failed {why}; there is no earlier one to go back to; upload a better one"),
            ),
        })
    }
}
