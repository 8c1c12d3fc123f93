//! The commands on a policy's module that need no cluster.

use std::path::PathBuf;

use clap::Args;

/// How a module is named.
macro_rules! module_help {
    () => {
        "MODULE is a .wasm or .wasm.gz file, or the word default for the built-in policy."
    };
}

pub(super) const INSPECT_HELP: &str = concat!(
    module_help!(),
    "\nEvery reason for a refusal is told, not only the first. Exit code 1 when it would be refused.\n\nExamples:\n  koncli policy inspect policy.wasm\n  koncli policy inspect default -o json"
);

pub(super) const TEST_HELP: &str = concat!(
    module_help!(),
    "\nA fixture file is a list of cases in YAML; what a case leaves out is filled in, and each decision is made twice, in two fresh instances:\n\n  - name: the highest priority first\n    input:\n      requests: [{holder: a, priority: 1}, {holder: b, priority: 5, arrived: -5m}]\n    expect:\n      grant: {request: 1}\n\nExit code 1 when a case fails. The format: policies/README.md.\n\nExamples:\n  koncli policy test policy.wasm fixtures/\n  koncli policy test default one.yaml two.yaml -o json"
);

/// `koncli policy inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The module
    pub module: String,
}

/// `koncli policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The module
    pub module: String,
    /// Fixture files, or directories of them (their *.yaml)
    #[arg(required = true, value_name = "FIXTURE")]
    pub fixtures: Vec<PathBuf>,
}
