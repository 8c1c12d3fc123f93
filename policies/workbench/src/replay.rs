//! A journal of decisions, replayed: reproduced byte for byte with the module that made them, and
//! decided again with another one.

use std::collections::BTreeMap;

use konductor_core::{Decision, Question, check};
pub use konductor_policy::compare::Kind;
use konductor_policy::{
    Policy,
    compare::{differences, sentence},
    journal::Record,
};
use konductor_policy_abi::v1;
use serde::Serialize;
use serde_json::Value;

use crate::{question::question, read::Mistake, words};

/// Reads a journal: the number and the record of each line, empty ones left out.
///
/// # Errors
/// The first line that is no record.
pub fn parse(text: &str) -> Result<Vec<(usize, Record)>, Mistake> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| match Record::parse(line) {
            Ok(record) => Ok((i + 1, record)),
            Err(error) => Err(Mistake::new(format!("line {}", i + 1), error.to_string())),
        })
        .collect()
}

/// What differs when the module that made a decision makes it again; empty: nothing does.
#[must_use]
pub fn reproduce(record: &Record, policy: &Policy) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, recorded: String, now: String| {
        if recorded != now {
            found.push(format!("{what:<7} recorded  {recorded}"));
            found.push(format!("{:<7} now       {now}", ""));
        }
    };
    let none = || "none".to_owned();
    let answer = policy.answer(record.input.as_bytes());
    let read = answer.as_ref().map_err(|fault| fault.clone()).and_then(|answer| Policy::read(&answer.output));
    let fault = read.err().map(|fault| fault.reason().to_owned());
    differs("fault", record.fault.clone().unwrap_or_else(none), fault.unwrap_or_else(none));
    // What is no text is not in the journal; the fault says what was the matter with it.
    let output = answer.as_ref().ok().and_then(|answer| String::from_utf8(answer.output.clone()).ok());
    if record.output.is_some() || record.fault.is_none() {
        differs("output", record.output.clone().unwrap_or_else(none), output.unwrap_or_else(none));
    }
    if let Some(fuel) = record.fuel {
        let now = answer.as_ref().ok().map(|answer| answer.fuel);
        differs("fuel", fuel.to_string(), now.map_or_else(none, |fuel| fuel.to_string()));
    }
    found
}

/// A decision that another module makes differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// In what it differs.
    pub kinds: Vec<Kind>,
    /// What was decided, in words.
    pub was: String,
    /// What would be.
    pub would_be: String,
}

/// What another module would have done in place of the one that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// How many decisions were compared.
    pub compared: usize,
    /// How many differ.
    pub different: usize,
    /// In what, and how many of them.
    pub kinds: BTreeMap<Kind, usize>,
}

impl Comparison {
    /// Counts one more decision.
    pub fn count(&mut self, change: Option<&Change>) {
        self.compared += 1;
        self.different += usize::from(change.is_some());
        for kind in change.iter().flat_map(|change| &change.kinds) {
            *self.kinds.entry(*kind).or_default() += 1;
        }
    }
}

/// Decides again with another module.
///
/// What counts is what a decision does to the hold and the requests; words, state and wake-ups do not.
///
/// # Errors
/// A [`Mistake`] for a record whose input is not one of the ABI.
pub fn redecide(record: &Record, with: &Policy) -> Result<Option<Change>, Mistake> {
    let v1::Object(input): v1::Object<v1::Input<'_, Value>> = serde_json::from_str(&record.input)
        .map_err(|error| Mistake::new("input", format!("it is not an input of the ABI: {error}")))?;
    let question = question(&input);
    let was = match &record.output {
        Some(output) => legal(&question, Policy::read(output.as_bytes()).map_err(|fault| fault.reason().to_owned())),
        None => Err(record.fault.clone().unwrap_or_else(|| "no output".to_owned())),
    };
    let refused = with.validate(&input.params.to_string());
    let would_be = match refused {
        Ok(errors) if errors.is_empty() => with
            .answer(record.input.as_bytes())
            .and_then(|answer| Policy::read(&answer.output))
            .map_err(|fault| format!("{}: {fault}", fault.reason())),
        Ok(errors) => Err(format!("it refuses the params: {}", errors.join("; "))),
        Err(fault) => Err(format!("{}: {fault}", fault.reason())),
    };
    let would_be = legal(&question, would_be);
    let kinds = differences(was.as_ref().ok(), would_be.as_ref().ok());
    let text = |decided: Result<Decision, String>| match decided {
        Ok(decision) => sentence(&question, &decision, words::span),
        Err(problem) => format!("fails: {problem}"),
    };
    Ok((!kinds.is_empty()).then(|| Change { kinds, was: text(was), would_be: text(would_be) }))
}

/// A decision that the guard lets pass; a refusal in words otherwise.
fn legal(question: &Question, decided: Result<Decision, String>) -> Result<Decision, String> {
    let decision = decided?;
    match check(question, decision.clone()) {
        Ok(_) => Ok(decision),
        Err(refusal) => Err(format!("vetoed, {}: {refusal}", refusal.rule())),
    }
}
