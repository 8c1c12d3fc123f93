//! A journal of decisions, replayed: reproduced byte for byte with the module that made them, and
//! decided again with another one.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read as _},
};

use konductor_core::{Decision, Question, check};
pub use konductor_policy::compare::Kind;
use konductor_policy::{
    Policy,
    compare::{differences, sentence},
    journal::{LINE_MAX, Record},
};
use konductor_policy_abi::v1;
use serde::Serialize;
use serde_json::Value;

use crate::{question::question, read::Mistake, words};

/// Reads a journal line by line, however long it is: the number and the record of each line, empty ones left out.
/// After the first mistake there is nothing more to be read.
#[derive(Debug)]
pub struct Records<R> {
    journal: R,
    line: usize,
    any: bool,
    cut: Option<usize>,
}

impl<R: BufRead> Records<R> {
    /// The records of a journal.
    pub fn of(journal: R) -> Self {
        Self { journal, line: 0, any: false, cut: None }
    }

    /// The number of the last line if it is the beginning of a record and no more: who wrote it was stopped.
    #[must_use]
    pub fn cut(&self) -> Option<usize> {
        self.cut
    }

    /// The next line and whether it has an end.
    fn line(&mut self) -> Result<Option<(Vec<u8>, bool)>, String> {
        let mut line = Vec::new();
        // With its end, and one byte more, which tells "at the limit" from "above it".
        let most = LINE_MAX as u64 + 2;
        let read = self.journal.by_ref().take(most).read_until(b'\n', &mut line);
        if read.map_err(|error| format!("it cannot be read: {error}"))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let ended = line.pop_if(|last| *last == b'\n').is_some();
        if line.len() > LINE_MAX {
            return Err(format!("the line has more than {LINE_MAX} bytes, the limit"));
        }
        Ok(Some((line, ended)))
    }

    fn record(&mut self) -> Result<Option<Record>, String> {
        while let Some((line, ended)) = self.line()? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = str::from_utf8(&line).map_err(|_| "the line is not text (UTF-8)".to_owned());
            match text.and_then(|text| Record::parse(text).map_err(|error| error.to_string())) {
                Ok(record) => {
                    self.any = true;
                    return Ok(Some(record));
                }
                // What else has one line without an end is something else than a journal.
                Err(_) if !ended && self.any && line.starts_with(b"{") => self.cut = Some(self.line),
                Err(problem) => return Err(problem),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<(usize, Record), Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.record().transpose()?;
        Some(record.map(|record| (self.line, record)).map_err(|why| Mistake::new(format!("line {}", self.line), why)))
    }
}

/// What came of making a decision again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reproduced {
    /// The same, to the byte.
    Same,
    /// Something else: in what it differs.
    Differs(Vec<String>),
    /// The machine has failed and not the policy, when it was recorded or now. That says nothing of the module.
    MachineFailed(String),
}

/// The reasons of the faults for which [`Fault::is_infrastructure`](konductor_policy::Fault::is_infrastructure).
const OF_THE_MACHINE: [&str; 2] = ["DeadlineExceeded", "SandboxFailed"];

/// Lets the module that made a decision make it again.
#[must_use]
pub fn reproduce(record: &Record, policy: &Policy) -> Reproduced {
    if let Some(fault) = record.fault.as_ref().filter(|fault| OF_THE_MACHINE.contains(&fault.as_str())) {
        return Reproduced::MachineFailed(format!("recorded {fault}"));
    }
    let answer = policy.answer(record.input.as_bytes());
    let read = answer.as_ref().map_err(|fault| fault.clone()).and_then(|answer| Policy::read(&answer.output));
    let fault = match read.err() {
        Some(fault) if fault.is_infrastructure() => return Reproduced::MachineFailed(format!("now {fault}")),
        fault => fault.map(|fault| fault.reason().to_owned()),
    };
    let mut found = Vec::new();
    let mut differs = |what: &str, recorded: String, now: String| {
        if recorded != now {
            found.push(format!("{what:<7} recorded  {recorded}"));
            found.push(format!("{:<7} now       {now}", ""));
        }
    };
    let none = || "none".to_owned();
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
    if found.is_empty() { Reproduced::Same } else { Reproduced::Differs(found) }
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
