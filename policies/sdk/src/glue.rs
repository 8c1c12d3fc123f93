//! What [`export_policy!`](crate::export_policy) and [`describe!`](crate::describe) expand to. Not for use by hand.

use alloc::{borrow::Cow, string::String, vec::Vec};

use konductor_policy_abi::v1::{Input, Output, Validation};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::json;

#[cfg(target_arch = "wasm32")]
pub use crate::memory::{alloc, call, give};

/// Whether a text stands in JSON as it is.
#[must_use]
pub const fn is_plain(text: &str) -> bool {
    let mut bytes = text.as_bytes();
    while let [byte, rest @ ..] = bytes {
        if *byte < b' ' || *byte == b'"' || *byte == b'\\' {
            return false;
        }
        bytes = rest;
    }
    true
}

/// Decides from bytes to bytes. Traps (panics) on input that is not the ABI's: the host vouches for it.
#[inline]
pub fn decide_json<P>(json: &[u8], decide: impl for<'a> FnOnce(&'a Input<'a, P>) -> Output<'a>) -> Vec<u8>
where
    P: DeserializeOwned + Default,
{
    match parse::<Input<'_, P>>(json) {
        Some(input) => write(&decide(&input)),
        None => input_does_not_parse(),
    }
}

/// Validates from bytes to bytes.
pub fn validate_json(json: &[u8], validate: fn(&str) -> Vec<String>) -> Vec<u8> {
    let errors = match core::str::from_utf8(json) {
        Ok(params) => validate(params),
        Err(_) => input_does_not_parse(),
    };
    write(&Validation { errors: errors.into_iter().map(Cow::Owned).collect() })
}

/// Parses JSON. The text is checked to be UTF-8 once, which is faster than string by string.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    json::from_str(core::str::from_utf8(bytes).ok()?)
}

fn write<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(json) => json,
        Err(_) => answer_cannot_be_written(),
    }
}

// The two functions below are never inlined: their names are what a trap's backtrace shows.

#[cold]
#[inline(never)]
fn input_does_not_parse() -> ! {
    panic!("the input is not the ABI's")
}

#[cold]
#[inline(never)]
fn answer_cannot_be_written() -> ! {
    panic!("the answer cannot be written as JSON")
}
