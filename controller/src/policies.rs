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

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use konductor_crds::{
    DEFAULT_POLICY, Lease,
    v1::reasons::{POLICY_FAULT, POLICY_NOT_FOUND, POLICY_REJECTED},
};
use konductor_policy::{Host, Policy, limits::PROBE_PARAMS_MAX};
use kube::ResourceExt as _;
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use self::{
    allowance::Allowance,
    intake::{Intake, Waiting},
    look::{Look, Looked, Turns},
    refusals::{Counts, Refusal, Refusals},
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

/// The most WebAssembly that modules of one namespace may have in use together. Machine code is up to ten
/// times as large and lives in memory that all share; the library's largest policy has 150 KiB.
const LOADED_IN_NAMESPACE: usize = 8 * 1024 * 1024;
/// The same of all namespaces: with ten times as much machine code it stays below the memory that
/// `deploy/` gives the controller.
const LOADED_IN_ALL: usize = 48 * 1024 * 1024;

/// The most ConfigMaps of one namespace, and of all, whose modules are in use: small modules cost too, and
/// the digest of each is a metric's label.
const COUNT_IN_NAMESPACE: usize = 100;
/// See [`COUNT_IN_NAMESPACE`].
const COUNT_IN_ALL: usize = 1000;

/// What is known of one ConfigMap.
#[derive(Clone, Default)]
struct Slot {
    active: Option<Arc<Policy>>,
    /// The one that was active before, kept warm to go back to.
    previous: Option<Arc<Policy>>,
    /// The uid and resourceVersion that were looked at last, good or not.
    seen: Option<(String, String)>,
    /// Why the newest module is not the active one, or should not be.
    problem: Option<Problem>,
    /// What the author of the active one should know.
    warning: Option<String>,
    /// The ConfigMap as it was looked at last, for Events.
    reference: ObjectReference,
}

/// What is wrong with a ConfigMap's newest module.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// It was refused on its way into use.
    Refused(String),
    /// It failed again and again while it was in use.
    Failing {
        digest: String,
        /// How often and how.
        why: String,
    },
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
}

/// What a look means for a slot.
enum Outcome {
    Same,
    Active(Arc<Policy>, Option<String>),
    Refused(String),
}

