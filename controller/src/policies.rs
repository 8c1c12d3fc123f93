//! The policies that leases can name: the built-in one, and one for each labelled ConfigMap.
//!
//! A module goes seen → checked → compiled in a child → probed → active. The last step is atomic: a
//! decision takes one [`Policy`] and keeps it to its end, so each is made by exactly one digest and
//! none is dropped. When a newer module is refused, the last good one stays in use; when one that is
//! in use fails again and again, the one before it comes back ([`Policies::report_failing`]).
//!
//! Several ConfigMaps are looked at at once, but of each namespace one: what a team uploads can delay
//! that team. The controller's own namespace has a lane that nobody else can be in.

mod allowance;
mod intake;
mod look;
mod refusals;
mod room;
mod slot;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use konductor_crds::{DEFAULT_POLICY, Lease, v1::reasons::POLICY_NOT_FOUND};
use konductor_policy::{Host, Policy, limits::PROBE_PARAMS_MAX};
use kube::ResourceExt as _;
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use self::{
    allowance::Allowance,
    intake::{Intake, Waiting},
    look::{Look, Looked, Turns},
    refusals::{Counts, Refusal, Refusals},
    room::room_for,
    slot::{Outcome, Slot},
};
use crate::{
    observe::{Key, Synced, World},
    queue::Queue,
    report::{Events, Metrics},
};

/// How many ConfigMaps of teams are looked at at once; with the lane of the controller's namespace
/// there are at most four compilers, which is what the memory limit in `deploy/` has room for.
const LANES: usize = 3;

/// How long reconciling waits at start for every module to be looked at. It waits so that nobody is
/// granted by other rules than the lease names; but modules that take the compiler all of its time,
/// one after the other, must not keep every lease waiting.
const LOADED_MOST: Duration = Duration::from_secs(20);

/// How long nothing is granted on a lease whose policy was uploaded and is being looked at for the first
/// time, for the same reason and with the same bound. Looking takes well below a second.
const FIRST_LOOK_MOST: Duration = LOADED_MOST;

/// Every policy that this replica knows.
pub struct Policies {
    host: Arc<Host>,
    builtin: Arc<Policy>,
    /// Where shared policies are: the controller's own namespace.
    shared_namespace: String,
    /// What a lease means that names no policy, in a namespace that says nothing.
    default_name: String,
    slots: RwLock<HashMap<Key, Slot>>,
    intake: Mutex<Intake>,
    refusals: Mutex<Refusals>,
    turns: Turns,
    /// Namespaces with ConfigMaps to look at, and beside them the controller's own.
    lanes: Queue<String>,
    shared_lane: Queue<String>,
    /// ConfigMaps that are gone, and those whose time to be tried again comes.
    gone: Queue<Key>,
    again: Queue<Key>,
    loaded: watch::Sender<bool>,
    surroundings: OnceLock<Surroundings>,
}

/// Who is told, and who is asked, once [`Policies::run`] runs.
struct Surroundings {
    world: Arc<World>,
    queue: Arc<Queue<Key>>,
    events: Events,
    metrics: Arc<Metrics>,
    allowance: Mutex<Allowance>,
}

/// What a lease's policy is.
#[derive(Clone)]
pub struct Resolved {
    /// Its name, as the lease or a default gives it.
    pub name: String,
    /// The module, if there is one that works.
    pub policy: Option<Arc<Policy>>,
    /// What is wrong: the condition's reason, and a sentence.
    pub problem: Option<(&'static str, String)>,
    /// What is not wrong, but should be known.
    pub warning: Option<String>,
    /// For how much longer nothing is granted, because its first module is being looked at.
    pub first_look: Option<Duration>,
    /// The ConfigMaps that it could be and of which nothing was seen, where that is the problem.
    pub absent: Vec<Key>,
}

impl Policies {
    /// The registry, with the built-in policy in it.
    #[must_use]
    pub fn new(host: Arc<Host>, shared_namespace: String, default_name: String) -> Self {
        Self {
            builtin: host.builtin(),
            host,
            shared_namespace,
            default_name,
            slots: RwLock::default(),
            intake: Mutex::default(),
            refusals: Mutex::default(),
            turns: Turns::default(),
            lanes: Queue::default(),
            shared_lane: Queue::default(),
            gone: Queue::default(),
            again: Queue::default(),
            loaded: watch::Sender::new(false),
            surroundings: OnceLock::new(),
        }
    }

