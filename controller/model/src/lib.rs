//! The protocol of Konductor Lease, checked exhaustively for small sizes.
//!
//! What decides here is the real core: [`konductor_core::Inquiry`] over a [`konductor_core::Snapshot`], and
//! its plan applied by compare-and-swap. What surrounds it is described, as small as it can be and as the
//! shell does it: `shell` has the cache, what is asked for before a grant, and the answers; `steps` has
//! everything that can happen, to controllers, clients, the API server, and by a person; `policy` proposes
//! everything that the ABI can express, or, for liveness, what the built-in policy says.
//!
//! - Each controller has two watches, one of Leases and one of requests. Events come in order, and as late
//!   as can be. A controller may restart with nothing in its cache, and may get a list that is late.
//! - A write may be conditional on what is gone, may be given up and arrive all the same, or not. A mark may
//!   be lost, with or without its effect. What the API server is asked may be out of date when it answers.
//! - Time is counted in ticks from now, so a run has no end and yet finitely many states. Versions and tokens
//!   are renumbered: their order matters, and what is next to what.
//! - A client knows only what its own watch brings, as late as can be, which is also what a pause is. It may
//!   beat, release, give up, start anew or never act again.
//!
//! `properties` has what must be so. Safety is judged on every state and every write of the Lease, by what
//! was and what is. Liveness: from every state that can be reached, a run without further faults, in which
//! every client has died or waits, comes to rest and has granted to everybody who waits.
//!
//! Not modelled: sweeping, the count of waiting requests, invalid specs, `--max-hold`, denial by a `0s`
//! timeout, policies' own state and wake-ups, edits by hand other than force release, finalizers, 404s of
//! an API server that has just started, and more than two controllers or three requests.
//!
//! Each [`Mutant`] is a defect that somebody had; [`shows`] says where it is found and by what.

mod check;
mod config;
mod policy;
mod properties;
mod shell;
mod state;
mod steps;

pub use check::{Outcome, check};
pub use config::{Config, Mutant, configs, named, shows};
