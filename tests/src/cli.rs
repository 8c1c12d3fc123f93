//! Command lines: koncli, kubectl and scripts, run as their users run them.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{ControlPlane, Exit, Process, Signal, Terminal, eventually};

/// How long a command may run before it is killed and the test fails.
const RUN_MOST: Duration = Duration::from_secs(120);

/// A command line that is being put together.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    /// The command line as a person reads it.
    shown: String,
    directory: PathBuf,
    /// A directory in front of PATH.
    tools: PathBuf,
    /// Where its output goes.
    output: PathBuf,
}

impl Cli {
    pub(crate) fn new(plane: &ControlPlane, program: &Path, kubeconfig: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = plane.file("runs", &name).unwrap_or_else(|problem| panic!("{problem:#}"));
        Self {
            command: plane.command(program, kubeconfig),
            shown: name,
            directory: plane.directory().to_path_buf(),
            tools: output.with_extension("tools"),
            output,
        }
    }

    /// Adds arguments that are split at spaces.
    #[must_use]
    pub fn words(self, words: &str) -> Self {
        words.split_whitespace().fold(self, |cli, word| cli.arg(word))
    }

    /// Adds one argument as it is.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Unsets a variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Puts a program on its PATH, under a name.
    ///
    /// # Panics
    /// If the disk is full.
    #[must_use]
    pub fn tool(mut self, name: &str, program: &Path) -> Self {
        let linked = std::fs::create_dir_all(&self.tools)
            .and_then(|()| std::os::unix::fs::symlink(program, self.tools.join(name)));
        linked.unwrap_or_else(|problem| panic!("cannot link {name}: {problem}"));
        self.search_tools();
        self
    }

    /// Puts a bash script on its PATH that stands in for a program, such as `run-migrations`.
    ///
    /// # Panics
    /// If the disk is full.
    #[must_use]
    pub fn stand_in(mut self, name: &str, script: &str) -> Self {
        let path = self.tools.join(name);
        let written = std::fs::create_dir_all(&self.tools)
            .and_then(|()| std::fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)));
        written.unwrap_or_else(|problem| panic!("cannot write {name}: {problem}"));
        self.search_tools();
        self
    }

    fn search_tools(&mut self) {
        let mut path = self.tools.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        self.command.env("PATH", path);
    }

    /// The directory of the control plane: where its working directory is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it and leaves it running.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(self) -> Running {
        let (out, err) = (self.output.with_extension("stdout"), self.output.with_extension("stderr"));
        let started = Instant::now();
        let process = Process::start(&self.shown, self.command, &err, Some(&out))
            .unwrap_or_else(|problem| panic!("{}: {problem:#}", self.shown));
        Running { process, shown: self.shown, out, err, started }
    }

    /// Starts it on a terminal of its own, one that has colours.
    ///
    /// # Panics
    /// If there is no terminal to be had.
    #[must_use]
    pub fn on_terminal(self, rows: u16, columns: u16) -> Terminal {
        // What a test sets itself stays.
        let has_term = self.command.get_envs().any(|(name, _)| name == "TERM");
        let cli = if has_term { self } else { self.env("TERM", "xterm-256color") };
        Terminal::start(&cli.command, rows, columns)
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started, or runs for more than two minutes.
    pub async fn run(self) -> Output {
        self.spawn().wait().await
    }
}

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Process,
    shown: String,
    out: PathBuf,
    err: PathBuf,
    started: Instant,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Panics
    /// If that takes more than two minutes.
    pub async fn wait(&self) -> Output {
        let ended = tokio::time::timeout(RUN_MOST, self.process.wait()).await;
        let output = self.so_far(*ended.as_ref().unwrap_or(&Exit { code: -1, signal: None }));
        assert!(ended.is_ok(), "{} still runs after {RUN_MOST:?}\n{output}", self.shown);
        output
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.exit().is_none()
    }

    /// Sends a signal to it alone, not to its children.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends a signal to it and to the children that are still in its process group.
    pub fn signal_group(&self, signal: Signal) {
        self.process.signal_group(signal);
    }

    /// Kills it with SIGKILL, and the children that are still in its process group.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it has written `text`, on stdout or stderr.
    ///
    /// # Panics
    /// If it does not within 30 seconds, with what it has written.
    pub async fn says(&self, text: &str) {
        eventually(&format!("{} says {text:?}", self.shown), async || {
            let output = self.so_far(self.process.exit().unwrap_or(Exit { code: 0, signal: None }));
            if output.stdout.contains(text) || output.stderr.contains(text) { Ok(()) } else { Err(output) }
        })
        .await;
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.so_far(Exit { code: 0, signal: None }).stdout
    }

    fn so_far(&self, exit: Exit) -> Output {
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Output {
            command: self.shown.clone(),
            code: exit.code,
            signal: exit.signal,
            stdout: read(&self.out),
            stderr: read(&self.err),
            took: self.started.elapsed(),
        }
    }
}

/// What a command has said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// Its exit status, or 128 + the signal that ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}{}exit status {}", self.command, self.stdout, self.stderr, self.code)
    }
}

impl Output {
    /// Demands exit status 0.
    ///
    /// # Panics
    /// Otherwise, with everything that it said.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits_with(0)
    }

    /// Demands an exit status.
    ///
    /// # Panics
    /// Otherwise, with everything that it said.
    #[track_caller]
    pub fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit status {} instead of {code}\n{self}", self.code);
        self
    }

    /// Demands a text on stdout.
    ///
    /// # Panics
    /// Otherwise, with everything that it said.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not on stdout\n{self}");
        self
    }

    /// Demands a text on stderr.
    ///
    /// # Panics
    /// Otherwise, with everything that it said.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not on stderr\n{self}");
        self
    }

    /// Its stdout as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|problem| panic!("no JSON: {problem}\n{self}"))
    }
}
