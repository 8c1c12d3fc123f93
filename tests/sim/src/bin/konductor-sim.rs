//! `make sim`: plays seeds. `konductor-sim [--seeds N] [--from SEED] [--seed SEED] [--mutant NAME]`

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use konductor_sim::{Figures, Mutant, run};

const USAGE: &str = "konductor-sim [--seeds N] [--from SEED] [--seed SEED] [--mutant NAME]";

fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(options) => play(&options),
        Err(problem) => {
            eprintln!("cannot read the command line: {problem}\nusage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    seeds: u64,
    from: u64,
    one: bool,
    mutant: Option<Mutant>,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seeds: 4_000, from: 1, one: false, mutant: None };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{flag} needs a number from 0 up, not \"{value}\""));
        match flag.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--seed" => (options.from, options.seeds, options.one) = (number()?, 1, true),
            "--mutant" => {
                let mutant = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == value);
                options.mutant = Some(mutant.ok_or_else(|| format!("no mutant {value}; there are {:?}", Mutant::ALL))?);
            }
            _ => return Err(format!("no flag {flag}")),
        }
    }
    Ok(options)
}

/// Plays the seeds on every processor. One seed is told in full; of many, the first that fails.
fn play(options: &Options) -> ExitCode {
    let (next, played, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let (figures, began) = (Mutex::new(Figures::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= options.seeds || failed.lock().is_ok_and(|failed| failed.len() >= 10) {
                        return;
                    }
                    let report = run(options.from + n, options.mutant);
                    played.fetch_add(1, Ordering::Relaxed);
                    if let Ok(mut figures) = figures.lock() {
                        *figures += report.figures;
                    }
                    if (options.one || !report.violations.is_empty())
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(report);
                    }
                }
            });
        }
    });
    let mut told = failed.into_inner().unwrap_or_default();
    told.sort_by_key(|report| report.seed);
    if let Some(first) = told.first() {
        println!("{first}");
    }
    for report in told.iter().skip(1) {
        println!("seed {} too: {}", report.seed, report.violations.join("; "));
    }
    let violations: usize = told.iter().map(|report| report.violations.len()).sum();
    let (figures, played) = (figures.into_inner().unwrap_or_default(), played.into_inner());
    println!("{} in {:.1} s", figures.sentence(played, violations), began.elapsed().as_secs_f64());
    if violations > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
