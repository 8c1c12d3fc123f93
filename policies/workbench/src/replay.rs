//! A journal of decisions, replayed: reproduced byte for byte with the module that made them, and
//! decided again with another one.

use std::collections::BTreeMap;

use konductor_core::{Decision, Grant, HoldAction, Question, check};
use konductor_policy::{Policy, journal::Record};
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

/// In what a decision differs from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Somebody else gets the lease.
    OtherWinner,
    /// Somebody gets the lease where nobody did.
    Grants,
    /// Nobody gets the lease where somebody did.
    GrantsNot,
    /// The holder is asked to leave where it was not.
    Preempts,
    /// The holder is not asked to leave where it was.
    PreemptsNot,
    /// The holder is asked to leave too, but for somebody else, or otherwise.
    PreemptsOtherwise,
    /// The hold is renewed where it was not.
    Renews,
    /// The hold is not renewed where it was.
    RenewsNot,
    /// The hold ends, or does not, without any of the above.
    HoldOtherwise,
    /// A grant or a renewal for another time.
    OtherTtl,
    /// Requests are denied that were not.
    Denies,
    /// Requests are not denied that were.
    DeniesNot,
    /// It fails, or is refused by the guard, where the other one was not.
    Fails,
    /// It does not fail where the other one did.
    FailsNot,
}

impl Kind {
    /// The kind in words, for a list of counts.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::OtherWinner => "somebody else gets the lease",
            Self::Grants => "somebody gets the lease where nobody did",
            Self::GrantsNot => "nobody gets the lease where somebody did",
            Self::Preempts => "an extra preemption",
            Self::PreemptsNot => "a preemption less",
            Self::PreemptsOtherwise => "a preemption for somebody else, or in another way",
            Self::Renews => "an extra renewal",
            Self::RenewsNot => "a renewal less",
            Self::HoldOtherwise => "the hold ends otherwise",
            Self::OtherTtl => "a grant or a renewal for another time",
            Self::Denies => "an extra denial",
            Self::DeniesNot => "a denial less",
            Self::Fails => "it fails or is vetoed",
            Self::FailsNot => "it no longer fails or is vetoed",
        }
    }
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
    let kinds = match (&was, &would_be) {
        (Ok(was), Ok(would_be)) => differences(was, would_be),
        (Ok(_), Err(_)) => vec![Kind::Fails],
        (Err(_), Ok(_)) => vec![Kind::FailsNot],
        (Err(_), Err(_)) => Vec::new(),
    };
    let text = |decided: Result<Decision, String>| match decided {
        Ok(decision) => words::decision(&question, &decision).join("; "),
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

fn differences(was: &Decision, would_be: &Decision) -> Vec<Kind> {
    let mut kinds = Vec::new();
    match (was.grant, would_be.grant) {
        (None, None) => {}
        (None, Some(_)) => kinds.push(Kind::Grants),
        (Some(_), None) => kinds.push(Kind::GrantsNot),
        (Some(Grant { request: a, .. }), Some(Grant { request: b, .. })) if a != b => kinds.push(Kind::OtherWinner),
        (Some(Grant { ttl: a, .. }), Some(Grant { ttl: b, .. })) if a != b => kinds.push(Kind::OtherTtl),
        (Some(_), Some(_)) => {}
    }
    match (was.hold, would_be.hold) {
        (a, b) if a == b => {}
        (HoldAction::Preempt { .. }, HoldAction::Preempt { .. }) => kinds.push(Kind::PreemptsOtherwise),
        (HoldAction::Renew { .. }, HoldAction::Renew { .. }) => kinds.push(Kind::OtherTtl),
        (a, b) => {
            let preempts = |action| matches!(action, HoldAction::Preempt { .. });
            let renews = |action| matches!(action, HoldAction::Renew { .. });
            for (is, kind) in [
                (preempts(b), Kind::Preempts),
                (preempts(a), Kind::PreemptsNot),
                (renews(b), Kind::Renews),
                (renews(a), Kind::RenewsNot),
                (!preempts(a) && !preempts(b) && !renews(a) && !renews(b), Kind::HoldOtherwise),
            ] {
                if is {
                    kinds.push(kind);
                }
            }
        }
    }
    let denies = |decision: &Decision, request: usize| decision.deny.iter().any(|denial| denial.request == request);
    if would_be.deny.iter().any(|denial| !denies(was, denial.request)) {
        kinds.push(Kind::Denies);
    }
    if was.deny.iter().any(|denial| !denies(would_be, denial.request)) {
        kinds.push(Kind::DeniesNot);
    }
    kinds
}
