//! Everything that can go wrong with a call, as types.
//!
//! What a trap was is read from wasmtime's own types, never from a message: an upgrade that words an
//! error differently must not turn one fault into another.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};

use crate::{
    limits::{BACKTRACE_FRAMES_MAX, Bytes, EpochTicks, FUNCTION_NAME_MAX, Fuel, Limits},
    text,
};

/// How a call failed. The policy has then said nothing; what happens is up to the lease's `onFailure`.
/// Its text says the whole: there is no source behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The guest used up its fuel. The same input does it again, everywhere.
    #[error("{step} used up its {budget}")]
    FuelExhausted {
        /// What was running.
        step: Step,
        /// What it had.
        budget: Fuel,
    },
    /// The guest was still running at the deadline. A failure of the machine rather than of the
    /// policy: fuel should have ended it long before.
    #[error("{step} was still running after {budget}")]
    DeadlineExceeded {
        /// What was running.
        step: Step,
        /// How long the whole call had.
        budget: EpochTicks,
    },
    /// The guest wanted more memory than it may have.
    #[error("{step} wanted a memory of {wanted}; the limit is {limit}")]
    MemoryLimit {
        /// What was running.
        step: Step,
        /// What it wanted.
        wanted: Bytes,
        /// What it may have.
        limit: Bytes,
    },
    /// The guest wanted a larger table than it may have.
    #[error("{step} wanted a table of {wanted} elements; the limit is {limit}")]
    TableLimit {
        /// What was running.
        step: Step,
        /// What it wanted.
        wanted: usize,
        /// What it may have.
        limit: u32,
    },
    /// The guest's recursion went too deep.
    #[error("{step} overflowed its stack of {limit}")]
    StackOverflow {
        /// What was running.
        step: Step,
        /// What it had.
        limit: Bytes,
    },
    /// The guest did what WebAssembly does not allow, or gave up, as a panic does.
    #[error("{step} trapped: {kind}{}", In(functions))]
    Trap {
        /// What was running.
        step: Step,
        /// What it did.
        kind: TrapKind,
        /// The names of the functions that it was in, the innermost first, cleaned and bounded;
        /// empty if the module was stripped of names.
        functions: Vec<String>,
    },
    /// `konductor_alloc` said that there is no room, by returning 0.
    #[error("konductor_alloc({len}) returned 0: no room for the input")]
    AllocFailed {
        /// The room that was asked for.
        len: usize,
    },
    /// `konductor_alloc` returned a place outside of the memory.
    #[error("konductor_alloc({len}) returned {ptr}, outside of the memory of {memory}")]
    AllocOutOfBounds {
        /// Where.
        ptr: u32,
        /// The room that was asked for.
        len: usize,
        /// How large the memory was.
        memory: Bytes,
    },
    /// The answer is outside of the memory.
    #[error("{step} answered {len} bytes at {ptr}, outside of the memory of {memory}")]
    OutputOutOfBounds {
        /// What was running.
        step: Step,
        /// Where the answer should be.
        ptr: u32,
        /// How long it should be.
        len: u32,
        /// How large the memory was.
        memory: Bytes,
    },
    /// The answer is too long.
    #[error("{step} answered {len} bytes; the limit is {limit}")]
    OutputTooLarge {
        /// What was running.
        step: Step,
        /// How long.
        len: u32,
        /// The limit.
        limit: Bytes,
    },
    /// The answer has no bytes. To change nothing a policy answers `{}`.
    #[error("{step} answered nothing; to change nothing a policy answers {{}}")]
    OutputEmpty {
        /// What was running.
        step: Step,
    },
    /// The answer is not UTF-8.
    #[error("{step} answered what is not UTF-8, from byte {at} on")]
    OutputNotUtf8 {
        /// What was running.
        step: Step,
        /// The first byte that is not.
        at: usize,
    },
    /// The answer is not JSON.
    #[error("{step} answered what is not JSON: {problem}")]
    OutputNotJson {
        /// What was running.
        step: Step,
        /// Where and why.
        problem: String,
    },
    /// The answer is JSON, but not an answer of the ABI.
    #[error("{step} answered what the ABI does not know: {problem}")]
    OutputSchema {
        /// What was running.
        step: Step,
        /// Where and why.
        problem: String,
    },
    /// The input would be too long even without any request.
    #[error("the input has {bytes} without any request; the limit is {limit}")]
    InputTooLarge {
        /// How long it would be.
        bytes: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// The params that the host was given are not a JSON object.
    #[error("the params are not a JSON object: {problem}")]
    ParamsNotJson {
        /// Where and why.
        problem: String,
    },
    /// The sandbox itself failed, not the policy.
    #[error("the sandbox failed: {problem}")]
    Sandbox {
        /// What it said.
        problem: String,
    },
}

