//! Watch events into the world. An event leaves nothing behind but the world's new state and the
//! keys to look at; nobody downstream sees it.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use konductor_core::Millis;
use konductor_crds::{DEFAULT_POLICY_ANNOTATION, Lease, LeaseRequest, POLICY_MODULE_LABEL};
use kube::{Api, Client, ResourceExt as _, core::PartialObjectMeta};
use kube_runtime::{
    WatchStreamExt as _,
    utils::Backoff,
    watcher::{self, Config, Event},
};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::world::Key;
use crate::{clock::Clock, policies::Policies, queue::Queue, report::Metrics};

/// The first and the longest pause before a broken watch is tried again. The API server's restart
/// takes seconds, and everybody waits for us: two seconds at most, with jitter, for four watches.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// Doubles from the first to the longest pause and never gives up. The watcher resets it when an
/// event has come.
pub(super) struct Retry {
    next: Duration,
    seed: u64,
    what: &'static str,
    tries: u64,
}

impl Retry {
    pub(super) fn new(seed: u64, what: &'static str) -> Self {
        Self { next: RETRY_FIRST, seed, what, tries: 0 }
    }
}

/// Whether a watch is interrupted: told once an outage, not once a try.
pub(super) struct Outage {
    resource: &'static str,
    metrics: Arc<Metrics>,
    lasts: bool,
}

impl Outage {
    pub(super) fn new(resource: &'static str, metrics: Arc<Metrics>) -> Self {
        Self { resource, metrics, lasts: false }
    }

    /// Something has come.
    pub(super) fn sees<K>(&mut self, event: &Event<K>) {
        if self.lasts && matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
            self.lasts = false;
            info!(resource = self.resource, "watching again");
        }
    }

    /// It does not work.
    pub(super) fn has(&mut self, error: &watcher::Error) {
        self.metrics.api_error("watch");
        if !std::mem::replace(&mut self.lasts, true) {
            warn!(resource = self.resource, error = error as &dyn std::error::Error, "cannot watch; trying again");
        }
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(RETRY_MOST);
        self.tries += 1;
        // From three quarters to all of it, so that the watches do not come back in step.
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let mut jitter = DefaultHasher::new();
        (self.seed, self.what, self.tries).hash(&mut jitter);
        let less = jitter.finish() % (millis / 4 + 1);
        Some(Duration::from_millis(millis - less))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.next = RETRY_FIRST;
    }
}

/// Which of the four lists have been seen in full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    leases: bool,
    requests: bool,
    policies: bool,
    namespaces: bool,
}

impl Synced {
    /// Whether decisions can be made: before, a holder's request might only not have been listed yet.
    #[must_use]
    pub fn all(self) -> bool {
        let Self { leases, requests, policies, namespaces } = self;
        leases && requests && policies && namespaces
    }

    /// Whether it can be said which policy a lease means.
    #[must_use]
    pub fn policies_can_be_named(self) -> bool {
        self.leases && self.namespaces
    }
}

/// What the watches feed.
#[derive(Clone)]
pub struct Feeds {
    /// The cache.
    pub world: Arc<super::World>,
    /// The policies.
    pub policies: Arc<Policies>,
    /// The keys to look at.
    pub queue: Arc<Queue<Key>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// By how much the API server's clock may differ from ours.
    pub skew: Millis,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is told of a request's status, see [`crate::report::Answers`].
    pub answers: Arc<crate::report::Answers>,
    /// Another number for each replica: what the pauses of broken watches are spread by.
    pub seed: u64,
}

