//! What was seen beside a snapshot, and of whom the API server must be asked before a grant may rest on it.
//!
//! A cache is late, and that of requests later or less so than that of leases. What a request has held stands in the
//! lease's history, or, before it falls out of it, the request is marked as over or gone: the planner grants nothing
//! that would forget one before. So who knows the lease and the requests of the same time knows whom not to grant again.

use crate::{
    snapshot::{Answered, HISTORY_MAX, PastHold, Request, RequestId, Snapshot},
    time::Time,
};

/// How much of the requests was seen beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Up to which resourceVersion.
    pub requests_version: i64,
    /// Until when a request may have been made that is older than this Lease, by the API server's clock. `None`: none is.
    pub older_until: Option<Time>,
    /// The requests of the history's oldest holds of which nothing was seen: gone, or not here yet.
    pub unseen: Vec<RequestId>,
}

impl Seen {
    /// What was seen beside this snapshot; `deleted` says of which uids a watch has shown the end.
    #[must_use]
    pub fn beside(
        snapshot: &Snapshot,
        requests_version: i64,
        older_until: Option<Time>,
        deleted: impl Fn(&str) -> bool,
    ) -> Self {
        // What a grant could make the history forget: a hold that is due enters it with the grant, and the one that is
        // granted when it ends.
        let oldest = snapshot.record.history.iter().skip(HISTORY_MAX - 2);
        let unseen = oldest
            .filter(|past| snapshot.request(&past.request).is_none() && !deleted(&past.request))
            .map(|past| RequestId { name: past.request_name.clone(), uid: past.request.clone() })
            .collect();
        Self { requests_version, older_until, unseen }
    }

    /// The requests about which the API server must be asked before this one is granted.
    ///
    /// A replica that was frozen sees a fresh lease beside old requests. Then the hold of a request that looks pending may
    /// have fallen out of the history already, and one of which nothing was seen may be pending and fall out by this
    /// grant. So the requests must be at least as new as the lease. They nearly always are: what ends a hold, or asks for
    /// one, is itself news of a request.
    ///
    /// A request that is older than the Lease may have held one of the same name before it, of which this one has no
    /// history: only its mark, or that it is gone, tells.
    #[must_use]
    pub fn in_doubt(&self, snapshot: &Snapshot, granted: &RequestId) -> Vec<RequestId> {
        if self.requests_version >= snapshot.resource_version {
            return Vec::new();
        }
        // Nothing has fallen out of a history that is not full.
        let full = snapshot.record.history.len() >= HISTORY_MAX;
        let older = || {
            let made = snapshot.request(&granted.uid).map(|request| request.arrived);
            made.zip(self.older_until).is_some_and(|(made, until)| made <= until)
        };
        (full || older()).then_some(granted).into_iter().chain(&self.unseen).cloned().collect()
    }
}

/// Counts as told what requests are being told, or were told since they were seen: a request that hears that it was too
/// late is not granted a moment later.
///
/// Not for those in the lease's history. They cannot be granted anyway, and may fall out of it when their mark has been
/// seen, and not before: one that is on its way may never arrive.
pub fn lay_over(requests: &mut [Request], history: &[PastHold], on_the_way: impl Fn(&Request) -> Option<Answered>) {
    for request in requests {
        if !history.iter().any(|past| past.request == request.id.uid) {
            request.answered = on_the_way(request).or(request.answered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        snapshot::{Ending, LeaseFacts, Record, Settings},
        time::Millis,
    };

    fn id(uid: &str) -> RequestId {
        RequestId { name: format!("name of {uid}"), uid: uid.to_owned() }
    }

    fn request(uid: &str, arrived: i64) -> Request {
        Request { id: id(uid), arrived: Time(arrived), ..Request::default() }
    }

    fn past(uid: &str) -> PastHold {
        PastHold {
            holder: String::new(),
            request: uid.to_owned(),
            request_name: id(uid).name,
            token: 1,
            acquired: Time(0),
            ended: Time(0),
            how: Ending::Released,
        }
    }

    /// A lease at the version 10, after holds of `h0`, the newest, and so on; `w` waits since 500.
    fn snapshot(holds: usize) -> Snapshot {
        let history = (0..holds).map(|n| past(&format!("h{n}"))).collect();
        Snapshot {
            now: Time(1_000),
            resource_version: 10,
            lease: LeaseFacts::default(),
            record: Record { history, ..Record::default() },
            remaining: None,
            requests: vec![request("w", 500)],
            waiting_told: 0,
            since_write: Millis::ZERO,
            settings: Settings::default(),
        }
    }

    #[test]
    fn the_oldest_holds_requests_are_here_or_known_to_be_gone_or_unseen() {
        let unseen = |snapshot: &Snapshot, gone: &[&str]| {
            let seen = Seen::beside(snapshot, 7, Some(Time(3)), |uid| gone.contains(&uid));
            assert_eq!((seen.requests_version, seen.older_until), (7, Some(Time(3))));
            seen.unseen
        };
        assert_eq!(unseen(&snapshot(HISTORY_MAX - 2), &[]), []);
        assert_eq!(unseen(&snapshot(HISTORY_MAX - 1), &[]), [id("h6")]);
        assert_eq!(unseen(&snapshot(HISTORY_MAX), &[]), [id("h6"), id("h7")]);
        assert_eq!(unseen(&snapshot(HISTORY_MAX), &["h6"]), [id("h7")]);
        let mut here = snapshot(HISTORY_MAX);
        here.requests.push(request("h7", 0));
        assert_eq!(unseen(&here, &[]), [id("h6")]);
    }

    #[test]
    fn who_may_have_held_already_is_in_doubt_where_the_requests_are_older_than_the_lease() {
        let full = snapshot(HISTORY_MAX);
        let doubts = |snapshot: &Snapshot, requests_version, older_until: Option<i64>, unseen: &[&str]| {
            let unseen = unseen.iter().map(|uid| id(uid)).collect();
            Seen { requests_version, older_until: older_until.map(Time), unseen }.in_doubt(snapshot, &id("w"))
        };
        assert_eq!(doubts(&full, 9, None, &[]), [id("w")], "its hold may have fallen out");
        assert_eq!(doubts(&full, 9, None, &["h7"]), [id("w"), id("h7")]);
        assert_eq!(doubts(&full, 10, Some(900), &["h7"]), [], "the requests are as new as the lease");
        let fewer = snapshot(HISTORY_MAX - 1);
        assert_eq!(doubts(&fewer, 9, None, &[]), [], "nothing has fallen out");
        assert_eq!(doubts(&fewer, 9, None, &["h6"]), [id("h6")], "but it may by this grant");
        assert_eq!(doubts(&fewer, 9, Some(499), &[]), [], "it is younger than the lease");
        assert_eq!(doubts(&fewer, 9, Some(500), &[]), [id("w")], "it may have held another lease of this name");
    }

    #[test]
    fn what_is_on_its_way_counts_for_all_but_those_in_the_history() {
        let answers = |on_the_way: Option<Answered>| {
            let mut requests = vec![request("w", 0), request("h", 0)];
            requests.iter_mut().for_each(|request| request.answered = Some(Answered::Pending));
            lay_over(&mut requests, &[past("h")], |_| on_the_way);
            requests.into_iter().map(|request| request.answered).collect::<Vec<_>>()
        };
        let (pending, finished) = (Some(Answered::Pending), Some(Answered::Finished));
        assert_eq!(answers(finished), [finished, pending]);
        assert_eq!(answers(None), [pending, pending], "what was told stays told");
    }
}
