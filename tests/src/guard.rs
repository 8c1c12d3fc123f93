//! Nothing outlives the process that started it, however that process ends.
//!
//! Every process that is started here, and what it starts in turn, carries a mark in its environment. A watchdog, a
//! small shell of its own process group, holds one end of a pipe; when the other end closes, because the test process
//! has ended or was killed with SIGKILL, it kills what carries the mark until nothing does, and deletes the directory.
//! So neither a child that has just been forked nor a grandchild that made a process group of its own gets away.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow};

/// The environment variable with the mark.
pub const MARK: &str = "KONDUCTOR_GUARD";

/// $1 is the mark, $2 the directory; stdin is the pipe. Two looks without a find: between fork and exec a process shows
/// the environment of its parent.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
clean=0
while [ "$clean" -lt 2 ]; do
  found=$(grep -lsF "$0" /proc/[0-9]*/environ | cut -d/ -f3)
  if [ -n "$found" ]; then clean=0; kill -KILL $found 2>/dev/null; else clean=$((clean + 1)); fi
  sleep 0.05
done
[ -z "$1" ] || rm -rf -- "$1"
"#;

struct Guard {
    mark: String,
    directory: PathBuf,
    // Its stdin is the end of the pipe that closes with us.
    _watchdog: Child,
}

fn guard() -> Result<&'static Guard> {
    static GUARD: OnceLock<Result<Guard, String>> = OnceLock::new();
    GUARD.get_or_init(|| start().map_err(|e| format!("{e:#}"))).as_ref().map_err(|problem| anyhow!("{problem}"))
}

fn start() -> Result<Guard> {
    let directory =
        tempfile::Builder::new().prefix("konductor-").tempdir().context("cannot make a temporary directory")?.keep();
    let mark = directory.file_name().context("a directory has a name")?.to_string_lossy().into_owned();
    let watchdog = Command::new("sh")
        .args(["-c", WATCHDOG])
        .arg(format!("{MARK}={mark}"))
        .arg(if kept() { Path::new("") } else { &directory })
        .env_remove(MARK)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the watchdog")?;
    Ok(Guard { mark, directory, _watchdog: watchdog })
}

/// Whether directories are kept for somebody to look at: `KONDUCTOR_KEEP=1`.
#[must_use]
pub fn kept() -> bool {
    std::env::var_os("KONDUCTOR_KEEP").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The mark that this process gives to its children, such as `konductor-a1B2c3`.
///
/// # Errors
/// If the watchdog cannot be started.
pub fn mark() -> Result<&'static str> {
    Ok(&guard()?.mark)
}

/// A directory that is deleted when this process has ended.
///
/// # Errors
/// If the watchdog cannot be started.
pub fn directory() -> Result<&'static Path> {
    Ok(&guard()?.directory)
}

/// The processes that carry a mark.
#[must_use]
pub fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes()))
        })
        .collect()
}
