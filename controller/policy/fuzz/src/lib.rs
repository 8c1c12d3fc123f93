//! Fuzz targets of the policy sandbox.
//!
//! Three doors stand open to strangers, and each has a [`Target`]:
//!
//! - `answer`: what a guest has written, through the decoder and the guard.
//! - `module`: what somebody has uploaded, through every check, the compiler and a call.
//! - `input`: what users write into leases, requests and params, as a policy is told it.
//!
//! A target is a function of bytes that panics when something is wrong. Bytes choose what happens, so
//! the same bytes do it again. Three drive them: tests with a fixed seed and a fixed count (in `make
//! test`), libFuzzer by coverage (`make fuzz`), and the program `konductor-fuzz`, which repeats one
//! input or, without libFuzzer, goes through seeds.

mod answer;
mod failure;
mod figures;
mod input;
mod module;
mod mutate;
mod questions;
mod seeds;

use std::fmt;

pub use failure::{FAILURES, guarded};
pub use figures::{Figures, Mappings};
pub use module::host;
pub use seeds::{CASE_MAX, bytes};

/// Counts what is allocated, so that a target can say that it was too much. A program or a test that
/// runs targets has to make it its global allocator; elsewhere the count stays at zero.
pub use peak_alloc::PeakAlloc;

/// One door that is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A guest's answer.
    Answer,
    /// An uploaded module.
    Module,
    /// A question and params.
    Input,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Answer, Self::Module, Self::Input];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Module => "module",
            Self::Input => "input",
        }
    }

    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Does what these bytes say. Returns how it ended, in a word or two, for the figures.
    ///
    /// # Panics
    /// When what must hold does not.
    #[must_use]
    pub fn run(self, bytes: &[u8]) -> String {
        match self {
            Self::Answer => answer::run(bytes),
            Self::Module => module::run(bytes),
            Self::Input => input::run(bytes),
        }
    }

    /// Goes through so many cases of a seed. Every case is the same for the same seed, everywhere.
    ///
    /// # Panics
    /// When what must hold does not; the bytes that did it are in a file then, and the command that
    /// repeats it was printed.
    pub fn sweep(self, seed: u64, cases: u64, figures: &mut Figures) {
        for case in 0..cases {
            let bytes = seeds::bytes(self, seed, case);
            figures.count(&guarded(self, &bytes));
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
