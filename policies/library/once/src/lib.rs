//! After one holder has given the lease back, everybody else is denied: for what is to be done once.
//!
//! `README.md` beside this crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{
    borrow::{Cow, ToOwned as _},
    format,
    string::String,
    vec::Vec,
};

use konductor_policy_sdk::{
    Denial, Ending, Input, Output, json,
    params::{self, Problem, Reading, Value},
    rules,
};

/// What the policy is.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "once",
    description: "After one holder has given the lease back, everybody else is denied.",
    params_schema: "../params.schema.json",
};

/// The longest key in bytes, as long as a Kubernetes label value. With [`DONE_MAX`] it keeps the
/// state below 4 KiB, also when every character of a key is written as two.
const KEY_MAX: usize = 63;
/// How many keys that are done are remembered, the last ones.
const DONE_MAX: usize = 24;

/// Why the next one is next.
const REASON_GRANT: &str = "not done yet: highest priority, then first come";

/// The params.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    /// What is to be done once. Another key is another thing to do.
    pub key: String,
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["key"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "key" => value.text().and_then(key).map(|key| self.key = key),
            _ => return None,
        })
    }
}

fn key(text: &str) -> Result<String, Problem> {
    if text.len() > KEY_MAX {
        return Err("is longer than 63 bytes");
    }
    if text.chars().any(char::is_control) { Err("has a control character in it") } else { Ok(text.to_owned()) }
}

/// What is kept between two questions.
#[derive(Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
struct State<'a> {
    /// The keys that are done, the last one last.
    #[serde(borrow)]
    done: Vec<Cow<'a, str>>,
    /// What the last grant was for.
    #[serde(borrow)]
    running: Option<Running<'a>>,
}

/// What a grant was for. Only the host knows the grant's token: it is the first above those before.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Running<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    after: i64,
}

impl<'a> State<'a> {
    /// The state that was kept, with what has happened since. What is there may be another policy's;
    /// then nothing is done.
    fn now(input: &'a Input<'a, Reading<Params>>) -> Self {
        let mut state: Self = json::from_str(&input.state).unwrap_or_default();
        // A holder may have made a new request in between: then its hold is several in the history.
        let given_back = |after: i64| input.history.iter().any(|p| p.token > after && p.how == Ending::Released);
        if let Some(running) = state.running.take_if(|running| given_back(running.after)) {
            state.done.retain(|key| *key != running.key);
            state.done.push(running.key);
            let surplus = state.done.len().saturating_sub(DONE_MAX);
            state.done.drain(..surplus);
        }
        state
    }

    fn written(&self) -> Option<Cow<'a, str>> {
        Some(Cow::Owned(json::to_string(self)))
    }
}

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading<Params>>) -> Output<'a> {
    let key = &input.params.accepted().key;
    let state = State::now(input);
    if state.done.iter().any(|done| done == key) {
        return denied(input, key, &state);
    }
    rules::usual(input, || granted(input, key, state))
}

fn granted<'a>(input: &'a Input<'a, Reading<Params>>, key: &'a str, mut state: State<'a>) -> Output<'a> {
    let next = rules::highest(&input.requests, |request| request.priority);
    let Some((index, request)) = next else { return Output::default() };
    let after = rules::last_token(input);
    state.running = Some(Running { key: Cow::Borrowed(key), after });
    Output { grant: Some(rules::grant(input, index, request)), state: state.written(), ..rules::because(REASON_GRANT) }
}

/// It is done: nobody gets the lease any more. Who holds it may finish.
fn denied<'a>(input: &'a Input<'a, Reading<Params>>, key: &str, state: &State<'a>) -> Output<'a> {
    let reason = if key.is_empty() { "it is done already".to_owned() } else { format!("it is done already: {key}") };
    let indices = (0u32..).zip(&input.requests).map(|(index, _)| index);
    let deny: Vec<_> = indices.map(|request| Denial { request, reason: Cow::Owned(reason.clone()) }).collect();
    let state = if deny.is_empty() { None } else { state.written() };
    let hold = rules::usual(input, || rules::because("done once"));
    Output { deny, state, ..hold }
}

/// What is wrong with the params.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    params::validate::<Params>(params)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
