//! Decide: ask the lease's policy, let the guard check the answer, and plan.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use konductor_core::{
    Checked, Grant, HoldAction, Plan, Question, Situation, Verdict, check, plan, question, situations,
};
use konductor_crds::v1::{
    OnFailure,
    reasons::{INVALID_PARAMS, POLICY_ACTIVE, POLICY_FAULT, POLICY_READY, POLICY_VETOED},
};
use konductor_policy::{Decided, Policy};
use tracing::{debug, info};

use crate::{
    observe::{Key, Observed, World},
    policies::{Policies, Resolved},
    report::Metrics,
};

/// How many answers to "are these params valid" are remembered. A lease has one; above this the
/// memory starts afresh.
const PARAMS_REMEMBERED: usize = 4096;

/// What is needed to decide.
pub struct Decider {
    /// The policies.
    pub policies: Arc<Policies>,
    /// The cache, for the namespaces' default policies.
    pub world: Arc<World>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The leases whose policy failed when it was last asked, with the digest that failed.
    failing: Mutex<HashMap<Key, String>>,
    /// The errors that a module has found in params, by digest and params.
    params: Mutex<HashMap<(String, String), Vec<String>>>,
}

/// What came of deciding.
pub struct Consulted {
    /// The plan.
    pub plan: Plan,
    /// Who decided: the policy's name and digest. `None` when nobody was asked, or nobody could answer.
    pub decider: Option<(String, String)>,
    /// The name of the policy that the lease means.
    pub policy_name: String,
    /// Whether the lease's own policy works.
    pub health: Health,
}

/// Whether a lease's policy works: what the PolicyReady condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it works.
    pub ready: bool,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

/// One lease, and what its spec says about who decides.
struct Case<'a> {
    key: &'a Key,
    observed: &'a Observed,
    resolved: Resolved,
    /// JSON.
    params: String,
    shadow: Option<&'a str>,
    on_failure: OnFailure,
}

