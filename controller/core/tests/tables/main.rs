//! The rules as tables: `testdata/*.txt`. Each case is its input, a line `----`, and what comes of
//! it, up to an empty line. Comments above a case say why it is there; refusals come first.
//!
//! `REWRITE=1 cargo test -p konductor-core --test tables` writes what comes of every case into the
//! files; review that as you would review code.

mod guard;
mod plan;
mod runner;
mod show;
mod transition;
mod words;
