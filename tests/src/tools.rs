//! The programs with which `deploy/` is tested: Helm, Prometheus and promtool.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{Cli, ControlPlane, Controller, Port, Process, get, repo, wait};

/// How long Prometheus may take to start: below a second when nothing else runs.
const START_MOST: Duration = Duration::from_secs(60);

/// Where a program is, as `tests/tools/assets` finds it or gets it: `helm`, `prometheus` or `promtool`.
///
/// # Panics
/// If it is nowhere; the script has said why on stderr.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|problem| panic!("{problem:#}"))
}

fn find(name: &str) -> Result<PathBuf> {
    let script = repo::path("tests/tools/assets");
    let output = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} ended with {}; see what it said above", script.display(), output.status);
    }
    let said = String::from_utf8(output.stdout).context("the paths are not UTF-8")?;
    let path = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Ok(PathBuf::from(path.with_context(|| format!("{} says nothing of {name}", script.display()))?))
}

/// Runs a program to its end with a text as its stdin, in the root of the repository: whether it ended well, and what
/// it said.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run(program: &Path, words: &[&str], stdin: &str) -> (bool, String) {
    let ran = || -> Result<(bool, String)> {
        let mut child = Command::new(program)
            .args(words)
            .current_dir(repo::root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Who does not read it ends before it is written.
        let _ = child.stdin.take().context("it has a stdin")?.write_all(stdin.as_bytes());
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.success(), text(output.stdout) + &text(output.stderr)))
    };
    ran().unwrap_or_else(|problem| panic!("cannot run {} {words:?}: {problem:#}", program.display()))
}

/// A series and its value now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// A Prometheus that scrapes controllers five times a second. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: Port,
}

impl Prometheus {
    /// Starts one with the rules in a file, and waits until it has scraped every controller.
    ///
    /// # Panics
    /// If it does not start, or a scrape fails.
    pub async fn start(plane: &ControlPlane, controllers: &[&Controller], rules: &Path) -> Self {
        let started = || -> Result<Self> {
            let port = Port::take()?;
            let targets: Vec<String> =
                controllers.iter().map(|controller| controller.url("").replace("http://", "")).collect();
            let config = serde_json::json!({
                "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
                "rule_files": [rules],
                "scrape_configs": [{"job_name": "konductor-controller", "static_configs": [
                    {"targets": targets, "labels": {"namespace": "konductor-system"}}]}],
            });
            let file = plane.file("prometheus", "prometheus.yaml")?;
            // JSON is YAML.
            std::fs::write(&file, config.to_string())?;
            let mut command = Command::new(find("prometheus")?);
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", plane.directory().join("prometheus/data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
                .current_dir(plane.directory());
            let log = plane.file("logs", "prometheus.log")?;
            Ok(Self { process: Process::start("prometheus", command, &log, None)?, port })
        };
        let prometheus = started().unwrap_or_else(|problem| panic!("no Prometheus: {problem:#}"));
        let scraped = wait::poll("Prometheus has scraped", START_MOST, async || {
            if let Some(exit) = prometheus.process.exit() {
                bail!("it ended with {}", exit.code);
            }
            Ok(match prometheus.query("up == 1").await {
                Ok(up) if up.len() == controllers.len() => Ok(()),
                Ok(up) => Err(format!("{up:?}")),
                Err(problem) => Err(problem),
            })
        });
        scraped.await.unwrap_or_else(|problem| panic!("{problem:#}"));
        prometheus
    }

    /// Asks for something of its API: `ask("query", &[("query", "up")])`.
    ///
    /// # Errors
    /// What it complains about.
    pub async fn ask(&self, what: &str, params: &[(&str, &str)]) -> Result<Value, String> {
        let params: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let url = format!("http://127.0.0.1:{}/api/v1/{what}?{}", self.port.number(), params.join("&"));
        let answer = get(&url).await.map_err(|problem| format!("{problem:#}"))?;
        let body: Value = serde_json::from_str(&answer.body).map_err(|_| answer.body.clone())?;
        if body["status"] == "success" { Ok(body["data"].clone()) } else { Err(answer.body) }
    }

    /// Evaluates a query now.
    ///
    /// # Errors
    /// What it complains about.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let data = self.ask("query", &[("query", query)]).await?;
        let samples = data["result"].as_array().ok_or_else(|| data.to_string())?;
        let sample = |sample: &Value| -> Option<Sample> {
            let labels = serde_json::from_value(sample["metric"].clone()).ok()?;
            Some(Sample { labels, value: sample["value"][1].as_str()?.parse().ok()? })
        };
        samples.iter().map(|one| sample(one).ok_or_else(|| one.to_string())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.tell(20);
        }
    }
}

impl ControlPlane {
    /// Helm as the administrator; the words are split at spaces.
    ///
    /// # Panics
    /// If there is no Helm.
    #[must_use]
    pub fn helm(&self, words: &str) -> Cli {
        Cli::new(self, &tool("helm"), &self.admin_kubeconfig()).words(words)
    }

    /// A bash script of the administrator's, with `helm` and `kubectl`, in a directory. No line of it may fail.
    ///
    /// # Panics
    /// If there is no Helm.
    #[must_use]
    pub fn script(&self, directory: &Path, text: &str) -> Cli {
        let text = format!("set -euo pipefail\ncd '{}'\n{text}", directory.display());
        let bash = Cli::new(self, Path::new("/bin/bash"), &self.admin_kubeconfig()).arg("-c").arg(text);
        bash.tool("helm", &tool("helm")).tool("kubectl", &self.servers().kubectl())
    }
}

/// A text as a part of a URL.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_survives_a_url() {
        assert_eq!(encoded("a_b{x=~\"é\"} + 1"), "a_b%7Bx%3D~%22%C3%A9%22%7D%20%2B%201");
    }
}
