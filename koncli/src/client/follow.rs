//! Everything of a kind, list after list and change after change, with the gaps between them.

use std::{fmt::Debug, pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;

use super::{
    error::{Access, CallFailure, CallFailureKind},
    names::{self, SystemRandomness},
};

/// What became known.
#[derive(Debug)]
pub(crate) enum Followed<K> {
    /// Everything that there is at a resourceVersion.
    Listed(String, Vec<K>),
    /// A new object.
    Added(K),
    /// A changed object.
    Modified(K),
    /// An object that is gone.
    Deleted(K),
    /// After this resourceVersion changes may be missing, until the next list.
    Gap(String, String),
    /// The API server cannot be followed; it is tried again.
    Trouble(String),
}

/// How long the API server may take to begin to answer; a list of everything takes longer than one object.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Short: what happens meanwhile may be gone from the API server's memory when it is asked for.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// An API server that has just started refuses everybody until it has read its access rules: for about 15 s then.
const REFUSALS_MOST: u32 = 10;

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;
pub(crate) type Following<K> = Pin<Box<dyn Stream<Item = Result<Followed<K>, CallFailure>> + Send>>;

enum State<K> {
    List,
    Connect,
    Stream(Events<K>),
    Over,
}

struct Follower<K> {
    api: Api<K>,
    access: fn(&'static str) -> Access,
    state: State<K>,
    /// The last resourceVersion that is known; empty before the first list.
    version: String,
    /// How long to wait before the next attempt, if the last one failed.
    failures: u32,
    refusals: u32,
}

/// Follows everything of a kind. It survives broken watches, expired resourceVersions and an API server that is away or
/// has just started; it ends with an error that trying again does not mend, or with any before the first list.
pub(crate) fn follow<K>(api: Api<K>, access: fn(&'static str) -> Access) -> Following<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let follower = Follower { api, access, state: State::List, version: String::new(), failures: 0, refusals: 0 };
    stream::unfold(follower, |mut follower| async move {
        let item = follower.next().await?;
        Some((item, follower))
    })
    .boxed()
}

impl<K> Follower<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    async fn next(&mut self) -> Option<Result<Followed<K>, CallFailure>> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Over);
            if self.failures > 0 && matches!(state, State::List | State::Connect) {
                let delay = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
                tokio::time::sleep(delay.mul_f64(names::jitter(&SystemRandomness))).await;
            }
            let item = match state {
                State::Over => return None,
                State::List => Some(self.list().await),
                State::Connect => self.connect().await,
                State::Stream(events) => self.read(events).await,
            };
            if item.is_some() {
                return item;
            }
        }
    }

    async fn list(&mut self) -> Result<Followed<K>, CallFailure> {
        let params = ListParams::default();
        let kind = match tokio::time::timeout(ANSWER_TIMEOUT, self.api.list(&params)).await {
            Ok(Ok(list)) => {
                (self.failures, self.refusals) = (0, 0);
                self.version = list.metadata.resource_version.unwrap_or_default();
                self.state = State::Connect;
                return Ok(Followed::Listed(self.version.clone(), list.items));
            }
            Ok(Err(error)) => CallFailureKind::Kube(error),
            Err(_) => CallFailureKind::Silent(ANSWER_TIMEOUT),
        };
        self.failed("list", kind, State::List)
    }

    async fn connect(&mut self) -> Option<Result<Followed<K>, CallFailure>> {
        let params = WatchParams::default();
        let kind = match tokio::time::timeout(ANSWER_TIMEOUT, self.api.watch(&params, &self.version)).await {
            Ok(Ok(events)) => {
                self.refusals = 0;
                self.state = State::Stream(events.boxed());
                return None;
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Some(Ok(self.gap(status.message))),
            Ok(Err(error)) => CallFailureKind::Kube(error),
            Err(_) => CallFailureKind::Silent(ANSWER_TIMEOUT),
        };
        Some(self.failed("watch", kind, State::Connect))
    }

    async fn read(&mut self, mut events: Events<K>) -> Option<Result<Followed<K>, CallFailure>> {
        let event = events.next().await;
        let followed = match event {
            Some(Ok(WatchEvent::Added(object))) => Followed::Added(object),
            Some(Ok(WatchEvent::Modified(object))) => Followed::Modified(object),
            Some(Ok(WatchEvent::Deleted(object))) => Followed::Deleted(object),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                self.version = bookmark.metadata.resource_version;
                self.state = State::Stream(events);
                return None;
            }
            Some(Ok(WatchEvent::Error(status))) if status.code == 410 => return Some(Ok(self.gap(status.message))),
            // An object that cannot be read would be shown again and again.
            Some(Err(kube::Error::SerdeError(error))) => return Some(Ok(self.gap(error.to_string()))),
            Some(Ok(WatchEvent::Error(status))) => {
                return Some(self.failed("watch", CallFailureKind::Kube(kube::Error::Api(status)), State::Connect));
            }
            Some(Err(error)) => return Some(self.failed("watch", CallFailureKind::Kube(error), State::Connect)),
            // Servers close watches every now and then; it is taken up where it was, so nothing is missed.
            None => {
                self.failures = self.failures.saturating_add(1);
                self.state = State::Connect;
                return None;
            }
        };
        self.failures = 0;
        if let Followed::Added(object) | Followed::Modified(object) | Followed::Deleted(object) = &followed {
            self.version = object.meta().resource_version.clone().unwrap_or_default();
        }
        self.state = State::Stream(events);
        Some(Ok(followed))
    }

    fn gap(&mut self, why: String) -> Followed<K> {
        self.failures = self.failures.saturating_add(1);
        self.state = State::List;
        Followed::Gap(self.version.clone(), why)
    }

    /// What comes after a failure: `again`, or the end.
    fn failed(
        &mut self,
        verb: &'static str,
        kind: CallFailureKind,
        again: State<K>,
    ) -> Result<Followed<K>, CallFailure> {
        let failure = CallFailure { access: (self.access)(verb), kind };
        let refused = failure.is_refusal();
        self.refusals = if refused { self.refusals.saturating_add(1) } else { self.refusals };
        let mends = if refused { self.refusals < REFUSALS_MOST } else { failure.is_transient() };
        if self.version.is_empty() || !mends {
            self.state = State::Over;
            return Err(failure);
        }
        self.failures = self.failures.saturating_add(1);
        self.state = again;
        Ok(Followed::Trouble(match failure.kind {
            CallFailureKind::Kube(error) => error.to_string(),
            CallFailureKind::Silent(waited) => format!("no answer for {} s", waited.as_secs()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::Lease;

    use super::*;
    use crate::client::scripted::{self, event, lease, list, status};

    /// Follows an API server that gives these answers, one a request: what is told, and what was asked for.
    async fn told(answers: &[(u16, String)], count: usize) -> (Vec<String>, Vec<String>) {
        let (client, asked) = scripted::client(answers);
        let api: Api<Lease> = Api::namespaced(client, "default");
        let mut followed = follow(api, Access::leases);
        let mut told = Vec::new();
        while told.len() < count {
            let version = |lease: Lease| lease.metadata.resource_version.unwrap_or_default();
            told.push(match followed.next().await {
                None => break,
                Some(Ok(Followed::Listed(at, items))) => format!("{} at {at}", items.len()),
                Some(Ok(Followed::Added(lease))) => format!("added {}", version(lease)),
                Some(Ok(Followed::Modified(lease))) => format!("modified {}", version(lease)),
                Some(Ok(Followed::Deleted(lease))) => format!("deleted {}", version(lease)),
                Some(Ok(Followed::Gap(after, _))) => format!("gap after {after}"),
                Some(Ok(Followed::Trouble(_))) => "trouble".to_owned(),
                Some(Err(failure)) => format!("failed to {}", failure.access),
            });
        }
        let asked = asked.lock().expect("lock").clone();
        (told, asked)
    }

    // Time is paused: it jumps to the next timer as soon as nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn what_is_missed_is_told_and_what_is_not_missed_is_no_gap() {
        let gone = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410));
        let bookmark = "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"konductor.io/v1\",\"kind\":\"Lease\",\"metadata\":{\"resourceVersion\":\"20\"}}}\n";
        let begin = (200, list(&lease(7), 8));
        for (what, answers, expected_told, expected_asked) in [
            (
                "closed: taken up where it was",
                vec![begin.clone(), (200, event("ADDED", 9)), (200, event("DELETED", 11))],
                vec!["1 at 8", "added 9", "deleted 11"],
                vec!["list -", "watch 8", "watch 9"],
            ),
            (
                "a bookmark moves it on",
                vec![begin.clone(), (200, bookmark.to_owned()), (200, event("MODIFIED", 21))],
                vec!["1 at 8", "modified 21"],
                vec!["list -", "watch 8", "watch 20"],
            ),
            (
                "too old, told as an event",
                vec![begin.clone(), (200, event("ADDED", 9) + &gone), (200, list("", 12)), (200, event("ADDED", 13))],
                vec!["1 at 8", "added 9", "gap after 9", "0 at 12", "added 13"],
                vec!["list -", "watch 8", "list -", "watch 12"],
            ),
            (
                "too old, told at once",
                vec![begin.clone(), (410, status(410)), (200, list("", 12))],
                vec!["1 at 8", "gap after 8", "0 at 12"],
                vec!["list -", "watch 8", "list -"],
            ),
            (
                "overloaded and just started, then well",
                vec![begin.clone(), (503, status(503)), (403, status(403)), (200, event("ADDED", 9))],
                vec!["1 at 8", "trouble", "trouble", "added 9"],
                vec!["list -", "watch 8", "watch 8", "watch 8"],
            ),
            (
                "forbidden from the beginning",
                vec![(403, status(403))],
                vec!["failed to list leases.konductor.io"],
                vec!["list -"],
            ),
            ("away from the beginning", vec![], vec!["failed to list leases.konductor.io"], vec!["list -"]),
            (
                "forbidden for good",
                std::iter::once(begin.clone()).chain(vec![(403, status(403)); 10]).collect(),
                std::iter::once("1 at 8")
                    .chain(["trouble"; 9])
                    .chain(["failed to watch leases.konductor.io"])
                    .collect(),
                std::iter::once("list -").chain(["watch 8"; 10]).collect(),
            ),
        ] {
            let (told, asked) = told(&answers, expected_told.len()).await;
            assert_eq!(told, expected_told, "{what}");
            assert_eq!(asked, expected_asked, "{what}");
        }
    }
}
