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

pub(super) const SIMULATE_HELP: &str = concat!(
    module_help!(),
    "\nA scenario has a lease, and actors that come, work, renew, crash, leave or ignore what they are asked:\n\n  lease: {ttl: 30s}\n  until: 5m\n  actors:\n  - {holder: web-1, crash: 20s}\n  - {holder: web-2, at: 5s, work: 45s}\n  expect:\n    holders: [web-1, web-2]\n\nWith expect it is a test: exit code 1 when it is not so. The format: policies/README.md.\n\nExamples:\n  koncli policy simulate crash.yaml\n  koncli policy simulate --policy policy.wasm crash.yaml --svg crash.svg --draw"
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

/// `koncli policy simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The scenario, or - for stdin
    pub scenario: PathBuf,
    /// The policy that decides
    #[arg(long, value_name = "MODULE", default_value = "default")]
    pub policy: String,
    /// Draw it into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Draw it on the terminal instead of listing what happened
    #[arg(long)]
    pub draw: bool,
}
