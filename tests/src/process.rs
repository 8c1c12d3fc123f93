//! One guarded child process.

use std::{
    fs::File,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::sync::watch;

use crate::guard;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit status, or 128 + the signal that ended it, as a shell shows it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        Self { code: status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(-1), signal }
    }
}

/// A running child in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    /// Whether the pid is still ours. Held while a signal is sent, so that none goes to a stranger with the same pid.
    alive: Arc<(Mutex<bool>, Condvar)>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts a command; stdout and stderr are appended to `log`, unless `stdout` names a file of its own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path, stdout: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        let err = open(log)?;
        let out = stdout.map_or_else(|| err.try_clone().context("cannot share a log"), open)?;
        let mut child = command
            .env(guard::MARK, guard::mark()?)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let pid = Pid::from_child(&child);
        let alive = Arc::new((Mutex::new(true), Condvar::new()));
        let (tell, exit) = watch::channel(None);
        let reaper_alive = alive.clone();
        // A thread and not a task: it must not matter which runtime a test has, or whether it still has one.
        std::thread::spawn(move || {
            // Wait first and reap later: until it is reaped, nobody else can get its pid.
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), ended).is_err_and(|error| error == rustix::io::Errno::INTR) {}
            let (alive, reaped) = &*reaper_alive;
            let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
            let exit = child.wait().map_or(Exit { code: -1, signal: None }, Exit::from);
            tell.send_replace(Some(exit));
            *alive = false;
            reaped.notify_all();
        });
        Ok(Self { name: name.to_owned(), pid, log: log.to_path_buf(), alive, exit })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// The file that it writes to.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal to the process alone; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        self.send(|pid| kill_process(pid, signal));
    }

    /// Sends a signal to its whole process group; nothing happens if it has ended.
    pub fn signal_group(&self, signal: Signal) {
        self.send(|pid| kill_process_group(pid, signal));
    }

    fn send(&self, send: impl FnOnce(Pid) -> rustix::io::Result<()>) {
        let alive = self.alive.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            // It may be a zombie by now, and then there is nothing to do.
            let _ = send(self.pid);
        }
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit { code: -1, signal: None }),
            Err(_) => Exit { code: -1, signal: None },
        }
    }

    /// Kills its process group with SIGKILL and waits until the process has ended.
    pub fn kill(&self) {
        self.signal_group(Signal::KILL);
        let mut alive = self.alive.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *alive {
            alive = self.alive.1.wait(alive).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says on stderr what it wrote last: for a test that has failed.
    pub fn tell(&self, lines: usize) {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let end = self.exit().map_or_else(|| "runs".to_owned(), |exit| format!("ended with {}", exit.code));
        eprintln!("--- {} ({end}), the last {lines} of {} lines of {}:", self.name, all.len(), self.log.display());
        for line in &all[all.len().saturating_sub(lines)..] {
            eprintln!("    {line}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
