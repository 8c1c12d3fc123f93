//! Hostile policies against the real controller: a table of modules, and what each of them must come to.
//!
//! `tests/hostile/cases.yaml` is the table. [`table()`] reads it, [`Case::module`] makes the bytes, and [`Siege::lay`]
//! uploads each of them, names it in a Lease, asks for that Lease, and says what it came to. Meanwhile a Lease of an
//! honest policy is acquired and released all the time.

mod modules;
mod siege;

use std::fmt;

use konductor_crds::v1::reasons;
use serde::Deserialize;
use serde_json::Value;

pub use modules::slow_to_compile;
pub use siege::{Aftermath, Report, Siege, memory};

use crate::policies;

/// The holder whose name wakes a module that sleeps. Eight bytes, so that a module finds it with one comparison.
pub const SABOTEUR: &str = "saboteur";

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What is tried.
    pub cases: Vec<Case>,
    /// The rows of the threat model that no case is about, and why.
    pub elsewhere: Vec<Elsewhere>,
}

/// Rows of the threat model that no case of the table is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Their numbers.
    pub rows: Vec<u8>,
    /// Where they are tested, or why they do not fit this design.
    pub why: String,
}

/// One module, and what it must come to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// Its name: that of the ConfigMap and of the Lease.
    pub case: String,
    /// What it stands for. A module that is a file says so in its first line.
    #[serde(default)]
    pub stands_for: String,
    /// The rows of the threat model that it is about.
    pub rows: Vec<u8>,
    /// Where the bytes come from.
    pub module: Source,
    /// Whether it is uploaded as `policy.wasm.gz`.
    #[serde(default)]
    pub gzip: bool,
    /// `spec.policy.params` of the Lease.
    #[serde(default)]
    pub params: Value,
    /// How many more wait for the Lease while it is held: questions about a hold.
    #[serde(default)]
    pub more: usize,
    /// Whether it changes nothing, ever, which is a policy's right.
    #[serde(default)]
    pub idle: bool,
    /// When it is caught.
    pub caught: Caught,
    /// Words that the condition's message, or what the lease says of the decision, has in it.
    pub says: String,
}

/// Where a case's bytes come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A file of the corpus, as it is: in `controller/policy/testdata` or `tests/hostile`.
    Wat(String),
    /// The same, honest until it sees the holder [`SABOTEUR`]: what passes every look before it is in use.
    Sleeper(String),
    /// What it answers where a text is in its input; see [`policies::rules`].
    Rules(Vec<(String, String)>),
    /// A generator: what would be large in a repository, or is no WebAssembly.
    Made(String),
}

/// When a case is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Caught {
    /// By looking at it.
    Upload,
    /// By the compiler's limits.
    Compile,
    /// When it is started, or asked the first questions, before any Lease is decided by it.
    Probe,
    /// While it decides.
    Decide,
    /// By the guard, which looks at its decision.
    Guard,
    /// It is not: it cannot do any harm, and is served.
    Never,
}

impl Caught {
    /// The status and the reason of the condition PolicyReady.
    #[must_use]
    pub fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::Upload | Self::Compile | Self::Probe => ("False", reasons::POLICY_REJECTED),
            Self::Decide => ("False", reasons::POLICY_FAULT),
            Self::Guard => ("False", reasons::POLICY_VETOED),
            Self::Never => ("True", reasons::POLICY_ACTIVE),
        }
    }

    /// Whether it gets into use.
    #[must_use]
    pub fn is_used(self) -> bool {
        matches!(self, Self::Decide | Self::Guard | Self::Never)
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Upload => "upload",
            Self::Compile => "compile",
            Self::Probe => "probe",
            Self::Decide => "decide",
            Self::Guard => "guard",
            Self::Never => "never",
        })
    }
}

/// Reads the table.
///
/// # Panics
/// If it is not as it should be: two cases of a name, one that does not say what it stands for.
#[must_use]
pub fn table() -> Table {
    // By way of JSON, in which a variant is a member and not a tag of YAML.
    let value: Value = serde_yaml::from_str(&crate::repo::text("tests/hostile/cases.yaml"))
        .unwrap_or_else(|problem| panic!("tests/hostile/cases.yaml: {problem}"));
    let table: Table = serde_json::from_value(value).unwrap_or_else(|e| panic!("tests/hostile/cases.yaml: {e}"));
    let mut names = std::collections::BTreeSet::new();
    for case in &table.cases {
        assert!(names.insert(&case.case), "two cases are called {}", case.case);
        assert!(!case.about().is_empty(), "{} does not say what it stands for", case.case);
    }
    table
}

impl Case {
    /// What it stands for, in its own words or those of its file.
    #[must_use]
    pub fn about(&self) -> String {
        match &self.module {
            Source::Wat(name) | Source::Sleeper(name) if self.stands_for.is_empty() => modules::about(name),
            _ => self.stands_for.clone(),
        }
    }

    /// The key in the ConfigMap and the bytes.
    ///
    /// # Panics
    /// If its file or its generator is missing.
    #[must_use]
    pub fn module(&self) -> (&'static str, Vec<u8>) {
        let bytes = match &self.module {
            Source::Wat(name) => modules::wat(name),
            Source::Sleeper(name) => modules::sleeper(name),
            Source::Rules(rules) => {
                let rules: Vec<_> = rules.iter().map(|(text, answer)| (text.as_str(), answer.as_str())).collect();
                policies::rules(&rules)
            }
            Source::Made(name) => modules::made(name),
        };
        if self.gzip { ("policy.wasm.gz", bytes) } else { ("policy.wasm", bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_threat_model_is_in_the_table_once_or_more() {
        let table = table();
        let tried = table.cases.iter().flat_map(|case| &case.rows);
        let all: std::collections::BTreeSet<u8> =
            tried.chain(table.elsewhere.iter().flat_map(|e| &e.rows)).copied().collect();
        let missing: Vec<u8> = (1..=47).filter(|row| !all.contains(row)).collect();
        assert_eq!(missing, [0; 0], "rows that nobody has thought of");
        assert!(table.elsewhere.iter().all(|elsewhere| elsewhere.why.len() > 20), "say why");
    }

    #[test]
    fn every_case_has_bytes_of_its_own_and_each_file_a_case() {
        let table = table();
        let mut seen = std::collections::HashMap::new();
        for case in &table.cases {
            let (_, bytes) = case.module();
            assert!(bytes.len() < 1 << 20, "{} does not fit into a ConfigMap: {} bytes", case.case, bytes.len());
            if let Some(other) = seen.insert((bytes, case.params.to_string()), &case.case) {
                panic!("{} and {other} are the same", case.case);
            }
        }
        let used = |file: &str| {
            table
                .cases
                .iter()
                .any(|case| matches!(&case.module, Source::Wat(name) | Source::Sleeper(name) if name == file))
        };
        // Each is about one question of the probe; on a real controller tests/it/policy_upload.rs has the like.
        let is_the_probes = |file: &str| file.starts_with("probe_");
        let unused: Vec<String> =
            modules::files().into_iter().filter(|file| !used(file) && !is_the_probes(file)).collect();
        assert_eq!(unused, [""; 0], "files that no case uses");
    }
}
