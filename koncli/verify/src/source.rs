//! Reading: which of the two formats it is, and what is wrong with it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::{
    Gap, History, Kind,
    audit::Log,
    recording::{Line, Recording},
};

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Of `koncli lease record`.
    Recording,
    /// An API server's audit log.
    AuditLog,
}

impl Format {
    /// What it is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::AuditLog => "audit log",
        }
    }
}

/// Why a text cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is nothing in it.
    Empty,
    /// The first line is of neither format.
    Neither(String),
    /// A line is not what it should be: its number, counted from one, and why.
    Line(usize, String),
    /// The last line has no end and is not whole: its number.
    CutOff(usize),
    /// An audit log that has no write to our objects.
    NoWrites,
    /// More events than are kept.
    TooMany(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Neither(why) => write!(
                f,
                "it is neither a recording of `koncli lease record` nor an audit log of audit.k8s.io/v1 in JSON lines: {why}"
            ),
            Self::Line(number, why) => write!(f, "line {number}: {why}"),
            Self::CutOff(number) => write!(f, "line {number}, the last one, is cut off"),
            Self::NoWrites => f.write_str(
                "it is an audit log without a single write to leases or leaserequests of konductor.io that succeeded",
            ),
            Self::TooMany(most) => write!(f, "it has more than {most} events"),
        }
    }
}

impl std::error::Error for Problem {}

/// The most events that are kept: an event takes one to four KiB of memory, so these are 2 GiB at worst.
const EVENTS_MAX: usize = 500_000;

#[derive(Debug)]
enum Source {
    Unknown,
    Recording(Recording),
    Log(Log),
}

/// Reads one text, line by line.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    number: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { source: Source::Unknown, number: 0 }
    }

    /// Takes the next line. `whole` says whether it had an end: the last one of a file that is still written has none.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn line(&mut self, text: &str, whole: bool) -> Result<(), Problem> {
        self.number += 1;
        let number = self.number;
        if text.trim().is_empty() {
            return Ok(());
        }
        let cut_off = |problem: Problem| if whole { problem } else { Problem::CutOff(number) };
        let value: Value = serde_json::from_str(text).map_err(|error| {
            cut_off(match self.source {
                Source::Unknown => Problem::Neither(format!("line {number} is no JSON object ({error})")),
                _ => Problem::Line(number, format!("no JSON object: {error}")),
            })
        })?;
        if matches!(self.source, Source::Unknown) {
            self.source = source(&value).map_err(Problem::Neither)?;
        }
        let taken = match &mut self.source {
            Source::Unknown => Ok(()),
            Source::Recording(recording) => serde_json::from_value::<Line>(value)
                .map_err(|error| format!("no line of a recording: {error}"))
                .and_then(|line| recording.line(line)),
            Source::Log(log) => log.line(value),
        };
        taken.map_err(|why| Problem::Line(number, why))?;
        let events = match &self.source {
            Source::Unknown => 0,
            Source::Recording(recording) => recording.len(),
            Source::Log(log) => log.len(),
        };
        if events > EVENTS_MAX { Err(Problem::TooMany(EVENTS_MAX)) } else { Ok(()) }
    }

    /// What was read.
    ///
    /// # Errors
    /// If there is nothing to judge.
    pub fn finish(self) -> Result<(Format, History), Problem> {
        match self.source {
            Source::Unknown => Err(Problem::Empty),
            Source::Recording(recording) => Ok((Format::Recording, recording.finish())),
            Source::Log(log) if log.writes() == 0 => Err(Problem::NoWrites),
            Source::Log(log) => Ok((Format::AuditLog, log.finish())),
        }
    }
}

/// Makes one history of its parts. Between two recordings nobody looked; the parts of an audit log are one log.
#[must_use]
pub fn join(parts: Vec<(Format, History)>) -> History {
    let mut all = History::default();
    let recordings = parts.iter().filter(|(format, _)| *format == Format::Recording).count();
    for (format, mut part) in parts {
        if format == Format::Recording && recordings > 1 {
            for of in [Kind::Lease, Kind::LeaseRequest] {
                let events = part.events.iter().filter(|event| event.object.kind() == of).map(|event| event.revision);
                let lists = part.lists.iter().filter(|list| list.of == of).map(|list| list.revision);
                if let Some(after) = events.chain(lists).max() {
                    let lists_before = part.lists.len();
                    part.gaps.push(Gap { of, after, lists_before });
                }
            }
        }
        all.extend(part);
    }
    all
}

/// What the first line is of.
fn source(first: &Value) -> Result<Source, String> {
    let text = |name: &str| first.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("type") == "RECORDING" {
        return Ok(Source::Recording(Recording::default()));
    }
    if text("kind") == "Event" && text("apiVersion").starts_with("audit.k8s.io/") {
        return match text("apiVersion") {
            "audit.k8s.io/v1" => Ok(Source::Log(Log::default())),
            other => Err(format!("its first line is of {other}")),
        };
    }
    match (text("apiVersion"), text("kind"), text("type")) {
        ("", "", "") => Err("its first line is JSON, and has neither a type nor a kind".to_owned()),
        ("", _, what) => Err(format!("its first line has the type \"{what}\", not RECORDING")),
        (version, kind, _) => Err(format!("its first line is a {kind} of {version}")),
    }
}
