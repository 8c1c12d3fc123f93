//! The Pods that requests belong to: a request ends with its Pod.
//!
//! A LeaseRequest with an ownerReference to a Pod belongs to it. When that Pod, by its uid, is gone or has ended
//! (`Succeeded`, `Failed`), the request is abandoned and deleted, so that its lease is free at once and not
//! when the garbage collector comes to it, or never, as of a Pod that has ended and stays. An unreachable node
//! ends nothing: what ran there may still run, and only its ttl or a person may end its hold.
//!
//! Only namespaces in which a request belongs to a Pod are watched, and of each of their Pods only the uid is kept.
//! That a Pod is gone is believed only where the watch has shown its deletion or the API server has said so.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Config, Event},
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    watch::{Feeds, Outage, Retry},
    world::PodRef,
};
use crate::commit;

/// How long a namespace is still watched after the last request there that belongs to a Pod. Requests come again
/// and again where they have come once, and beginning a watch costs a list.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// How soon the API server is asked again about a Pod that no watch has shown yet, or of which it has not said
/// anything.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Of how many Pods of a namespace the API server is asked at once. Others wait for their turn, so that a namespace with
/// many does not load an API server that is slow already.
const ASK_AT_ONCE: usize = 8;

/// A namespace that is watched.
struct Place {
    task: AbortHandle,
    /// Rung when a request there belongs to a Pod that is new.
    look: Arc<Notify>,
    /// Since when no request there belongs to a Pod.
    idle_since: Option<Instant>,
}

/// Watches Pods wherever a request belongs to one, until it is dropped.
pub async fn watch_pods(client: Client, feeds: Feeds) {
    let mut tasks = JoinSet::new();
    let mut places: HashMap<String, Place> = HashMap::new();
    loop {
        let wanted = feeds.world.pod_namespaces();
        for namespace in &wanted {
            let place = places.entry(namespace.clone()).or_insert_with(|| {
                let look = Arc::new(Notify::new());
                let task = tasks.spawn(watch_namespace(client.clone(), namespace.clone(), feeds.clone(), look.clone()));
                Place { task, look, idle_since: None }
            });
            place.idle_since = None;
            place.look.notify_one();
        }
        let now = Instant::now();
        places.retain(|namespace, place| {
            let keep = wanted.contains(namespace) || now - *place.idle_since.get_or_insert(now) < LINGER;
            if !keep {
                place.task.abort();
            }
            keep
        });
        tokio::select! {
            () = feeds.world.pods_changed() => {}
            () = tokio::time::sleep(LINGER) => {}
            Some(ended) = tasks.join_next() => {
                // A watch has no end but ours. If one has panicked, so do we, and the process ends.
                if let Err(panic) = ended && panic.is_panic() {
                    std::panic::resume_unwind(panic.into_panic());
                }
            }
        }
    }
}

async fn watch_namespace(client: Client, namespace: String, feeds: Feeds, look: Arc<Notify>) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let stream = watcher::watcher(pods, Config::default()).backoff(Retry::new(feeds.seed, "pods"));
    let asking = |pod: PodRef| {
        let (client, namespace) = (client.clone(), namespace.clone());
        async move { commit::pod_is_over(&client, &namespace, &pod).await }
    };
    follow(&namespace, &feeds, stream, &look, asking).await;
}

