//! The command line `koncli` and the client library behind it.
//!
//! [`client`] is for applications: connect, acquire a lease, renew it, release it. The other modules
//! are the command line: what was typed ([`args`]), one verb per file ([`commands`]) and how it is
//! written out ([`output`]).

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod args;
pub mod client;
pub mod commands;
pub mod completion;
pub mod output;
mod pending;
pub mod text;
