//! The clock that a holder's deadline is counted on.

use std::time::Duration;

/// A reading of a [`Clock`]: the time since an origin that only this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `since_origin` after the clock's origin.
    #[must_use]
    pub fn new(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The moment `later` after this one.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// The moment `earlier` before this one.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }

    /// The time from the clock's origin until this moment.
    #[must_use]
    pub fn since_origin(self) -> Duration {
        self.0
    }

    /// How much time is left from `now` until this moment; zero when it has passed.
    #[must_use]
    pub fn left_at(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

/// A clock that never goes back, is never set, and does not stand still while the machine is
/// suspended: a lease does not stand still either.
pub trait Clock: Send + Sync + 'static {
    /// What the clock shows now.
    fn now(&self) -> Moment;
}

/// How long to sleep before the clock is read again: tokio's timers stand still while the machine is suspended, so a
/// moment that passed meanwhile is noticed within this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sleeps until the clock shows `at`, also across a suspended machine.
pub async fn sleep_until(clock: &dyn Clock, at: Moment) {
    loop {
        let left = at.left_at(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// The machine's own clock: `CLOCK_BOOTTIME` on Linux, which counts time spent in suspend.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// On macOS the monotonic clock counts suspend; elsewhere there is none better.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let read = rustix::time::clock_gettime(CLOCK);
        let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(read.tv_nsec).unwrap_or_default();
        Moment(Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_runs_and_never_goes_back() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second >= first);
        assert!(first > Moment::new(Duration::ZERO));
    }

    #[test]
    fn a_moment_that_has_passed_leaves_nothing() {
        let now = Moment::new(Duration::from_secs(10));
        assert_eq!(now.after(Duration::from_secs(5)).left_at(now), Duration::from_secs(5));
        assert_eq!(now.left_at(now.after(Duration::from_secs(5))), Duration::ZERO);
    }
    #[test]
    fn a_moment_lies_as_far_from_the_origin_as_was_said() {
        let moment = Moment::new(Duration::from_secs(10));
        assert_eq!(moment.before(Duration::from_secs(3)).since_origin(), Duration::from_secs(7));
        assert_eq!(moment.before(Duration::from_secs(11)).since_origin(), Duration::ZERO, "there is nothing before it");
    }

    /// A machine whose timers run and stand still with tokio's, and whose clock runs on while they stand still.
    struct Machine {
        booted: tokio::time::Instant,
        /// After this long the machine is suspended, for the second.
        suspended: (Duration, Duration),
    }

    impl Clock for Machine {
        fn now(&self) -> Moment {
            let awake = self.booted.elapsed();
            let (at, asleep) = self.suspended;
            Moment::new(if awake >= at { awake + asleep } else { awake })
        }
    }

    // No time passes here but tokio's, which is the test's.
    #[tokio::test(start_paused = true)]
    async fn who_sleeps_wakes_when_the_clock_says_so_also_after_a_suspended_machine() {
        let never = (Duration::MAX, Duration::ZERO);
        let minute = Duration::from_secs(60);
        for (suspended, awake) in [
            (never, minute),
            // It was to sleep for a minute, and the machine is suspended for an hour after ten seconds of it.
            ((Duration::from_secs(10), Duration::from_secs(3_600)), Duration::from_secs(10)),
        ] {
            let machine = Machine { booted: tokio::time::Instant::now(), suspended };
            let at = machine.now().after(minute);
            sleep_until(&machine, at).await;
            assert!(machine.now() >= at, "not before");
            let slept = machine.booted.elapsed();
            assert!(slept >= awake && slept <= awake + LOOK_AGAIN, "{slept:?} of {awake:?}");
        }
    }
}
