//! The sandbox of policies: a question in, a decision or a typed fault out.
//!
//! [`Host`] owns the engine and its limits. It loads a module, [`Host::load`], after looking at it
//! from outside, and the result is a [`Policy`], or a [`Rejection`] that says what is wrong with the
//! module. [`Policy::decide`] runs it once, in a fresh instance, and gives a [`Decided`], or a
//! [`Fault`] that says how it failed. A refusal by a policy is a decision; a fault never is.
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
//! what a module must look like, `fault` everything that can go wrong, as types.
//!
//! The crate blocks and knows nothing of Kubernetes. A policy is `Send` and `Sync`; up to
//! [`Limits::concurrent`] calls run at once, further ones wait for their turn.

mod anatomy;
mod call;
mod decision;
mod engine;
mod fault;
mod input;
pub mod limits;
mod module;
mod policy;
mod text;

pub use anatomy::Anatomy;
pub use engine::HostError;
pub use fault::{Fault, Step, TrapKind};
pub use limits::{Bytes, EpochTicks, Fuel, Limits};
pub use module::{Rejection, gunzip};
pub use policy::{Answer, Decided, Description, Host, Policy};
