//! The sandbox of policies: a question in, a decision or a typed fault out.
//!
//! [`Host`] owns the engine and its limits. It looks at a module from outside, [`Host::check`],
//! compiles it, [`Host::build`], in a child process where that is asked for, and the result is a
//! [`Policy`], or a [`Rejection`] that says what is wrong with the module. [`probe()`] asks a policy
//! what leases may ask it, before any does. [`Policy::decide`] runs it once, in a fresh instance, and
//! gives a [`Decided`], or a [`Fault`] that says how it failed. A refusal by a policy is a decision; a
//! fault never is.
//!
//! What a call goes through, file by file:
//!
//! 1. `input`: the core's [`Question`](konductor_core::Question) becomes the ABI's JSON.
//! 2. `call`: a fresh store with fuel, a deadline and a memory limit; the JSON goes in and comes out
//!    through checked ranges.
//! 3. `decision`: the answer's bytes become a [`Decision`](konductor_core::Decision). Nothing else
//!    reads what a guest wrote.
//!
//! `limits` has every number with its reason, `engine` what the sandbox can and cannot do, `module`
//! what a module must look like, `compile` the compiler in a process of its own, `cache` what it has
//! made before, `probe` what a new policy is asked, `compare` in what two decisions differ, `fault`
//! everything that can go wrong, as types.
//!
//! The crate blocks and knows nothing of Kubernetes. A policy is `Send` and `Sync`; up to
//! [`Limits::concurrent`] calls run at once, further ones wait for their turn.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod anatomy;
mod cache;
mod call;
pub mod compare;
pub mod compile;
mod decision;
mod engine;
mod fault;
mod input;
pub mod journal;
pub mod limits;
mod module;
mod policy;
mod probe;
mod text;

pub use anatomy::Anatomy;
pub use cache::{Cache, CacheError};
pub use compile::{CompileFault, Compiler, CompilerProgram};
pub use engine::HostError;
pub use fault::{Fault, Step, TrapKind};
pub use limits::{Bytes, CompileLimits, EpochTicks, Fuel, Limits};
pub use module::{CheckedModule, Rejection, digest, gunzip};
pub use policy::{Answer, Built, Decided, Description, Host, HostOptions, Policy, Source, Tape};
pub use probe::{Probe, ProbeFailure, ProbeProblem, Probed, probe};
