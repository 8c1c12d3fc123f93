//! The only reading of a clock in the controller.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use konductor_core::{Millis, Time};

/// One reading of both clocks, taken together. A reconcile takes exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock in nanoseconds since the epoch.
    pub wall_ns: i128,
    /// A clock that never jumps and also runs while the machine is suspended, since some fixed point.
    pub mono: Duration,
}

impl Reading {
    /// The wall clock rounded up to the millisecond: what is computed from it is never early.
    #[must_use]
    pub fn now(self) -> Time {
        Time(i64::try_from((self.wall_ns + 999_999).div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }

    /// The wall clock rounded down to the millisecond: a remainder computed from it is never short.
    #[must_use]
    pub fn now_floor(self) -> Time {
        Time(i64::try_from(self.wall_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }
}

/// Where the controller gets the time from. Tests and simulations bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Reads both clocks.
    fn read(&self) -> Reading;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        // CLOCK_BOOTTIME: std's Instant stands still while the machine is suspended, holders elsewhere do not.
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        let wall_ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |ns| -ns),
        };
        Reading { wall_ns, mono: Duration::new(seconds, nanos) }
    }
}

/// A span on the monotonic clock as whole milliseconds, rounded up: what is still to come is never
/// said to be over.
#[must_use]
pub fn remaining(until: Duration, now: Duration) -> Millis {
    if until >= now {
        Millis(i64::try_from((until - now).as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
    } else {
        Millis(i64::try_from((now - until).as_millis()).map_or(i64::MIN, |ms| -ms))
    }
}

/// How long ago something was, as whole milliseconds, rounded down.
#[must_use]
pub fn elapsed(since: Duration, now: Duration) -> Millis {
    Millis(i64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_never_early() {
        let reading = Reading { wall_ns: 1_000_000_001, mono: Duration::ZERO };
        assert_eq!(reading.now(), Time(1001));
        assert_eq!(reading.now_floor(), Time(1000));
        let ns = Duration::from_nanos;
        assert_eq!(remaining(ns(1), ns(0)), Millis(1));
        assert_eq!(remaining(ns(5), ns(5)), Millis(0));
        assert_eq!(remaining(ns(0), ns(999_999)), Millis(0));
        assert_eq!(elapsed(ns(0), ns(1_999_999)), Millis(1));
    }
}
