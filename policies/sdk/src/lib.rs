//! What a policy written in Rust needs around its rules.
//!
//! A policy is a pure function from an [`Input`] to an [`Output`], and a constant that describes it:
//!
//! ```
//! use konductor_policy_sdk::{Grant, Input, NoParams, Output};
//!
//! const DESCRIBE: &str = konductor_policy_sdk::describe! {
//!     name: "first-come",
//!     description: "First come, first served.",
//! };
//!
//! fn decide<'a>(input: &'a Input<'a, NoParams>) -> Output<'a> {
//!     match (&input.hold, input.requests.first()) {
//!         (None, Some(first)) => Output {
//!             grant: Some(Grant { request: 0, ttl_ms: first.ttl_ms.min(input.lease.ttl_ms) }),
//!             ..Output::default()
//!         },
//!         _ => Output::default(),
//!     }
//! }
//!
//! konductor_policy_sdk::export_policy!(decide, describe = DESCRIBE);
//! # fn main() {}
//! ```
//!
//! [`export_policy!`] makes the exports of the ABI of it. On other targets than wasm32 it makes
//! nothing, so the same crate is tested natively. A policy crate is `cdylib`, and begins with
//! `#![cfg_attr(target_arch = "wasm32", no_std)]`: this crate brings the allocator and the panic
//! handler, and the standard library would bring another one and 100 KB of formatting.
//!
//! A guest has no way to report an error but to trap, and a trap is a fault that the host counts
//! against the policy. So input that does not parse traps: the host vouches for it.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod duration;
#[doc(hidden)]
pub mod glue;
pub mod json;
#[cfg(target_arch = "wasm32")]
mod memory;
pub mod params;
pub mod rules;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;

pub use konductor_policy_abi::{
    self as abi, limits,
    v1::{
        Cause, Denial, Description, Ending, Grant, Hold, HoldAction, Input, Labels, Lease, Output, Past, Preemption,
        Request, Validation,
    },
};

/// The params of a policy that has none. Any are accepted and ignored when deciding; refuse them
/// when validating, a param that nobody reads is a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoParams;

impl<'de> serde::Deserialize<'de> for NoParams {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Exports a policy from a WebAssembly module.
///
/// `export_policy!(decide)`, and after it in this order, each optional:
/// - `validate = f`, where `f` is `fn(&str) -> Vec<String>`: what is wrong with these params (a JSON
///   object), one sentence each, each naming its param.
/// - `describe = TEXT`, where `TEXT` is a `&'static str`: a [`Description`] as JSON, from [`describe!`].
#[macro_export]
macro_rules! export_policy {
    ($decide:expr $(, validate = $validate:expr)? $(, describe = $describe:expr)? $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn konductor_policy_v1() {}

            #[unsafe(no_mangle)]
            extern "C" fn konductor_alloc(len: usize) -> *mut u8 {
                $crate::glue::alloc(len)
            }

            #[unsafe(no_mangle)]
            extern "C" fn konductor_decide(ptr: usize, len: usize) -> i64 {
                $crate::glue::call(ptr, len, |json| $crate::glue::decide_json(json, $decide))
            }

            $(
                #[unsafe(no_mangle)]
                extern "C" fn konductor_validate(ptr: usize, len: usize) -> i64 {
                    $crate::glue::call(ptr, len, |json| $crate::glue::validate_json(json, $validate))
                }
            )?

            $(
                #[unsafe(no_mangle)]
                extern "C" fn konductor_describe() -> i64 {
                    $crate::glue::give($describe.as_bytes())
                }
            )?
        };
    };
}

/// A policy's [`Description`] as JSON, a `&'static str` that the compiler puts together: a module needs no code for it.
///
/// The version is the crate's. `params_schema`, which may be left out, names a file with the JSON Schema of the params,
/// as [`include_str!`] does. Name and description are written as they stand, so neither may have in it what JSON writes
/// in another way:
///
/// ```compile_fail
/// const DESCRIBE: &str = konductor_policy_sdk::describe! { name: "says", description: "Says \"no\" to all." };
/// # fn main() { println!("{DESCRIBE}") }
/// ```
#[macro_export]
macro_rules! describe {
    (name: $name:literal, description: $description:literal $(, params_schema: $schema:literal)? $(,)?) => {{
        const _: () = assert!(
            $crate::glue::is_plain($name) && $crate::glue::is_plain($description),
            "describe!: no quotation mark, backslash or control character may be in a name or a description"
        );
        ::core::concat!(
            "{\"name\":\"", $name, "\",\"version\":\"", ::core::env!("CARGO_PKG_VERSION"),
            "\",\"description\":\"", $description, "\"",
            $(",\"paramsSchema\":", ::core::include_str!($schema),)?
            "}"
        )
    }};
}
