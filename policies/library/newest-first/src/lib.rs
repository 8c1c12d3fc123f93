//! The request that came last gets the lease; older ones that still wait are denied.
//!
//! For work where only the newest matters, such as a build of a branch. `README.md` beside this
//! crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{borrow::Cow, string::String, vec::Vec};

use konductor_policy_sdk::{
    Denial, Input, Output,
    params::{self, Problem, Reading, Value},
    rules,
};

/// What the policy is.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "newest-first",
    description: "The request that came last gets the lease; older ones that still wait are denied.",
    params_schema: "../params.schema.json",
};

/// Why the next one is next.
const REASON_GRANT: &str = "newest first";
/// Why an older request is denied.
const REASON_DENY: &str = "a newer request has come";

/// The params.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Whether a request is denied as soon as a newer one is there.
    pub deny_older: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self { deny_older: true }
    }
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["denyOlder"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "denyOlder" => value.flag().map(|flag| self.deny_older = flag),
            _ => return None,
        })
    }
}

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading<Params>>) -> Output<'a> {
    let deny_older = input.params.accepted().deny_older;
    let shown = input.requests.len();
    // Of very many only the first are shown. All of these are older than those that are not, so with
    // `denyOlder` they are denied, and the others are shown next.
    if deny_older && input.waiting > shown as u64 {
        return Output { deny: older(input, shown), ..rules::usual(input, Output::default) };
    }
    let decided = rules::usual(input, || newest(input));
    Output { deny: if deny_older { older(input, shown.saturating_sub(1)) } else { Vec::new() }, ..decided }
}

fn newest<'a>(input: &Input<'a, Reading<Params>>) -> Output<'a> {
    // The requests are in order of arrival, so the newest is the last.
    let Some((index, newest)) = (0u32..).zip(&input.requests).last() else { return Output::default() };
    Output { grant: Some(rules::grant(input, index, newest)), ..rules::because(REASON_GRANT) }
}

/// The oldest so many, also while the lease is held: who waits for nothing should know at once.
fn older<'a>(input: &Input<'a, Reading<Params>>, count: usize) -> Vec<Denial<'a>> {
    let older = (0u32..).zip(input.requests.iter().take(count));
    older.map(|(request, _)| Denial { request, reason: Cow::Borrowed(REASON_DENY) }).collect()
}

/// What is wrong with the params.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    params::validate::<Params>(params)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