/// Follows the Pods of a namespace. `is_over` asks the API server whether one is gone or has ended.
async fn follow<E: std::fmt::Display, A: Future<Output = Result<bool, E>> + Send>(
    namespace: &str,
    feeds: &Feeds,
    stream: impl Stream<Item = watcher::Result<Event<Pod>>> + Send,
    look: &Notify,
    is_over: impl Fn(PodRef) -> A + Send,
) {
    let mut stream = std::pin::pin!(stream);
    let mut outage = Outage::new("pods", feeds.metrics.clone());
    // Those that are seen to be there and have not ended, and those of a list under way.
    let (mut there, mut listed) = (HashSet::new(), None::<HashSet<String>>);
    let mut complete = false;
    let mut asked: HashMap<String, Instant> = HashMap::new();
    // Questions under way, beside the watch: a slow API server must not keep a deletion from being seen.
    let (mut asking, mut answers) = (HashSet::new(), FuturesUnordered::new());
    loop {
        let event = tokio::select! {
            event = stream.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
            Some((pod, answer)) = answers.next() => {
                let PodRef { uid, name } = pod;
                asking.remove(&uid);
                match answer {
                    Ok(true) => over(feeds, namespace, &uid, "gone"),
                    Ok(false) => drop(asked.insert(uid, Instant::now())),
                    Err(problem) => {
                        warn!(namespace, pod = name, %problem, "cannot find out whether a Pod is there; asking again");
                        feeds.metrics.api_error("pods");
                        asked.insert(uid, Instant::now());
                    }
                }
                None
            }
            () = look.notified() => None,
            () = tokio::time::sleep(ASK_AGAIN), if !asked.is_empty() => None,
        };
        match event {
            None => {}
            Some(Err(error)) => outage.has(&error),
            Some(Ok(event)) => {
                outage.sees(&event);
                match event {
                    Event::Init => listed = Some(HashSet::new()),
                    Event::InitApply(pod) | Event::Apply(pod) => {
                        let uid = pod.uid().unwrap_or_default();
                        let all = listed.as_mut().unwrap_or(&mut there);
                        match ended(&pod) {
                            Some(how) => {
                                all.remove(&uid);
                                over(feeds, namespace, &uid, how);
                            }
                            None => drop(all.insert(uid)),
                        }
                    }
                    Event::Delete(pod) => {
                        let uid = pod.uid().unwrap_or_default();
                        there.remove(&uid);
                        over(feeds, namespace, &uid, "deleted");
                    }
                    Event::InitDone => {
                        there = listed.take().unwrap_or_default();
                        complete = true;
                    }
                }
            }
        }
        if !complete {
            continue;
        }
        // What the watch does not show may be gone, or only not be here yet.
        let bound = feeds.world.pods_bound(namespace);
        asked.retain(|uid, _| bound.iter().any(|pod| pod.uid == *uid) && !there.contains(uid));
        for pod in bound.into_iter().filter(|pod| !there.contains(&pod.uid)) {
            if asked.get(&pod.uid).is_some_and(|at| at.elapsed() < ASK_AGAIN) {
                continue;
            }
            if asking.len() >= ASK_AT_ONCE {
                break;
            }
            if asking.insert(pod.uid.clone()) {
                let answer = is_over(pod.clone());
                answers.push(async move { (pod, answer.await) });
            }
        }
    }
}

/// A Pod is over: the leases that its requests name are looked at.
fn over(feeds: &Feeds, namespace: &str, uid: &str, how: &str) {
    let leases = feeds.world.pod_is_over(namespace, uid);
    if !leases.is_empty() {
        info!(namespace, pod_uid = uid, how, "a Pod with requests is over; its requests are deleted");
    }
    leases.into_iter().for_each(|key| feeds.queue.push(key));
}

