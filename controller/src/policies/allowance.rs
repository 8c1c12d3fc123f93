//! How many Events about policies a namespace may cause.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// So many at once: an afternoon of trying things out.
const BURST: u32 = 25;
/// And one more in so many seconds: nobody reads more, and the API server keeps each for an hour.
const REFILL: Duration = Duration::from_secs(10);
/// Above this many namespaces those that have not used any of it are forgotten.
const NAMESPACES_MAX: usize = 1024;

/// A bucket of Events for each namespace.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// The moment at which a namespace's bucket is full again.
    full_at: HashMap<String, Instant>,
}

impl Allowance {
    /// Takes one, if there is one left.
    pub(super) fn take(&mut self, namespace: &str, now: Instant) -> bool {
        if self.full_at.len() >= NAMESPACES_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let full_at = self.full_at.get(namespace).copied().unwrap_or(now).max(now);
        let after = full_at + REFILL;
        if after - now > REFILL * BURST {
            return false;
        }
        self.full_at.insert(namespace.to_owned(), after);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_cause_some_events_at_once_and_then_one_now_and_then() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        let taken = (0..100).filter(|_| allowance.take("team", now)).count();
        assert_eq!(taken, BURST as usize);
        assert!(allowance.take("other", now), "another namespace has its own");
        assert!(!allowance.take("team", now + REFILL - Duration::from_millis(1)));
        assert!(allowance.take("team", now + REFILL));
        assert!(!allowance.take("team", now + REFILL));
        let later = now + REFILL * 1000;
        assert_eq!((0..100).filter(|_| allowance.take("team", later)).count(), BURST as usize);
    }

    #[test]
    fn namespaces_are_forgotten_when_they_are_quiet() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        for n in 0..NAMESPACES_MAX {
            allowance.take(&n.to_string(), now);
        }
        allowance.take("one more", now + REFILL);
        assert_eq!(allowance.full_at.len(), 1);
    }
}
