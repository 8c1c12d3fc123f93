//! One look at a ConfigMap: from its bytes to a policy that has passed its probe, or to a refusal.
//! It blocks, for as long as the compiler and the probe may take.

use std::{
    collections::HashSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{DEFAULT_POLICY, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY};
use konductor_policy::{CheckedModule, Host, Policy, Probe, Rejection, Source, probe};
use tracing::warn;

use super::refusals::{Counts, Refusal, Refusals};
use crate::report::Metrics;

/// How soon a module is looked at again that had no room. Room comes when somebody deletes a policy.
const NO_ROOM_RETRY: Duration = Duration::from_secs(60);

/// What came of a look.
pub(super) enum Looked {
    /// It is what is in use already.
    Same,
    /// It has passed.
    Passed {
        policy: Arc<Policy>,
        /// What its author should know all the same.
        warning: Option<String>,
    },
    /// It was refused.
    Refused {
        refusal: Refusal,
        /// After which pause it is worth trying again, if it is.
        again: Option<Duration>,
        /// Whether that was known before, so that nothing was compiled or asked.
        known: bool,
    },
}

/// Who looks at which module. There are as many places as lanes, so there is nothing to bound.
#[derive(Debug, Default)]
pub(super) struct Turns {
    digests: Mutex<HashSet<String>>,
    over: Condvar,
}

/// The right to look at a module.
struct Turn<'a> {
    turns: &'a Turns,
    digest: &'a str,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        // Every change of it is one insertion or removal.
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<'a>(&'a self, digest: &'a str) -> Turn<'a> {
        let mut digests = self.lock();
        while !digests.insert(digest.to_owned()) {
            digests = self.over.wait(digests).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, digest }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(self.digest);
        self.turns.over.notify_all();
    }
}

/// What a look needs to know.
pub(super) struct Look<'a> {
    pub(super) host: &'a Host,
    pub(super) refusals: &'a Mutex<Refusals>,
    pub(super) turns: &'a Turns,
    pub(super) metrics: &'a Metrics,
    /// The digest that is in use without a problem, if there is one.
    pub(super) active: Option<String>,
    /// The params of the leases that use it.
    pub(super) params: Vec<String>,
    /// How many bytes its module may have beside those that are in use.
    pub(super) room: usize,
}

impl Look<'_> {
    /// Looks at the module of a ConfigMap.
    pub(super) fn at(self, map: &ConfigMap) -> Looked {
        let module = match self.check(map) {
            Ok(module) => module,
            // Looking from outside costs next to nothing, so it is not remembered.
            Err(refusal) => return Looked::Refused { refusal, again: None, known: false },
        };
        let digest = module.digest().to_owned();
        if self.active.as_deref() == Some(&digest) {
            return Looked::Same;
        }
        if module.size() > self.room {
            let why = format!(
                "it has {} bytes, and with the modules that are in use there is room for {}: delete policies that nobody uses",
                module.size(),
                self.room
            );
            let refusal = Refusal { reason: "TooManyModules", why, counts: Counts::ForAWhile };
            return Looked::Refused { refusal, again: Some(NO_ROOM_RETRY), known: false };
        }
        // The same bytes of two ConfigMaps are looked at once: the second finds what came of the first.
        let _turn = self.turns.take(&digest);
        let known = self.refusals().known(&digest, &self.params, Instant::now());
        if let Some((refusal, again)) = known {
            return Looked::Refused { refusal, again, known: true };
        }
        match self.build(&module).and_then(|policy| self.probe(policy)) {
            Ok((policy, warning)) => {
                self.refusals().forget(&digest);
                Looked::Passed { policy, warning }
            }
            Err(refusal) => {
                let again = self.refusals().note(&digest, refusal.clone(), Instant::now());
                Looked::Refused { refusal, again, known: false }
            }
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // Every change of it is one insertion or removal.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check<'a>(&self, map: &'a ConfigMap) -> Result<CheckedModule<'a>, Refusal> {
        // No lease would find it, so "in use" would be said of what decides nothing.
        if map.metadata.name.as_deref() == Some(DEFAULT_POLICY) {
            let why = format!(
                "{DEFAULT_POLICY} is the built-in policy's name, so no lease can use it: give the ConfigMap another name"
            );
            return Err(Refusal { reason: "ReservedName", why, counts: Counts::Always });
        }
        let data = map.binary_data.as_ref();
        let raw = data.and_then(|data| data.get(POLICY_MODULE_KEY));
        let gzip = data.and_then(|data| data.get(POLICY_MODULE_GZIP_KEY));
        match (raw, gzip) {
            (Some(_), Some(_)) => {
                let why = format!(
                    "the ConfigMap has both {POLICY_MODULE_KEY} and {POLICY_MODULE_GZIP_KEY}: remove one of them"
                );
                Err(Refusal { reason: "TwoModules", why, counts: Counts::Always })
            }
            (Some(bytes), None) => self.host.check(&bytes.0).map_err(|rejection| verdict(&rejection)),
            (None, Some(bytes)) => self.host.check_gzip(&bytes.0).map_err(|rejection| verdict(&rejection)),
            (None, None) => {
                let misplaced = map.data.as_ref().is_some_and(|data| data.contains_key(POLICY_MODULE_KEY));
                let why = if misplaced {
                    format!(
                        "{POLICY_MODULE_KEY} is in data, but a module is binary: put it in binaryData, as kubectl create configmap --from-file does"
                    )
                } else {
                    format!("the ConfigMap has neither {POLICY_MODULE_KEY} nor {POLICY_MODULE_GZIP_KEY} in binaryData")
                };
                Err(Refusal { reason: "NoModule", why, counts: Counts::Always })
            }
        }
    }

    fn build(&self, module: &CheckedModule<'_>) -> Result<Arc<Policy>, Refusal> {
        let built = self.host.build(module);
        match built.source {
            Source::Shared => self.metrics.policies().cache("shared"),
            Source::Cache => self.metrics.policies().cache("hit"),
            Source::Compiler(took) => {
                self.metrics.policies().cache("miss");
                self.metrics.policies().compiled(took);
            }
        }
        if let Some(problem) = &built.unfit {
            self.metrics.policies().cache("tampered");
            warn!(digest = module.digest(), problem, "a file of the policy cache is not used, and replaced");
        }
        if let Some(problem) = &built.not_kept {
            self.metrics.policies().cache("not_kept");
            warn!(digest = module.digest(), problem, "a compiled policy is not kept in the cache");
        }
        built.policy.map_err(|rejection| {
            let counts = if rejection.is_infrastructure() { Counts::ForAWhile } else { Counts::Always };
            Refusal { counts, ..verdict(&rejection) }
        })
    }

    fn probe(&self, policy: Arc<Policy>) -> Result<(Arc<Policy>, Option<String>), Refusal> {
        let with = Probe { params: self.params.clone(), ..Probe::default() };
        match probe(&policy, &with) {
            Ok(probed) => {
                let warning = probed.warning();
                Ok((policy, warning))
            }
            Err(failure) => {
                let counts = if failure.is_infrastructure() {
                    Counts::ForAWhile
                } else {
                    Counts::WithParams(self.params.clone())
                };
                Err(Refusal { reason: failure.reason(), why: failure.to_string(), counts })
            }
        }
    }
}

fn verdict(rejection: &Rejection) -> Refusal {
    Refusal { reason: rejection.reason(), why: rejection.to_string(), counts: Counts::Always }
}