    /// The built-in policy.
    #[must_use]
    pub fn builtin(&self) -> Arc<Policy> {
        self.builtin.clone()
    }

    /// How many calls the sandbox runs at once.
    #[must_use]
    pub fn places(&self) -> usize {
        self.host.limits().concurrent
    }

    /// Says when every module of the first list has been looked at.
    #[must_use]
    pub fn loaded(&self) -> watch::Receiver<bool> {
        self.loaded.subscribe()
    }

    /// The name of the policy that a lease means.
    #[must_use]
    pub fn name_for(&self, lease: &Lease, world: &World) -> String {
        let named = lease.spec.policy.as_ref().and_then(|p| p.name.clone()).filter(|n| !n.is_empty());
        named
            .or_else(|| world.default_policy(&lease.namespace().unwrap_or_default()))
            .unwrap_or_else(|| self.default_name.clone())
    }

    /// A lease's params as its policy gets them, in JSON. Written in one place: a module is probed with the same text
    /// that it is asked with, and what is remembered of it is found again.
    #[must_use]
    pub fn params_for(lease: &Lease) -> String {
        let params = lease.spec.policy.as_ref().and_then(|p| p.params.as_ref());
        params.map_or_else(|| "{}".to_owned(), |p| serde_json::Value::Object(p.clone()).to_string())
    }

    /// The policy of this name as a lease in this namespace finds it: `default` is built in, every
    /// other is looked for in the lease's own namespace first, then in the controller's.
    #[must_use]
    pub fn resolve(&self, namespace: &str, name: &str) -> Resolved {
        let resolved = Resolved {
            name: name.to_owned(),
            policy: None,
            problem: None,
            warning: None,
            first_look: None,
            absent: Vec::new(),
        };
        if name == DEFAULT_POLICY {
            return Resolved { policy: Some(self.builtin()), ..resolved };
        }
        let places = [namespace, &self.shared_namespace].map(|namespace| Key::new(namespace, name));
        for key in &places {
            // In this order: what is in the intake may have got its slot meanwhile, and never loses it.
            let known = self.intake().known_for(key, Instant::now());
            if let Some(slot) = self.slots().get(key) {
                let (policy, problem, warning) = (slot.active.clone(), slot.problem(), slot.warning.clone());
                return Resolved { policy, problem, warning, ..resolved };
            }
            // One of its own namespace that was not looked at yet counts before a shared one that was.
            if let Some(known) = known {
                let problem = format!("the module of ConfigMap {key} is being looked at");
                let left = FIRST_LOOK_MOST.checked_sub(known).filter(|left| !left.is_zero());
                return Resolved { problem: Some((POLICY_NOT_FOUND, problem)), first_look: left, ..resolved };
            }
        }
        let problem = format!(
            "there is no policy {name}: no ConfigMap of that name with the label {}=true in namespace {namespace} or {}",
            konductor_crds::POLICY_MODULE_LABEL,
            self.shared_namespace
        );
        Resolved { problem: Some((POLICY_NOT_FOUND, problem)), absent: places.into(), ..resolved }
    }

