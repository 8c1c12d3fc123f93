//! What a policy author works with.
//!
//! - [`mod@fixture`]: given this input, expect this decision. [`Case`](fixture::Case)s are read from
//!   YAML, filled in, run in the real sandbox, and what differs is said in words.
//! - [`mod@scenario`]: who comes when, works for how long and crashes, in virtual time, with the
//!   controller's rules and the real module. [`Story`](scenario::Story) tells and draws what happened.
//! - [`mod@replay`]: a journal of decisions, reproduced byte for byte, or decided again by another module.
//! - [`mod@explain`]: who would be next, and what a request lacks, by asking the policy itself.
//! - [`mod@eval`]: one decision. [`mod@bench`]: what it costs.
//! - [`mod@harness`]: the same cases natively and in the sandbox, for policies in Rust.
//! - [`mod@scaffold`]: what a new policy begins with, in four languages.
//! - [`mod@inspect`]: what a module is, and every reason why a host would refuse it.
//!
//! Everything here is a function of its arguments: no file is opened and no clock is read, but for
//! the measuring of time itself. `koncli policy …` is this library on a command line.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bench;
pub mod eval;
pub mod explain;
pub mod fixture;
pub mod harness;
pub mod inspect;
mod module;
mod pattern;
mod question;
mod read;
pub mod replay;
pub mod scaffold;
pub mod scenario;
mod words;

pub use konductor_policy::{Host, HostError, Policy, Rejection, digest, gunzip, journal::Record};

/// The questions that the controller asks a module before it is used.
pub mod probe {
    pub use konductor_policy::{Probe, ProbeFailure, Probed, probe};
}
pub use module::{inflate, load};
pub use read::Mistake;
