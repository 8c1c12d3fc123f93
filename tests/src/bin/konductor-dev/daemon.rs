//! Background processes that are found again by later runs.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use konductor_tests::Signal;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

/// A process as it is remembered. Its pid alone could be somebody else's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    pid: i32,
    /// When it started, in clock ticks since the machine did.
    started: u64,
    /// Since when the machine runs, as an id.
    boot: String,
}

/// One background process of a directory.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    record: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// The process of this name; it need not run.
    pub fn new(directory: &Path, name: &'static str) -> Self {
        Self {
            name,
            record: directory.join("pids").join(format!("{name}.json")),
            log: directory.join("logs").join(format!("{name}.log")),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its pid, if it runs.
    pub fn pid(&self) -> Option<i32> {
        let text = std::fs::read_to_string(&self.record).ok()?;
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        (observe(remembered.pid).as_ref() == Some(&remembered)).then_some(remembered.pid)
    }

    /// Whether the file that it was started from has been replaced since: it runs yesterday's code.
    pub fn is_outdated(&self) -> bool {
        self.pid()
            .and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok())
            .is_some_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
    }

    /// Starts it in a session of its own, so that it survives this shell.
    pub fn start(&self, command: &Command) -> Result<()> {
        for path in [&self.record, &self.log] {
            let directory = path.parent().context("a file is in a directory")?;
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        // setsid replaces itself by the program, so its pid is the program's.
        let mut detached = Command::new("setsid");
        detached.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => detached.env(name, value),
                None => detached.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            detached.current_dir(directory);
        }
        let mut child = detached
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let pid = i32::try_from(child.id()).context("a pid is small")?;
        let Some(remembered) = observe(pid) else {
            let _ = child.wait();
            bail!("{} ended at once:\n{}", self.name, self.tail());
        };
        std::fs::write(&self.record, serde_json::to_string(&remembered)?)
            .with_context(|| format!("cannot write {}", self.record.display()))?;
        // Reap it if it ends while we still run.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Fails if it does not run, with the end of its log.
    pub fn must_run(&self) -> Result<()> {
        match self.pid() {
            Some(_) => Ok(()),
            None => bail!("{} does not run; the end of {}:\n{}", self.name, self.log.display(), self.tail()),
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Stops it: asks, waits, and kills.
    pub fn stop(&self, patience: Duration) {
        for (signal, patience) in [(Signal::TERM, patience), (Signal::KILL, Duration::from_secs(5))] {
            let asked = Instant::now();
            let Some(pid) = self.pid() else { break };
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, signal);
            }
            while self.pid().is_some() && asked.elapsed() < patience {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        let _ = std::fs::remove_file(&self.record);
    }
}

/// What /proc says of a process; `None` if there is none, or only its remains.
fn observe(pid: i32) -> Option<Remembered> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    (!matches!(state, "Z" | "X")).then_some(Remembered { pid, started, boot })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_taken_for_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::new(directory.path(), "victim");
        assert_eq!(daemon.pid(), None);
        let mut command = Command::new("cat");
        command.arg("/dev/zero");
        daemon.start(&command).expect("started");
        let pid = daemon.pid().expect("it runs");

        let mut remembered = observe(pid).expect("it runs");
        remembered.started += 1;
        std::fs::write(&daemon.record, serde_json::to_string(&remembered).expect("JSON")).expect("written");
        assert_eq!(daemon.pid(), None, "another process with the same pid");
        daemon.stop(Duration::from_secs(5));
        assert!(observe(pid).is_some(), "a stranger is left alone");

        remembered.started -= 1;
        std::fs::write(&daemon.record, serde_json::to_string(&remembered).expect("JSON")).expect("written");
        daemon.stop(Duration::from_secs(5));
        assert!(observe(pid).is_none() && !daemon.record.exists(), "ours is stopped");
    }

    #[test]
    fn what_ends_at_once_is_told_with_its_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::new(directory.path(), "short");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck; exit 3"]);
        let problem = match daemon.start(&command) {
            Err(problem) => problem,
            Ok(()) => {
                while daemon.pid().is_some() {
                    std::thread::yield_now();
                }
                daemon.must_run().expect_err("it has ended")
            }
        };
        assert!(problem.to_string().contains("no such luck"), "{problem}");
    }
}
