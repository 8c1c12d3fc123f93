//! The rules of a lease, as pure functions.
//!
//! For the same snapshot, the same decision always gives the same plan. There is no clock here, no
//! randomness, no I/O, no log and no dependency: time comes in with the [`Snapshot`], the next
//! wake-up goes out with the [`Plan`], and what there is to tell goes out as [`Notice`]s.
//!
//! In the order in which a reconcile runs through them:
//!
//! 1. [`snapshot`]: everything that a decision may depend on, as one owned value.
//! 2. `situation`: what the host itself knows to be so, before any policy is asked: a hold was
//!    given back, is due, is superseded; which requests are still candidates.
//! 3. [`question`]: what the policy is asked, if there is anything to ask.
//! 4. [`decision`]: what the policy proposes.
//! 5. [`guard`]: which proposals are legal; each refusal has a name.
//! 6. [`transition`]: the legal changes of a lease's record, total.
//! 7. [`plan`]: the next record, notices, and from its three parts: `fate`, what becomes of the
//!    hold; `answers`, what the requests are told; `wake`, when to look again.
//!
//! Before the first and after the last of them stands [`doubt`]: what requests are being told already, and of whom the API
//! server must be asked because the caches may be late.
//!
//! [`inquiry`] walks through them: it hands out questions, takes verdicts and ends with a plan.
//!
//! [`invariants`] states what must be so between a record and the next one. Tests, the model and
//! the simulation check it on every step.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answers;
pub mod decision;
pub mod doubt;
mod fate;
pub mod guard;
pub mod inquiry;
pub mod invariants;
pub mod orphan;
pub mod plan;
pub mod question;
mod situation;
pub mod snapshot;
pub mod time;
pub mod transition;
mod wake;

pub use decision::{Decision, Denial, Grant, HoldAction, Verdict};
pub use doubt::{Seen, lay_over};
pub use guard::{Checked, Clamp, Refusal, check};
pub use inquiry::Inquiry;
pub use orphan::{OrphanPlan, orphans};
pub use plan::{Answer, Notice, Plan, RequestAnswer};
pub use question::{Candidate, Cause, HoldView, Question};
pub use snapshot::{
    Answered, Ending, HISTORY_MAX, Hold, LeaseFacts, PastHold, Preemption, Record, Request, RequestId, Settings,
    Snapshot, State,
};
pub use time::{Millis, Time};
