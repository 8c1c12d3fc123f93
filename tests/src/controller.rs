//! The controller: the real binary with the rights that `deploy/` gives it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{ControlPlane, Exit, Port, Process, Signal, binary, eventually, get, wait};

const START_MOST: Duration = Duration::from_secs(60);
const STOP_MOST: Duration = Duration::from_secs(30);

/// What a controller is to be.
#[derive(Debug, Clone, Default)]
pub struct ControllerOptions {
    /// More flags.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// Its name in the leader election; made up if empty.
    pub identity: String,
}

impl ControllerOptions {
    /// With flags, split at spaces: `ControllerOptions::with("--max-hold 1h")`.
    #[must_use]
    pub fn with(flags: &str) -> Self {
        Self { args: flags.split_whitespace().map(str::to_owned).collect(), ..Self::default() }
    }

    /// With a name in the leader election.
    #[must_use]
    pub fn named(mut self, identity: &str) -> Self {
        identity.clone_into(&mut self.identity);
        self
    }

    /// With a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running controller. Dropping it kills it; if the test has failed, its log is shown.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    identity: String,
    port: Port,
}

impl Controller {
    /// Starts one as the service account of `deploy/` and waits until it says that it is ready.
    ///
    /// # Panics
    /// If the binary is missing, or does not get ready.
    pub async fn start(plane: &ControlPlane, options: ControllerOptions) -> Self {
        let controller = Self::start_unready(plane, options).await;
        controller.ready().await;
        controller
    }

    /// Starts one and does not wait: for a server that is down, or flags that are wrong.
    ///
    /// # Panics
    /// If the binary is missing.
    pub async fn start_unready(plane: &ControlPlane, options: ControllerOptions) -> Self {
        let kubeconfig = plane.kubeconfig_for_controller().await;
        let identity = match options.identity.as_str() {
            "" => format!("controller-{}", plane.number()),
            name => name.to_owned(),
        };
        let started = || -> Result<Self> {
            let port = Port::take()?;
            let mut command = plane.command(&binary("konductor-controller")?, &kubeconfig);
            command
                .arg(format!("--listen=127.0.0.1:{}", port.number()))
                .arg("--namespace=konductor-system")
                .arg(format!("--identity={identity}"))
                .args(&options.args)
                .envs(options.env.iter().map(|(name, value)| (name, value)));
            let log = plane.file("logs", &format!("{identity}.log"))?;
            let process = Process::start(&identity, command, &log, None)?;
            Ok(Self { process, identity: identity.clone(), port })
        };
        started().unwrap_or_else(|problem| panic!("no controller: {problem:#}"))
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// If it ends, or does not get ready within a minute.
    pub async fn ready(&self) {
        let url = self.url("/readyz");
        let ready = wait::poll(&format!("{} is ready", self.identity), START_MOST, async || {
            if let Some(exit) = self.process.exit() {
                bail!("it ended with {}", exit.code);
            }
            Ok(match get(&url).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.body)),
                Err(problem) => Err(format!("{problem:#}")),
            })
        })
        .await;
        ready.unwrap_or_else(|problem| panic!("the controller is not ready: {problem:#}"));
    }

    /// Its name in the leader election.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Asks it to stop with SIGTERM, and waits until it has.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn terminate(&self) -> Exit {
        self.process.signal(Signal::TERM);
        let ended = tokio::time::timeout(STOP_MOST, self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} did not stop within {STOP_MOST:?} of SIGTERM", self.identity))
    }

    /// Waits for it to end by itself: for flags that are wrong.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn ends(&self) -> Exit {
        let ended = tokio::time::timeout(STOP_MOST, self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} still runs after {STOP_MOST:?}", self.identity))
    }

    /// Sends it a signal, such as `STOP` to freeze it and `CONT` to let it go on.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has logged `text`.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn logs(&self, text: &str) {
        eventually(&format!("{} logs {text:?}", self.identity), async || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(format!("{} lines without it", log.lines().count())) }
        })
        .await;
    }

    /// The URL of one of its endpoints.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port.number())
    }

    /// Its metrics as they are now.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn metrics(&self) -> Metrics {
        let answer = get(&self.url("/metrics")).await.unwrap_or_else(|problem| panic!("no metrics: {problem:#}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        Metrics(answer.body)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.tell(80);
        }
    }
}

/// Metrics in the text format of Prometheus.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// The sum of the samples of a metric that have all these labels: `metrics.sum("konductor_grants_total", &[])`.
    /// `None` if there is no such sample, which is not the same as zero.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let samples: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let (labels, value) = match rest.strip_prefix('{') {
                    Some(rest) => rest.rsplit_once('}')?,
                    None => ("", rest.strip_prefix(' ')?),
                };
                if !wanted.iter().all(|label| labels.split(',').any(|own| own == label)) {
                    return None;
                }
                value.split_whitespace().next()?.parse().ok()
            })
            .collect();
        (!samples.is_empty()).then(|| samples.iter().sum())
    }

    /// Everything.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl ControlPlane {
    /// The kubeconfig of the service account that `deploy/` gives to the controller.
    ///
    /// # Panics
    /// If our manifests are not installed.
    pub(crate) async fn kubeconfig_for_controller(&self) -> std::path::PathBuf {
        // Asked for once: a controller can also be started while kube-apiserver is down.
        let known = self.directory().join("users/konductor-system.konductor-controller.kubeconfig");
        if known.exists() {
            return known;
        }
        self.kubeconfig_for_service_account("konductor-system", "konductor-controller").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_label() {
        let metrics = Metrics(
            "# HELP a_total x\na_total{how=\"x\",by=\"p\"} 2\na_total{how=\"y\",by=\"p\"} 3.5\na_total_more 7\nb 1\n"
                .into(),
        );
        assert_eq!(metrics.sum("a_total", &[]), Some(5.5));
        assert_eq!(metrics.sum("a_total", &[("how", "y")]), Some(3.5));
        assert_eq!(metrics.sum("a_total", &[("by", "p"), ("how", "x")]), Some(2.0));
        assert_eq!(metrics.sum("a_total", &[("how", "z")]), None);
        assert_eq!(metrics.sum("b", &[]), Some(1.0));
        assert_eq!(metrics.sum("c", &[]), None);
    }
}
