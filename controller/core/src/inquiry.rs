//! The way from a snapshot to a plan: what is asked, in which order, and which answer counts.
//!
//! Whoever asks policies does so in its own way, blocking or not, so this asks nobody: it hands out
//! a question and takes a verdict, until there is a plan.

use std::ops::ControlFlow;

use crate::{
    decision::Verdict,
    plan::{Plan, plan},
    question::{Question, question},
    situation::{Situation, situations},
    snapshot::Snapshot,
};

/// One step on the way: a question to be put, or nothing to ask and only to be concluded.
#[derive(Debug, Clone)]
#[must_use = "nothing is planned before it is concluded"]
pub struct Inquiry<'a> {
    snapshot: &'a Snapshot,
    situation: Situation,
    question: Option<Question>,
    /// The situation as it plainly is, where this step is about a holder's own newer request.
    plain: Option<Situation>,
}

impl<'a> Inquiry<'a> {
    /// The first step. If the holder itself has made a new request, whether that takes the hold's
    /// place; else the situation as it plainly is.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        match situations(snapshot) {
            (Some(superseding), plain) => Self::about(snapshot, superseding, Some(plain)),
            (None, plain) => Self::about(snapshot, plain, None),
        }
    }

    fn about(snapshot: &'a Snapshot, situation: Situation, plain: Option<Situation>) -> Self {
        let question = question(snapshot, &situation);
        Self { snapshot, situation, question, plain }
    }

    /// What a policy is to be asked; `None` where there is nothing to decide.
    #[must_use]
    pub fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    /// Whether this step is about a holder's own newer request.
    #[must_use]
    pub fn is_superseding(&self) -> bool {
        self.situation.superseding
    }

    /// The plan, or the next step: where a holder's newer request does not get the lease, nothing
    /// has happened, and the plain situation counts.
    ///
    /// # Guarantees
    /// There are two steps at most. The plan is legal for the snapshot whatever the verdict says:
    /// the [`crate::invariants`] hold between the snapshot's record and the next one.
    ///
    /// # Assumptions
    /// A decision in the verdict was checked against the question of this step.
    pub fn conclude(self, verdict: &Verdict) -> ControlFlow<Plan, Self> {
        let plan = plan(self.snapshot, &self.situation, verdict);
        match self.plain {
            Some(plain) if !plan.grants() => ControlFlow::Continue(Self::about(self.snapshot, plain, None)),
            _ => ControlFlow::Break(plan),
        }
    }
}
