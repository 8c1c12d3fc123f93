//! Checks every configuration and prints what it came to.

use std::process::ExitCode;

use konductor_model::{check, configs};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let large = arguments.next_if(|a| a == "--small").is_none();
    let only: Option<String> = arguments.next();
    let (mut runs, mut states, mut violations) = (0, 0, 0);
    println!("{:<28} {:>12} {:>12} {:>6} {:>8}", "configuration", "states", "unique", "depth", "seconds");
    for config in configs(large).into_iter().filter(|c| only.as_ref().is_none_or(|only| c.name == only)) {
        let outcome = check(config);
        println!(
            "{:<28} {:>12} {:>12} {:>6} {:>8.1}",
            outcome.name, outcome.states, outcome.unique, outcome.depth, outcome.seconds
        );
        for (property, trace) in &outcome.violations {
            println!("\nviolated: {property}\n{trace}");
        }
        runs += 1;
        states += outcome.unique;
        violations += outcome.violations.len();
    }
    println!("model: {runs} configurations, {states} states, {violations} violations");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
