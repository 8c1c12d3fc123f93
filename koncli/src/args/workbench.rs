//! The commands on a policy's module that need no cluster.

use std::path::PathBuf;

use clap::Args;

/// How a module is named.
macro_rules! module_help {
    () => {
        "MODULE is a .wasm or .wasm.gz file, or the word default for the built-in policy."
    };
}

pub(super) const NEW_HELP: &str = "It makes a directory of that name with a policy that builds to a module without imports, and passes its own fixtures and scenario. The README in it says what it needs.\n\nExamples:\n  koncli policy new night-shift --lang rust && cd night-shift && make test\n  koncli policy new night-shift --lang zig --dir policies/night-shift";

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

pub(super) const EVAL_HELP: &str = concat!(
    module_help!(),
    "\nINPUT is an input of the ABI, or a short one in YAML whose rest is filled in, as in fixtures. The decision goes to stdout; what it does in words, fuel and time to stderr. Exit code 1 when a host would not obey it.\n\nExamples:\n  koncli policy eval default input.json\n  echo 'requests: [{holder: a}, {holder: b, priority: 5}]' | koncli policy eval default -"
);

pub(super) const BENCH_HELP: &str = concat!(
    module_help!(),
    "\nEvery decision is made in a fresh sandbox. Fuel is the same in every run and on every machine: check it in CI with --max-fuel. Exit code 1 when a decision fails, but for a fixture that expects a fault.\n\nExamples:\n  koncli policy bench default --requests 100\n  koncli policy bench policy.wasm --fixtures fixtures/ --max-fuel 200000"
);

pub(super) const REPLAY_HELP: &str = "A journal has one decision a line, with the exact bytes of question and answer. The module of each is found by its digest: name it with --module; the built-in policy is always known. Exit code 1 when a decision is not reproduced. One whose call was stopped by its deadline, or by a failure of the machine, says nothing of the module and is counted apart.\n\nWith --with every decision is made again by another module, and what would have been otherwise is told: other winners, extra preemptions, denials.\n\nExamples:\n  koncli policy replay journal.jsonl --module policy.wasm\n  koncli policy replay journal.jsonl --module policy.wasm --with better.wasm --limit 5";

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
    /// Fixture files, or directories of them (their *.yaml and *.yml)
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
    /// Write every decision into this file, for `koncli policy replay`
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
}

/// `koncli policy eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The module
    pub module: String,
    /// The input, or - for stdin [default: nobody holds and nobody waits]
    pub input: Option<PathBuf>,
    /// Params in place of the input's
    #[arg(long, value_name = "JSON", value_parser = super::json_object)]
    pub params: Option<super::JsonObject>,
    /// Give the input to the policy byte for byte, with nothing filled in
    #[arg(long, conflicts_with = "params", requires = "input")]
    pub exact: bool,
    /// Write the policy's answer byte for byte
    #[arg(long)]
    pub raw: bool,
}

/// `koncli policy bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The module
    pub module: String,
    /// An input, as for eval
    #[arg(conflicts_with_all = ["requests", "fixtures"])]
    pub input: Option<PathBuf>,
    /// A free lease for which so many wait, at most 512
    #[arg(long, value_name = "NUMBER", default_value_t = 10, conflicts_with = "fixtures", value_parser = clap::value_parser!(u16).range(0..=512))]
    pub requests: u16,
    /// The inputs of these fixtures, each on its own; a file or a directory
    #[arg(long, value_name = "FIXTURE")]
    pub fixtures: Option<PathBuf>,
    /// How many decisions are timed
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// Exit with 1 when a decision takes more fuel, or none was measured
    #[arg(long, value_name = "FUEL")]
    pub max_fuel: Option<u64>,
}

/// `koncli policy replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The journal, or - for stdin
    pub journal: PathBuf,
    /// A module that made decisions of the journal; may be repeated
    #[arg(long = "module", value_name = "MODULE")]
    pub modules: Vec<String>,
    /// A module that shall make them again
    #[arg(long, value_name = "MODULE")]
    pub with: Option<String>,
    /// How many differing decisions are listed; all are counted
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,
}

/// `koncli policy new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Name of the policy
    pub name: String,
    /// In which language: rust, assemblyscript, zig or c
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: konductor_workbench::scaffold::Language,
    /// Where [default: a directory of the policy's name]
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
    /// For Rust: take the SDK from this copy of policies/sdk [default: $KONDUCTOR_POLICY_SDK, else the project's repository]
    #[arg(long, value_name = "DIRECTORY")]
    pub sdk_path: Option<PathBuf>,
}
