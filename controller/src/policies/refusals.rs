//! Modules that were refused, by digest, so that the same bytes do not cost the same work again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The first pause after a failure of the machine, and the longest. It doubles in between: a busy
/// machine is over it in seconds, and a module that is too much for the compiler costs it one try in
/// ten minutes.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MOST: Duration = Duration::from_secs(600);

/// How many refusals are remembered, the newest. Each has a few hundred bytes; forgetting one costs
/// one more compilation.
const REMEMBERED_MAX: usize = 1024;

/// Why a module was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In one word, for a metric.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) why: String,
    /// How long it counts.
    pub(super) counts: Counts,
}

/// How long a refusal counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counts {
    /// For these bytes, always.
    Always,
    /// For these bytes, as long as the leases that use them have these params.
    WithParams(Vec<String>),
    /// For a while: the machine may have been at fault.
    ForAWhile,
}

/// The refusals that are remembered.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_digest: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    refusal: Refusal,
    noted: Instant,
    pause: Duration,
}

impl Refusals {
    /// Whether a module need not be tried now, and when it may be.
    pub(super) fn known(&self, digest: &str, params: &[String], now: Instant) -> Option<(Refusal, Option<Duration>)> {
        let known = self.by_digest.get(digest)?;
        match &known.refusal.counts {
            Counts::Always => Some((known.refusal.clone(), None)),
            Counts::WithParams(then) => (then == params).then(|| (known.refusal.clone(), None)),
            Counts::ForAWhile => {
                let left = (known.noted + known.pause).checked_duration_since(now).filter(|left| !left.is_zero())?;
                Some((known.refusal.clone(), Some(left)))
            }
        }
    }

    /// A module was refused. Returns after which pause it is worth trying again, if it is.
    pub(super) fn note(&mut self, digest: &str, refusal: Refusal, now: Instant) -> Option<Duration> {
        let before = self.by_digest.remove(digest).filter(|known| known.refusal.counts == Counts::ForAWhile);
        let pause = before.map_or(PAUSE_FIRST, |known| (known.pause * 2).min(PAUSE_MOST));
        if self.by_digest.len() >= REMEMBERED_MAX {
            let oldest = self.by_digest.iter().min_by_key(|(_, known)| known.noted).map(|(digest, _)| digest.clone());
            oldest.map(|digest| self.by_digest.remove(&digest));
        }
        let again = (refusal.counts == Counts::ForAWhile).then_some(pause);
        self.by_digest.insert(digest.to_owned(), Remembered { refusal, noted: now, pause });
        again
    }

    /// A module was accepted after all.
    pub(super) fn forget(&mut self, digest: &str) {
        self.by_digest.remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(counts: Counts) -> Refusal {
        Refusal { reason: "Reason", why: "why".to_owned(), counts }
    }

    #[test]
    fn a_verdict_stands_until_the_bytes_or_the_params_change() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let much_later = now + PAUSE_MOST * 100;
        assert_eq!(refusals.note("a", refusal(Counts::Always), now), None);
        assert!(refusals.known("a", &[], much_later).is_some());
        assert!(refusals.known("b", &[], now).is_none());
        let params = vec!["{}".to_owned()];
        refusals.note("b", refusal(Counts::WithParams(params.clone())), now);
        assert!(refusals.known("b", &params, much_later).is_some());
        assert!(refusals.known("b", &[], now).is_none());
        refusals.forget("b");
        assert!(refusals.known("b", &params, now).is_none());
    }

    #[test]
    fn a_failure_of_the_machine_is_forgiven_ever_later() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = refusals.note("a", refusal(Counts::ForAWhile), now).expect("again");
            let (_, left) = refusals.known("a", &[], now + pause / 4).expect("not yet");
            assert_eq!(left, Some(pause - pause / 4));
            now += pause;
            assert!(refusals.known("a", &[], now).is_none(), "now it may be tried");
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        refusals.forget("a");
        assert_eq!(refusals.note("a", refusal(Counts::ForAWhile), now), Some(PAUSE_FIRST), "it had worked in between");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..=REMEMBERED_MAX {
            refusals.note(&n.to_string(), refusal(Counts::Always), now + Duration::from_secs(n as u64));
        }
        assert_eq!(refusals.by_digest.len(), REMEMBERED_MAX);
        assert!(refusals.known("0", &[], now).is_none() && refusals.known("1", &[], now).is_some());
    }
}
