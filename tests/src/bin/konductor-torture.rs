//! `make torture`: random faults on real processes for some minutes, and what came of it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use konductor_tests::{ControlPlane, checker::Violations, torture::Torture};

/// So many workers keep two cores busy, most of it with starting processes.
const WORKERS: usize = 6;
/// A run that nobody bounds otherwise.
const MINUTES: u64 = 5;
/// More than a day: etcd's history, which is never compacted here, would reach its limit of 2 GiB.
const MINUTES_MOST: u64 = 24 * 60;

fn number(name: &str, default: u64, most: u64) -> Result<u64, String> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(format!("{name} is \"{text}\"; it must be a number up to {most}")),
        },
        _ => Ok(default),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (minutes, seed) = match (number("MINUTES", MINUTES, MINUTES_MOST), number("SEED", random.as_secs(), u64::MAX)) {
        (Ok(minutes), Ok(seed)) => (minutes, seed),
        (minutes, seed) => {
            for problem in [minutes.err(), seed.err()].into_iter().flatten() {
                eprintln!("{problem}");
            }
            return ExitCode::from(2);
        }
    };
    let mutant = match std::env::var("MUTANT").ok().filter(|name| !name.is_empty()).map(|name| name.parse()) {
        None => None,
        Some(Ok(mutant)) => Some(mutant),
        Some(Err(problem)) => {
            let problem: String = problem;
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    println!("torture: seed {seed}, {minutes} min; SEED={seed} gives the same faults in the same order");
    let plane = ControlPlane::installed().await;
    let mut torture = Torture::new(&plane, seed, WORKERS).await;
    if let Some(mutant) = mutant {
        torture.breaks(mutant).await;
    }
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < until {
        let fault = torture.any();
        let begun = Instant::now();
        torture.suffers(fault).await;
        println!("{fault:?}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    let outcome = torture.ends().await;
    for (operation, count) in &outcome.operations {
        println!("{operation}: {count}");
    }
    println!("holds: {:?}; not judged: {:?}", outcome.report.figures.endings, outcome.report.figures.unjudged);
    eprint!("{}", Violations(outcome.report.violations.clone()));
    outcome.wrong_accesses.iter().for_each(|wrong| eprintln!("{wrong}"));
    println!("torture: seed {seed}, {minutes} min, {outcome}");
    ExitCode::from(u8::from(outcome.violations() > 0))
}
