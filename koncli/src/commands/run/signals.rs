//! The signals that are passed on to the command.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::client::Stop;

/// What ends a wait for the lease, and is passed on to the command later.
const ENDING: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];
/// What is only heard when there is a command: before, they do what they do to every process. SIGTSTP and SIGCONT are
/// the terminal's: see [`super::terminal`].
const WHILE_RUNNING: [Signal; 6] =
    [Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT, Signal::TSTP];

/// The signals that have come.
#[derive(Debug)]
pub(super) struct Signals {
    /// What was ignored before stays ignored, here and in the command: so does `nohup` work.
    ignored: u64,
    streams: Vec<(Signal, unix::Signal)>,
    child: unix::Signal,
}

impl Signals {
    /// From now on, what would end this process comes here.
    pub(super) fn new() -> io::Result<Self> {
        let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_in(&status));
        let mut signals = Self { ignored, streams: Vec::new(), child: unix::signal(SignalKind::child())? };
        signals.listen(&ENDING)?;
        Ok(signals)
    }

    /// From now on the others come here too.
    pub(super) fn while_running(&mut self) -> io::Result<()> {
        self.listen(&WHILE_RUNNING)
    }

    fn listen(&mut self, signals: &[Signal]) -> io::Result<()> {
        for &signal in signals {
            if self.ignored & (1 << (signal.as_raw() - 1)) == 0 {
                self.streams.push((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
            }
        }
        Ok(())
    }

    /// Waits for a signal that ends a wait.
    pub(super) async fn stop(&mut self) -> Stop {
        loop {
            if let Heard::Signal(signal) = self.next().await {
                let why = match signal {
                    Signal::INT => "interrupted",
                    Signal::HUP => "hung up",
                    _ => "terminated",
                };
                return Stop { why, exit_code: u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX) };
            }
        }
    }

    /// The next thing that was heard.
    pub(super) async fn next(&mut self) -> Heard {
        let Self { streams, child, .. } = self;
        let passed_on = futures::future::poll_fn(|context| {
            let ready =
                streams.iter_mut().find_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        tokio::select! {
            biased;
            signal = passed_on => Heard::Signal(signal),
            _ = child.recv() => Heard::Child,
        }
    }
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A signal to pass on.
    Signal(Signal),
    /// Something has happened to a child.
    Child,
}

/// The mask of ignored signals in `/proc/self/status`.
fn ignored_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        // SIGHUP and SIGPIPE.
        let mask = ignored_in("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000fff\n");
        assert_eq!(mask, (1 << (Signal::HUP.as_raw() - 1)) | (1 << (Signal::PIPE.as_raw() - 1)));
        assert_eq!(ignored_in(""), 0);
    }
}
