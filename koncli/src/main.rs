//! The binary: reads what was typed, runs it, and turns the ending into an exit code.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::{ffi::OsString, process::ExitCode};

use koncli::{args, commands, completion};

fn main() -> ExitCode {
    if completion::answered() {
        return ExitCode::SUCCESS;
    }
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(usage_code(error.exit_code(), std::env::args_os().map(lossy)));
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
    let words = commands(&args::command(), args.skip(1).take_while(|word| word != "--"));
    let runs = matches!(&words[..], [lease, run, ..] if lease == "lease" && run == "run");
    match (code, runs) {
        (2, true) => 125,
        (code, _) => u8::try_from(code).unwrap_or(2),
    }
}

/// What is not UTF-8 is no command.
fn lossy(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// The words that are neither a flag that every command takes nor its value.
fn commands(program: &clap::Command, words: impl Iterator<Item = String>) -> Vec<String> {
    let valued = || program.get_arguments().filter(|flag| flag.get_action().takes_values());
    let takes_next = |word: &str| match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => valued().any(|flag| flag.get_long() == Some(long)),
        // The first short flag that takes a value takes the rest of the word, or the next one.
        (None, Some(shorts)) => {
            let at = shorts.find(|short| valued().any(|flag| flag.get_short() == Some(short)));
            at.is_some_and(|at| shorts[at..].chars().count() == 1)
        }
        (None, None) => false,
    };
    let mut found = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        if takes_next(&word) {
            words.next();
        } else if !word.starts_with('-') {
            found.push(word);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_usage_error_of_run_is_not_the_commands_status() {
        for (line, code, expected) in [
            ("koncli lease run", 2, 125),
            ("koncli -n x lease run a --ttl y -- true", 2, 125),
            ("koncli lease -n prod run x --bogus", 2, 125),
            ("koncli lease -vn prod run x --bogus", 2, 125),
            ("koncli lease -nprod --context=c -q run x --bogus", 2, 125),
            ("koncli lease --kubeconfig run list --bogus", 2, 2),
            ("koncli lease status run lease run --bogus", 2, 2),
            ("koncli lease run --help", 0, 0),
            ("koncli lease acquire", 2, 2),
            ("koncli lease acquire -- lease run", 2, 2),
        ] {
            let words = line.split(' ').map(str::to_owned);
            assert_eq!(super::usage_code(code, words), expected, "{line}");
        }
    }
}