/// The part of a call that was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The module's start section, while the instance was made.
    Start,
    /// `_initialize`
    Initialize,
    /// `konductor_alloc`
    Alloc,
    /// `konductor_decide`
    Decide,
    /// `konductor_validate`
    Validate,
    /// `konductor_describe`
    Describe,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the start section",
            Self::Initialize => "_initialize",
            Self::Alloc => "konductor_alloc",
            Self::Decide => "konductor_decide",
            Self::Validate => "konductor_validate",
            Self::Describe => "konductor_describe",
        })
    }
}

/// What a guest did that WebAssembly does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapKind {
    /// It executed `unreachable`: what a panic or an abort becomes.
    Unreachable,
    /// It read or wrote outside of its memory.
    MemoryOutOfBounds,
    /// It used a table beyond its end.
    TableOutOfBounds,
    /// It called a null function pointer.
    CallToNull,
    /// It called a function pointer of another type.
    BadSignature,
    /// It divided by zero.
    DivisionByZero,
    /// An integer's arithmetic overflowed.
    IntegerOverflow,
    /// It converted a float that no integer is close to.
    BadConversion,
    /// Something else.
    Other,
}

impl TrapKind {
    fn of(trap: Trap) -> Self {
        match trap {
            Trap::UnreachableCodeReached => Self::Unreachable,
            Trap::MemoryOutOfBounds => Self::MemoryOutOfBounds,
            Trap::TableOutOfBounds => Self::TableOutOfBounds,
            Trap::IndirectCallToNull | Trap::NullReference => Self::CallToNull,
            Trap::BadSignature => Self::BadSignature,
            Trap::IntegerDivisionByZero => Self::DivisionByZero,
            Trap::IntegerOverflow => Self::IntegerOverflow,
            Trap::BadConversionToInteger => Self::BadConversion,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it gave up (unreachable), as a panic does",
            Self::MemoryOutOfBounds => "access outside of its memory",
            Self::TableOutOfBounds => "access outside of a table",
            Self::CallToNull => "call of a null pointer",
            Self::BadSignature => "call of a function of another type",
            Self::DivisionByZero => "division by zero",
            Self::IntegerOverflow => "integer overflow",
            Self::BadConversion => "conversion of a number that does not fit",
            Self::Other => "another trap",
        })
    }
}

/// " in a < b < c", or nothing.
struct In<'a>(&'a [String]);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", in {}", self.0.join(" < ")) }
    }
}

/// What a limit of the store answers to a guest that wants more than it may have; it becomes
/// [`Fault::MemoryLimit`] or [`Fault::TableLimit`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum Denied {
    #[error("memory limit")]
    Memory { wanted: usize },
    #[error("table limit")]
    Table { wanted: usize },
}

impl Fault {
    /// All that [`Fault::reason`] can say.
    pub const REASONS: [&'static str; 17] = [
        "FuelExhausted",
        "DeadlineExceeded",
        "MemoryLimit",
        "TableLimit",
        "StackOverflow",
        "Trap",
        "AllocFailed",
        "AllocOutOfBounds",
        "OutputOutOfBounds",
        "OutputTooLarge",
        "OutputEmpty",
        "OutputNotUtf8",
        "OutputNotJson",
        "OutputSchema",
        "InputTooLarge",
        "ParamsNotJson",
        "SandboxFailed",
    ];

