//! Points in time and spans of it, in whole milliseconds.

use std::ops::{Add, Sub};

/// A point in time: milliseconds since the epoch on the controller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

/// A span of time in milliseconds. Negative where something is overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

// Arithmetic saturates: a time at the end of the calendar is absurd, a panic or a wrap is worse.

impl Add<Millis> for Time {
    type Output = Self;
    fn add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Time {
    type Output = Millis;
    fn sub(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_add_up_and_stop_at_their_ends() {
        assert_eq!(Millis(2) + Millis(3), Millis(5));
        assert_eq!(Millis(2) - Millis(3), Millis(-1));
        assert_eq!(Time(7) + Millis(3), Time(10));
        assert_eq!(Time(7) - Time(10), Millis(-3));
        assert_eq!(Millis(i64::MAX) + Millis(1), Millis(i64::MAX), "for ever is for ever");
        assert_eq!(Time(i64::MAX) + Millis(1), Time(i64::MAX));
    }
}