impl Slot {
    /// Takes in what came of a look, whatever has happened to the slot since it began. Says whether
    /// a lease can see a difference.
    fn apply(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Same => false,
            Outcome::Active(policy, warning) => {
                let is_other = |other: &Arc<Policy>| other.digest() != policy.digest();
                let is_news =
                    self.active.as_ref().is_none_or(is_other) || self.problem.is_some() || self.warning != warning;
                self.previous = self.active.take().filter(is_other).or(self.previous.take().filter(is_other));
                (self.active, self.problem, self.warning) = (Some(policy), None, warning);
                is_news
            }
            Outcome::Refused(why) => {
                let problem = Some(Problem::Refused(why));
                let is_news = self.problem != problem;
                self.problem = problem;
                is_news
            }
        }
    }

    /// Goes back to the module before, because this one fails. Says how that went; `None` if there
    /// was nothing to do.
    fn fail(&mut self, digest: &str, why: &str) -> Option<&'static str> {
        let is_known = matches!(&self.problem, Some(Problem::Failing { digest: known, .. }) if known == digest);
        if is_known || self.active.as_ref().is_none_or(|active| active.digest() != digest) {
            return None;
        }
        self.problem = Some(Problem::Failing { digest: digest.to_owned(), why: why.to_owned() });
        let Some(previous) = self.previous.take() else { return Some("failing") };
        self.active = Some(previous);
        self.warning = None;
        Some("rolled_back")
    }

    /// The condition's reason and sentence.
    fn problem(&self) -> Option<(&'static str, String)> {
        let active = self.active.as_ref().map(|policy| policy.digest());
        Some(match (self.problem.as_ref()?, active) {
            (Problem::Refused(why), Some(active)) => {
                (POLICY_REJECTED, format!("the newest module was refused: {why}; the last good one, {active}, decides"))
            }
            (Problem::Refused(why), None) => (POLICY_REJECTED, format!("the module was refused: {why}")),
            (Problem::Failing { digest, why }, Some(active)) if active != digest => (
                POLICY_FAULT,
                format!(
                    "the module {digest} failed {why} and is not asked any more; the last good one, {active}, decides"
                ),
            ),
            (Problem::Failing { digest, why }, _) => (
                POLICY_FAULT,
                format!("the module {digest} failed {why}; there is no earlier one to go back to; upload a better one"),
            ),
        })
    }
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

    /// The policy of this name as a lease in this namespace finds it: `default` is built in, every
    /// other is looked for in the lease's own namespace first, then in the controller's.
    #[must_use]
    pub fn resolve(&self, namespace: &str, name: &str) -> Resolved {
        if name == DEFAULT_POLICY {
            return Resolved { name: name.to_owned(), policy: Some(self.builtin()), problem: None, warning: None };
        }
        let places = [namespace, &self.shared_namespace].map(|namespace| Key::new(namespace, name));
        let slots = self.slots();
        let Some(slot) = places.iter().find_map(|key| slots.get(key)) else {
            drop(slots);
            let problem = if let Some(key) = places.iter().find(|key| self.intake().knows(key)) {
                format!("the module of ConfigMap {key} is being looked at")
            } else {
                format!(
                    "there is no policy {name}: no ConfigMap of that name with the label {}=true in namespace {namespace} or {}",
                    konductor_crds::POLICY_MODULE_LABEL,
                    self.shared_namespace
                )
            };
            let problem = Some((POLICY_NOT_FOUND, problem));
            return Resolved { name: name.to_owned(), policy: None, problem, warning: None };
        };
        Resolved {
            name: name.to_owned(),
            policy: slot.active.clone(),
            problem: slot.problem(),
            warning: slot.warning.clone(),
        }
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
        self.intake().add(&key, map, in_list);
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
        self.intake().remove(&key);
        if self.slots_mut().remove(&key).is_some() {
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
        let room = self.room_for(key);
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
        let outcome = match looked {
            Looked::Same => Outcome::Same,
            Looked::Passed { policy, warning } => {
                info!(policy = %key, digest = policy.digest(), warning, "policy active");
                around.metrics.policies().loaded("active");
                let mut note = format!("The module {} is in use.", policy.digest());
                if let Some(warning) = &warning {
                    note.push(' ');
                    note.push_str(&sentence(warning));
                }
                around.tell(key, |events| events.policy_activated(reference.clone(), note));
                Outcome::Active(policy, warning)
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
                warn!(policy = %key, why, known, "policy module refused");
                around.metrics.policies().loaded(if known { "known_bad" } else { "refused" });
                around.metrics.policies().rejected(refusal.reason);
                around.tell(key, |events| {
                    events.policy_rejected(reference.clone(), format!("The module was refused: {why}"));
                });
                Outcome::Refused(why)
            }
        };
        let is_news = {
            // Both at once: a ConfigMap that is deleted now must not come back.
            let intake = self.intake();
            if !intake.is_current(key, &uid) {
                return;
            }
            let mut slots = self.slots_mut();
            let slot = slots.entry(key.clone()).or_default();
            (slot.seen, slot.reference) = (Some(seen), reference);
            slot.apply(outcome)
        };
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
            let params = spec.and_then(|p| p.params.as_ref());
            let params = params.map_or_else(|| "{}".to_owned(), |p| serde_json::Value::Object(p.clone()).to_string());
            if !found.contains(&params) {
                found.push(params);
            }
        }
        // The same ones each time, whatever the order of the map.
        found.sort();
        found.truncate(PROBE_PARAMS_MAX);
        found
    }

    /// How many bytes of WebAssembly a ConfigMap's module may have, so that all that are in use stay within
    /// [`LOADED_IN_NAMESPACE`] and [`LOADED_IN_ALL`]. What it replaces makes room; the one before that is kept.
    fn room_for(&self, key: &Key) -> usize {
        let slots = self.slots();
        let (mut near, mut all) = (0_usize, 0_usize);
        let in_use = |near: bool| {
            let others = slots.iter().filter(|(other, slot)| *other != key && slot.active.is_some());
            others.filter(|(other, _)| !near || other.namespace == key.namespace).count()
        };
        if in_use(true) >= COUNT_IN_NAMESPACE || in_use(false) >= COUNT_IN_ALL {
            return 0;
        }
        for (other, slot) in slots.iter().filter(|(other, _)| *other != key) {
            let size = [&slot.active, &slot.previous].into_iter().flatten().map(|policy| policy.size()).sum::<usize>();
            all += size;
            if other.namespace == key.namespace {
                near += size;
            }
        }
        let kept = slots.get(key).and_then(|slot| slot.active.as_ref()).map_or(0, |policy| policy.size());
        LOADED_IN_NAMESPACE.saturating_sub(near + kept).min(LOADED_IN_ALL.saturating_sub(all + kept))
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

impl Surroundings {
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
mod tests {
    use konductor_crds::{LeaseRequest, LeaseRequestSpec, LeaseSpec, v1::PolicySpec};

    use super::*;
    use crate::{
        clock::Clock as _,
        decide::Decider,
        observe::{Sight, observe},
    };

    /// Two good modules, by other bytes: a custom section says nothing.
    fn modules(host: &Host) -> [Arc<Policy>; 2] {
        let text = r#"(module (memory (export "memory") 1) (data (i32.const 8) "{}")
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0x800000002)))"#;
        let module = wat::parse_str(text).expect("wat");
        let other = [module.as_slice(), &[0, 2, 1, b'x']].concat();
        [host.load(&module).expect("good"), host.load(&other).expect("good too")]
    }

    fn registry() -> (Policies, Key, [Arc<Policy>; 2]) {
        let host = Arc::new(Host::new().expect("a host"));
        let modules = modules(&host);
        let policies = Policies::new(host, "konductor-system".to_owned(), DEFAULT_POLICY.to_owned());
        (policies, Key::new("team", "p"), modules)
    }

    fn near() -> Vec<String> {
        vec!["team".to_owned()]
    }

    fn apply(policies: &Policies, key: &Key, outcome: Outcome) -> bool {
        policies.slots_mut().entry(key.clone()).or_default().apply(outcome)
    }

    fn resolved(policies: &Policies) -> (Option<String>, Option<(&'static str, String)>) {
        let resolved = policies.resolve("team", "p");
        (resolved.policy.map(|policy| policy.digest().to_owned()), resolved.problem)
    }

    #[test]
    fn a_shared_policy_fails_when_it_fails_in_more_than_one_namespace() {
        let (policies, _, [first, second]) = registry();
        let key = Key::new("konductor-system", "p");
        apply(&policies, &key, Outcome::Active(first.clone(), None));
        apply(&policies, &key, Outcome::Active(second.clone(), None));
        policies.report_failing(second.digest(), "5 times in a row: it trapped", &near());
        assert_eq!(resolved(&policies), (Some(second.digest().to_owned()), None), "one team's lease is one team's");
        policies.report_failing(second.digest(), "5 times in a row: it trapped", &["team".to_owned(), "b".to_owned()]);
        assert_eq!(resolved(&policies).0.as_deref(), Some(first.digest()));
    }

    #[test]
    fn a_module_that_fails_again_and_again_gives_way_to_the_one_before() {
        let (policies, key, [first, second]) = registry();
        let digest = |policy: &Arc<Policy>| Some(policy.digest().to_owned());
        assert!(apply(&policies, &key, Outcome::Active(first.clone(), None)));
        assert!(apply(&policies, &key, Outcome::Active(second.clone(), Some("slow".to_owned()))));
        assert_eq!(resolved(&policies), (digest(&second), None));
        assert_eq!(policies.resolve("team", "p").warning.as_deref(), Some("slow"));

        policies.report_failing("sha256:somebody else's", "5 times in a row: it trapped", &near());
        let elsewhere = ["other".to_owned(), "third".to_owned()];
        policies.report_failing(second.digest(), "5 times in a row: it trapped", &elsewhere);
        assert_eq!(resolved(&policies), (digest(&second), None));
        policies.report_failing(second.digest(), "5 times in a row: it trapped", &near());
        let (active, problem) = resolved(&policies);
        let (reason, text) = problem.expect("a problem");
        assert_eq!((active, reason), (digest(&first), POLICY_FAULT));
        let said = format!(
            "the module {} failed 5 times in a row: it trapped and is not asked any more; the last good one, {}, decides",
            second.digest(),
            first.digest()
        );
        assert_eq!(text, said);
        assert_eq!(policies.resolve("team", "p").warning, None);
        // Told twice is told once.
        policies.report_failing(second.digest(), "6 times in a row: it trapped", &near());
        assert_eq!(resolved(&policies).1.expect("a problem").1, said);

        // The one before fails as well, and there is none before it.
        policies.report_failing(first.digest(), "5 times in a row: it looped", &near());
        let (active, problem) = resolved(&policies);
        assert_eq!(active, digest(&first));
        assert!(problem.is_some_and(|(_, text)| text.contains("no earlier one") && text.contains("it looped")));

        // A look at the ConfigMap, changed, ends it, also with the same bytes.
        assert!(apply(&policies, &key, Outcome::Active(second.clone(), None)));
        assert_eq!(resolved(&policies), (digest(&second), None));
        assert!(!apply(&policies, &key, Outcome::Active(second.clone(), None)), "no news");
        assert_eq!(policies.slots()[&key].previous.as_ref().map(|p| p.digest()), Some(first.digest()));
    }

    #[test]
    fn a_refused_module_leaves_the_last_good_one() {
        let (policies, key, [first, second]) = registry();
        assert!(apply(&policies, &key, Outcome::Refused("it is broken".to_owned())));
        let (active, problem) = resolved(&policies);
        assert_eq!(
            (active, problem),
            (None, Some((POLICY_REJECTED, "the module was refused: it is broken".to_owned())))
        );
        apply(&policies, &key, Outcome::Active(first.clone(), None));
        assert!(apply(&policies, &key, Outcome::Refused("it is broken".to_owned())));
        let (active, problem) = resolved(&policies);
        assert_eq!(active.as_deref(), Some(first.digest()));
        assert!(
            problem.is_some_and(|(_, text)| text.contains(&format!("the last good one, {}, decides", first.digest())))
        );
        // A look that began before a module failed does not bring it back.
        apply(&policies, &key, Outcome::Active(second.clone(), None));
        policies.report_failing(second.digest(), "5 times in a row", &near());
        apply(&policies, &key, Outcome::Refused("the next is broken too".to_owned()));
        assert_eq!(resolved(&policies).0.as_deref(), Some(first.digest()));
        // Gone is gone.
        policies.delete("team", "p");
        let (active, problem) = resolved(&policies);
        assert!(active.is_none() && problem.is_some_and(|(reason, _)| reason == POLICY_NOT_FOUND));
        drop((first, second));
        assert!(policies.slots().is_empty());
    }

    /// A module that grants, and says of itself which one it is.
    fn says(host: &Host, name: &str) -> Arc<Policy> {
        let answer = format!(r#"{{"grant":{{"request":0,"ttlMs":60000}},"reason":"{name}"}}"#);
        let text = format!(
            r#"(module
            (memory (export "memory") 6)
            (data (i32.const 8) "{}")
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const {})))"#,
            answer.replace('"', "\\22"),
            8_u64 << 32 | answer.len() as u64,
        );
        host.load(&wat::parse_str(text).expect("wat")).expect("good")
    }

    /// What the cluster adds to this are writes, and it makes some hundred decisions a second; here it is the
    /// registry and the sandbox alone, as fast as they go.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_decision_is_made_by_one_digest_and_none_is_lost_while_modules_are_swapped() {
        const DECISIONS: usize = 20_000;
        const TASKS: usize = 8;
        let host = Arc::new(Host::new().expect("a host"));
        let modules = [says(&host, "v1"), says(&host, "v2")];
        let policies = Arc::new(Policies::new(host, "konductor-system".to_owned(), DEFAULT_POLICY.to_owned()));
        let key = Key::new("team", "p");
        apply(&policies, &key, Outcome::Active(modules[0].clone(), None));

        let world = Arc::new(World::default());
        let clock = crate::clock::SystemClock;
        let metrics = Arc::new(Metrics::new());
        let (events, _events) = Events::new(metrics.clone());
        let decider = Arc::new(Decider::new(policies.clone(), world.clone(), metrics, events, None, 2 * TASKS));
        let observed: Vec<_> = (0..TASKS)
            .map(|n| {
                let name = format!("l{n}");
                let policy = PolicySpec { name: Some("p".to_owned()), ..PolicySpec::default() };
                let spec = LeaseSpec { ttl: "1m".to_owned(), policy: Some(policy), ..LeaseSpec::default() };
                let mut lease = Lease::new(&name, spec);
                (lease.metadata.namespace, lease.metadata.uid) = (Some("team".to_owned()), Some(name.clone()));
                lease.metadata.resource_version = Some("1".to_owned());
                world.apply_lease(lease);
                let spec =
                    LeaseRequestSpec { lease: name.clone(), holder: "a".to_owned(), ..LeaseRequestSpec::default() };
                let mut request = LeaseRequest::new(&format!("r{n}"), spec);
                (request.metadata.namespace, request.metadata.uid) = (Some("team".to_owned()), Some(format!("u{n}")));
                request.metadata.resource_version = Some("2".to_owned());
                world.request_watched(request, clock.read(), konductor_core::Millis(0));
                let key = Key::new("team", name);
                match observe(&world, &key, &clock, Duration::ZERO, konductor_core::Settings::default()) {
                    Sight::Lease(observed) => (key, observed),
                    other => panic!("{other:?}"),
                }
            })
            .collect();

        let begun = Instant::now();
        let tasks: Vec<_> = observed
            .into_iter()
            .map(|(key, observed)| {
                let decider = decider.clone();
                tokio::spawn(async move {
                    let mut made = Vec::new();
                    for _ in 0..DECISIONS / TASKS {
                        let consulted = decider.decide(&key, &observed).await.expect("there is room for all of them");
                        made.push((
                            consulted.decider.expect("somebody decided"),
                            consulted.plan.reason,
                            consulted.health.ready,
                        ));
                    }
                    made
                })
            })
            .collect();
        let mut swaps = 0;
        while tasks.iter().any(|task| !task.is_finished()) {
            swaps += 1;
            apply(&policies, &key, Outcome::Active(modules[swaps % 2].clone(), None));
            tokio::task::yield_now().await;
        }
        let took = begun.elapsed();
        let mut by = [0_usize; 2];
        for task in tasks {
            for ((name, digest), reason, ready) in task.await.expect("no panic") {
                let module = modules.iter().position(|module| module.digest() == digest).expect("one of the two");
                assert_eq!((name.as_str(), reason.as_deref(), ready), ("p", Some(["v1", "v2"][module]), true));
                by[module] += 1;
            }
        }
        assert_eq!(by.iter().sum::<usize>(), DECISIONS);
        assert!(by.iter().all(|&count| count > 100), "both had their share: {by:?} in {swaps} swaps");
        println!(
            "{DECISIONS} decisions in {took:?}, {:.0} a second, {swaps} swaps, {by:?}",
            DECISIONS as f64 / took.as_secs_f64()
        );
    }
}
