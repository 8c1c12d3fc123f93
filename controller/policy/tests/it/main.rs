//! The sandbox from outside: what it lets in, what it survives, and what comes out.
#![allow(missing_docs, reason = "tests")]

mod admission;
mod builtin;
mod common;
mod concurrency;
mod decoding;
mod determinism;
mod faults;
mod input;
mod probe;
