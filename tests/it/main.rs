//! Integration tests: on real control planes, with the real binaries.
//!
//! One file per subject. nextest runs each test in a process of its own, so a test that needs a control plane starts
//! one (2 s) and tries several things on it; no test sleeps, and no test is skipped because something is missing.

mod admission;
mod architecture;
mod chart;
mod compat;
mod control_plane;
mod crash;
mod docs;
mod errors;
mod expiry;
mod explain;
mod guard;
mod hostile;
mod input;
mod jobs;
mod koncli;
mod lease_api;
mod lifecycle;
mod manifests;
mod monitoring;
mod pods;
mod policy;
mod policy_runtime;
mod policy_upload;
mod readme;
mod rights;
mod run;
mod run_once;
mod smoke;
mod storm;
mod torture;
mod verify;
mod watch;
