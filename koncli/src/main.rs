//! The binary: reads what was typed, runs it, and turns the ending into an exit code.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::process::ExitCode;

use clap::Parser as _;
use koncli::{args::Cli, commands};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread: a command is a handful of small requests, and starting more threads costs more than it brings.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("koncli: cannot start: {error}");
            return ExitCode::from(5);
        }
    };
    let code = runtime.block_on(commands::run(cli));
    // Watches that are still open end with the process; nothing waits for them.
    runtime.shutdown_background();
    ExitCode::from(code)
}
