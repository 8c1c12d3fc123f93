//! Fixtures: given this input, expect this decision.
//!
//! A file is a list of cases in YAML. What a case leaves out of its input is filled in (`fixture/fill.rs`);
//! of the decision it names what matters. `policies/README.md` has the format with examples.

mod expect;
mod fill;
mod run;

use konductor_core::Refusal;
use konductor_policy::Fault;
use serde_json::Value;

pub(crate) use fill::NOW;
pub use fill::{Filled, input};
pub use run::{Outcome, run};

use crate::read::{Fields, Mistake, document, kind, suggestion};
use expect::Expected;

/// The most cases of a file: each is two calls of tens of microseconds, so even this many take a second or two.
const CASES_MAX: usize = 10_000;

/// One question and what should come of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, the only one of that name in its file.
    pub name: String,
    ask: Ask,
    wanted: Wanted,
}

impl Case {
    /// The input that is put to the policy; `None` where its params are validated.
    #[must_use]
    pub fn input(&self) -> Option<&Filled> {
        match &self.ask {
            Ask::Decide(filled) => Some(filled),
            Ask::Validate(_) => None,
        }
    }

    /// Whether it is about a fault of the policy, so that there is no decision to measure.
    #[must_use]
    pub fn expects_a_fault(&self) -> bool {
        matches!(self.wanted, Wanted::Fault(_))
    }

    /// Whether a decision should come of it, not a fault or a veto.
    #[must_use]
    pub fn expects_a_decision(&self) -> bool {
        matches!(self.wanted, Wanted::Decision(_))
    }
}

#[derive(Debug, Clone)]
enum Ask {
    Decide(Box<Filled>),
    /// The params as JSON.
    Validate(String),
}

#[derive(Debug, Clone)]
enum Wanted {
    Decision(Expected),
    /// A pattern for each error.
    Errors(Vec<String>),
    /// The reason of a [`konductor_policy::Fault`].
    Fault(String),
    /// The rule of a [`konductor_core::Refusal`].
    Veto(String),
}

/// Reads a file of cases.
///
/// # Errors
/// The first [`Mistake`] in it.
pub fn parse(text: &str) -> Result<Vec<Case>, Mistake> {
    let document = document(text)?;
    let Value::Array(list) = &document else {
        let problem =
            format!("this is {}; a list of cases belongs here, each beginning with `- name:`", kind(&document));
        return Err(Mistake::new("", problem));
    };
    if list.is_empty() || list.len() > CASES_MAX {
        return Err(Mistake::new("", format!("it has {} cases; it should have 1 to {CASES_MAX}", list.len())));
    }
    let mut cases: Vec<Case> = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let case = case(value, i + 1)?;
        if let Some(earlier) = cases.iter().position(|other| other.name == case.name) {
            let problem = format!("case {} has the name {:?} too; give each its own", earlier + 1, case.name);
            return Err(Mistake::new(format!("case {}", i + 1), problem));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// A name out of those that there are: a fixture that waits for another would fail for the wrong reason.
fn one_of<'a>(fields: &Fields<'a>, name: &str, known: &[&'static str]) -> Result<Option<&'a str>, Mistake> {
    let said = fields.text(name)?;
    match said {
        Some(said) if !known.contains(&said) => {
            let like = suggestion(said, known.iter().copied());
            Err(fields.mistake(name, format!("{said:?} is no {name}{like}; there are: {}", known.join(", "))))
        }
        _ => Ok(said),
    }
}

fn case(value: &Value, number: usize) -> Result<Case, Mistake> {
    let place = match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("case {number} \"{name}\""),
        None => format!("case {number}"),
    };
    let fields = Fields::of(value, &place, &["name", "input", "validate", "expect", "errors", "fault", "veto"])?;
    let name = fields.required_text("name")?.to_owned();
    let wrong = |problem: &str| Err(Mistake::new(&place, problem));
    let fault = one_of(&fields, "fault", &Fault::REASONS)?;
    let veto = one_of(&fields, "veto", &Refusal::RULES)?;
    let (ask, wanted) = match (fields.is_named("input"), fields.is_named("validate")) {
        (true, true) => return wrong("it has both input and validate; a case asks one thing"),
        (false, false) => return wrong("it asks nothing: write an input (`input: {}` will do), or params to validate"),
        (false, true) => {
            if fields.is_named("expect") || fields.is_named("veto") {
                return wrong(
                    "params are validated, so what belongs here is errors (`[]`: they are valid), or a fault",
                );
            }
            let params = fields.value("validate").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            if !params.is_object() {
                let problem = format!("this is {}; params are a mapping", kind(&params));
                return Err(fields.mistake("validate", problem));
            }
            let wanted = match (fields.is_named("errors"), fault) {
                (true, None) => Wanted::Errors(fields.texts("errors")?),
                (false, Some(fault)) => Wanted::Fault(fault.to_owned()),
                _ => return wrong("say either which errors are expected (`errors: []`: none), or which fault"),
            };
            (Ask::Validate(params.to_string()), wanted)
        }
        (true, false) => {
            let empty = Value::Object(serde_json::Map::new());
            let filled = fill::fill(fields.value("input").unwrap_or(&empty), &fields.place("input"))?;
            let wanted = match (fields.is_named("expect"), fault, veto) {
                (true, None, None) => {
                    let expected = fields.value("expect").unwrap_or(&empty);
                    Wanted::Decision(Expected::read(expected, &fields.place("expect"), &filled)?)
                }
                (false, Some(fault), None) => Wanted::Fault(fault.to_owned()),
                (false, None, Some(rule)) => Wanted::Veto(rule.to_owned()),
                _ => {
                    return wrong(
                        "say what should come of it, one of: expect (`expect: {}`: nothing changes), fault, veto",
                    );
                }
            };
            if fields.is_named("errors") {
                return wrong("errors belong to a case that validates params; an input is answered by a decision");
            }
            (Ask::Decide(Box::new(filled)), wanted)
        }
    };
    Ok(Case { name, ask, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_authors_lists_every_fault_and_every_veto() {
        let page = include_str!("../../README.md");
        let (_, lists) = page.split_once("### What can go wrong").expect("the section");
        for name in Fault::REASONS.iter().chain(&Refusal::RULES) {
            assert!(lists.contains(&format!("`{name}`")), "policies/README.md does not explain {name}");
        }
    }
}
