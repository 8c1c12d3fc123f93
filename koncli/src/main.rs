//! The binary: reads what was typed, runs it, and turns the ending into an exit code.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::process::ExitCode;

use koncli::{args, commands, completion};

fn main() -> ExitCode {
    if completion::answered() {
        return ExitCode::SUCCESS;
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(usage_code(error.exit_code(), std::env::args()));
        }
    };
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

/// 2 for what is not understood; 125 where it was to be `lease run`, because 2 may be the command's own status.
fn usage_code(code: i32, args: impl Iterator<Item = String>) -> u8 {
    let words: Vec<String> = args.skip(1).take_while(|word| word != "--").collect();
    let runs = words.windows(2).any(|pair| matches!(pair, [lease, run] if lease == "lease" && run == "run"));
    match (code, runs) {
        (2, true) => 125,
        (code, _) => u8::try_from(code).unwrap_or(2),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_usage_error_of_run_is_not_the_commands_status() {
        for (line, code, expected) in [
            ("koncli lease run", 2, 125),
            ("koncli -n x lease run a --ttl y -- true", 2, 125),
            ("koncli lease run --help", 0, 0),
            ("koncli lease acquire", 2, 2),
            ("koncli lease acquire -- lease run", 2, 2),
        ] {
            let words = line.split(' ').map(str::to_owned);
            assert_eq!(super::usage_code(code, words), expected, "{line}");
        }
    }
}
