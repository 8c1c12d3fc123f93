//! What a policy author works with.
//!
//! - [`mod@fixture`]: given this input, expect this decision. [`Case`](fixture::Case)s are read from
//!   YAML, filled in, run in the real sandbox, and what differs is said in words.
//! - [`mod@scenario`]: who comes when, works for how long and crashes, in virtual time, with the
//!   controller's rules and the real module. [`Story`](scenario::Story) tells and draws what happened.
//! - [`mod@inspect`]: what a module is, and every reason why a host would refuse it.
//!
//! Everything here is a function of its arguments: no file is opened and no clock is read, but for
//! the measuring of time itself. `koncli policy …` is this library on a command line.

pub mod fixture;
pub mod inspect;
mod module;
mod pattern;
mod question;
mod read;
pub mod scenario;
mod words;

pub use konductor_policy::{Host, HostError, Policy, Rejection, gunzip};
pub use module::load;
pub use read::Mistake;
