//! What this replica has seen of the cluster, indexed the way a snapshot needs it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use konductor_core::{Millis, RequestId, Time};
use konductor_crds::{
    Lease, LeaseRequest,
    v1::{LeasePhase, RequestPhase},
};
use kube::{Resource, ResourceExt as _};
use tokio::sync::Notify;

use crate::clock::{Reading, elapsed};

/// How many deleted requests are remembered for each lease. Only the holder's matters, and it is
/// asked for soon; one that was forgotten costs a read from the API server, nothing else.
const DELETED_MAX: usize = 64;

/// The coarsest unit of the API server's timestamps: whole seconds.
pub(super) const SERVER_TIME_UNIT: Millis = Millis(1_000);

/// The namespace and name of a Lease, whether it exists or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
}

impl Key {
    /// The key of this name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of the Lease that a request names.
    #[must_use]
    pub fn of_request(request: &LeaseRequest) -> Self {
        Self::new(request.namespace().unwrap_or_default(), request.spec.lease.clone())
    }

    fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Pod that a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// metadata.name, which another Pod may have later
    pub name: String,
    /// metadata.uid
    pub uid: String,
}

impl PodRef {
    /// The Pod that a request names as its owner. Owners are of its own namespace.
    fn of(request: &LeaseRequest) -> Option<Self> {
        let owner = request.owner_references().iter().find(|owner| owner.kind == "Pod" && owner.api_version == "v1")?;
        Some(Self { name: owner.name.clone(), uid: owner.uid.clone() })
    }
}

/// The cache. Every method is short and synchronous; the lock is never held across an await.
#[derive(Debug, Default)]
pub struct World {
    inner: Mutex<Inner>,
    /// Rung when a request belongs to a Pod to which none belonged before.
    pods_changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) leases: HashMap<Key, LeaseEntry>,
    /// Requests by the lease that they name, then by their own name: what is said of them is said in one order.
    pub(super) requests: HashMap<Key, BTreeMap<String, RequestEntry>>,
    /// The lease that a request names, by the request's own key.
    lease_of: HashMap<Key, Key>,
    /// The newest deleted requests of each lease, by uid.
    pub(super) deleted: HashMap<Key, VecDeque<String>>,
    /// The policy that an unnamed one means, by namespace.
    default_policy: HashMap<String, String>,
    /// The Pods that requests belong to, by namespace and uid.
    pods: HashMap<String, HashMap<String, BoundPod>>,
    pods_are_news: bool,
    /// The newest resourceVersion up to which the requests' watch has brought everything.
    pub(super) requests_version: i64,
    listed_version: i64,
    listed_leases: HashSet<Key>,
    listed_requests: HashSet<Key>,
    listed_namespaces: HashSet<String>,
    /// What was read beside the watch while a list of requests was under way: the list may be older.
    found_requests: Option<HashSet<Key>>,
}

#[derive(Debug)]
struct BoundPod {
    name: String,
    /// The names of the requests that belong to it.
    requests: HashSet<String>,
    /// Whether it is gone or has ended. It never comes back: its uid is its own.
    over: bool,
}

#[derive(Debug)]
pub(super) struct LeaseEntry {
    pub(super) object: Arc<Lease>,
    /// When the hold is due, by our monotonic clock.
    pub(super) due: Option<Due>,
    /// When we last wrote its status.
    pub(super) written: Option<Duration>,
    /// The uid of the request that was last seen to hold, and its holder, for as long as the status names that request:
    /// who releases by force takes the holder away.
    pub(super) holder: Option<(String, String)>,
}

/// When a hold is due, and which hold that was said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) token: i64,
    pub(super) renewals: i64,
    pub(super) expires: Time,
    pub(super) at: Duration,
}

