//! When it is told that a shadow policy would have done something else than was done.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::observe::Key;

/// How often one lease's differences are told as an Event. Each is counted in a metric; a person who
/// rehearses a policy wants examples, and the API server no flood.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// When each lease's differences were told last.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<Key, Duration>>);

impl Told {
    /// Whether a difference is to be told now; if so, it counts as told.
    pub fn due(&self, key: &Key, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_sub(*at) < TELL_EVERY);
        let due = !told.contains_key(key);
        if due {
            told.insert(key.clone(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_told_of_now_and_then() {
        let told = Told::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        assert!(told.due(&a, Duration::ZERO));
        assert!(!told.due(&a, Duration::from_secs(29)));
        assert!(told.due(&b, Duration::from_secs(29)));
        assert!(told.due(&a, Duration::from_secs(30)));
    }
}
