//! The built-in policy of Konductor Lease.
//!
//! The rules, in [`decide`], are a pure function. In production they run only as a WebAssembly
//! module in the sandbox, as every policy does; natively they are tested and measured.
//! `README.md` beside this crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{string::String, vec::Vec};

pub mod params;
pub mod rules;

pub use params::Params;
pub use rules::decide;

/// What is wrong with these params, a JSON object; one sentence each, each naming its param.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    konductor_policy_sdk::params::validate::<Params>(params)
}

/// What the policy is, as its export `konductor_describe` tells it.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "default",
    description: "Highest priority first, then first come. Renews renewable leases. Preempts only where told to.",
    params_schema: "../params.schema.json",
};

/// The whole policy natively, from the JSON of an input to the JSON of an answer.
///
/// # Panics
/// On an input that is not the ABI's, and on params that [`validate`] refuses, as the module traps.
#[must_use]
pub fn decide_json(input: &[u8]) -> Vec<u8> {
    konductor_policy_sdk::glue::decide_json(input, decide)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
