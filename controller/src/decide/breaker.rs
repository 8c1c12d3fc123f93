//! When a policy that has failed is asked again. Pure: the time is an argument.
//!
//! A policy is a function of its input, so one that has failed mostly fails again; and a failure is
//! dear, since it may use the whole budget. So it is asked again after a pause that grows. The pause
//! is one lease's: another lease's input may be fine.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::observe::Key;

/// The first pause. A policy may stumble over one state of a lease and be fine with the next.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause. Nobody has to wait longer than this after the lease has changed.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// So many failures of one module in a row, with no success for any lease in between, say that the
/// module is broken, and not only a stranger to one lease's input.
pub const IN_A_ROW: u32 = 5;

/// How many failing modules are counted. More never are in use at once; above it counting starts afresh.
const MODULES_MAX: usize = 1024;

/// Which policies have failed for which leases of late.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    leases: HashMap<Key, Failing>,
    /// How often each module has failed in a row, for whatever lease. Only modules that fail are in it.
    modules: HashMap<String, Row>,
}

/// Failures of one module with no success in between.
#[derive(Debug, Default)]
struct Row {
    count: u32,
    /// For leases of which namespaces: two are told apart, more make no difference.
    namespaces: Vec<String>,
}

#[derive(Debug)]
struct Failing {
    digest: String,
    count: u32,
    until: Duration,
    why: String,
}

/// What is known of a policy that is not to be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// How it failed when it was asked last.
    pub why: String,
    /// In how long it is asked again.
    pub again_in: Duration,
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a module is to be asked about a lease.
    ///
    /// # Errors
    /// [`Paused`], where it has failed a moment ago.
    pub fn permits(&self, key: &Key, digest: &str, now: Duration) -> Result<(), Paused> {
        match self.lock().leases.get(key) {
            Some(failing) if failing.digest == digest && now < failing.until => {
                Err(Paused { why: failing.why.clone(), again_in: failing.until - now })
            }
            _ => Ok(()),
        }
    }

    /// Whether the module failed when it was asked about this lease last.
    #[must_use]
    pub fn has_failed(&self, key: &Key, digest: &str) -> bool {
        self.lock().leases.get(key).is_some_and(|failing| failing.digest == digest)
    }

    /// A module has answered.
    pub fn succeeded(&self, key: &Key, digest: &str) {
        let mut inner = self.lock();
        inner.leases.remove(key);
        inner.modules.remove(digest);
    }

    /// A module has failed. Returns the pause, and, where the module as a whole is to be called broken,
    /// the namespaces that it has failed for: one, or some. The row begins anew then.
    ///
    /// `is_infrastructure`: the machine's doing and not the module's, so it says nothing of the module.
    pub fn failed(
        &self,
        key: &Key,
        digest: &str,
        why: &str,
        is_infrastructure: bool,
        now: Duration,
    ) -> (Duration, Option<Vec<String>>) {
        let mut inner = self.lock();
        let count = inner.leases.get(key).filter(|f| f.digest == digest).map_or(0, |f| f.count);
        let pause = PAUSE_FIRST.saturating_mul(1 << count.min(16)).min(PAUSE_MOST);
        let failing = Failing {
            digest: digest.to_owned(),
            count: count.saturating_add(1),
            until: now + pause,
            why: why.to_owned(),
        };
        inner.leases.insert(key.clone(), failing);
        if is_infrastructure {
            return (pause, None);
        }
        if inner.modules.len() >= MODULES_MAX {
            inner.modules.clear();
        }
        let row = inner.modules.entry(digest.to_owned()).or_default();
        row.count = row.count.saturating_add(1);
        if row.namespaces.len() < 2 && !row.namespaces.contains(&key.namespace) {
            row.namespaces.push(key.namespace.clone());
        }
        if row.count < IN_A_ROW {
            return (pause, None);
        }
        (pause, inner.modules.remove(digest).map(|row| row.namespaces))
    }

    /// A module has answered with what is not allowed. That is said of the lease until it answers well,
    /// but such an answer is cheap: it is asked again whenever there is something to ask.
    pub fn refused(&self, key: &Key, digest: &str, why: &str, now: Duration) {
        let failing = Failing { digest: digest.to_owned(), count: 0, until: now, why: why.to_owned() };
        self.lock().leases.insert(key.clone(), failing);
    }

    /// Forgets a lease that is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().leases.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pauses_grow_are_one_leases_and_end_with_a_success_or_another_module() {
        let breaker = Breaker::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        assert_eq!(breaker.failed(&a, "d", "boom", false, at(0)), (PAUSE_FIRST, None));
        let paused = Paused { why: "boom".to_owned(), again_in: at(400) };
        assert_eq!(breaker.permits(&a, "d", at(600)), Err(paused));
        assert_eq!(breaker.permits(&a, "d", at(1_000)), Ok(()), "the pause is over");
        assert_eq!(breaker.permits(&b, "d", at(600)), Ok(()), "another lease");
        assert_eq!(breaker.permits(&a, "e", at(600)), Ok(()), "another module");
        let pauses: Vec<_> = (0..9).map(|_| breaker.failed(&a, "d", "boom", true, at(0)).0.as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert!(breaker.has_failed(&a, "d") && !breaker.has_failed(&a, "e"));
        breaker.succeeded(&a, "d");
        assert!(!breaker.has_failed(&a, "d"));
        breaker.refused(&a, "d", "two holders", at(0));
        assert!(breaker.has_failed(&a, "d"));
        assert_eq!(breaker.permits(&a, "d", at(0)), Ok(()), "a veto is no pause");
        assert_eq!(breaker.failed(&a, "d", "boom", false, at(0)).0, PAUSE_FIRST);
    }

    #[test]
    fn a_module_is_broken_after_failures_in_a_row_for_whatever_lease() {
        let breaker = Breaker::default();
        let fails = |namespace: &str, infrastructure| {
            breaker.failed(&Key::new(namespace, "l"), "d", "boom", infrastructure, at(0)).1
        };
        assert!((0..4).all(|_| fails("a", false).is_none()));
        breaker.succeeded(&Key::new("b", "l"), "d");
        assert!((0..4).all(|_| fails("a", false).is_none()), "a success for another lease begins the row anew");
        assert!((0..9).all(|_| fails("a", true).is_none()), "the machine's doing does not count");
        assert_eq!(fails("a", false), Some(vec!["a".to_owned()]));
        // It may come into use again, and fail again.
        for namespace in ["a", "b", "c", "a"] {
            assert_eq!(fails(namespace, false), None);
        }
        assert_eq!(fails("c", false), Some(vec!["a".to_owned(), "b".to_owned()]));
    }
}
