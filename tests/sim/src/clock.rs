//! Clocks of simulated machines: all of them run with tokio's paused time, each with a rate and an offset of its own.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// What the wall clocks show at the beginning, in milliseconds since the epoch: in the middle of a second, since the
/// API server's timestamps are cut to whole ones.
pub const EPOCH: i64 = 1_790_000_000_617;

/// One machine's clocks.
#[derive(Debug)]
pub struct MachineClock {
    begun: Instant,
    /// How much faster than time the machine's oscillator runs, in millionths.
    drift_ppm: i64,
    /// Since when the machine runs.
    uptime: Duration,
    /// By how much its wall clock is wrong, in nanoseconds.
    wrong_ns: AtomicI64,
}

impl MachineClock {
    /// The clocks of a machine in a simulation that began then.
    #[must_use]
    pub fn new(begun: Instant, drift_ppm: i64, uptime: Duration, wrong: i64) -> Self {
        Self { begun, drift_ppm, uptime, wrong_ns: AtomicI64::new(wrong) }
    }

    /// Sets the wall clock so wrong, in nanoseconds.
    pub fn set_wrong(&self, wrong_ns: i64) {
        self.wrong_ns.store(wrong_ns, Ordering::Relaxed);
    }

    fn elapsed_ns(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn mono(&self) -> Duration {
        let elapsed = self.elapsed_ns();
        let run = elapsed + elapsed / 1_000_000 * self.drift_ppm;
        self.uptime + Duration::from_nanos(u64::try_from(run).unwrap_or(0))
    }
}

impl konductor_controller::clock::Clock for MachineClock {
    fn read(&self) -> konductor_controller::clock::Reading {
        let wall =
            i128::from(EPOCH) * 1_000_000 + i128::from(self.elapsed_ns() + self.wrong_ns.load(Ordering::Relaxed));
        konductor_controller::clock::Reading { wall_ns: wall, mono: self.mono() }
    }
}

impl koncli::client::Clock for MachineClock {
    fn now(&self) -> koncli::client::Moment {
        koncli::client::Moment::new(self.mono())
    }
}
