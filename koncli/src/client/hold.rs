//! A hold on a lease, and until when this process may rely on it.

use std::{collections::BTreeMap, time::Duration};

use konductor_crds::{Lease, v1::RequestRef};

use super::{clock::Moment, decide::Grant, watch::Watch};

/// A hold on a lease, as this process knows it.
///
/// It is not released when it is dropped: a program that ends uncleanly keeps its lease until it
/// expires, and a program that ends cleanly calls [`release`](super::Client::release_hold).
pub struct Hold {
    /// The lease that is held.
    pub lease: String,
    /// Its namespace.
    pub namespace: String,
    /// Who holds it.
    pub holder: String,
    /// The LeaseRequest that holds it.
    pub request: RequestRef,
    /// The fencing token: hand it to whatever the lease protects.
    pub token: i64,
    /// When it was granted, as the controller wrote it.
    pub acquired: String,
    /// When it ends unless it is renewed, as the controller wrote it. Not to be compared with a
    /// clock of this machine: use [`Hold::deadline`].
    pub expires: String,
    /// How long it lasts from its grant or its last renewal, in milliseconds.
    pub ttl_ms: i64,
    /// How often it was renewed.
    pub renewals: i64,
    pub(crate) deadline: Moment,
    pub(crate) counter: i64,
    /// The watch that showed the grant: renewals and the release go on reading it, so a hold costs one
    /// watch from its beginning to its end. `None` after anything went wrong; the next use opens another.
    pub(crate) watch: Option<Watch<Lease>>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold")
            .field("lease", &self.lease)
            .field("namespace", &self.namespace)
            .field("holder", &self.holder)
            .field("request", &self.request)
            .field("token", &self.token)
            .field("expires", &self.expires)
            .field("renewals", &self.renewals)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Hold {
    /// When this process must have stopped to rely on the hold, on its own clock: strictly before
    /// the controller may grant the lease to anybody else.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// How long this process may still rely on the hold.
    #[must_use]
    pub fn left_at(&self, now: Moment) -> Duration {
        self.deadline.left_at(now)
    }

    /// How long it lasts from its grant or its last renewal.
    pub(crate) fn ttl(&self) -> Duration {
        millis(self.ttl_ms)
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant {
            token: self.token,
            acquired: self.acquired.clone(),
            expires: self.expires.clone(),
            length_ms: self.ttl_ms,
            renewals: self.renewals,
            acted_on: self.request.renewals,
            counted: self.request.counted.unwrap_or(self.request.renewals),
        }
    }

    /// The value to raise the request's counter to, by one. Where it is another than this process knows (nobody has
    /// answered, or somebody else renews too) the raising says so.
    pub(crate) fn next_counter(&mut self) -> i64 {
        self.counter = self.counter.max(self.request.renewals) + 1;
        self.counter
    }

    /// Takes over what a renewal brought. `sent` was read before the renewal was sent.
    pub(crate) fn renewed(&mut self, grant: Grant, sent: Moment, counter: i64) {
        self.deadline = deadline(sent, grant.length_ms);
        self.ttl_ms = grant.length_ms;
        self.expires = grant.expires;
        self.renewals = grant.renewals;
        self.request.renewals = grant.acted_on;
        self.request.counted = Some(grant.counted);
        self.counter = counter;
    }
}

/// How much earlier than the end of a ttl its holder stops: a twentieth, at least 100 ms, at most
/// 5 s, and never more than half. It covers clocks that run at different rates and the time between
/// reading the clock and acting on it.
pub(crate) fn margin(ttl: Duration) -> Duration {
    (ttl / 20).clamp(Duration::from_millis(100), Duration::from_secs(5)).min(ttl / 2)
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// The deadline of a grant or a renewal for `length_ms` that was decided after `before`. The
/// controller counts the same span on its own monotonic clock, from when it decided.
pub(crate) fn deadline(before: Moment, length_ms: i64) -> Moment {
    let length = millis(length_ms);
    before.after(length - margin(length))
}

/// When which value of the request's counter was sent: what a grant that names a value was decided
/// after. A client that waited for an hour may so rely on nearly the whole ttl.
#[derive(Debug)]
pub(crate) struct Beats {
    /// Those of which the API server has said that they raised the counter, and nobody else.
    done: BTreeMap<i64, Moment>,
    /// What the counter is, as far as this process knows.
    stands: i64,
}

/// A grant names the newest beat that its controller saw; older ones than this cannot be meant.
const BEATS_KEPT: usize = 16;

impl Beats {
    /// The request is about to be created, with its counter at zero.
    pub(crate) fn new(sent: Moment) -> Self {
        Self { done: BTreeMap::from([(0, sent)]), stands: 0 }
    }

    /// The next value of the counter.
    pub(crate) fn next(&self) -> i64 {
        self.stands + 1
    }

    /// The counter was raised to this value by what was sent then.
    pub(crate) fn raised(&mut self, counter: i64, sent: Moment) {
        self.done.insert(counter, sent);
        self.stands = counter;
        // The first one stays: it is right for every grant.
        if self.done.len() > BEATS_KEPT {
            let oldest = self.done.keys().copied().nth(1);
            oldest.map(|counter| self.done.remove(&counter));
        }
    }

    /// The counter was found to be this.
    pub(crate) fn stands(&mut self, counter: i64) {
        self.stands = counter;
    }

    /// What the counter is, as far as this process knows.
    pub(crate) fn last(&self) -> i64 {
        self.stands
    }

    /// A moment before the decision of a grant that was computed at the counter `counted`. A beat whose answer is not
    /// there may have been another's of the same number, sent earlier, so it does not count.
    pub(crate) fn before_grant(&self, counted: i64) -> Moment {
        let newest = self.done.range(..=counted).next_back().or_else(|| self.done.first_key_value());
        newest.map_or(Moment::new(Duration::ZERO), |(_, &sent)| sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    #[test]
    fn a_holder_stops_before_the_ttl_is_over() {
        for (ttl_ms, deadline_ms) in
            [(600_000, 595_000), (60_000, 57_000), (30_000, 28_500), (1_000, 900), (150, 75), (0, 0), (-5, 0)]
        {
            assert_eq!(deadline(at(1_000), ttl_ms), at(1_000 + deadline_ms), "{ttl_ms}");
        }
    }

    #[test]
    fn a_renewal_that_nobody_answered_is_not_sent_again_under_its_number() {
        let mut hold = Hold {
            lease: "l".to_owned(),
            namespace: "ns".to_owned(),
            holder: "h".to_owned(),
            request: RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 3, counted: None },
            token: 7,
            acquired: String::new(),
            expires: String::new(),
            ttl_ms: 10_000,
            renewals: 0,
            deadline: at(0),
            counter: 2,
            watch: None,
        };
        assert_eq!(hold.next_counter(), 4, "above what was acted on");
        assert_eq!(hold.next_counter(), 5, "the answer to the fourth was lost");
        let grant = Grant { acted_on: 5, ..hold.grant() };
        hold.renewed(grant, at(100), 5);
        assert_eq!((hold.next_counter(), hold.deadline()), (6, at(9_600)));
        assert_eq!(hold.left_at(at(9_000)), Duration::from_millis(600));
    }

    #[test]
    fn a_grant_is_counted_from_the_newest_beat_that_it_names() {
        let mut beats = Beats::new(at(100));
        assert_eq!(beats.before_grant(0), at(100));
        for (n, sent) in [(1, 200), (2, 300)] {
            assert_eq!(beats.next(), n);
            beats.raised(n, at(sent));
        }
        for (counted, sent) in [(0, 100), (1, 200), (2, 300), (9, 300), (-1, 100)] {
            assert_eq!(beats.before_grant(counted), at(sent), "{counted}");
        }
        for n in 3..BEATS_KEPT as u64 {
            beats.raised(beats.next(), at(n * 100 + 100));
        }
        assert_eq!(beats.before_grant(1), at(200), "so many are remembered");
        beats.raised(beats.next(), at(900));
        assert_eq!(beats.before_grant(1), at(100), "and no more");
        let mut beats = Beats::new(at(100));
        for n in 0..52 {
            beats.raised(beats.next(), at(998 + n));
        }
        assert_eq!(beats.last(), 52);
        assert_eq!(beats.before_grant(52), at(1_049));
        assert_eq!(beats.before_grant(5), at(100), "forgotten beats are replaced by an earlier moment");
    }

    #[test]
    fn a_beat_that_somebody_else_was_faster_with_is_not_counted_from() {
        let mut beats = Beats::new(at(100));
        beats.raised(1, at(200));
        assert_eq!(beats.next(), 2);
        assert_eq!(beats.before_grant(2), at(200), "nobody has said that it was ours");
        beats.stands(2);
        assert_eq!((beats.next(), beats.before_grant(2)), (3, at(200)), "it was not");
        beats.raised(3, at(400));
        assert_eq!((beats.before_grant(3), beats.before_grant(2)), (at(400), at(200)));
    }
}
