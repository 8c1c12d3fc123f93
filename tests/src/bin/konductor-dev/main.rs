//! A cluster of one's own for development: `make up`, `make status`, `make down`.
//!
//! etcd, kube-apiserver, kube-controller-manager and the controller of this checkout run in the background; everything
//! that they write is in `.konductor/` of the repository.

mod cluster;
mod daemon;
mod demo;

use std::process::ExitCode;

use anyhow::Result;

use cluster::Cluster;

const USAGE: &str = "usage: konductor-dev up | down | status

  up      start what does not run yet, install, show one hand-over; a second time: say what runs
  down    stop everything and delete .konductor/
  status  say what runs; exit status 1 if something does not";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["up"] => up().await,
        ["down"] => Cluster::open().and_then(|mut cluster| cluster.down()),
        ["status"] => status().await,
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("\nkonductor-dev: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn up() -> Result<ExitCode> {
    let mut cluster = Cluster::open()?;
    cluster.up().await?;
    if !cluster.shown().exists() {
        demo::show(&cluster).await?;
        std::fs::write(cluster.shown(), "")?;
    }
    cluster.say_what_next();
    Ok(ExitCode::SUCCESS)
}

async fn status() -> Result<ExitCode> {
    let cluster = Cluster::open()?;
    Ok(if cluster.status().await { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
