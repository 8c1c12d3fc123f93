//! Flags in, exit code out.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use konductor_controller::{args::Args, journal, run::run, telemetry};
use konductor_policy::compile;
use tokio::runtime::Runtime;

/// How long the end waits for threads of what blocks, after everything else has ended: a policy that is being compiled or
/// asked. Nobody waits for it any more, and Kubernetes kills what takes 30 s.
const THREADS_MOST: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // The controller starts itself anew to compile a policy's module: see konductor_policy::compile.
    // Before anything else, and not a flag: no person needs it.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == compile::SUBCOMMAND) {
        return compile::child_main(words);
    }
    let args = Args::parse();
    if let Err(problem) = args.validate() {
        eprintln!("konductor-controller: {problem}");
        return ExitCode::from(2);
    }
    if let (true, Some(directory)) = (args.print_journal, &args.decision_journal) {
        return match journal::print(directory, &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("konductor-controller: cannot print the journal in {}: {error}", directory.display());
                ExitCode::FAILURE
            }
        };
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("konductor-controller: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = run_told(args, &runtime);
    runtime.shutdown_timeout(THREADS_MOST);
    code
}

/// Runs the controller, and tells of it as the flags say.
fn run_told(args: Args, runtime: &Runtime) -> ExitCode {
    // What is still to be sent is sent when this is dropped.
    let _telemetry = match telemetry::init(&args, runtime.handle()) {
        Ok(telemetry) => telemetry,
        Err(problem) => {
            eprintln!("konductor-controller: {problem}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the controller has failed");
            ExitCode::FAILURE
        }
    }
}
