//! The group that held the lease least goes first; what was long ago counts less.
//!
//! A group is the value of a label of the requests. The history that a policy is shown has no
//! labels, so the policy remembers for which group it granted, and when that hold is in the history
//! it adds its time to the group's. `README.md` beside this crate says what the params mean.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::{
    borrow::{Cow, ToOwned as _},
    format,
    string::String,
    vec::Vec,
};
use core::cmp::Reverse;

use konductor_policy_sdk::{
    Input, Output, Past, Request, json, limits,
    params::{self, Problem, Reading, Value},
    rules,
};

/// What the policy is.
pub const DESCRIBE: &str = konductor_policy_sdk::describe! {
    name: "fair-share",
    description: "The group that held the lease least goes first; what was long ago counts less.",
    params_schema: "../params.schema.json",
};

/// The longest name of a label: a prefix of 253 characters, a slash, and 63.
const LABEL_MAX: usize = 317;
/// How many groups are remembered, those that held most. A label value has 63 bytes at most, so they
/// fit the state of 4 KiB; who is forgotten has held least, and counts as one that never has.
const GROUPS_MAX: usize = 40;
/// The most time that a group is charged with: 34 years in milliseconds, far from the arithmetic's end.
const HELD_MAX: i64 = 1 << 40;
const HOUR_MS: i64 = 3_600_000;

/// The params.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The label whose value is the group.
    pub label: String,
    /// After how many milliseconds the time of a hold counts half.
    pub half_life_ms: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { label: "team".to_owned(), half_life_ms: HOUR_MS }
    }
}

impl params::Params for Params {
    const NAMES: &'static [&'static str] = &["label", "halfLife"];

    fn set(&mut self, name: &str, value: &Value<'_>) -> Option<Result<(), Problem>> {
        Some(match name {
            "label" => match value.text() {
                Ok("") => Err("names no label"),
                Ok(label) if label.len() > LABEL_MAX => Err("is longer than a label's name can be"),
                other => other.map(|label| self.label = label.to_owned()),
            },
            "halfLife" => match value.duration() {
                Ok(0) => Err("is no time at all; write after how long a hold counts half, such as \"1h\""),
                other => other.map(|ms| self.half_life_ms = ms),
            },
            _ => return None,
        })
    }
}

/// What is kept between two questions.
#[derive(Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
struct State<'a> {
    /// When the groups' times were worked out.
    at: i64,
    /// The groups that held something, those that held most first.
    #[serde(borrow)]
    groups: Vec<Group<'a>>,
    /// The last grant, whose time is not in the groups' yet.
    #[serde(borrow)]
    running: Option<Running<'a>>,
}

/// A group, and for how many milliseconds it held, with what was long ago counting less.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Group<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    held: i64,
}

/// For which group the last grant was. Only the host knows its token: it is the first above those before.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Running<'a> {
    #[serde(borrow)]
    group: Cow<'a, str>,
    after: i64,
}

impl<'a> State<'a> {
    /// The state that was kept, with what has happened since. What is there may be another policy's;
    /// then nobody held anything.
    fn now(input: &'a Input<'a, Reading<Params>>, params: &Params) -> Self {
        let mut state: Self = json::from_str(&input.state).unwrap_or_default();
        let passed = rules::since(state.at, input.now);
        for group in &mut state.groups {
            group.held = faded(group.held, passed, params.half_life_ms);
        }
        state.at = input.now;
        if let Some(running) = state.running.take() {
            let held = held(input, running.after);
            state.charge(running.group, held);
        }
        state
    }

    fn charge(&mut self, group: Cow<'a, str>, held: i64) {
        match self.groups.iter_mut().find(|known| known.name == group) {
            Some(known) => known.held = known.held.saturating_add(held).min(HELD_MAX),
            None => self.groups.push(Group { name: group, held: held.min(HELD_MAX) }),
        }
        self.groups.retain(|group| group.held > 0);
        // Stable, so that the same state is always the same bytes.
        self.groups.sort_by_key(|group| Reverse(group.held));
        self.groups.truncate(GROUPS_MAX);
    }

    fn held_by(&self, group: &str) -> i64 {
        self.groups.iter().find(|known| known.name == group).map_or(0, |known| known.held)
    }

    /// As JSON, without those that held least where all do not fit. (Without the last grant it always
    /// fits: a lease whose label has names of kilobytes is not accounted.)
    fn written(mut self) -> String {
        loop {
            let json = json::to_string(&self);
            if json.len() <= limits::STATE_MAX {
                return json;
            }
            if self.groups.pop().is_none() {
                self.running = None;
            }
        }
    }
}

/// For how many milliseconds the lease was held by the holder that got it after this token.
///
/// That holder may have made a new request in between: then its hold is several in the history.
fn held<P>(input: &Input<'_, P>, after: i64) -> i64 {
    let mut since: Vec<&Past<'_>> = input.history.iter().filter(|past| past.token > after).collect();
    since.sort_unstable_by_key(|past| past.token);
    let holder = since.first().map(|past| past.holder.as_ref());
    let ended: i64 = since
        .iter()
        .filter(|past| Some(past.holder.as_ref()) == holder)
        .map(|past| rules::since(past.acquired, past.ended).min(HELD_MAX))
        .sum();
    // A hold that this answer ends is not in the history yet.
    let ends = input.hold.as_ref().filter(|hold| hold.token > after && holder.is_none_or(|name| name == hold.holder));
    ended + ends.map_or(0, |hold| rules::since(hold.acquired, input.now).min(HELD_MAX))
}

/// What is left of a time after another has passed: half after each half-life, and on a straight line
/// in between. Whole numbers, because they are the same on every machine.
fn faded(held: i64, passed: i64, half_life: i64) -> i64 {
    let halvings = passed / half_life;
    // The most that a group is charged with has 41 bits.
    if halvings > 41 {
        return 0;
    }
    let held = held.clamp(0, HELD_MAX) >> halvings;
    let into_the_next = (passed % half_life).saturating_mul(1024) / half_life;
    held - held * into_the_next / 2048
}

/// Decides.
#[must_use]
pub fn decide<'a>(input: &'a Input<'a, Reading<Params>>) -> Output<'a> {
    let params = input.params.accepted();
    rules::usual(input, || granted(input, params))
}

fn granted<'a>(input: &'a Input<'a, Reading<Params>>, params: &'a Params) -> Output<'a> {
    let mut state = State::now(input, params);
    let next = rules::highest(&input.requests, |r| (Reverse(state.held_by(group_of(r, params))), r.priority));
    let Some((index, request)) = next else { return Output::default() };
    let group = group_of(request, params);
    let held = state.held_by(group) / 1000;
    let reason = match group {
        "" => format!(
            "a request without the label {} goes first: those held {held} s, the others more or as much",
            params.label
        ),
        group => format!("{} {group} goes first: it held {held} s, the others more or as much", params.label),
    };
    let after = rules::last_token(input);
    state.running = Some(Running { group: Cow::Borrowed(group), after });
    Output {
        grant: Some(rules::grant(input, index, request)),
        state: Some(Cow::Owned(state.written())),
        reason: Cow::Owned(reason),
        ..Output::default()
    }
}

/// The group of a request. Those without the label are a group too.
fn group_of<'r>(request: &'r Request<'_>, params: &Params) -> &'r str {
    request.labels.get(&params.label).unwrap_or_default()
}

/// What is wrong with the params.
#[must_use]
pub fn validate(params: &str) -> Vec<String> {
    params::validate::<Params>(params)
}

konductor_policy_sdk::export_policy!(decide, validate = validate, describe = DESCRIBE);
