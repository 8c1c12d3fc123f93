//! `koncli lease record` and `koncli lease verify`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::duration;
use crate::completion;

pub(super) const RECORD_HELP: &str = "It writes one JSON object a line: first everything that there is (LIST, LISTED), then every change that the API server tells (ADDED, MODIFIED, DELETED), each with the time at which it was seen. Objects are trimmed to what verify looks at. It goes on through broken watches and restarts of the API server; where changes may be missing it writes a line GAP. It ends with a line END at Ctrl-C, SIGTERM or --for, with exit code 0, and with exit code 1 when --max-size is reached.\n\nIt needs the verbs list and watch on leases and leaserequests (ClusterRole konductor-lease-viewer).\n\nExamples:\n  koncli lease record --file history.jsonl\n  koncli lease record db-migration --for 1h | gzip > history.jsonl.gz\n  koncli lease record -A --file all.jsonl --max-size 2Gi";

pub(super) fn verify_help() -> String {
    format!(
        "It tells by itself which of the two a file is; several files are parts of one history. It looks for: overlapping holds; fencing tokens that do not rise; grants to a request that is not there, is somebody else's or was given up; a request granted twice; holds that expired early; endings that are not true; and, where the built-in policy decided, somebody who was served before an equal that had come earlier. What a history that begins in the middle, has gaps or ends early does not show is counted as not judged.\n\nExit codes:\n  0 nothing forbidden   1 something forbidden   2 a file that cannot be judged, or usage\n\nAn audit log has to be in JSON lines (--audit-log-path, --audit-log-format=json) and to have the writes to leases and leaserequests at the level RequestResponse, with no omitStages. This policy for --audit-policy-file does that:\n\n{}\nExamples:\n  koncli lease verify history.jsonl\n  koncli lease verify audit-*.log audit.log -o json\n  zcat history.jsonl.gz | koncli lease verify -",
        konductor_verify::audit::POLICY
    )
}

/// `koncli lease record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Names of leases [default: all]
    #[arg(value_name = "LEASE", add = completion::leases())]
    pub leases: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Write to this new file; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// End after this time [default: when it is interrupted]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    // A line has about 1 KiB: a quarter of a million events, which verify judges in seconds and in less than 1 GiB.
    /// End when so much is written, such as 64Mi or 2Gi; the default is about a quarter of a million events
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256Mi")]
    pub max_size: u64,
}

/// `koncli lease verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Recordings or audit logs, parts of one history; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How long a controller may take to learn of a request, and of its end
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub lag: Duration,
    /// By how much the clocks of the controller and of who recorded may disagree about how long a hold has lasted
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub tolerance: Duration,
    /// By how much the clocks of two replicas of the controller may differ; give what they were given, and 0s where there
    /// was one whose clock was never set back
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub max_clock_skew: Duration,
    /// Do not look for somebody who was served before an equal that had come earlier
    #[arg(long)]
    pub any_order: bool,
    /// Judge a file whose last line is cut off without that line
    #[arg(long)]
    pub cut_off: bool,
}

/// A size in bytes, with the suffixes of Kubernetes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => return Err(format!("\"{other}\" is no unit; write a size such as 512Ki, 64Mi or 2Gi")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("\"{text}\" is no size; write one such as 64Mi or 2Gi"))?;
    let size = number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is more than there can be"))?;
    // Less would not hold the first lines.
    if size < 1 << 12 {
        Err(format!("\"{text}\" is less than 4Ki, which is no room for a recording"))
    } else {
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64Mi"), Ok(64 << 20));
        assert_eq!(size("2Gi"), Ok(2 << 30));
        for (text, because) in [
            ("", "no size"),
            ("Mi", "no size"),
            ("1M", "no unit"),
            ("1Ki", "less than 4Ki"),
            ("99999999999Gi", "more than"),
        ] {
            assert!(size(text).expect_err(text).contains(because), "{text}");
        }
    }
}
