//! The judge of histories, which is the one that is shipped: `koncli lease verify`.

pub use konductor_verify::{Follows, Hold, Options, Report, Rule, Violation, Violations};

use crate::History;

/// Judges a history, and tells everything.
#[must_use]
pub fn report(history: &History, options: &Options) -> Report {
    konductor_verify::check(history, options)
}

/// What is allowed where all processes are on one machine: they have one clock.
#[must_use]
pub fn one_clock() -> Options {
    Options { max_clock_skew: 0, ..Options::default() }
}

/// Judges a history of this machine. What is allowed is returned as its holds, in the order of their grants.
///
/// # Errors
/// Everything that is not allowed.
pub fn check(history: &History) -> Result<Vec<Hold>, Violations> {
    konductor_verify::check(history, &one_clock()).allowed()
}
