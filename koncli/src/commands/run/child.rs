//! The command: a process group of its own, its signals, and how to know that nothing of it is left.
//!
//! Parts of a command may leave its group: `timeout`, the jobs of `set -m` and of `bash -i`, daemons. As soon as their
//! parents have ended they become this process's children on Linux: see [`super::family`].

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, test_kill_process_group, waitpgid},
};

use super::{family::Family, plan::Exit};

/// What was seen of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The command itself has ended.
    Exited(Exit),
    /// The command itself was stopped by this signal.
    Stopped(i32),
    /// No process of the group is left, and nothing else that the command has left behind.
    Gone,
}

/// The process group of a command.
#[derive(Debug)]
pub(super) struct Group {
    /// Never waited for through this: the group is waited for as a whole.
    _child: Child,
    leader: Pid,
    family: Family,
    ended: bool,
    gone: bool,
}

impl Group {
    /// Starts the command. What it leaves behind becomes this process's child, so that it can be waited for.
    pub(super) fn start(command: &[OsString], env: &[(&str, String)]) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let Some((program, args)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no command"));
        };
        let family = Family::from_now();
        let child = Command::new(program).args(args).envs(env.iter().map(|(k, v)| (k, v))).process_group(0).spawn()?;
        let leader = Pid::from_child(&child);
        Ok(Self { _child: child, leader, family, ended: false, gone: false })
    }

    /// The process id of the command, which is also the group's.
    pub(super) fn id(&self) -> Pid {
        self.leader
    }

    /// Sends a signal to every process of the group, and when the command itself has ended to what it has left behind
    /// elsewhere. SIGKILL goes to all that it has started. Once the group is gone its number may be another's.
    pub(super) fn signal(&self, signal: Signal) {
        if self.gone {
            return;
        }
        // Before their parents are dead: afterwards nobody would know whose they are.
        let others = match (signal, self.ended) {
            (Signal::KILL, _) => self.family.all(),
            (_, true) => self.family.orphans(),
            (_, false) => Vec::new(),
        };
        // Nobody there is no failure: the group ends just now.
        let _ = kill_process_group(self.leader, signal);
        for other in others {
            other.signal(signal, self.leader);
        }
    }

    /// Whether every process of the group is gone, and what else the command has left behind.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// What has happened since the last time. Asked after SIGCHLD.
    pub(super) fn look(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while !self.gone {
            match waitpgid(self.leader, WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.leader => seen.extend(self.of_leader(status)),
                // An orphan of the group.
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // In any case: who waits for nobody keeps the dead.
        let orphans = self.family.reap(self.leader, self.ended);
        if self.ended && !self.gone && orphans == 0 && test_kill_process_group(self.leader) == Err(Errno::SRCH) {
            self.gone = true;
            seen.push(Seen::Gone);
        }
        seen
    }

    fn of_leader(&mut self, status: WaitStatus) -> Option<Seen> {
        if let Some(signal) = status.stopping_signal() {
            return Some(Seen::Stopped(signal));
        }
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => return None,
        };
        self.ended = true;
        Some(Seen::Exited(exit))
    }
}

/// The exit code for a command that could not be started, as shells have it.
pub(super) fn not_started(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}