    /// A module fails again and again at deciding, so it is not asked any more: wherever it is in
    /// use, the module before it comes back. Where there is none it stays, and [`Policies::resolve`]
    /// says so. `why` says how often and how, to follow "failed": `5 times in a row: …`. A change of
    /// the ConfigMap ends it.
    ///
    /// It may be called more often than once: only the first time counts.
    ///
    /// `namespaces`: of the leases that it has failed for, one or some. A policy that a namespace shares
    /// with nobody goes back if it fails there; the shared ones go back only if they fail in more than one:
    /// one team's strange lease must not take a policy from everybody.
    pub fn report_failing(&self, digest: &str, why: &str, namespaces: &[String]) {
        let mut told = Vec::new();
        for (key, slot) in self.slots_mut().iter_mut() {
            let concerned = match key.namespace == self.shared_namespace {
                true => namespaces.len() > 1,
                false => namespaces.contains(&key.namespace),
            };
            if !concerned {
                continue;
            }
            let Some(outcome) = slot.fail(digest, why) else { continue };
            let (_, note) = slot.problem().unwrap_or_default();
            told.push((key.clone(), slot.reference.clone(), note, outcome));
        }
        for (key, reference, note, outcome) in told {
            warn!(policy = %key, digest, why, outcome, "a policy module fails again and again");
            if let Some(around) = self.surroundings.get() {
                around.metrics.policies().loaded(outcome);
                // Of the same version of the ConfigMap as the Event that it is in use, but about another thing.
                around.tell(&key, |events| events.policy_rejected(reference, sentence(&note)));
            }
            self.changed(&key);
        }
    }

    fn slots(&self) -> RwLockReadGuard<'_, HashMap<Key, Slot>> {
        // A slot is replaced as a whole or changed by a method that cannot panic half way.
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, HashMap<Key, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list of ConfigMaps begins.
    pub fn list_begins(&self) {
        self.intake().list_begins();
    }

    /// A labelled ConfigMap as it is now.
    pub fn apply(&self, map: ConfigMap, in_list: bool) {
        let key = Key::new(map.namespace().unwrap_or_default(), map.name_any());
        self.intake().add(&key, map, in_list, Instant::now());
        self.enter_lane(key.namespace);
    }

    fn enter_lane(&self, namespace: String) {
        let lane = if namespace == self.shared_namespace { &self.shared_lane } else { &self.lanes };
        lane.push(namespace);
    }

    /// A ConfigMap that is gone, or has lost its label. Nothing of it stays, also if it is in work;
    /// only that its bytes were refused is remembered, by their digest.
    pub fn delete(&self, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        let known = self.intake().remove(&key);
        if self.slots_mut().remove(&key).is_some() || known {
            self.gone.push(key);
        }
        self.tell_when_loaded();
    }

    /// The list is complete: what is not in it is gone.
    pub fn list_done(&self) {
        let gone = self.intake().list_done();
        for key in gone {
            self.delete(&key.namespace, &key.name);
        }
        self.tell_when_loaded();
    }

    fn tell_when_loaded(&self) {
        if self.intake().is_settled() {
            self.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
        }
    }

    /// Looks at ConfigMaps as they come in, until the task is dropped. The first looks wait until
    /// the leases are known: a module is probed with the params that it will get.
    pub async fn run(
        self: Arc<Self>,
        world: Arc<World>,
        queue: Arc<Queue<Key>>,
        events: Events,
        metrics: Arc<Metrics>,
        mut synced: watch::Receiver<Synced>,
    ) {
        let around = Surroundings { world, queue, events, metrics, allowance: Mutex::default() };
        if self.surroundings.set(around).is_err() {
            warn!("the policies are run twice; once is enough");
            return;
        }
        if synced.wait_for(|synced| synced.policies_can_be_named()).await.is_err() {
            return;
        }
        let mut tasks = JoinSet::new();
        for _ in 0..LANES {
            let this = self.clone();
            tasks.spawn(async move { this.follow(&this.lanes).await });
        }
        let this = self.clone();
        tasks.spawn(async move { this.follow(&this.shared_lane).await });
        let this = self.clone();
        tasks.spawn(async move {
            loop {
                let key = this.again.pop().await;
                if this.intake().again(&key) {
                    this.enter_lane(key.namespace.clone());
                }
                this.again.done(&key);
            }
        });
        let this = self.clone();
        tasks.spawn(async move {
            loop {
                let key = this.gone.pop().await;
                this.changed(&key);
                this.gone.done(&key);
            }
        });
        let this = self.clone();
        tasks.spawn(async move {
            let mut loaded = this.loaded();
            let all = tokio::time::timeout(LOADED_MOST, loaded.wait_for(|loaded| *loaded)).await.is_ok();
            if !all {
                warn!(
                    waited_s = LOADED_MOST.as_secs(),
                    "not every policy module has been looked at; leases of the others are decided from now on"
                );
                this.loaded.send_replace(true);
            }
            std::future::pending().await
        });
        // None of them ends by itself. If one has panicked, so do we, and the process ends.
        if let Some(Err(panic)) = tasks.join_next().await
            && panic.is_panic()
        {
            std::panic::resume_unwind(panic.into_panic());
        }
    }

