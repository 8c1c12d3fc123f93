//! Flags in, exit code out.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::process::ExitCode;

use clap::Parser as _;
use konductor_controller::{
    args::{Args, LogFormat},
    journal,
    run::run,
};
use konductor_policy::compile;
use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::try_new(&args.log);
    let Ok(filter) = filter else {
        eprintln!("konductor-controller: --log {:?} is not a log filter; write info, debug, or module=level", args.log);
        return ExitCode::from(2);
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => logs.json().init(),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("konductor-controller: cannot start threads: {error}");
            return ExitCode::FAILURE;
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
