//! A control plane that keeps an audit log.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ControlPlane, Options, guard};

/// Starts a control plane with our resources and roles that logs what this audit policy says; and where.
///
/// # Panics
/// If it does not get ready.
pub async fn audited(policy: &str) -> (ControlPlane, PathBuf) {
    let directory = tempfile::Builder::new()
        .prefix("audit-")
        .tempdir_in(guard::directory().expect("a directory"))
        .expect("a directory")
        .keep();
    let (file, log) = (directory.join("policy.yaml"), directory.join("audit.log"));
    std::fs::write(&file, policy).expect("written");
    let flags =
        [("policy-file", &file), ("log-path", &log)].map(|(flag, path)| format!("--audit-{flag}={}", path.display()));
    let plane = ControlPlane::start(Options { apiserver_flags: flags.to_vec(), ..Options::default() }).await;
    plane.install().await;
    (plane, log)
}

/// What an audit log says so far. A last line that is still being written is left out.
///
/// # Panics
/// If it cannot be read, or has a line that is no JSON.
#[must_use]
pub fn audit_events(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("readable");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
