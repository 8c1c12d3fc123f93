//! Flags and environment, checked once at start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, ValueEnum};
use konductor_core::{Millis, Settings};
use konductor_crds::time::parse_duration;

/// The Konductor Lease controller: decides, with the policies of its users, who holds which Lease.
///
/// It needs the rights of deploy/rbac; it connects as any Kubernetes client does: in a cluster by
/// its service account, elsewhere by KUBECONFIG.
#[derive(Debug, Clone, Parser)]
#[command(name = "konductor-controller", version, about, long_about)]
pub struct Args {
    /// The namespace that the controller runs in: its leader election and its shared policies are here.
    #[arg(long, env = "POD_NAMESPACE", default_value = "konductor-system")]
    pub namespace: String,

    /// The name of this replica in the leader election; unique among replicas.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub identity: String,

    /// Reconcile only while this replica is the leader. Safety does not depend on it: several
    /// leaders at once are harmless and only do work twice.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,

    /// How long a leader that has died stays leader, at most. 3s to 10m.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_election_duration: Duration,

    /// Serve /healthz, /readyz and /metrics here.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The policy that decides for a Lease that names none, unless its namespace says otherwise.
    #[arg(long, default_value = konductor_crds::DEFAULT_POLICY)]
    pub default_policy: String,

    /// Keep compiled policies in this directory, so that a restart need not compile them again. Only
    /// what this program has written there is used. Absent: nothing is kept.
    #[arg(long)]
    pub policy_cache_dir: Option<PathBuf>,

    /// The key that vouches for compiled policies: a file of 32 to 4096 random bytes, such as a
    /// mounted Secret. Absent: one that is made and kept in the directory itself.
    #[arg(long, requires = "policy_cache_dir")]
    pub policy_cache_key_file: Option<PathBuf>,

    /// How long compiling a policy may take; a module that takes longer is refused. 100ms to 1m.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub policy_compile_time: Duration,

    /// By how much the clocks of two replicas may differ. A hold that another replica, or this one
    /// before a restart, has granted ends later by this much; never early. At most 5m.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub max_clock_skew: Duration,

    /// The longest that one hold may last, however often it is renewed. Absent: no limit.
    #[arg(long, value_parser = duration)]
    pub max_hold: Option<Duration>,

    /// How long a lease that ran out with nobody waiting shows Expired before it is Available. 1s to 24h.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub expired_retention: Duration,

    /// How long a LeaseRequest that is denied or finished is kept before it is deleted. 10s to 30d.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub finished_retention: Duration,

    /// How many requests may wait for one lease; who comes later is denied. 1 to 100000.
    #[arg(long, default_value_t = 10_000)]
    pub max_waiting: usize,

    /// How many leases are reconciled at the same time. 1 to 256.
    #[arg(long, default_value_t = 16)]
    pub workers: usize,

    /// Keep a journal of every decision here: what the policy was asked and what it answered, for
    /// `koncli policy replay`. Absent: none. It has names and labels of requests in it.
    #[arg(long, value_name = "DIRECTORY")]
    pub decision_journal: Option<PathBuf>,

    /// How much of the disk the journal takes, in MiB; the oldest decisions are overwritten. 2 to 65536.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub decision_journal_size: u64,

    /// Write the journal in --decision-journal to stdout and end.
    #[arg(long, requires = "decision_journal")]
    pub print_journal: bool,

    /// Send a span of every reconcile to the OpenTelemetry collector here, as JSON over HTTP, such as
    /// http://localhost:4318. Absent: none.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as in RUST_LOG: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))).map_err(|e| e.to_string())
}

impl Args {
    /// Checks what one flag alone cannot know.
    ///
    /// # Errors
    /// A sentence that names the flag, its value and the limits.
    pub fn validate(&self) -> Result<(), String> {
        let between = |flag: &str, value: Duration, least: Duration, most: Duration| {
            if value < least || value > most {
                return Err(format!(
                    "{flag} is {}; it must be from {} to {}",
                    humantime::format_duration(value),
                    humantime::format_duration(least),
                    humantime::format_duration(most),
                ));
            }
            Ok(())
        };
        let within = |flag: &str, value: Duration, least: u64, most: u64| {
            between(flag, value, Duration::from_secs(least), Duration::from_secs(most))
        };
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(60));
        between("--policy-compile-time", self.policy_compile_time, least, most)?;
        within("--leader-election-duration", self.leader_election_duration, 3, 600)?;
        within("--max-clock-skew", self.max_clock_skew, 0, 300)?;
        within("--expired-retention", self.expired_retention, 1, 86_400)?;
        within("--finished-retention", self.finished_retention, 10, 30 * 86_400)?;
        if let Some(most) = self.max_hold {
            within("--max-hold", most, 1, 366 * 86_400)?;
        }
        if !(1..=100_000).contains(&self.max_waiting) {
            return Err(format!("--max-waiting is {}; it must be from 1 to 100000", self.max_waiting));
        }
        #[cfg(feature = "otlp")]
        if let Some(endpoint) = &self.otlp_endpoint
            && endpoint.strip_prefix("http://").is_none_or(str::is_empty)
        {
            return Err(format!(
                "--otlp-endpoint is {endpoint}; it must be an http:// URL, such as http://localhost:4318"
            ));
        }
        if !(1..=256).contains(&self.workers) {
            return Err(format!("--workers is {}; it must be from 1 to 256", self.workers));
        }
        if !(2..=65_536).contains(&self.decision_journal_size) {
            let size = self.decision_journal_size;
            return Err(format!("--decision-journal-size is {size}; it must be from 2 to 65536 (MiB)"));
        }
        for (flag, value) in [("--namespace", &self.namespace), ("--default-policy", &self.default_policy)] {
            if value.is_empty() {
                return Err(format!("{flag} is empty; name one"));
            }
        }
        Ok(())
    }

    /// The settings that the rules depend on.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let millis = |d: Duration| Millis(i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        Settings {
            max_hold: self.max_hold.map(millis),
            expired_retention: millis(self.expired_retention),
            finished_retention: millis(self.finished_retention),
            waiting_max: self.max_waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_documented() {
        Args::parse_from(["konductor-controller"]).validate().expect("the defaults are valid");
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (flag, said) in [
            ("--max-clock-skew=1h", "--max-clock-skew"),
            ("--expired-retention=0s", "--expired-retention"),
            ("--finished-retention=1s", "--finished-retention"),
            ("--leader-election-duration=1s", "--leader-election-duration"),
            ("--workers=0", "--workers"),
            ("--max-hold=0s", "--max-hold"),
            ("--default-policy=", "--default-policy"),
            ("--policy-compile-time=99ms", "--policy-compile-time"),
            ("--policy-compile-time=61s", "--policy-compile-time"),
        ] {
            let error = Args::parse_from(["konductor-controller", flag]).validate().expect_err(flag);
            assert!(error.contains(said), "{flag}: {error}");
        }
        assert!(Args::try_parse_from(["konductor-controller", "--max-clock-skew=banana"]).is_err());
        let key_without_cache = Args::try_parse_from(["konductor-controller", "--policy-cache-key-file=/key"]);
        assert!(key_without_cache.expect_err("a key for nothing").to_string().contains("--policy-cache-dir"));
    }
}
