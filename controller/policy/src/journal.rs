//! The journal of decisions: what was asked and answered, exactly, so that it can be replayed.
//!
//! A journal is JSON lines, one [`Record`] each. Input and output are texts and not JSON in JSON:
//! what is replayed are the bytes, and a parser in between would change them.

use konductor_core::Question;
use serde::{Deserialize, Serialize};

use crate::{Decided, Fault, Policy, Tape};

/// The version of the record. Fields may be added within it; a reader ignores what it does not know.
pub const VERSION: u32 = 1;

/// The longest line in bytes. The longest input, 256 KiB, grows by its quotation marks when it is
/// written as a text; with a usual answer it stays below this. A decision that does not is left out
/// of the journal rather than cut: half a record replays nothing.
pub const LINE_MAX: usize = 512 * 1024;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub v: u32,
    /// When it was made, in RFC 3339.
    pub at: String,
    /// The lease: `namespace/name`.
    pub lease: String,
    /// The lease's uid.
    pub uid: String,
    /// The resourceVersion of the Lease from which it was decided: what the log lines of the controller call `decision`.
    /// Every question on the way to one decision has the same. 0 where there is no API server, and of old records.
    #[serde(default)]
    pub decision: i64,
    /// The policy's name.
    pub policy: String,
    /// The module that was asked: `sha256:` and hexadecimal.
    pub digest: String,
    /// Why it was asked, as the ABI says it.
    pub cause: String,
    /// The input's bytes.
    pub input: String,
    /// The answer's bytes; `None` if there was none, or none that is text.
    pub output: Option<String>,
    /// How the call has failed, in one word: [`Fault::reason`](crate::Fault::reason).
    pub fault: Option<String>,
    /// The fuel that it took; `None` if it failed.
    pub fuel: Option<u64>,
    /// Whether what was decided became so: not of a shadow policy, nor where the guard said no or
    /// somebody else has written first.
    pub applied: bool,
}

/// Why a line is not a record, or a record not a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It is too long.
    #[error("the line has {bytes} bytes; the limit is {LINE_MAX}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// It is no record.
    #[error("the line is not a record of a decision: {0}")]
    NotARecord(String),
    /// It is a record of another version.
    #[error("the line is a record of version {0}; this program reads version {VERSION}")]
    OtherVersion(u32),
}

impl Record {
    /// What came of [`Policy::decide_taped`]: `name` is the policy's, `at` the question's time in RFC 3339.
    /// Whether it became so is known later. `None` where nothing has reached the module: that cannot be replayed.
    #[must_use]
    pub fn of(
        policy: &Policy,
        name: String,
        at: String,
        question: &Question,
        decided: &Result<Decided, Fault>,
        tape: Tape,
    ) -> Option<Self> {
        if tape.input.is_empty() {
            return None;
        }
        Some(Self {
            v: VERSION,
            at,
            lease: format!("{}/{}", question.lease.namespace, question.lease.name),
            uid: question.lease.uid.clone(),
            decision: 0,
            policy: name,
            digest: policy.digest().to_owned(),
            cause: question.cause.as_str().to_owned(),
            // It is JSON that we made.
            input: String::from_utf8(tape.input).ok()?,
            output: tape.output.and_then(|output| String::from_utf8(output).ok()),
            fault: decided.as_ref().err().map(|fault| fault.reason().to_owned()),
            fuel: decided.as_ref().ok().map(|decided| decided.fuel),
            applied: false,
        })
    }

    /// The record as a line, without its end.
    ///
    /// # Errors
    /// [`JournalError::TooLong`] above [`LINE_MAX`].
    pub fn line(&self) -> Result<String, JournalError> {
        // Texts and numbers can always be written.
        let line = serde_json::to_string(self).map_err(|error| JournalError::NotARecord(error.to_string()))?;
        if line.len() > LINE_MAX { Err(JournalError::TooLong { bytes: line.len() }) } else { Ok(line) }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`JournalError`] that says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, JournalError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        if line.len() > LINE_MAX {
            return Err(JournalError::TooLong { bytes: line.len() });
        }
        let not = |error: serde_json::Error| JournalError::NotARecord(error.to_string());
        match serde_json::from_str(line).map_err(not)? {
            Versioned { v: VERSION } => serde_json::from_str(line).map_err(not),
            Versioned { v } => Err(JournalError::OtherVersion(v)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            v: VERSION,
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            lease: "default/db".to_owned(),
            uid: "u".to_owned(),
            decision: 0,
            policy: "default".to_owned(),
            digest: "sha256:00".to_owned(),
            cause: "request".to_owned(),
            input: "{\"now\": 1,  \"state\":\"\\u00fc\\n\"}".to_owned(),
            output: Some("{ }".to_owned()),
            fault: None,
            fuel: Some(7),
            applied: true,
        }
    }

    #[test]
    fn a_record_keeps_every_byte_through_a_line() {
        let line = record().line().expect("short");
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(Record::parse(&line), Ok(record()));
        // A member that is added later.
        assert_eq!(Record::parse(&line.replace("\"v\":1", "\"v\":1,\"replica\":\"a\"")), Ok(record()));
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        let line = record().line().expect("short");
        assert_eq!(Record::parse(&line.replace("\"v\":1", "\"v\":2")), Err(JournalError::OtherVersion(2)));
        assert!(matches!(Record::parse(&line[..40]), Err(JournalError::NotARecord(_))));
        assert!(matches!(Record::parse("{\"v\":1}"), Err(JournalError::NotARecord(_))));
        let long = Record { input: "\"".repeat(LINE_MAX / 2), ..record() };
        assert!(matches!(long.line(), Err(JournalError::TooLong { bytes }) if bytes > LINE_MAX));
        assert!(matches!(Record::parse(&" ".repeat(LINE_MAX + 1)), Err(JournalError::TooLong { .. })));
    }
}
