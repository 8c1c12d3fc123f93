//! What came of many cases, in one line.

use std::{collections::BTreeMap, fmt, fs};

use crate::Target;

/// How many cases ended how.
#[derive(Debug)]
pub struct Figures {
    target: Target,
    outcomes: BTreeMap<String, u64>,
}

impl Figures {
    /// None yet.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, outcomes: BTreeMap::new() }
    }

    /// One more case.
    pub fn count(&mut self, outcome: &str) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

    /// How many cases there were.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// How many of them ended in a way whose name begins like this.
    #[must_use]
    pub fn ended(&self, how: &str) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| outcome.starts_with(how)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} cases", self.target, self.cases())?;
        let mut sorted: Vec<_> = self.outcomes.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (index, (outcome, count)) in sorted.into_iter().enumerate() {
            write!(f, "{} {outcome} {count}", if index == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// How many mappings this process has. Machine code and memories of guests are mappings, so one that
/// is never given back shows here, which the allocator's count does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mappings(pub usize);

impl Mappings {
    /// As it is now.
    ///
    /// # Panics
    /// Where there is no procfs.
    #[must_use]
    pub fn now() -> Self {
        Self(fs::read_to_string("/proc/self/maps").expect("/proc/self/maps, as Linux has it").lines().count())
    }
}