/// How a Pod has ended, if it has. A Pod that is being deleted has not, and nor has one whose node is silent.
pub(crate) fn ended(pod: &Pod) -> Option<&'static str> {
    match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some("succeeded"),
        "Failed" => Some("failed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::{api::core::v1::PodStatus, apimachinery::pkg::apis::meta::v1::OwnerReference};
    use konductor_core::{Millis, Settings};
    use konductor_crds::{Lease, LeaseRequest, LeaseRequestSpec, LeaseSpec};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        clock::SystemClock,
        observe::{Key, Sight, World, observe},
        policies::Policies,
        queue::Queue,
        report::{Answers, Metrics},
    };

    fn pod(uid: &str, phase: &str) -> Pod {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.uid) = (Some(format!("pod-{uid}")), Some(uid.to_owned()));
        pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        pod
    }

    fn feeds() -> Feeds {
        let host = Arc::new(konductor_policy::Host::new().expect("a host"));
        let world = Arc::new(World::default());
        let mut lease = Lease::new("l", LeaseSpec { ttl: "1m".to_owned(), ..LeaseSpec::default() });
        (lease.metadata.namespace, lease.metadata.uid) = (Some("ns".to_owned()), Some("l".to_owned()));
        world.apply_lease(lease);
        Feeds {
            world,
            policies: Arc::new(Policies::new(host, "system".to_owned(), "default".to_owned())),
            queue: Arc::new(Queue::default()),
            clock: Arc::new(SystemClock),
            skew: Millis(0),
            metrics: Arc::new(Metrics::new()),
            answers: Answers::new().0,
            seed: 1,
        }
    }

    /// A request on `l` that belongs to the Pod with this uid.
    fn asks_from(feeds: &Feeds, uid: &str) {
        let spec = LeaseRequestSpec { lease: "l".to_owned(), holder: uid.to_owned(), ..LeaseRequestSpec::default() };
        let mut request = LeaseRequest::new(&format!("request-{uid}"), spec);
        (request.metadata.namespace, request.metadata.uid) = (Some("ns".to_owned()), Some(format!("request-{uid}")));
        request.metadata.resource_version = Some("1".to_owned());
        request.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: format!("pod-{uid}"),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }]);
        feeds.world.request_watched(request, feeds.clock.read(), Millis(0));
    }

    /// The Pods whose requests are abandoned.
    fn abandoned(feeds: &Feeds) -> Vec<String> {
        let sight = observe(&feeds.world, &Key::new("ns", "l"), &SystemClock, Duration::ZERO, Settings::default());
        let Sight::Lease(observed) = sight else { panic!("{sight:?}") };
        let abandoned = observed.snapshot.requests.iter().filter(|request| request.abandoned);
        let mut holders: Vec<String> = abandoned.map(|request| request.holder.clone()).collect();
        holders.sort();
        holders
    }

    /// Plays events, and says who is abandoned after them, and of whom the API server was asked. It knows that
    /// those in `gone` are, and does not answer about "silent" the first time.
    async fn played(feeds: &Feeds, events: Vec<Event<Pod>>, gone: &[&str]) -> (Vec<String>, Vec<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        for event in events {
            sender.send(Ok(event)).expect("it listens");
        }
        let stream = futures::stream::unfold(receiver, |mut events| async { events.recv().await.map(|e| (e, events)) });
        let asked = Mutex::new(Vec::new());
        let is_over = |pod: PodRef| {
            let mut asked = asked.lock().expect("lock");
            asked.push(pod.uid.clone());
            let again = asked.iter().filter(|uid| **uid == pod.uid).count() > 1;
            let answer = if pod.uid == "silent" && !again { Err("no answer") } else { Ok(gone.contains(&&*pod.uid)) };
            async move { answer }
        };
        let look = Notify::new();
        let following = follow("ns", feeds, stream, &look, is_over);
        // Longer than it takes to ask again once, and not twice; the clock stands still otherwise.
        let _ = tokio::time::timeout(ASK_AGAIN * 3 / 2, following).await;
        let asked = asked.lock().expect("lock").clone();
        (abandoned(feeds), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_over_when_it_has_ended_or_is_gone_and_never_when_its_node_is_silent() {
        let feeds = feeds();
        for uid in ["running", "unknown", "failed", "done", "deleted", "late"] {
            asks_from(&feeds, uid);
        }
        let listed = |uid: &str| Event::InitApply(pod(uid, "Running"));
        let events = vec![
            Event::Init,
            listed("running"),
            listed("unknown"),
            Event::InitApply(pod("done", "Succeeded")),
            listed("failed"),
            listed("deleted"),
            Event::InitApply(pod("late", "Pending")),
            listed("somebody else's"),
            Event::InitDone,
            Event::Apply(pod("unknown", "Unknown")),
            Event::Apply(pod("failed", "Failed")),
            Event::Delete(pod("deleted", "Running")),
            Event::Delete(pod("somebody else's", "Running")),
        ];
        let (abandoned, asked) = played(&feeds, events, &[]).await;
        assert_eq!(abandoned, ["deleted", "done", "failed"]);
        assert_eq!(asked, [""; 0], "the watch has shown all of them");
        assert_eq!(feeds.queue.depth(), 1, "the lease is looked at");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_watch_does_not_show_is_asked_for() {
        let feeds = feeds();
        for uid in ["gone", "not here yet", "silent"] {
            asks_from(&feeds, uid);
        }
        let (abandoned, mut asked) = played(&feeds, vec![Event::Init], &["gone", "silent"]).await;
        assert_eq!((abandoned.len(), asked.len()), (0, 0), "before the list is complete nothing is known");
        let (abandoned, again) = played(&feeds, vec![Event::Init, Event::InitDone], &["gone", "silent"]).await;
        asked = again;
        assert_eq!(abandoned, ["gone", "silent"]);
        asked.sort();
        assert_eq!(asked, ["gone", "not here yet", "not here yet", "silent", "silent"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_begins_anew_forgets_who_was_there() {
        let feeds = feeds();
        asks_from(&feeds, "a");
        let there = Event::InitApply(pod("a", "Running"));
        let events = vec![Event::Init, there, Event::InitDone, Event::Init, Event::InitDone];
        let (abandoned, _) = played(&feeds, events, &["a"]).await;
        assert_eq!(abandoned, ["a"]);
    }

    /// Plays events while the API server answers about nobody, or about each after a while. Says who is abandoned, and
    /// of how many it was asked at once.
    async fn played_slowly(feeds: &Feeds, events: Vec<Event<Pod>>, answers: bool) -> (Vec<String>, usize) {
        let events = futures::stream::iter(events.into_iter().map(Ok)).chain(futures::stream::pending());
        let (now, most) = (Mutex::new(0), Mutex::new(0));
        let is_over = |_| async {
            {
                let (mut now, mut most) = (now.lock().expect("lock"), most.lock().expect("lock"));
                *now += 1;
                *most = (*now).max(*most);
            }
            if !answers {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            *now.lock().expect("lock") -= 1;
            Ok::<_, &str>(true)
        };
        let look = Notify::new();
        let _ = tokio::time::timeout(ASK_AGAIN * 3, follow("ns", feeds, events, &look, is_over)).await;
        let most = *most.lock().expect("lock");
        (abandoned(feeds), most)
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_does_not_answer_a_deletion_is_still_seen() {
        let feeds = feeds();
        asks_from(&feeds, "asked for");
        asks_from(&feeds, "deleted");
        let there = Event::InitApply(pod("deleted", "Running"));
        let events = vec![Event::Init, there, Event::InitDone, Event::Delete(pod("deleted", "Running"))];
        assert_eq!(played_slowly(&feeds, events, false).await, (vec!["deleted".to_owned()], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_pods_are_asked_about_at_once_and_all_in_the_end() {
        let feeds = feeds();
        (0..ASK_AT_ONCE * 2 + 1).for_each(|n| asks_from(&feeds, &n.to_string()));
        let (abandoned, most) = played_slowly(&feeds, vec![Event::Init, Event::InitDone], true).await;
        assert_eq!((abandoned.len(), most), (ASK_AT_ONCE * 2 + 1, ASK_AT_ONCE));
    }

    #[test]
    fn a_pod_is_watched_for_as_long_as_a_request_belongs_to_it() {
        let feeds = feeds();
        asks_from(&feeds, "a");
        asks_from(&feeds, "a");
        let world = &feeds.world;
        let bound = || world.pods_bound("ns").into_iter().map(|pod| pod.uid).collect::<Vec<_>>();
        assert_eq!((bound(), world.pod_namespaces().len()), (vec!["a".to_owned()], 1));
        assert_eq!(world.pod_is_over("ns", "a"), [Key::new("ns", "l")]);
        // News of the request do not make its Pod come back.
        asks_from(&feeds, "a");
        assert_eq!((bound().len(), abandoned(&feeds)), (0, vec!["a".to_owned()]));
        let mut gone = LeaseRequest::new("request-a", LeaseRequestSpec::default());
        (gone.metadata.namespace, gone.metadata.uid) = (Some("ns".to_owned()), Some("request-a".to_owned()));
        world.request_deleted(&gone);
        assert!(world.pod_namespaces().is_empty());
        assert!(world.pod_is_over("ns", "a").is_empty());
    }
}
