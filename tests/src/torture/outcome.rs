//! What came of it.

use std::{collections::BTreeMap, fmt};

use super::Fault;
use crate::checker::{self, Report};

/// What has happened, and what of it must never happen.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, by what and with which answer.
    pub operations: BTreeMap<String, usize>,
    /// What the history shows.
    pub report: Report,
    /// What is wrong with the accesses to the resource.
    pub wrong_accesses: Vec<String>,
    /// How often an access was refused for its old token.
    pub refused: usize,
    /// The faults.
    pub faults: BTreeMap<Fault, usize>,
}

impl Outcome {
    /// How much is wrong.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.report.violations.len() + self.wrong_accesses.len()
    }

    /// Fails if anything is wrong.
    ///
    /// # Panics
    /// With everything that is.
    pub fn is_fine(&self) {
        let violations = checker::Violations(self.report.violations.clone());
        assert!(self.violations() == 0, "{violations}{}", self.wrong_accesses.join("\n"));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: usize = self.operations.values().sum();
        let faults: usize = self.faults.values().sum();
        let list: Vec<String> =
            self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.as_str())).collect();
        write!(
            f,
            "{} operations, {} grants, {} old tokens refused, {faults} faults ({}), {} violations",
            grouped(operations),
            grouped(self.report.figures.grants),
            grouped(self.refused),
            list.join(", "),
            self.violations()
        )
    }
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345, 1_234_567].map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
