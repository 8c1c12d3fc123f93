//! The protocol, checked exhaustively for small sizes.

mod check;
mod config;
mod policy;
mod properties;
mod shell;
mod state;
mod steps;

pub use check::{Outcome, check};
pub use config::{Config, Mutant, configs, named, open, shows};