    /// Looks at one ConfigMap of one namespace after the other.
    async fn follow(self: &Arc<Self>, lane: &Queue<String>) {
        loop {
            let namespace = lane.pop().await;
            let next = self.intake().take(&namespace);
            if let Some(Waiting { key, map, again }) = next {
                self.look_at(&key, map, again).await;
                if self.intake().done(&namespace) {
                    // Behind the others: each namespace gets its turn.
                    lane.push(namespace.clone());
                }
                self.tell_when_loaded();
            }
            lane.done(&namespace);
        }
    }

    /// Looks at a ConfigMap, and puts its module into use if it is good.
    async fn look_at(self: &Arc<Self>, key: &Key, map: ConfigMap, again: bool) {
        let Some(around) = self.surroundings.get() else { return };
        let uid = map.uid().unwrap_or_default();
        let seen = (uid.clone(), map.resource_version().unwrap_or_default());
        let old = self.slots().get(key).cloned().unwrap_or_default();
        if old.seen.as_ref() == Some(&seen) && !again {
            return;
        }
        // With its version: what is told of one module must not be counted as one with what was told of the last.
        let reference = crate::report::reference_to_version(&map, "v1", "ConfigMap");
        let active = old.problem.is_none().then(|| old.active.as_ref().map(|policy| policy.digest().to_owned()));
        let (active, params) = (active.flatten(), self.params_of(key, &around.world));
        let room = room_for(key, &self.slots());
        let this = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let (refusals, metrics) = (&this.refusals, &*this.surroundings.get()?.metrics);
            let looked =
                Look { host: &this.host, refusals, turns: &this.turns, metrics, active, params, room }.at(&map);
            Some((looked, map))
        });
        let (looked, map) = match looked.await {
            Ok(Some((looked, map))) => (looked, Some(map)),
            Ok(None) => return,
            // The loader has panicked: our defect, but this module's doing.
            Err(panic) => {
                let refusal = Refusal {
                    reason: "LoaderPanicked",
                    why: format!("loading it failed: {panic}"),
                    counts: Counts::Always,
                };
                (Looked::Refused { refusal, again: None, known: false }, None)
            }
        };
        let (outcome, notice) = match looked {
            Looked::Same => (Outcome::Same, None),
            Looked::Passed { policy, warning } => {
                let notice = Notice::Active { digest: policy.digest().to_owned(), warning: warning.clone() };
                (Outcome::Active(policy, warning), Some(notice))
            }
            Looked::Refused { refusal, again, known } => {
                let mut why = refusal.why;
                if let Some(again) = again {
                    let kept = map.is_some_and(|map| self.intake().keep_for_later(key, map));
                    if kept {
                        self.again.push_after(key.clone(), again);
                        why = format!("{why}; it is tried again in {} s", again.as_secs() + 1);
                    } else {
                        why = format!("{why}; it is tried again when the ConfigMap changes");
                    }
                }
                let notice = Notice::Refused { reason: refusal.reason, why: why.clone(), known };
                (Outcome::Refused(why), Some(notice))
            }
        };
        let is_news = {
            // Both at once: a ConfigMap that is deleted now must not come back, and nothing is told of it.
            let intake = self.intake();
            if !intake.is_current(key, &uid) {
                return;
            }
            let mut slots = self.slots_mut();
            let slot = slots.entry(key.clone()).or_default();
            (slot.seen, slot.reference) = (Some(seen), reference.clone());
            slot.apply(outcome)
        };
        if let Some(notice) = notice {
            around.announce(key, reference, notice);
        }
        if is_news {
            self.changed(key);
        }
    }

    /// The params of the leases of its namespace that find this policy, at most as many as a probe takes.
    /// Not of other namespaces' leases, where it is a shared one: a strange one among them would keep a
    /// good module from everybody, and its params would be told to everybody.
    fn params_of(&self, key: &Key, world: &World) -> Vec<String> {
        let near = world.leases(|lease| lease.namespace().as_deref() == Some(key.namespace.as_str()));
        let mut found = Vec::new();
        for lease in near {
            let spec = lease.spec.policy.as_ref();
            let is_shadow = spec.and_then(|p| p.shadow.as_deref()) == Some(key.name.as_str());
            if !is_shadow && self.name_for(&lease, world) != key.name {
                continue;
            }
            // Its own namespace's policy of that name comes first.
            let own = Key::new(lease.namespace().unwrap_or_default(), key.name.clone());
            if own != *key && self.slots().contains_key(&own) {
                continue;
            }
            let params = Self::params_for(&lease);
            if !found.contains(&params) {
                found.push(params);
            }
        }
        // The same ones each time, whatever the order of the map.
        found.sort();
        found.truncate(PROBE_PARAMS_MAX);
        found
    }

    /// What a ConfigMap means has changed: the leases that may mean it are looked at.
    fn changed(&self, key: &Key) {
        let Some(around) = self.surroundings.get() else { return };
        let active: HashSet<String> =
            self.slots().values().filter_map(|slot| Some(slot.active.as_ref()?.digest().to_owned())).collect();
        around.metrics.policies().active(&active);
        let shared = key.namespace == self.shared_namespace;
        let uses = |lease: &Lease| {
            (shared || lease.namespace().as_deref() == Some(key.namespace.as_str()))
                && lease
                    .spec
                    .policy
                    .as_ref()
                    .and_then(|p| p.name.as_deref())
                    .is_none_or(|n| n.is_empty() || n == key.name)
        };
        around.world.leases_where(uses).into_iter().for_each(|k| around.queue.push(k));
    }
}

