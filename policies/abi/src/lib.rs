//! What a policy is asked and what it may answer: the policy ABI of Konductor Lease.
//!
//! A policy is a core WebAssembly module without imports. The host writes an [`v1::Input`] as JSON
//! into the module's memory and reads a [`v1::Output`] as JSON from it. `policies/README.md` is the
//! contract in prose; these types are the same contract for Rust, on both sides of it.
//!
//! **Versions.** Within v1, members are added and never renamed or removed. So a guest ignores
//! members that it does not know, and these types do. The host does not ignore unknown members of an
//! answer: a decision of which it understands a part is not the decision that the policy made.
//!
//! The crate is `no_std` with `alloc`, so that it costs a guest nothing that it does not use. Text
//! is borrowed from the JSON where it can be.
#![no_std]

extern crate alloc;
#[cfg(feature = "schema")]
extern crate std;

pub mod exports;
pub mod limits;
#[cfg(feature = "schema")]
pub mod schema;
pub mod v1;
