//! The policies that leases can name: the built-in one, and one for each labelled ConfigMap.
//!
//! A module goes seen → checked → compiled → active. The change is atomic: a decision takes one
//! [`Policy`] and keeps it to its end, so each is made by exactly one digest and none is dropped.
//! When a newer module is refused, the last good one stays in use.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{
    DEFAULT_POLICY, Lease, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY,
    v1::reasons::{POLICY_NOT_FOUND, POLICY_REJECTED},
};
use konductor_policy::{Host, Policy};
use kube::ResourceExt as _;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    observe::{Key, World},
    queue::Queue,
    report::{Events, Metrics},
};

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
    /// ConfigMaps to look at, by their namespace and name.
    work: Queue<Key>,
    loaded: watch::Sender<bool>,
}

/// What is known of one ConfigMap.
#[derive(Clone, Default)]
struct Slot {
    active: Option<Arc<Policy>>,
    /// The uid and resourceVersion that were looked at last, good or not.
    seen: Option<(String, String)>,
    /// Why the newest module is not the active one.
    problem: Option<String>,
}

/// ConfigMaps that have come in and were not looked at yet; only the newest of each counts.
#[derive(Default)]
struct Intake {
    waiting: HashMap<Key, Option<ConfigMap>>,
    in_work: bool,
    listed: HashSet<Key>,
    list_done: bool,
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
            work: Queue::default(),
            loaded: watch::Sender::new(false),
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
            return Resolved { name: name.to_owned(), policy: Some(self.builtin()), problem: None };
        }
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = [namespace, &self.shared_namespace].into_iter().find_map(|ns| slots.get(&Key::new(ns, name)));
        let Some(slot) = slot else {
            let problem = format!(
                "there is no policy {name}: no ConfigMap of that name with the label {}=true in namespace {namespace} or {}",
                konductor_crds::POLICY_MODULE_LABEL,
                self.shared_namespace
            );
            return Resolved { name: name.to_owned(), policy: None, problem: Some((POLICY_NOT_FOUND, problem)) };
        };
        let problem = slot.problem.as_ref().map(|problem| {
            let text = match &slot.active {
                Some(policy) => {
                    format!("the newest module was refused: {problem}; the last good one, {}, decides", policy.digest())
                }
                None => format!("the module was refused: {problem}"),
            };
            (POLICY_REJECTED, text)
        });
        Resolved { name: name.to_owned(), policy: slot.active.clone(), problem }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list of ConfigMaps begins.
    pub fn list_begins(&self) {
        self.intake().listed.clear();
    }

    /// A labelled ConfigMap as it is now.
    pub fn apply(&self, map: ConfigMap, in_list: bool) {
        let key = Key::new(map.namespace().unwrap_or_default(), map.name_any());
        let mut intake = self.intake();
        if in_list {
            intake.listed.insert(key.clone());
        }
        intake.waiting.insert(key.clone(), Some(map));
        drop(intake);
        self.work.push(key);
    }

    /// A ConfigMap that is gone, or has lost its label.
    pub fn delete(&self, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        self.intake().waiting.insert(key.clone(), None);
        self.work.push(key);
    }

    /// The list is complete: what is not in it is gone.
    pub fn list_done(&self) {
        let known: Vec<Key> = self.slots.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let mut intake = self.intake();
        intake.list_done = true;
        let listed = std::mem::take(&mut intake.listed);
        drop(intake);
        for key in known.into_iter().filter(|k| !listed.contains(k)) {
            self.delete(&key.namespace, &key.name);
        }
        self.tell_when_loaded();
    }

    fn tell_when_loaded(&self) {
        let intake = self.intake();
        if intake.list_done && !intake.in_work && intake.waiting.is_empty() {
            self.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
        }
    }

    /// Looks at ConfigMaps as they come in, one after the other, until the task is dropped.
    pub async fn run(
        self: Arc<Self>,
        world: Arc<World>,
        queue: Arc<Queue<Key>>,
        events: Events,
        metrics: Arc<Metrics>,
    ) {
        loop {
            let key = self.work.pop().await;
            let map = {
                let mut intake = self.intake();
                intake.in_work = true;
                intake.waiting.remove(&key)
            };
            let changed = match map {
                Some(Some(map)) => self.look_at(&key, map, &events, &metrics).await,
                Some(None) => self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&key).is_some(),
                None => false,
            };
            if changed {
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
                world.leases_where(uses).into_iter().for_each(|k| queue.push(k));
            }
            self.intake().in_work = false;
            self.work.done(&key);
            self.tell_when_loaded();
        }
    }

    /// Loads the module of a ConfigMap. Says whether anything is different now.
    async fn look_at(&self, key: &Key, map: ConfigMap, events: &Events, metrics: &Metrics) -> bool {
        let old = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default();
        let host = self.host.clone();
        let seen = (map.uid().unwrap_or_default(), map.resource_version().unwrap_or_default());
        if old.seen.as_ref() == Some(&seen) {
            return false;
        }
        // With its version: what is told of one module must not be counted as one with what was told of the last.
        let reference = crate::report::reference_to_version(&map, "v1", "ConfigMap");
        let looked = tokio::task::spawn_blocking(move || load(&host, &map)).await;
        let new = match looked {
            Ok(Looked::Loaded { policy }) => {
                if old.problem.is_none() && old.active.as_ref().is_some_and(|p| p.digest() == policy.digest()) {
                    // Something else about the ConfigMap has changed.
                    let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
                    slots.entry(key.clone()).or_default().seen = Some(seen);
                    return false;
                }
                info!(policy = %key, digest = policy.digest(), "policy active");
                metrics.policy_loaded("active");
                let note = format!("The module {} is in use.", policy.digest());
                events.policy_activated(reference, note);
                Slot { active: Some(policy), seen: Some(seen), problem: None }
            }
            Ok(Looked::Refused { why }) => refused(key, old, seen, why, reference, events, metrics),
            // The loader has panicked: our defect, but this module's doing.
            Err(panic) => {
                let why = format!("loading it failed: {panic}");
                refused(key, old, seen, why, reference, events, metrics)
            }
        };
        self.slots.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), new);
        true
    }
}

