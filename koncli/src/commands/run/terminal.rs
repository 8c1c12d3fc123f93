//! The terminal, where there is one: who has the foreground, and what Ctrl-Z means.
//!
//! The command begins in the background of its terminal and gets the foreground when it first needs it: so nothing is
//! taken from another part of a pipeline that this process is in, such as a pager.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::{
    process::{Pid, Signal, getpgrp, getpid, kill_process},
    termios::{tcgetpgrp, tcsetpgrp},
};

/// What is to be done about a command that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It needs the terminal, and we may give it.
    HandOver,
    /// Its job was stopped: so are we, until it is continued.
    Suspend,
    /// Somebody wants it so, and it is not the terminal.
    Leave,
}

/// What is to be done about a command that `signal` has stopped, where `ours` says whether we have the foreground.
pub(super) fn on_stopped(signal: i32, ours: bool) -> Stopped {
    let is = |other: Signal| signal == other.as_raw();
    if is(Signal::TTIN) || is(Signal::TTOU) {
        return if ours { Stopped::HandOver } else { Stopped::Suspend };
    }
    if is(Signal::TSTP) { Stopped::Suspend } else { Stopped::Leave }
}

/// The terminal that controls this process, if one does.
#[derive(Debug)]
pub(super) struct Terminal {
    tty: Option<File>,
    handed_over: bool,
}

impl Terminal {
    pub(super) fn open() -> Self {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok();
        if tty.is_some() {
            // Who is in the background and takes the foreground is stopped, unless this signal is blocked.
            let mut blocked = SigSet::empty();
            blocked.add(NixSignal::SIGTTOU);
            let _ = blocked.thread_block();
        }
        Self { tty, handed_over: false }
    }

    /// Whether this process has the foreground.
    fn is_ours(&self) -> bool {
        self.tty.as_ref().is_some_and(|tty| tcgetpgrp(tty) == Ok(getpgrp()))
    }

    /// The command was stopped. Returns whether it is to be continued.
    pub(super) fn stopped(&mut self, signal: i32, command: Pid) -> bool {
        if self.tty.is_none() {
            return false;
        }
        match on_stopped(signal, self.is_ours()) {
            Stopped::HandOver => self.give(command),
            Stopped::Suspend => self.suspend(command),
            Stopped::Leave => return false,
        }
        true
    }

    /// Stops this process as its terminal would. It returns when the job is continued; at once where nobody could do
    /// that, because the kernel then drops the signal.
    pub(super) fn suspend(&mut self, command: Pid) {
        self.take_back(command);
        // SIGTSTP has a handler here; this one stops as well.
        let _ = kill_process(getpid(), Signal::TTIN);
        if self.handed_over && self.is_ours() {
            self.give(command);
        }
    }

    fn give(&mut self, command: Pid) {
        if let Some(tty) = &self.tty {
            self.handed_over = tcsetpgrp(tty, command).is_ok();
        }
    }

    /// Takes the foreground from the command, if it has it.
    pub(super) fn take_back(&self, command: Pid) {
        if let Some(tty) = &self.tty
            && tcgetpgrp(tty) == Ok(command)
        {
            let _ = tcsetpgrp(tty, getpgrp());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_the_terminal_gets_it_and_a_job_is_stopped_as_a_whole() {
        for (signal, ours, expected) in [
            (Signal::TTIN, true, Stopped::HandOver),
            (Signal::TTOU, true, Stopped::HandOver),
            (Signal::TTIN, false, Stopped::Suspend),
            (Signal::TTOU, false, Stopped::Suspend),
            (Signal::TSTP, true, Stopped::Suspend),
            (Signal::TSTP, false, Stopped::Suspend),
            (Signal::STOP, true, Stopped::Leave),
            (Signal::STOP, false, Stopped::Leave),
        ] {
            assert_eq!(on_stopped(signal.as_raw(), ours), expected, "{signal:?} {ours}");
        }
    }
}
