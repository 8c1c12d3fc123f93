//! `make model`: checks every configuration and prints what it came to. `--small` checks those of the
//! tests; a name checks only the configuration of that name.

use std::process::ExitCode;

use konductor_model::{Outcome, check, configs};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let large = arguments.next_if(|argument| argument == "--small").is_none();
    let only: Option<String> = arguments.next();
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let (mut runs, mut states, mut violations) = (0, 0, 0);
    println!("{:<28} {:>12} {:>12} {:>6} {:>8}", "configuration", "states", "unique", "depth", "seconds");
    for config in configs(large).into_iter().filter(|config| wanted(config.name)) {
        let outcome = check(config);
        tell(&outcome);
        runs += 1;
        states += outcome.unique;
        violations += outcome.violations.len();
    }
    if runs == 0 {
        eprintln!("konductor-model: no configuration is called {:?}", only.unwrap_or_default());
        return ExitCode::FAILURE;
    }
    println!("model: {runs} configurations, {states} states, {violations} violations");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(outcome: &Outcome) {
    let Outcome { name, states, unique, depth, seconds, violations } = outcome;
    println!("{name:<28} {states:>12} {unique:>12} {depth:>6} {seconds:>8.1}");
    for (property, trace) in violations {
        println!("\nviolated: {property}\n{trace}");
    }
}
