//! Is what happened allowed? Judges the history of leases after the fact, without knowing how the controller works.
//!
//! A [`History`] is what was seen of Leases and LeaseRequests: from etcd (complete), from `koncli lease record`
//! ([`recording`]) or from an API server's audit log ([`audit`]). [`check`] says what of it must never happen:
//!
//! - A hold is complete: holder, acquired, expires, token, request. Whoever does not hold has no hold.
//! - Within a hold only the expiry and the counters move, and the expiry never goes back.
//! - Tokens strictly rise from hold to hold of a name, also across deleting and recreating the Lease, and never go back.
//! - Never two holders: a hold begins when the one before is over and it is told how it ended. Expired is never early,
//!   Released is only after the request is gone, Superseded is only by the same holder.
//! - Only a request that exists, of this lease and of this holder, is granted, and only once; not long after it is gone,
//!   and not long after its client was last heard of.
//! - Among equals, whoever came first is served first, where the built-in policy decided.
//!
//! A history may begin in the middle, have gaps and end early. What cannot be judged then is counted, not guessed.
//!
//! This crate does no I/O and reads no clock: texts go in, a [`Report`] comes out.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod audit;
mod history;
mod hold;
mod judge;
pub mod recording;
mod report;
mod source;

pub use history::{Change, Event, Follows, Gap, History, Kind, List, Scope, Stored};
pub use hold::{Holding, holding};
pub use judge::{Options, check};
pub use report::{Evidence, Figures, Hold, Report, Rule, Unjudged, Violation, Violations};
pub use source::{Format, Problem, Reader, join};
