//! A watch on one object that goes on until it is dropped.

use std::{fmt::Debug, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;

use super::{
    error::{Access, CallFailure, CallFailureKind, is_refusal, is_transient},
    names::{self, Randomness},
};

/// From where a watch starts.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// The object as it is now arrives first, if there is one. Nothing arrives if there is none.
    Now,
    /// Every change after this resourceVersion.
    After(String),
}

/// What a watch on one object tells.
#[derive(Debug)]
pub(crate) enum Seen<K> {
    /// The object as it is.
    Present(K),
    /// It is not there (any more).
    Gone,
    /// The API server cannot be watched; it is tried again.
    Trouble(String),
}

/// A watch that can be held in a struct and polled in a `select!`.
pub(crate) type Watch<K> = Pin<Box<dyn Stream<Item = Result<Seen<K>, CallFailure>> + Send>>;

/// How long the API server may take to begin to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An API server that has just started refuses everybody until it has read its access rules. So what
/// was allowed before is asked for so often before a refusal is believed: for about 10 s.
const REFUSALS_MOST: u32 = 8;

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

enum State<K> {
    Connect(From),
    Stream(Events<K>, From),
    /// The stream broke where it cannot be taken up again: what happened meanwhile is found by listing.
    List,
    Wait(Duration),
    Over,
}

struct Watcher<K> {
    api: Api<K>,
    name: String,
    list: Access,
    watch: Access,
    state: State<K>,
    failures: u32,
    /// Whether it was ever allowed, and how often in a row it has been refused since.
    allowed: bool,
    refusals: u32,
    random: Arc<dyn Randomness>,
}

/// Watches one object. The stream survives closed connections, expired resourceVersions and an API
/// server that is away or has just started; it ends only with an error that trying again does not mend.
pub(crate) fn object<K>(
    api: Api<K>,
    name: &str,
    from: From,
    access: fn(&'static str) -> Access,
    random: Arc<dyn Randomness>,
) -> Watch<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let watcher = Watcher {
        api,
        name: name.to_owned(),
        list: access("list"),
        watch: access("watch"),
        state: State::Connect(from),
        failures: 0,
        allowed: false,
        refusals: 0,
        random,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let item = watcher.next().await?;
        Some((item, watcher))
    })
    .boxed()
}

impl<K> Watcher<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn selector(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    async fn next(&mut self) -> Option<Result<Seen<K>, CallFailure>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return None,
                State::Wait(delay) => {
                    tokio::time::sleep(delay).await;
                    self.state = State::List;
                }
                State::Connect(from) => {
                    if let Some(item) = self.connect(from).await {
                        return Some(item);
                    }
                }
                State::List => return Some(self.relist().await),
                State::Stream(events, from) => {
                    if let Some(item) = self.read(events, from).await {
                        return Some(item);
                    }
                }
            }
        }
    }

    async fn connect(&mut self, from: From) -> Option<Result<Seen<K>, CallFailure>> {
        let params = WatchParams::default().fields(&self.selector());
        // "0" is: what the API server's cache has now, then every change. Not being the very newest
        // does no harm here, because what follows is not missed.
        let version = match &from {
            From::Now => "0",
            From::After(version) => version,
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, self.api.watch(&params, version)).await {
            Ok(Ok(events)) => {
                (self.allowed, self.refusals) = (true, 0);
                self.state = State::Stream(events.boxed(), from);
                None
            }
            Ok(Err(error)) => self.failed(self.watch, CallFailureKind::Kube(error)),
            Err(_) => self.failed(self.watch, CallFailureKind::Silent(ANSWER_TIMEOUT)),
        }
    }

    async fn read(&mut self, mut events: Events<K>, from: From) -> Option<Result<Seen<K>, CallFailure>> {
        match events.next().await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                self.failures = 0;
                let from = version_of(&object).map_or(from, From::After);
                self.state = State::Stream(events, from);
                Some(Ok(Seen::Present(object)))
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                let from = version_of(&object).map_or(from, From::After);
                self.state = State::Stream(events, from);
                Some(Ok(Seen::Gone))
            }
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                self.failures = 0;
                self.state = State::Stream(events, From::After(bookmark.metadata.resource_version));
                None
            }
            Some(Ok(WatchEvent::Error(status))) => {
                self.failed(self.watch, CallFailureKind::Kube(kube::Error::Api(status)))
            }
            Some(Err(error)) => self.failed(self.watch, CallFailureKind::Kube(error)),
            // Servers close watches every now and then. Listing first also shows a deletion.
            None => {
                self.state = if self.failures == 0 { State::List } else { State::Wait(self.backoff()) };
                self.failures = self.failures.saturating_add(1);
                None
            }
        }
    }

    async fn relist(&mut self) -> Result<Seen<K>, CallFailure> {
        let params = ListParams::default().fields(&self.selector());
        let listed = tokio::time::timeout(ANSWER_TIMEOUT, self.api.list(&params)).await;
        let failure = match listed {
            Ok(Ok(list)) => {
                (self.allowed, self.refusals) = (true, 0);
                let version = list.metadata.resource_version.unwrap_or_default();
                self.state = State::Connect(From::After(version));
                return Ok(list.items.into_iter().next().map_or(Seen::Gone, Seen::Present));
            }
            Ok(Err(error)) => CallFailureKind::Kube(error),
            Err(_) => CallFailureKind::Silent(ANSWER_TIMEOUT),
        };
        match self.failed(self.list, failure) {
            Some(item) => item,
            None => Ok(Seen::Trouble("the API server closed the connection".to_owned())),
        }
    }

    /// Decides what comes after a failure. `None`: nothing worth telling.
    fn failed(&mut self, access: Access, kind: CallFailureKind) -> Option<Result<Seen<K>, CallFailure>> {
        let expired = matches!(&kind, CallFailureKind::Kube(kube::Error::Api(status)) if status.code == 410);
        if expired && self.failures == 0 {
            self.failures = 1;
            self.state = State::List;
            return None;
        }
        let transient = match &kind {
            CallFailureKind::Kube(error) if is_refusal(error) => {
                self.refusals = self.refusals.saturating_add(1);
                self.allowed && self.refusals < REFUSALS_MOST
            }
            CallFailureKind::Kube(error) => is_transient(error),
            CallFailureKind::Silent(_) => true,
        };
        if !transient {
            self.state = State::Over;
            return Some(Err(CallFailure { access, kind }));
        }
        self.state = State::Wait(self.backoff());
        self.failures = self.failures.saturating_add(1);
        let why = match kind {
            CallFailureKind::Kube(error) => error.to_string(),
            CallFailureKind::Silent(waited) => format!("no answer for {} s", waited.as_secs()),
        };
        Some(Ok(Seen::Trouble(why)))
    }

    fn backoff(&self) -> Duration {
        BACKOFF_FIRST.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX).mul_f64(names::jitter(&*self.random))
    }
}