/// One policy's answer to one question, or why there is none.
type Answer = Result<(Checked, String), (&'static str, String)>;

impl Decider {
    /// A decider with nothing remembered.
    #[must_use]
    pub fn new(policies: Arc<Policies>, world: Arc<World>, metrics: Arc<Metrics>) -> Self {
        Self { policies, world, metrics, failing: Mutex::default(), params: Mutex::default() }
    }

    /// Decides what is to be done about a lease.
    pub async fn decide(self: &Arc<Self>, key: &Key, observed: &Observed) -> Consulted {
        let name = self.policies.name_for(&observed.lease, &self.world);
        let spec = observed.lease.spec.policy.as_ref();
        let params = spec.and_then(|p| p.params.as_ref());
        let case = Case {
            key,
            observed,
            resolved: self.policies.resolve(&key.namespace, &name),
            params: params.map_or_else(|| "{}".to_owned(), |p| serde_json::Value::Object(p.clone()).to_string()),
            shadow: spec.and_then(|p| p.shadow.as_deref()).filter(|s| !s.is_empty()),
            on_failure: spec.and_then(|p| p.on_failure).unwrap_or_default(),
        };
        let (superseding, plain) = situations(&observed.snapshot);
        if let Some(situation) = superseding {
            let consulted = self.consult(&case, &situation).await;
            if consulted.plan.grants() {
                return consulted;
            }
        }
        self.consult(&case, &plain).await
    }

    /// Asks about one situation, if there is something to ask, and plans.
    async fn consult(self: &Arc<Self>, case: &Case<'_>, situation: &Situation) -> Consulted {
        let snapshot = &case.observed.snapshot;
        let (verdict, decider, health) = match question(snapshot, situation) {
            None => {
                let health = match self.params_refused(&case.resolved, &case.params).await {
                    Some((reason, message)) => Health { ready: false, reason: reason.to_owned(), message },
                    None => self.health_unasked(case.key, case.observed, &case.resolved),
                };
                (not_asked(case.observed), None, health)
            }
            Some(question) => {
                let question = Arc::new(question);
                let own = self.ask(&case.resolved, &case.params, question.clone()).await;
                let health = self.health_asked(case.key, &case.resolved, &own);
                if let Some(shadow) = case.shadow {
                    self.compare(case.key, shadow, &case.params, &question, &own);
                }
                let (verdict, decider) = self.settle(own, &case.resolved, case.on_failure, question).await;
                (verdict, decider, health)
            }
        };
        let plan = plan(snapshot, situation, &verdict);
        Consulted { plan, decider, policy_name: case.resolved.name.clone(), health }
    }

    /// Asks the shadow policy the same question, beside the way of the decision, and compares. Its
    /// answer is never obeyed.
    fn compare(self: &Arc<Self>, key: &Key, shadow: &str, params: &str, question: &Arc<Question>, own: &Answer) {
        let resolved = self.policies.resolve(&key.namespace, shadow);
        let (this, key, params, question) = (self.clone(), key.clone(), params.to_owned(), question.clone());
        let own = own.as_ref().ok().map(|(checked, _)| Proposal::of(checked));
        tokio::spawn(async move {
            let other = match this.ask(&resolved, &params, question).await {
                Ok((checked, _)) => Proposal::of(&checked),
                Err((reason, problem)) => {
                    this.metrics.shadow("failed");
                    debug!(lease = %key, shadow = resolved.name, reason, problem, "the shadow policy has failed");
                    return;
                }
            };
            if own.as_ref() == Some(&other) {
                this.metrics.shadow("same");
            } else {
                this.metrics.shadow("different");
                info!(lease = %key, shadow = resolved.name, ?own, ?other, "the shadow policy would have decided differently");
            }
        });
    }

    /// The verdict: the own policy's answer, or what the lease's `onFailure` says.
    async fn settle(
        self: &Arc<Self>,
        own: Answer,
        resolved: &Resolved,
        on_failure: OnFailure,
        question: Arc<Question>,
    ) -> (Verdict, Option<(String, String)>) {
        let problem = match own {
            Ok((checked, digest)) => return (Verdict::Decided(checked), Some((resolved.name.clone(), digest))),
            Err((_, problem)) => problem,
        };
        match on_failure {
            OnFailure::Hold => (Verdict::Unavailable(problem), None),
            OnFailure::Default => {
                let builtin = Resolved {
                    name: konductor_crds::DEFAULT_POLICY.to_owned(),
                    policy: Some(self.policies.builtin()),
                    problem: None,
                    warning: None,
                };
                match self.ask(&builtin, "{}", question).await {
                    Ok((checked, digest)) => (Verdict::Decided(checked), Some((builtin.name, digest))),
                    Err((_, also)) => {
                        (Verdict::Unavailable(format!("{problem}; and the built-in policy: {also}")), None)
                    }
                }
            }
        }
    }

    /// Asks one policy, and lets the guard check its answer.
    async fn ask(self: &Arc<Self>, resolved: &Resolved, params: &str, question: Arc<Question>) -> Answer {
        let Some(policy) = resolved.policy.clone() else {
            let (reason, message) = resolved.problem.clone().unwrap_or((POLICY_FAULT, "no module".to_owned()));
            return Err((reason, message));
        };
        let digest = policy.digest().to_owned();
        let this = self.clone();
        let params = params.to_owned();
        let asked = question.clone();
        let decided = tokio::task::spawn_blocking(move || this.call(&policy, &params, &asked)).await;
        let decided = decided.unwrap_or_else(|panic| Err((POLICY_FAULT, format!("the host failed: {panic}"))))?;
        match check(&question, decided.decision) {
            Ok(checked) => {
                checked.clamps().iter().for_each(|c| self.metrics.guard(c.rule()));
                Ok((checked, digest))
            }
            Err(refusal) => {
                self.metrics.guard(refusal.rule());
                Err((POLICY_VETOED, refusal.to_string()))
            }
        }
    }

    /// Calls into the sandbox. Blocks for at most the policy's budget.
    fn call(&self, policy: &Policy, params: &str, question: &Question) -> Result<Decided, (&'static str, String)> {
        if let Some(refused) = refusal(&self.params_errors(policy, params)?) {
            return Err(refused);
        }
        let started = Instant::now();
        let decided = policy.decide(question, params);
        self.metrics.decision(started.elapsed(), decided.as_ref().map(|d| d.fuel).map_err(|f| f.reason()));
        if decided.as_ref().is_ok_and(|d| d.texts_cut) {
            self.metrics.guard(konductor_core::Clamp::Reason.rule());
        }
        decided.map_err(|fault| (POLICY_FAULT, crate::report::chain(&fault)))
    }

    /// What is wrong with the params: a person who has just written them wants to know, and not only
    /// when somebody asks for the lease.
    async fn params_refused(self: &Arc<Self>, resolved: &Resolved, params: &str) -> Option<(&'static str, String)> {
        let policy = resolved.policy.clone()?;
        if let Some(errors) = self.params_known(&policy, params) {
            return refusal(&errors);
        }
        let (this, params) = (self.clone(), params.to_owned());
        let errors = tokio::task::spawn_blocking(move || this.params_errors(&policy, &params)).await;
        match errors.unwrap_or_else(|panic| Err((POLICY_FAULT, format!("the host failed: {panic}")))) {
            Ok(errors) => refusal(&errors),
            Err(fault) => Some(fault),
        }
    }

    fn params_known(&self, policy: &Policy, params: &str) -> Option<Vec<String>> {
        let key = (policy.digest().to_owned(), params.to_owned());
        self.params.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn params_errors(&self, policy: &Policy, params: &str) -> Result<Vec<String>, (&'static str, String)> {
        if let Some(known) = self.params_known(policy, params) {
            return Ok(known);
        }
        let errors = policy.validate(params).map_err(|fault| {
            self.metrics.decision_fault(fault.reason());
            (POLICY_FAULT, format!("while it validated its params: {}", crate::report::chain(&fault)))
        })?;
        let mut remembered = self.params.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= PARAMS_REMEMBERED {
            remembered.clear();
        }
        remembered.insert((policy.digest().to_owned(), params.to_owned()), errors.clone());
        Ok(errors)
    }

    /// The health after the policy was asked.
    fn health_asked(&self, key: &Key, resolved: &Resolved, answer: &Answer) -> Health {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(_) => {
                failing.remove(key);
                Health::of(resolved)
            }
            Err((reason, message)) => {
                if let Some(policy) = &resolved.policy {
                    failing.insert(key.clone(), policy.digest().to_owned());
                }
                Health { ready: false, reason: (*reason).to_owned(), message: message.clone() }
            }
        }
    }

    /// The health when there is nothing to ask: what was said last still counts, as long as the same
    /// module is in use and it was this replica that saw it fail.
    fn health_unasked(&self, key: &Key, observed: &Observed, resolved: &Resolved) -> Health {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let same = resolved.policy.as_ref().is_some_and(|p| failing.get(key).is_some_and(|d| d == p.digest()));
        let said = observed.conditions().iter().find(|c| {
            // Params are looked at every time; what was said of them says nothing of the new ones.
            c.type_ == POLICY_READY && c.status == "False" && c.reason.as_deref() != Some(INVALID_PARAMS)
        });
        match said.filter(|_| same) {
            Some(said) => Health {
                ready: false,
                reason: said.reason.clone().unwrap_or_default(),
                message: said.message.clone().unwrap_or_default(),
            },
            None => Health::of(resolved),
        }
    }

    /// Forgets what was remembered of a lease that is gone.
    pub fn forget(&self, key: &Key) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// What of a decision counts when two are compared: what it does, not its words or its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proposal {
    hold: HoldAction,
    grant: Option<Grant>,
    deny: Vec<usize>,
}

impl Proposal {
    fn of(checked: &Checked) -> Self {
        let decision = checked.decision();
        Self { hold: decision.hold, grant: decision.grant, deny: decision.deny.iter().map(|d| d.request).collect() }
    }
}

impl Health {
    fn of(resolved: &Resolved) -> Self {
        match &resolved.problem {
            Some((reason, message)) => Self { ready: false, reason: (*reason).to_owned(), message: message.clone() },
            None => Self {
                ready: true,
                reason: POLICY_ACTIVE.to_owned(),
                message: match &resolved.warning {
                    Some(warning) => format!("The policy {} decides. {warning}.", resolved.name),
                    None => format!("The policy {} decides.", resolved.name),
                },
            },
        }
    }
}

/// The errors that a policy has found in its params, as the condition says them.
fn refusal(errors: &[String]) -> Option<(&'static str, String)> {
    let refused = || (INVALID_PARAMS, format!("the policy refuses spec.policy.params: {}", errors.join("; ")));
    (!errors.is_empty()).then(refused)
}

fn not_asked(observed: &Observed) -> Verdict {
    match &observed.snapshot.lease.problem {
        Some(problem) => Verdict::Unavailable(problem.clone()),
        None => Verdict::NotAsked,
    }
}