/// What there is to say after a look.
enum Notice {
    Active { digest: String, warning: Option<String> },
    Refused { reason: &'static str, why: String, known: bool },
}

impl Surroundings {
    /// Says what came of a look: to the log, the metrics, and whoever describes the ConfigMap.
    fn announce(&self, key: &Key, reference: ObjectReference, notice: Notice) {
        let metrics = self.metrics.policies();
        match notice {
            Notice::Active { digest, warning } => {
                info!(policy = %key, digest, warning, "policy active");
                metrics.loaded("active");
                let mut note = format!("The module {digest} is in use.");
                if let Some(warning) = warning {
                    note.push(' ');
                    note.push_str(&sentence(&warning));
                }
                self.tell(key, |events| events.policy_activated(reference, note));
            }
            Notice::Refused { reason, why, known } => {
                warn!(policy = %key, why, known, "policy module refused");
                metrics.loaded(if known { "known_bad" } else { "refused" });
                metrics.rejected(reason);
                self.tell(key, |events| events.policy_rejected(reference, format!("The module was refused: {why}")));
            }
        }
    }

    /// Tells an Event, if the namespace has not told too many.
    fn tell(&self, key: &Key, event: impl FnOnce(&Events)) {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if allowance.take(&key.namespace, Instant::now()) {
            event(&self.events);
        } else {
            self.metrics.event_dropped();
        }
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests;
