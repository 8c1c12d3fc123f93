//! Writes what of `docs/` is generated: `make generate` the reference, `make pictures` the pictures.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use konductor_tests::{ControlPlane, Controller, ControllerOptions, binary, book, repo};

#[tokio::main]
async fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    match run(&what).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("konductor-book: cannot write {what:?}: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(what: &str) -> Result<()> {
    match what {
        "reference" => book::reference()?.iter().try_for_each(|(path, text)| write(path, text)),
        "pictures" => {
            for (scenario, picture) in book::SCENARIOS {
                write(picture, &book::played(&binary("koncli")?, Path::new(scenario))?)?;
            }
            ensure!(
                std::process::Command::new("script").arg("--version").output().is_ok(),
                "there is no script(1), which is a terminal for a command; install bsdutils"
            );
            let plane = ControlPlane::installed().await;
            let _controller = Controller::start(&plane, ControllerOptions::default()).await;
            book::record(&plane).await.iter().try_for_each(|(path, text)| write(path, text))
        }
        _ => bail!("say reference or pictures"),
    }
}

fn write(path: &str, text: &str) -> Result<()> {
    let whole = repo::path(path);
    let directory = whole.parent().context("a file is in a directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::write(&whole, text).with_context(|| format!("cannot write {path}"))?;
    println!("wrote {path}");
    Ok(())
}
