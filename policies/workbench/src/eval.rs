//! One decision, looked at closely.

use konductor_core::check;
use konductor_policy::Policy;
use konductor_policy_abi::v1;
use serde::Serialize;
use serde_json::Value;

use crate::{question::question, words};

/// A decision, and what a host would think of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// The policy's answer, as bytes that may not even be text; empty if there was none.
    #[serde(skip)]
    pub output: Vec<u8>,
    /// The answer as JSON, if it is JSON.
    pub decision: Option<Value>,
    /// What it does, a line for each thing, with the names of holders beside the indexes.
    pub words: Vec<String>,
    /// Why a host would not obey it: the policy refuses its params, or fails, or the guard says no.
    pub problems: Vec<String>,
    /// What the guard would cut to its limit, by rule.
    pub clamped: Vec<&'static str>,
    /// The fuel that it took; `None` if there was no answer.
    pub fuel: Option<u64>,
    /// How long it took, in microseconds; `None` if there was no answer.
    pub micros: Option<u64>,
}

/// Asks a policy, and checks its params and its answer as a host does.
#[must_use]
pub fn evaluate(policy: &Policy, input: &[u8]) -> Evaluation {
    // Bytes that are no input of the ABI can be given too; then there is nothing to check against.
    let asked: Option<v1::Object<v1::Input<'_, Value>>> = serde_json::from_slice(input).ok();
    let asked = asked.map(|v1::Object(asked)| asked);
    let mut problems = Vec::new();
    if let Some(params) = asked.as_ref().map(|asked| &asked.params).filter(|params| params.is_object()) {
        // A host asks this first, and nothing more if there is an error.
        match policy.validate(&params.to_string()) {
            Ok(errors) => problems.extend(errors.into_iter().map(|error| format!("InvalidParams: {error}"))),
            Err(fault) => problems.push(format!("{}: {fault}", fault.reason())),
        }
    }
    let mut found = Evaluation {
        output: Vec::new(),
        decision: None,
        words: Vec::new(),
        problems,
        clamped: Vec::new(),
        fuel: None,
        micros: None,
    };
    let answer = match policy.answer(input) {
        Ok(answer) => answer,
        Err(fault) => {
            found.problems.push(format!("{}: {fault}", fault.reason()));
            return found;
        }
    };
    match (Policy::read(&answer.output), &asked) {
        (Err(fault), _) => found.problems.push(format!("{}: {fault}", fault.reason())),
        (Ok(_), None) => {}
        (Ok(decision), Some(asked)) => {
            let question = question(asked);
            found.words = words::decision(&question, &decision);
            match check(&question, decision) {
                Ok(checked) => found.clamped = checked.clamps().iter().map(|clamp| clamp.rule()).collect(),
                Err(refusal) => found.problems.push(format!("{}: {refusal}", refusal.rule())),
            }
        }
    }
    found.decision = serde_json::from_slice(&answer.output).ok();
    found.fuel = Some(answer.fuel);
    found.micros = Some(u64::try_from(answer.duration.as_micros()).unwrap_or(u64::MAX));
    found.output = answer.output;
    found
}