    /// The fault in one word, for a condition's reason or a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::FuelExhausted { .. } => "FuelExhausted",
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::MemoryLimit { .. } => "MemoryLimit",
            Self::TableLimit { .. } => "TableLimit",
            Self::StackOverflow { .. } => "StackOverflow",
            Self::Trap { .. } => "Trap",
            Self::AllocFailed { .. } => "AllocFailed",
            Self::AllocOutOfBounds { .. } => "AllocOutOfBounds",
            Self::OutputOutOfBounds { .. } => "OutputOutOfBounds",
            Self::OutputTooLarge { .. } => "OutputTooLarge",
            Self::OutputEmpty { .. } => "OutputEmpty",
            Self::OutputNotUtf8 { .. } => "OutputNotUtf8",
            Self::OutputNotJson { .. } => "OutputNotJson",
            Self::OutputSchema { .. } => "OutputSchema",
            Self::InputTooLarge { .. } => "InputTooLarge",
            Self::ParamsNotJson { .. } => "ParamsNotJson",
            Self::Sandbox { .. } => "SandboxFailed",
        }
    }

    /// Whether the machine failed rather than the policy, so that asking again may help.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. } | Self::Sandbox { .. })
    }

    /// What an error of wasmtime during a step means.
    pub(crate) fn from_wasmtime(error: &wasmtime::Error, step: Step, limits: &Limits) -> Self {
        if let Some(denied) = error.downcast_ref::<Denied>() {
            return match *denied {
                Denied::Memory { wanted } => Self::MemoryLimit { step, wanted: Bytes(wanted), limit: limits.memory },
                Denied::Table { wanted } => Self::TableLimit { step, wanted, limit: crate::limits::TABLE_ELEMENTS_MAX },
            };
        }
        let Some(trap) = error.downcast_ref::<Trap>() else {
            return Self::sandbox(error);
        };
        match trap {
            Trap::OutOfFuel => Self::FuelExhausted {
                step,
                budget: match step {
                    Step::Start | Step::Initialize => limits.start_fuel,
                    Step::Alloc | Step::Decide | Step::Validate | Step::Describe => limits.call_fuel,
                },
            },
            Trap::Interrupt => Self::DeadlineExceeded { step, budget: limits.deadline },
            Trap::StackOverflow => Self::StackOverflow { step, limit: limits.stack },
            other => Self::Trap { step, kind: TrapKind::of(*other), functions: functions(error) },
        }
    }

    pub(crate) fn sandbox(error: &wasmtime::Error) -> Self {
        Self::Sandbox { problem: text::cleaned(format!("{error:#}"), 512) }
    }
}

/// The names of the functions that a trapped guest was in.
fn functions(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    frames
        .iter()
        .take(BACKTRACE_FRAMES_MAX)
        .filter_map(|frame| frame.func_name())
        .map(|name| text::cleaned(readable(name), FUNCTION_NAME_MAX))
        .collect()
}

/// A Rust symbol without its hash, in the usual notation; other names as they are.
fn readable(symbol: &str) -> String {
    // `_ZN` then pairs of a length and so many bytes, then `E`; the last pair is the hash.
    let mut rest = match symbol.strip_prefix("_ZN") {
        Some(rest) => rest,
        None => return symbol.to_owned(),
    };
    let mut parts = Vec::new();
    while let Some(digits) = rest.find(|c: char| !c.is_ascii_digit()).filter(|&n| n > 0) {
        let Some(part) = rest[..digits].parse().ok().and_then(|len: usize| rest.get(digits..digits.checked_add(len)?))
        else {
            return symbol.to_owned();
        };
        parts.push(part);
        rest = &rest[digits + part.len()..];
    }
    parts.pop();
    if parts.is_empty() { symbol.to_owned() } else { parts.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_list() {
        let source = include_str!("fault.rs");
        let (_, function) = source.split_once("pub fn reason(&self)").expect("it is here");
        let (function, _) = function.split_once("\n    }\n").expect("it ends");
        let said: Vec<&str> = function.split('"').skip(1).step_by(2).collect();
        assert_eq!(said, Fault::REASONS);
    }

    #[test]
    fn rust_symbols_are_readable() {
        for (symbol, name) in [
            (
                "_ZN20konductor_policy_sdk4glue11decide_json17h681e551cf0dad7d5E",
                "konductor_policy_sdk::glue::decide_json",
            ),
            ("konductor_decide", "konductor_decide"),
            ("_ZN99999999999999999999999x", "_ZN99999999999999999999999x"),
            ("_ZN5abcE", "_ZN5abcE"),
            ("_ZN", "_ZN"),
        ] {
            assert_eq!(readable(symbol), name);
        }
    }
}
