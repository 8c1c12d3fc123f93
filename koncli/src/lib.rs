//! The command line `koncli` and the client library behind it.
//!
//! [`client`] is for applications: connect, acquire a lease, renew it, release it. The other modules
//! are the command line: what was typed ([`args`]), one verb per file ([`commands`]) and how it is
//! written out ([`output`]).

pub mod args;
pub mod client;
pub mod commands;
pub mod output;
pub mod text;