/// Starts the four watches. Each runs until its task is dropped; `synced` says when all have listed.
pub fn watch_all(client: &Client, feeds: &Feeds, tasks: &mut JoinSet<&'static str>) -> watch::Receiver<Synced> {
    let (sender, receiver) = watch::channel(Synced::default());
    let sender = Arc::new(sender);
    let all = Config::default;

    let stream = watcher::watcher(Api::<Lease>::all(client.clone()), all());
    let (feed, synced) = (feeds.clone(), sender.clone());
    spawn(tasks, "leases", stream, feeds, move |event| {
        on_lease(&feed, event).inspect_done(|| synced.send_modify(|s| s.leases = true));
    });

    let stream = watcher::watcher(Api::<LeaseRequest>::all(client.clone()), all());
    let (feed, synced) = (feeds.clone(), sender.clone());
    spawn(tasks, "leaserequests", stream, feeds, move |event| {
        on_request(&feed, event).inspect_done(|| synced.send_modify(|s| s.requests = true));
    });

    let modules = all().labels(&format!("{POLICY_MODULE_LABEL}=true"));
    let stream = watcher::watcher(Api::<ConfigMap>::all(client.clone()), modules);
    let (feed, synced) = (feeds.clone(), sender.clone());
    spawn(tasks, "configmaps", stream, feeds, move |event| {
        on_config_map(&feed, event).inspect_done(|| synced.send_modify(|s| s.policies = true));
    });

    let stream = watcher::watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all());
    let (feed, synced) = (feeds.clone(), sender);
    spawn(tasks, "namespaces", stream, feeds, move |event| {
        let annotation = |n: &PartialObjectMeta<Namespace>| n.annotations().get(DEFAULT_POLICY_ANNOTATION).cloned();
        let push = |keys: Vec<Key>| keys.into_iter().for_each(|k| feed.queue.push(k));
        let done = match event {
            Event::Init => {
                feed.world.namespaces_list_begins();
                Done::No
            }
            Event::InitApply(n) => {
                push(feed.world.apply_namespace(&n.name_any(), annotation(&n), true));
                Done::No
            }
            Event::Apply(n) => {
                push(feed.world.apply_namespace(&n.name_any(), annotation(&n), false));
                Done::No
            }
            Event::Delete(n) => {
                push(feed.world.apply_namespace(&n.name_any(), None, false));
                Done::No
            }
            Event::InitDone => {
                feed.world.namespaces_list_done();
                Done::Yes
            }
        };
        done.inspect_done(|| synced.send_modify(|s| s.namespaces = true));
    });
    receiver
}

/// Whether an event completed a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

impl Done {
    fn inspect_done(self, then: impl FnOnce()) {
        if self == Self::Yes {
            then();
        }
    }
}

fn spawn<K: Debug + Send + 'static>(
    tasks: &mut JoinSet<&'static str>,
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    feeds: &Feeds,
    mut on_event: impl FnMut(Event<K>) + Send + 'static,
) {
    let mut outage = Outage::new(what, feeds.metrics.clone());
    let backoff = Retry::new(feeds.seed, what);
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream.backoff(backoff));
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    outage.sees(&event);
                    on_event(event);
                }
                Err(error) => outage.has(&error),
            }
        }
        what
    });
}

fn on_lease(feed: &Feeds, event: Event<Lease>) -> Done {
    match event {
        Event::Init => feed.world.leases_list_begins(),
        Event::InitApply(lease) => feed.queue.push(feed.world.lease_listed(lease)),
        Event::Apply(lease) => feed.queue.push(feed.world.apply_lease(lease)),
        Event::Delete(lease) => feed.queue.push(feed.world.delete_lease(&lease)),
        Event::InitDone => {
            feed.world.leases_list_done().into_iter().for_each(|k| feed.queue.push(k));
            return Done::Yes;
        }
    }
    Done::No
}

fn on_request(feed: &Feeds, event: Event<LeaseRequest>) -> Done {
    match event {
        Event::Init => feed.world.requests_list_begins(),
        Event::InitApply(request) => {
            feed.answers.seen(&request);
            let keys = feed.world.request_listed(request, feed.clock.read(), feed.skew);
            keys.into_iter().for_each(|k| feed.queue.push(k));
        }
        Event::Apply(request) => {
            feed.answers.seen(&request);
            let keys = feed.world.request_watched(request, feed.clock.read(), feed.skew);
            keys.into_iter().for_each(|k| feed.queue.push(k));
        }
        Event::Delete(request) => {
            let key = feed.world.request_deleted(&request);
            // After the world: who still sees the request must find what it was told.
            feed.answers.forget(&request);
            feed.queue.push(key);
        }
        Event::InitDone => {
            let keys = feed.world.requests_list_done();
            feed.answers.forget_others(&feed.world.request_uids());
            keys.into_iter().for_each(|k| feed.queue.push(k));
            return Done::Yes;
        }
    }
    Done::No
}

fn on_config_map(feed: &Feeds, event: Event<ConfigMap>) -> Done {
    match event {
        Event::Init => feed.policies.list_begins(),
        Event::InitApply(map) => feed.policies.apply(map, true),
        Event::Apply(map) => feed.policies.apply(map, false),
        Event::Delete(map) => feed.policies.delete(&map.namespace().unwrap_or_default(), &map.name_any()),
        Event::InitDone => {
            feed.policies.list_done();
            return Done::Yes;
        }
    }
    Done::No
}
