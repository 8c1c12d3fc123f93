//! `konductor-fuzz`: repeats an input, or goes through seeds without libFuzzer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use konductor_policy_fuzz::{Figures, PeakAlloc, Target, bytes, guarded};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const USAGE: &str = "konductor-fuzz repeat TARGET FILE|DIRECTORY…     runs these inputs, and says how they ended
konductor-fuzz sweep TARGET SEED SECONDS          makes inputs from a seed until the time is over
konductor-fuzz make TARGET SEED COUNT DIRECTORY   writes inputs of a seed to files, for a corpus to begin with

TARGET is answer, module or input; SEED a number.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("konductor-fuzz: {problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Result<(), String> {
    match args {
        ["repeat", target, paths @ ..] if !paths.is_empty() => {
            let target = named(target)?;
            let mut figures = Figures::new(target);
            for path in inputs(paths)? {
                let bytes = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                figures.count(&guarded(target, &bytes));
            }
            println!("{figures}");
        }
        ["sweep", target, seed, seconds] => {
            let (target, seed) = (named(target)?, number(seed, "SEED")?);
            let most = Duration::from_secs(number(seconds, "SECONDS")?);
            let (begun, mut figures) = (Instant::now(), Figures::new(target));
            while begun.elapsed() < most {
                let bytes = bytes(target, seed, figures.cases());
                figures.count(&guarded(target, &bytes));
            }
            println!("{figures}, seed {seed}, {} s", begun.elapsed().as_secs());
        }
        ["make", target, seed, count, directory] => {
            let (target, seed) = (named(target)?, number(seed, "SEED")?);
            let directory = Path::new(directory);
            let write = |case: u64| {
                fs::create_dir_all(directory)?;
                fs::write(directory.join(format!("seed-{seed}-{case}")), bytes(target, seed, case))
            };
            for case in 0..number(count, "COUNT")? {
                write(case).map_err(|error| format!("cannot write to {}: {error}", directory.display()))?;
            }
        }
        _ => return Err("that is not how it is called".to_owned()),
    }
    Ok(())
}

fn named(name: &str) -> Result<Target, String> {
    Target::named(name).ok_or_else(|| format!("there is no target {name}"))
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{what} is {text:?}, which is no number"))
}

/// The files that are named, and those in directories that are.
fn inputs(paths: &[&str]) -> Result<Vec<PathBuf>, String> {
    let mut inputs = Vec::new();
    for path in paths.iter().map(Path::new) {
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(|error| format!("cannot list {}: {error}", path.display()))?;
            inputs.extend(entries.flatten().map(|entry| entry.path()).filter(|entry| entry.is_file()));
        } else {
            inputs.push(path.to_owned());
        }
    }
    inputs.sort();
    Ok(inputs)
}