/// One ending of looking at a module: it is told, and the last good one stays.
fn refused(
    key: &Key,
    old: Slot,
    seen: (String, String),
    why: String,
    reference: k8s_openapi::api::core::v1::ObjectReference,
    events: &Events,
    metrics: &Metrics,
) -> Slot {
    warn!(policy = %key, why, "policy module refused");
    metrics.policy_loaded("refused");
    events.policy_rejected(reference, format!("The module was refused: {why}"));
    Slot { active: old.active, seen: Some(seen), problem: Some(why) }
}

enum Looked {
    Loaded { policy: Arc<Policy> },
    Refused { why: String },
}

/// Checks and compiles the module of a ConfigMap.
fn load(host: &Host, map: &ConfigMap) -> Looked {
    let data = map.binary_data.as_ref();
    let raw = data.and_then(|d| d.get(POLICY_MODULE_KEY));
    let gzip = data.and_then(|d| d.get(POLICY_MODULE_GZIP_KEY));
    let loaded = match (raw, gzip) {
        (Some(bytes), _) => host.load(&bytes.0),
        (None, Some(bytes)) => host.load_gzip(&bytes.0),
        (None, None) => {
            let misplaced = map.data.as_ref().is_some_and(|d| d.contains_key(POLICY_MODULE_KEY));
            let why = if misplaced {
                format!(
                    "{POLICY_MODULE_KEY} is in data, but a module is binary: put it in binaryData, as kubectl create configmap --from-file does"
                )
            } else {
                format!("the ConfigMap has neither {POLICY_MODULE_KEY} nor {POLICY_MODULE_GZIP_KEY} in binaryData")
            };
            return Looked::Refused { why };
        }
    };
    match loaded {
        Ok(policy) => Looked::Loaded { policy },
        Err(rejection) => Looked::Refused { why: crate::report::chain(&rejection) },
    }
}