impl Due {
    /// Whether it was said of the same hold in the same state. A renewal may leave the expiry as it
    /// was, when the wall clock has stepped back, and is still a renewal.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.token == other.token && self.renewals == other.renewals && self.expires == other.expires
    }

    /// What is due after `known` was said: what was said of a hold is never taken back.
    pub(super) fn after(mut self, known: Option<&Self>) -> Self {
        match known {
            Some(known) if known.is_same(&self) => return known.clone(),
            Some(known) if known.token == self.token => self.at = self.at.max(known.at),
            _ => {}
        }
        self
    }
}

#[derive(Debug)]
pub(super) struct RequestEntry {
    pub(super) object: Arc<LeaseRequest>,
    /// Its place in the order of arrival.
    pub(super) sequence: i64,
    /// When this object was first seen.
    pub(super) first_seen: Duration,
    /// How old the last touch was when it was observed, and when that was.
    pub(super) touched: (Millis, Duration),
    /// Since when its status says that it is over.
    pub(super) over_since: Option<Duration>,
}

/// How an object came to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// As it happened.
    Live,
    /// In a list or by a question, some time after it happened.
    Late,
}

/// An object's resourceVersion as a number. Kubernetes calls it opaque, but every API server counts
/// it up with every write, and since 1.35 says so. 0 for what is not a number.
pub(super) fn version<K: Resource>(object: &K) -> i64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl World {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held can at worst have lost one event, which the next list repairs.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A Lease as a watch, a list or a read has shown it. Returns its key.
    pub fn apply_lease(&self, lease: Lease) -> Key {
        let key = Key::of(&lease);
        self.lock().upsert_lease(key.clone(), lease);
        key
    }

    /// Our own write of a Lease's status, with the reading that it was computed from.
    pub fn wrote_lease(&self, lease: Lease, reading: Reading) {
        let key = Key::of(&lease);
        let mut inner = self.lock();
        // It was there when the write was computed: if it is not any more, the watch has shown it gone since.
        if inner.leases.get(&key).is_none_or(|e| e.object.uid() != lease.uid()) {
            return;
        }
        let due = held(&lease).map(|(token, renewals, expires)| Due {
            token,
            renewals,
            expires,
            at: reading.mono + to_duration(expires - reading.now()),
        });
        inner.upsert_lease(key.clone(), lease);
        if let Some(entry) = inner.leases.get_mut(&key) {
            entry.written = Some(reading.mono);
            entry.due = due.map(|due| due.after(entry.due.as_ref()));
        }
    }

    /// A Lease that is gone: the watch has shown it, or the API server has refused a write for it.
    pub fn delete_lease(&self, lease: &Lease) -> Key {
        let key = Key::of(lease);
        let mut inner = self.lock();
        if inner.leases.get(&key).is_some_and(|e| e.object.uid() == lease.uid()) {
            inner.leases.remove(&key);
            inner.deleted.remove(&key);
        }
        key
    }

    /// A LeaseRequest as the watch has shown it. Returns the keys of the leases concerned.
    ///
    /// The watch has brought everything that happened to any request before it. That is noted together with
    /// the object, so that nobody sees the one without the other.
    pub fn request_watched(&self, request: LeaseRequest, reading: Reading, skew: Millis) -> Vec<Key> {
        let mut inner = self.lock();
        inner.requests_version = inner.requests_version.max(version(&request));
        let keys = inner.upsert_request(request, reading, skew, News::Live);
        self.tell_of_pods(&mut inner);
        keys
    }

    fn tell_of_pods(&self, inner: &mut Inner) {
        if std::mem::take(&mut inner.pods_are_news) {
            self.pods_changed.notify_one();
        }
    }

    /// The watch has shown that a LeaseRequest is gone. Returns the key of its lease.
    pub fn request_deleted(&self, request: &LeaseRequest) -> Key {
        let own = Key::of(request);
        let mut inner = self.lock();
        inner.requests_version = inner.requests_version.max(version(request));
        if inner.entry(&own).is_some_and(|e| e.object.uid() == request.uid())
            && let Some(lease) = inner.remove_request(&own)
        {
            return lease;
        }
        // Not in the cache; remember all the same that this uid will not come back.
        let lease = Key::of_request(request);
        inner.remember_deleted(&lease, request.uid().unwrap_or_default());
        lease
    }

    /// A LeaseRequest as the API server has answered a question about it, beside the watch.
    pub fn request_found(&self, request: LeaseRequest, reading: Reading, skew: Millis) {
        let own = Key::of(&request);
        let mut inner = self.lock();
        // The watch has brought everything up to here, also this object; what is not in the cache has
        // gone since. The answer was on its way longer than that news.
        let known = inner.entry(&own).is_some_and(|e| e.object.uid() == request.uid());
        if !known && version(&request) <= inner.requests_version {
            return;
        }
        if let Some(found) = &mut inner.found_requests {
            found.insert(own);
        }
        inner.upsert_request(request, reading, skew, News::Late);
        self.tell_of_pods(&mut inner);
    }

    /// The namespaces in which requests belong to Pods.
    #[must_use]
    pub fn pod_namespaces(&self) -> HashSet<String> {
        self.lock().pods.keys().cloned().collect()
    }

    /// The Pods of this namespace that requests belong to and that are not known to be over.
    #[must_use]
    pub fn pods_bound(&self, namespace: &str) -> Vec<PodRef> {
        let inner = self.lock();
        let bound = inner.pods.get(namespace).into_iter().flatten();
        let bound = bound.filter(|(_, pod)| !pod.over);
        bound.map(|(uid, pod)| PodRef { name: pod.name.clone(), uid: uid.clone() }).collect()
    }

    /// Returns when a request has come that belongs to a Pod to which none belonged before.
    pub async fn pods_changed(&self) {
        self.pods_changed.notified().await;
    }

    /// A Pod is gone or has ended. Returns the keys of the leases whose requests are abandoned by that.
    pub fn pod_is_over(&self, namespace: &str, uid: &str) -> Vec<Key> {
        let mut inner = self.lock();
        let Some(pod) = inner.pods.get_mut(namespace).and_then(|pods| pods.get_mut(uid)) else { return Vec::new() };
        pod.over = true;
        let own: Vec<Key> = pod.requests.iter().map(|name| Key::new(namespace, name)).collect();
        own.iter().filter_map(|own| inner.lease_of.get(own).cloned()).collect()
    }

    /// A request that the API server says is gone, though no watch has told us.
    pub fn confirm_deleted(&self, lease: &Key, request: &RequestId) {
        let own = Key::new(lease.namespace.clone(), request.name.clone());
        let mut inner = self.lock();
        if inner.entry(&own).is_some_and(|e| e.object.uid().as_deref() == Some(request.uid.as_str())) {
            inner.remove_request(&own);
        }
        inner.remember_deleted(lease, request.uid.clone());
    }

    /// A list of leases begins.
    pub fn leases_list_begins(&self) {
        self.lock().listed_leases.clear();
    }

    /// A Lease in the list.
    pub fn lease_listed(&self, lease: Lease) -> Key {
        let key = self.apply_lease(lease);
        self.lock().listed_leases.insert(key.clone());
        key
    }

    /// The list of leases is complete: what is not in it is gone. Returns the keys that are gone.
    pub fn leases_list_done(&self) -> Vec<Key> {
        let mut inner = self.lock();
        let listed = std::mem::take(&mut inner.listed_leases);
        let gone = sorted(inner.leases.keys().filter(|k| !listed.contains(k)));
        for key in &gone {
            inner.leases.remove(key);
            inner.deleted.remove(key);
        }
        gone
    }

    /// A list of requests begins.
    pub fn requests_list_begins(&self) {
        let mut inner = self.lock();
        inner.listed_requests.clear();
        inner.found_requests = Some(HashSet::new());
        inner.listed_version = 0;
    }

    /// A LeaseRequest in the list.
    pub fn request_listed(&self, request: LeaseRequest, reading: Reading, skew: Millis) -> Vec<Key> {
        let own = Key::of(&request);
        let mut inner = self.lock();
        inner.listed_requests.insert(own);
        inner.listed_version = inner.listed_version.max(version(&request));
        let keys = inner.upsert_request(request, reading, skew, News::Late);
        self.tell_of_pods(&mut inner);
        keys
    }

    /// The list of requests is complete. Returns the keys of the leases whose requests are gone.
    pub fn requests_list_done(&self) -> Vec<Key> {
        let mut inner = self.lock();
        // Not before the list is complete: until then something older than its newest may be missing.
        inner.requests_version = inner.requests_version.max(inner.listed_version);
        let listed = std::mem::take(&mut inner.listed_requests);
        let found = inner.found_requests.take().unwrap_or_default();
        let gone = sorted(inner.lease_of.keys().filter(|k| !listed.contains(k)));
        let proven = |own: &Key| !found.contains(own);
        gone.iter()
            .filter_map(|own| {
                if proven(own) { inner.remove_request(own) } else { inner.take_request(own).map(|(lease, _)| lease) }
            })
            .collect()
    }

    /// The uids of all requests that are here.
    #[must_use]
    pub fn request_uids(&self) -> HashSet<String> {
        self.lock().requests.values().flat_map(|all| all.values()).filter_map(|e| e.object.uid()).collect()
    }

    /// A list of namespaces begins.
    pub fn namespaces_list_begins(&self) {
        self.lock().listed_namespaces.clear();
    }

    /// A Namespace and what its annotation says. Returns the leases for which that is news.
    pub fn apply_namespace(&self, name: &str, default_policy: Option<String>, in_list: bool) -> Vec<Key> {
        let mut inner = self.lock();
        if in_list {
            inner.listed_namespaces.insert(name.to_owned());
        }
        let default_policy = default_policy.filter(|p| !p.is_empty());
        let before = match default_policy.clone() {
            Some(policy) => inner.default_policy.insert(name.to_owned(), policy),
            None => inner.default_policy.remove(name),
        };
        if before == default_policy {
            return Vec::new();
        }
        sorted(inner.leases.keys().filter(|k| k.namespace == name))
    }

    /// The list of namespaces is complete.
    pub fn namespaces_list_done(&self) {
        let mut inner = self.lock();
        let listed = std::mem::take(&mut inner.listed_namespaces);
        inner.default_policy.retain(|name, _| listed.contains(name));
    }

    /// The policy that an unnamed one means in this namespace, if its annotation says so.
    #[must_use]
    pub fn default_policy(&self, namespace: &str) -> Option<String> {
        self.lock().default_policy.get(namespace).cloned()
    }

    /// Every key that there is something to do for: leases, and requests without one.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let inner = self.lock();
        let orphans = inner.requests.keys().filter(|k| !inner.leases.contains_key(k));
        sorted(inner.leases.keys().chain(orphans))
    }

    /// The leases for which a predicate on the object holds.
    #[must_use]
    pub fn leases_where(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<Key> {
        sorted(self.lock().leases.iter().filter(|(_, e)| wanted(&e.object)).map(|(k, _)| k))
    }

    /// The leases themselves for which a predicate holds. The predicate must not ask the world: it is locked.
    #[must_use]
    pub fn leases(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<Arc<Lease>> {
        self.lock().leases.values().filter(|e| wanted(&e.object)).map(|e| e.object.clone()).collect()
    }
}

impl Inner {
    fn upsert_lease(&mut self, key: Key, lease: Lease) {
        match self.leases.get_mut(&key) {
            // A watch may still bring what our own write has overtaken, or an object that this one has replaced.
            Some(entry) if version(&*entry.object) > version(&lease) => {}
            Some(entry) if entry.object.uid() == lease.uid() => {
                entry.holder = holder(&lease, entry.holder.take());
                entry.object = Arc::new(lease);
            }
            _ => {
                self.deleted.remove(&key);
                let holder = holder(&lease, None);
                self.leases.insert(key, LeaseEntry { object: Arc::new(lease), due: None, written: None, holder });
            }
        }
    }

    fn entry(&self, own: &Key) -> Option<&RequestEntry> {
        self.requests.get(self.lease_of.get(own)?)?.get(&own.name)
    }

    fn entry_mut(&mut self, own: &Key) -> Option<&mut RequestEntry> {
        self.requests.get_mut(self.lease_of.get(own)?)?.get_mut(&own.name)
    }

    fn upsert_request(&mut self, request: LeaseRequest, reading: Reading, skew: Millis, news: News) -> Vec<Key> {
        let own = Key::of(&request);
        let lease = Key::of_request(&request);
        let mut concerned = vec![lease.clone()];
        let seen = version(&request);
        if let Some(entry) = self.entry_mut(&own)
            && version(&*entry.object) > seen
        {
            // An older state is no news, but it is nearer to the request's arrival: what was found beside
            // the watch, after somebody had granted it, must not seem to have come after what is behind it.
            if entry.object.uid() == request.uid() && entry.object.status.as_ref().is_none_or(|s| s.sequence.is_none())
            {
                entry.sequence = entry.sequence.min(seen);
            }
            return Vec::new();
        }
        // What is known to be gone does not come back: a watch that is late still tells of its past, after the
        // API server was asked.
        let uid = request.meta().uid.as_deref().unwrap_or_default();
        if self.deleted.get(&lease).is_some_and(|deleted| deleted.iter().any(|gone| gone == uid)) {
            return Vec::new();
        }
        // One that is being deleted is withdrawn, even if a finalizer keeps it for a while.
        if request.meta().deletion_timestamp.is_some() {
            let uid = request.uid().unwrap_or_default();
            concerned.extend(self.remove_request(&own));
            self.remember_deleted(&lease, uid);
            return concerned;
        }
        let same = self.entry(&own).filter(|e| e.object.uid() == request.uid());
        let over = request
            .status
            .as_ref()
            .and_then(|s| s.phase)
            .is_some_and(|p| matches!(p, RequestPhase::Denied | RequestPhase::Finished));
        let entry = RequestEntry {
            sequence: request
                .status
                .as_ref()
                .and_then(|s| s.sequence)
                .unwrap_or_else(|| same.map_or(seen, |e| e.sequence)),
            first_seen: same.map_or(reading.mono, |e| e.first_seen),
            touched: match same {
                Some(e) if e.object.spec.renewals == request.spec.renewals => e.touched,
                Some(_) if news == News::Live => (Millis::ZERO, reading.mono),
                // It was touched some time since it was seen last, and may have died right after.
                Some(e) => {
                    let (untouched, at) = e.touched;
                    (age(&request, reading, skew).min(untouched + elapsed(at, reading.mono)), reading.mono)
                }
                None => (age(&request, reading, skew), reading.mono),
            },
            over_since: over.then(|| same.and_then(|e| e.over_since).unwrap_or(reading.mono)),
            object: Arc::new(request),
        };
        // A request that names another lease now, or another object of its name, leaves its old place.
        let moved = self.lease_of.get(&own).is_some_and(|was| *was != lease);
        if moved || (old_uid_differs(self.entry(&own), &entry.object)) {
            concerned.extend(self.remove_request(&own));
        }
        let was = self.entry(&own).and_then(|old| PodRef::of(&old.object));
        if was != PodRef::of(&entry.object) {
            self.unbind(&own);
            self.bind(&own, &entry.object);
        }
        self.lease_of.insert(own.clone(), lease.clone());
        self.requests.entry(lease).or_default().insert(own.name, entry);
        concerned
    }

    fn bind(&mut self, own: &Key, request: &LeaseRequest) {
        let Some(PodRef { name, uid }) = PodRef::of(request) else { return };
        let pods = self.pods.entry(own.namespace.clone()).or_default();
        let pod = pods.entry(uid).or_insert_with(|| {
            self.pods_are_news = true;
            BoundPod { name, requests: HashSet::new(), over: false }
        });
        pod.requests.insert(own.name.clone());
    }

    fn unbind(&mut self, own: &Key) {
        let Some(PodRef { uid, .. }) = self.entry(own).and_then(|entry| PodRef::of(&entry.object)) else { return };
        let Some(pods) = self.pods.get_mut(&own.namespace) else { return };
        if let Some(pod) = pods.get_mut(&uid) {
            pod.requests.remove(&own.name);
            if pod.requests.is_empty() {
                pods.remove(&uid);
            }
        }
        if pods.is_empty() {
            self.pods.remove(&own.namespace);
        }
    }

    /// Whether the Pod that a request belongs to is over.
    pub(super) fn is_abandoned(&self, namespace: &str, request: &LeaseRequest) -> bool {
        let Some(pod) = PodRef::of(request) else { return false };
        self.pods.get(namespace).and_then(|pods| pods.get(&pod.uid)).is_some_and(|pod| pod.over)
    }

    /// Takes a request out that is proven to be gone.
    fn remove_request(&mut self, own: &Key) -> Option<Key> {
        let (lease, uid) = self.take_request(own)?;
        self.remember_deleted(&lease, uid);
        Some(lease)
    }

    /// Takes a request out of which it is not known whether it is gone: it counts as never seen.
    fn take_request(&mut self, own: &Key) -> Option<(Key, String)> {
        self.unbind(own);
        let lease = self.lease_of.remove(own)?;
        let requests = self.requests.get_mut(&lease)?;
        let entry = requests.remove(&own.name);
        if requests.is_empty() {
            self.requests.remove(&lease);
        }
        Some((lease, entry.and_then(|e| e.object.uid()).unwrap_or_default()))
    }

    fn remember_deleted(&mut self, lease: &Key, uid: String) {
        if !self.leases.contains_key(lease) {
            return;
        }
        let deleted = self.deleted.entry(lease.clone()).or_default();
        if !deleted.contains(&uid) {
            deleted.push_back(uid);
            if deleted.len() > DELETED_MAX {
                deleted.pop_front();
            }
        }
    }
}

/// Keys in their own order: what follows from them must not depend on how a map hashes.
fn sorted<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Key> {
    let mut keys: Vec<Key> = keys.cloned().collect();
    keys.sort_unstable();
    keys
}

fn old_uid_differs(old: Option<&RequestEntry>, new: &LeaseRequest) -> bool {
    old.is_some_and(|e| e.object.uid() != new.uid())
}

/// How long ago a request that we see for the first time was created or last changed by its client,
/// at least. The timestamps are the API server's, in whole seconds and by its clock.
fn age(request: &LeaseRequest, reading: Reading, skew: Millis) -> Millis {
    let created = request.creation_timestamp().map(|t| t.0.as_millisecond());
    let changed = request
        .managed_fields()
        .iter()
        .filter(|f| f.subresource.is_none())
        .filter_map(|f| f.time.as_ref().map(|t| t.0.as_millisecond()))
        .max();
    let Some(touched) = created.max(changed) else {
        return Millis::ZERO;
    };
    let age = reading.now_floor() - Time(touched) - SERVER_TIME_UNIT - skew;
    age.max(Millis::ZERO)
}

/// The request that a Lease names and who holds with it; what was known of that request before, where it says nobody.
fn holder(lease: &Lease, known: Option<(String, String)>) -> Option<(String, String)> {
    let status = lease.status.as_ref()?;
    let request = status.request.as_ref()?.uid.clone();
    let named = status.holder.clone().filter(|holder| !holder.is_empty());
    match named.filter(|_| status.phase == Some(LeasePhase::Held)) {
        Some(holder) => Some((request, holder)),
        None => known.filter(|(known, _)| *known == request),
    }
}

/// The token, renewals and expiry of a Lease that is held.
fn held(lease: &Lease) -> Option<(i64, i64, Time)> {
    let status = lease.status.as_ref()?;
    let record = super::convert::record(Some(status), |_| None);
    record.hold().map(|hold| (record.token, hold.renewals, hold.expires))
}

/// A span as a duration; none for what is not ahead.
pub(super) fn to_duration(span: Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}
