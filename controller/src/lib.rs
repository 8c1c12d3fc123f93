//! The Konductor Lease controller: the shell around the pure core.
//!
//! `reconcile` is one straight line through these modules, in this order:
//!
//! - [`observe`]: watch events into a cache, and the cache into one snapshot with one reading of
//!   the clock.
//! - [`decide`]: the policy is asked, the guard checks, the core plans.
//! - [`commit`]: one conditional write, or none.
//! - [`report`]: answers to requests, Events, metrics, logs; only after the write.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod clock;
pub mod commit;
pub mod decide;
pub mod http;
pub mod journal;
pub mod leader;
pub mod observe;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod policies;
pub mod queue;
pub mod reconcile;
pub mod replica;
pub mod report;
pub mod run;
pub mod telemetry;