fn version_of<K: kube::Resource>(object: &K) -> Option<String> {
    object.meta().resource_version.clone()
}

#[cfg(test)]
mod tests {
    use konductor_crds::Lease;

    use super::*;
    use crate::client::scripted::{self, event, lease, list, status};

    /// Watches lease x of an API server that gives these answers, one a request. Returns what was
    /// told and what was asked for.
    async fn told(from: From, answers: &[(u16, String)], count: usize) -> (Vec<String>, Vec<String>) {
        let (client, asked) = scripted::client(answers);
        let api: Api<Lease> = Api::namespaced(client, "default");
        let mut watch = object(api, "x", from, Access::leases, Arc::new(names::SystemRandomness));
        let mut told = Vec::new();
        while told.len() < count {
            let Some(item) = watch.next().await else { break };
            told.push(match item {
                Ok(Seen::Present(lease)) => format!("present {}", lease.metadata.resource_version.unwrap_or_default()),
                Ok(Seen::Gone) => "gone".to_owned(),
                Ok(Seen::Trouble(_)) => "trouble".to_owned(),
                Err(failure) => format!("failed to {}", failure.access),
            });
        }
        let asked = asked.lock().expect("lock").clone();
        (told, asked)
    }

    // Time is paused: it jumps to the next timer as soon as nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_watch_outlives_closed_streams_expired_versions_and_an_api_server_that_is_away() {
        let gone = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410));
        let expired = (410, status(410));
        for (what, from, answers, expected_told, expected_asked) in [
            (
                "closed: listed, and watched from there",
                From::Now,
                vec![(200, event("ADDED", 5)), (200, list(&lease(7), 8)), (200, event("MODIFIED", 9))],
                vec!["present 5", "present 7", "present 9"],
                vec!["watch 0", "list -", "watch 8"],
            ),
            (
                "deleted while it was closed",
                From::Now,
                vec![(200, event("ADDED", 5)), (200, list("", 8))],
                vec!["present 5", "gone"],
                vec!["watch 0", "list -"],
            ),
            (
                "deleted while it was watched",
                From::After("3".into()),
                vec![(200, event("DELETED", 5))],
                vec!["gone"],
                vec!["watch 3"],
            ),
            (
                "too old a version, told as an event",
                From::After("3".into()),
                vec![(200, gone), (200, list(&lease(7), 8))],
                vec!["present 7"],
                vec!["watch 3", "list -"],
            ),
            (
                "too old a version, told at once",
                From::After("3".into()),
                vec![expired, (200, list(&lease(7), 8))],
                vec!["present 7"],
                vec!["watch 3", "list -"],
            ),
            (
                "overloaded, then well",
                From::Now,
                vec![(503, status(503)), (429, status(429)), (200, list(&lease(7), 8))],
                vec!["trouble", "trouble", "present 7"],
                vec!["watch 0", "list -", "list -"],
            ),
            ("away", From::Now, vec![], vec!["trouble", "trouble"], vec!["watch 0", "list -"]),
            (
                "forbidden after it was allowed: an API server that has just started",
                From::Now,
                vec![(200, event("ADDED", 5)), (403, status(403)), (401, status(401)), (200, list(&lease(7), 8))],
                vec!["present 5", "trouble", "trouble", "present 7"],
                vec!["watch 0", "list -", "list -", "list -"],
            ),
            (
                "forbidden for good after it was allowed",
                From::Now,
                std::iter::once((200, event("ADDED", 5))).chain(vec![(403, status(403)); 8]).collect(),
                std::iter::once("present 5")
                    .chain(["trouble"; 7])
                    .chain(["failed to list leases.konductor.io"])
                    .collect(),
                std::iter::once("watch 0").chain(["list -"; 8]).collect(),
            ),
            (
                "forbidden: over",
                From::Now,
                vec![(403, status(403))],
                vec!["failed to watch leases.konductor.io"],
                vec!["watch 0"],
            ),
        ] {
            let (told, asked) = told(from, &answers, expected_told.len()).await;
            assert_eq!(told, expected_told, "{what}");
            assert_eq!(asked, expected_asked, "{what}");
        }
    }
}
