//! The binaries of a real control plane.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

use crate::repo;

/// The directory with etcd, kube-apiserver, kube-controller-manager and kubectl, as `tests/control-plane/assets` finds
/// or makes them. Asked once per process; the script may take minutes on a machine that has never run it.
///
/// # Errors
/// If there are none and none can be made; the script has said why on stderr.
pub fn assets() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}"))) {
        Ok(directory) => Ok(directory),
        Err(problem) => bail!("{problem}"),
    }
}

fn find() -> Result<PathBuf> {
    let script = repo::path("tests/control-plane/assets");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} found no control plane ({}); see what it said above", script.display(), output.status);
    }
    let directory = PathBuf::from(String::from_utf8(output.stdout).context("the path is not UTF-8")?.trim_end());
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
        if !directory.join(name).exists() {
            bail!("{} printed {}, where there is no {name}", script.display(), directory.display());
        }
    }
    Ok(directory)
}
