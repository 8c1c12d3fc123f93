//! Decide: ask the lease's policy, let the guard check the answer, and plan.

pub mod breaker;
pub mod bulkhead;
pub mod shadow;

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use konductor_core::{Checked, Decision, Inquiry, Millis, Plan, Question, Refusal, Verdict, check};
use konductor_crds::{
    time::{format_duration, format_timestamp},
    v1::{
        OnFailure,
        reasons::{INVALID_PARAMS, POLICY_ACTIVE, POLICY_FAULT, POLICY_READY, POLICY_VETOED},
    },
};
use konductor_policy::{
    Decided, Fault, Policy,
    compare::{differences, sentence},
    journal::Record,
};
use tokio::{sync::Semaphore, task::JoinError};
use tracing::{debug, info, info_span};

use self::{
    breaker::{Breaker, Paused},
    bulkhead::{Bulkhead, Busy, Permit},
    shadow::Told,
};
use crate::{
    journal::Journal,
    observe::{Key, Observed, World},
    policies::{Policies, Resolved},
    report::{Events, Metrics, PAUSED},
};

/// How many comparisons with shadow policies may be under way. What comes above it is not compared, and
/// counted: a rehearsal is a sample and never a backlog.
const SHADOWS_MOST: usize = 32;

/// How many answers to "are these params valid" are remembered. A lease has one; above this the
/// memory starts afresh.
const PARAMS_REMEMBERED: usize = 4096;
/// Longer params are validated each time. With at most 20 errors of 256 bytes beside them, remembering costs less
/// than 10 KiB a lease and 40 MiB in all, whatever modules say.
const PARAMS_REMEMBERED_SIZE: usize = 4096;

/// On which thread the sandbox is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Calls {
    /// On threads for what blocks: a call takes as long as its fuel lasts, and the watches must not wait.
    #[default]
    Apart,
    /// On the caller's, for simulations: when a thread ends is the one thing that no seed decides.
    InPlace,
}

impl Calls {
    async fn run<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match self {
            Self::Apart => tokio::task::spawn_blocking(call).await,
            Self::InPlace => Ok(call()),
        }
    }
}

/// What is needed to decide.
pub struct Decider {
    /// The policies.
    pub policies: Arc<Policies>,
    /// The cache, for the namespaces' default policies.
    pub world: Arc<World>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    events: Events,
    bulkhead: Bulkhead,
    shadow_bulkhead: Bulkhead,
    /// How many comparisons are under way.
    shadows: Arc<Semaphore>,
    /// The leases whose policy failed when it was last asked.
    breaker: Breaker,
    /// The same for shadow policies.
    shadow_breaker: Breaker,
    shadow_told: Told,
    journal: Option<Journal>,
    calls: Calls,
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
    /// The ConfigMaps that could be the lease's policy and of which nothing was seen, where none was.
    pub absent: Vec<Key>,
    /// For the journal, where there is one: who was asked, in order. The last one decided, if anybody did.
    pub records: Vec<Record>,
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

impl Consulted {
    fn of(mut plan: Plan, counsel: Counsel, case: &Case<'_>) -> Self {
        let Counsel { decider, health, again_in, .. } = counsel;
        if let Some(pause) = again_in {
            let pause = Millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
            plan.wake_in = Some(plan.wake_in.map_or(pause, |wake| wake.min(pause)));
        }
        Self {
            plan,
            decider,
            policy_name: case.resolved.name.clone(),
            health,
            absent: case.resolved.absent.clone(),
            records: case.asking.records(),
        }
    }
}

/// What came of one question.
struct Counsel {
    verdict: Verdict,
    decider: Option<(String, String)>,
    health: Health,
    /// In how long it is worth asking again though nothing has changed.
    again_in: Option<Duration>,
}

/// For which lease a policy is asked, when, and with which params.
#[derive(Clone)]
struct Asking {
    key: Key,
    /// By the monotonic clock.
    now: Duration,
    /// JSON.
    params: String,
    /// The resourceVersion of the Lease from which is decided: see [`Record::decision`].
    decision: i64,
    /// What is asked and answered meanwhile, where there is a journal.
    records: Arc<Mutex<Vec<Record>>>,
}

impl Asking {
    fn records(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One lease, and what its spec says about who decides.
struct Case<'a> {
    asking: Asking,
    observed: &'a Observed,
    resolved: Resolved,
    shadow: Option<&'a str>,
    on_failure: OnFailure,
}

/// One policy's answer to one question, with its digest, or why there is none.
type Answer = Result<(Checked, String), Failed>;

/// Why a policy has not decided.
#[derive(Debug, Clone)]
struct Failed {
    /// The reason of the PolicyReady condition.
    reason: &'static str,
    /// A sentence for it.
    message: String,
    /// In how long it is worth asking again though nothing has changed.
    again_in: Option<Duration>,
}

/// What asking came to, where it did not come to a decision.
enum NoAnswer {
    /// Too many wait for their turn.
    Busy,
    /// It answered with what is not allowed, or was not asked because of its params.
    Refused(Failed),
    /// It broke.
    Broken { message: String, is_infrastructure: bool },
}

/// What a call came to before the guard has seen it.
enum CallFailure {
    /// Its params are refused.
    Params(String),
    /// It broke.
    Fault { why: String, is_infrastructure: bool },
}

impl Decider {
    /// A decider with nothing remembered.
    #[must_use]
    pub fn new(
        policies: Arc<Policies>,
        world: Arc<World>,
        metrics: Arc<Metrics>,
        events: Events,
        journal: Option<Journal>,
        workers: usize,
    ) -> Self {
        Self {
            journal,
            calls: Calls::default(),
            bulkhead: Bulkhead::new(policies.places(), (workers / 2).max(1)),
            shadow_bulkhead: Bulkhead::new(policies.places(), SHADOWS_MOST),
            shadows: Arc::new(Semaphore::new(SHADOWS_MOST)),
            policies,
            world,
            metrics,
            events,
            breaker: Breaker::default(),
            shadow_breaker: Breaker::default(),
            shadow_told: Told::default(),
            params: Mutex::default(),
        }
    }

    /// The same, with the sandbox called on another thread or not.
    #[must_use]
    pub fn calling(mut self, calls: Calls) -> Self {
        self.calls = calls;
        self
    }

    /// Decides what is to be done about a lease.
    ///
    /// # Errors
    /// [`Busy`] where too many leases wait for the sandbox already: it is to be tried again soon.
    pub async fn decide(self: &Arc<Self>, key: &Key, observed: &Observed) -> Result<Consulted, Busy> {
        let name = self.policies.name_for(&observed.lease, &self.world);
        let spec = observed.lease.spec.policy.as_ref();
        let case = Case {
            asking: Asking {
                key: key.clone(),
                now: observed.reading.mono,
                params: Policies::params_for(&observed.lease),
                decision: observed.snapshot.resource_version,
                records: Arc::default(),
            },
            observed,
            resolved: self.policies.resolve(&key.namespace, &name),
            shadow: spec.and_then(|p| p.shadow.as_deref()).filter(|s| !s.is_empty()),
            on_failure: spec.and_then(|p| p.on_failure).unwrap_or_default(),
        };
        let mut inquiry = Inquiry::of(&observed.snapshot);
        loop {
            let counsel = self.consult(&case, inquiry.question()).await?;
            inquiry = match inquiry.conclude(&counsel.verdict) {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(plan) => return Ok(Consulted::of(plan, counsel, &case)),
            };
        }
    }

    /// Writes into the journal, if there is one, what was asked and answered on the way to a decision
    /// that has become so, or has not.
    pub fn record(&self, consulted: &mut Consulted, became_so: bool) {
        let Some(journal) = &self.journal else { return };
        let mut records = std::mem::take(&mut consulted.records);
        if let Some(last) = records.last_mut() {
            last.applied = became_so && consulted.decider.is_some();
        }
        records.iter().for_each(|record| journal.write(record));
    }

    /// Asks one question, if there is one.
    async fn consult(self: &Arc<Self>, case: &Case<'_>, question: Option<&Question>) -> Result<Counsel, Busy> {
        let Some(question) = question else {
            let health = match self.params_refused(&case.resolved, &case.asking).await {
                Some((reason, message)) => Health { ready: false, reason: reason.to_owned(), message },
                None => self.health_unasked(&case.asking.key, case.observed, &case.resolved),
            };
            return Ok(Counsel { verdict: Verdict::NotAsked, decider: None, health, again_in: None });
        };
        if let Some(left) = first_look(&case.resolved, question) {
            let health = Health::of(&case.resolved);
            let verdict = Verdict::Unavailable(health.message.clone());
            return Ok(Counsel { verdict, decider: None, health, again_in: Some(left) });
        }
        let question = Arc::new(question.clone());
        let own = self.ask_breaking(&self.breaker, &case.asking, &case.resolved, question.clone()).await?;
        let health = Health::asked(&case.resolved, &own);
        let again_in = own.as_ref().err().and_then(|failed| failed.again_in);
        if let Some(shadow) = case.shadow {
            self.compare(case, shadow, &question, &own);
        }
        let (verdict, decider) = self.settle(own, case, question).await;
        Ok(Counsel { verdict, decider, health, again_in })
    }

    /// Asks the shadow policy the same question, beside the way of the decision, and compares. Its
    /// answer is never obeyed.
    fn compare(self: &Arc<Self>, case: &Case<'_>, shadow: &str, question: &Arc<Question>, own: &Answer) {
        let Ok(place) = self.shadows.clone().try_acquire_owned() else {
            self.metrics.shadow("skipped");
            return;
        };
        let resolved = self.policies.resolve(&case.asking.key.namespace, shadow);
        let own = own.as_ref().ok().map(|(checked, _)| checked.decision().clone());
        let lease = crate::report::reference_to_version(&*case.observed.lease, crate::report::API_VERSION, "Lease");
        let (this, question) = (self.clone(), question.clone());
        let asking = Asking { records: Arc::default(), ..case.asking.clone() };
        tokio::spawn(async move {
            let _place = place;
            let key = &asking.key;
            let asked = this.ask_breaking(&this.shadow_breaker, &asking, &resolved, question.clone()).await;
            let Ok(asked) = asked else {
                this.metrics.shadow("skipped");
                return;
            };
            if let Some(journal) = &this.journal {
                asking.records().iter().for_each(|record| journal.write(record));
            }
            let other = match asked {
                Ok((checked, _)) => checked.decision().clone(),
                Err(failed) => {
                    this.metrics.shadow("failed");
                    debug!(lease = %key, shadow = resolved.name, failed.reason, failed.message, "the shadow policy has failed");
                    return;
                }
            };
            if differences(own.as_ref(), Some(&other)).is_empty() {
                this.metrics.shadow("same");
                return;
            }
            this.metrics.shadow("different");
            let said = |decision: &Decision| sentence(&question, decision, format_duration);
            let own = own.as_ref().map_or_else(|| "could not decide".to_owned(), said);
            let other = said(&other);
            info!(lease = %key, shadow = resolved.name, own, other, "the shadow policy would have decided differently");
            if this.shadow_told.due(key, asking.now) {
                this.events
                    .shadow_differs(lease, format!("The policy {own}. The shadow policy {} {other}.", resolved.name));
            }
        });
    }

    /// The verdict: the own policy's answer, or what the lease's `onFailure` says.
    async fn settle(
        self: &Arc<Self>,
        own: Answer,
        case: &Case<'_>,
        question: Arc<Question>,
    ) -> (Verdict, Option<(String, String)>) {
        let problem = match own {
            Ok((checked, digest)) => return (Verdict::Decided(checked), Some((case.resolved.name.clone(), digest))),
            Err(failed) => failed.message,
        };
        match case.on_failure {
            OnFailure::Hold => (Verdict::Unavailable(problem), None),
            OnFailure::Default => {
                let name = konductor_crds::DEFAULT_POLICY;
                let asking = Asking { params: "{}".to_owned(), ..case.asking.clone() };
                match self.ask(&self.bulkhead, &self.policies.builtin(), name, &asking, question).await {
                    Ok((checked, digest)) => (Verdict::Decided(checked), Some((name.to_owned(), digest))),
                    Err(no_answer) => {
                        let also = match no_answer {
                            NoAnswer::Busy => "the sandbox is busy".to_owned(),
                            NoAnswer::Refused(failed) => failed.message,
                            NoAnswer::Broken { message, .. } => message,
                        };
                        (Verdict::Unavailable(format!("{problem}; and the built-in policy: {also}")), None)
                    }
                }
            }
        }
    }

    /// Asks a policy, unless it has failed a moment ago.
    async fn ask_breaking(
        self: &Arc<Self>,
        breaker: &Breaker,
        asking: &Asking,
        resolved: &Resolved,
        question: Arc<Question>,
    ) -> Result<Answer, Busy> {
        let Some(policy) = resolved.policy.clone() else {
            let (reason, message) = resolved.problem.clone().unwrap_or((POLICY_FAULT, "no module".to_owned()));
            return Ok(Err(Failed { reason, message, again_in: None }));
        };
        let (key, digest, now) = (&asking.key, policy.digest(), asking.now);
        if let Err(Paused { why, again_in }) = breaker.permits(key, digest, now) {
            self.metrics.decision_fault(PAUSED);
            return Ok(Err(Failed { reason: POLICY_FAULT, message: why, again_in: Some(again_in) }));
        }
        let bulkhead = if self.is_shadow(breaker) { &self.shadow_bulkhead } else { &self.bulkhead };
        match self.ask(bulkhead, &policy, &resolved.name, asking, question).await {
            Ok(answer) => {
                breaker.succeeded(key, digest);
                Ok(Ok(answer))
            }
            Err(NoAnswer::Busy) => Err(Busy),
            Err(NoAnswer::Refused(failed)) => {
                breaker.refused(key, digest, &failed.message, now);
                Ok(Err(failed))
            }
            Err(NoAnswer::Broken { message, is_infrastructure }) => {
                let pause = self.broke(breaker, asking, digest, &message, is_infrastructure);
                Ok(Err(Failed { reason: POLICY_FAULT, message, again_in: Some(pause) }))
            }
        }
    }

    fn is_shadow(&self, breaker: &Breaker) -> bool {
        std::ptr::eq(breaker, &raw const self.shadow_breaker)
    }

    /// A module has broken while it was asked about a lease. Where it does so again and again it is not in use any
    /// more. Returns after which pause it is asked again.
    fn broke(&self, breaker: &Breaker, asking: &Asking, digest: &str, why: &str, is_infrastructure: bool) -> Duration {
        let (pause, broken) = breaker.failed(&asking.key, digest, why, is_infrastructure, asking.now);
        // What a rehearsal comes to says nothing of a module's work for those who rely on it.
        if let Some(namespaces) = broken.filter(|_| !self.is_shadow(breaker)) {
            let why = format!("{} times in a row ({why})", breaker::IN_A_ROW);
            self.policies.report_failing(digest, &why, &namespaces);
        }
        pause
    }

    /// Waits for the right to call a module. The built-in policy needs none: it decides where others fail.
    async fn enter(&self, bulkhead: &Bulkhead, digest: &str) -> Result<Option<Permit>, Busy> {
        if digest == self.policies.builtin().digest() {
            return Ok(None);
        }
        bulkhead.enter(digest).await.map(Some)
    }

    /// Asks one policy, and lets the guard check its answer.
    async fn ask(
        self: &Arc<Self>,
        bulkhead: &Bulkhead,
        policy: &Arc<Policy>,
        name: &str,
        asking: &Asking,
        question: Arc<Question>,
    ) -> Result<(Checked, String), NoAnswer> {
        let digest = policy.digest().to_owned();
        let permit = self.enter(bulkhead, &digest).await.map_err(|Busy| NoAnswer::Busy)?;
        let (this, policy, name) = (self.clone(), policy.clone(), name.to_owned());
        let (asking, asked) = (asking.clone(), question.clone());
        let span = info_span!("policy", policy = name, digest);
        let called = self.calls.run(move || {
            let called = span.in_scope(|| this.call(&policy, &name, &asking, &asked));
            drop(permit);
            called
        });
        let refused = |reason, message, again_in| NoAnswer::Refused(Failed { reason, message, again_in });
        let decided = match called.await.unwrap_or_else(|panic| Err(panicked(&panic))) {
            Ok(decided) => decided,
            Err(CallFailure::Params(message)) => return Err(refused(INVALID_PARAMS, message, None)),
            Err(CallFailure::Fault { why: message, is_infrastructure }) => {
                return Err(NoAnswer::Broken { message, is_infrastructure });
            }
        };
        match check(&question, decided.decision) {
            Ok(checked) => {
                checked.clamps().iter().for_each(|c| self.metrics.guard(c.rule()));
                Ok((checked, digest))
            }
            Err(refusal) => {
                self.metrics.guard(refusal.rule());
                let again_in = match &refusal {
                    Refusal::Flapping { again_in } => {
                        Some(Duration::from_millis(u64::try_from(again_in.0).unwrap_or(0)))
                    }
                    _ => None,
                };
                Err(refused(POLICY_VETOED, format!("{}: {refusal}", refusal.rule()), again_in))
            }
        }
    }

    /// Calls into the sandbox. Blocks for at most the policy's budget.
    fn call(&self, policy: &Policy, name: &str, asking: &Asking, question: &Question) -> Result<Decided, CallFailure> {
        if let Some((_, refused)) = refusal(&self.params_errors(policy, &asking.params)?) {
            return Err(CallFailure::Params(refused));
        }
        let started = Instant::now();
        let decided = match self.journal {
            None => policy.decide(question, &asking.params),
            Some(_) => {
                let (decided, tape) = policy.decide_taped(question, &asking.params);
                let at = format_timestamp(question.now.0);
                let record = Record::of(policy, name.to_owned(), at, question, &decided, tape)
                    .map(|record| Record { decision: asking.decision, ..record });
                asking.records.lock().unwrap_or_else(PoisonError::into_inner).extend(record);
                decided
            }
        };
        self.metrics.decision(started.elapsed(), decided.as_ref().map(|d| (d.fuel, d.memory)).map_err(|f| f.reason()));
        if decided.as_ref().is_ok_and(|d| d.texts_cut) {
            self.metrics.guard(konductor_core::Clamp::Reason.rule());
        }
        decided.map_err(|fault| CallFailure::Fault { why: told(&fault), is_infrastructure: fault.is_infrastructure() })
    }

    /// What is wrong with the params: a person who has just written them wants to know, and not only
    /// when somebody asks for the lease.
    async fn params_refused(self: &Arc<Self>, resolved: &Resolved, asking: &Asking) -> Option<(&'static str, String)> {
        let policy = resolved.policy.clone()?;
        if let Some(errors) = self.params_known(&policy, &asking.params) {
            return refusal(&errors);
        }
        let digest = policy.digest().to_owned();
        if let Err(Paused { why, .. }) = self.breaker.permits(&asking.key, &digest, asking.now) {
            return Some((POLICY_FAULT, why));
        }
        // Nothing hangs on the answer: it can be found when the next question is asked.
        let permit = self.enter(&self.bulkhead, &digest).await.ok()?;
        let (this, params) = (self.clone(), asking.params.clone());
        let errors = self.calls.run(move || {
            let errors = this.params_errors(&policy, &params);
            drop(permit);
            errors
        });
        match errors.await.unwrap_or_else(|panic| Err(panicked(&panic))) {
            Ok(errors) => refusal(&errors),
            Err(CallFailure::Params(message)) => Some((INVALID_PARAMS, message)),
            Err(CallFailure::Fault { why, is_infrastructure }) => {
                self.broke(&self.breaker, asking, &digest, &why, is_infrastructure);
                Some((POLICY_FAULT, why))
            }
        }
    }

    fn params_known(&self, policy: &Policy, params: &str) -> Option<Vec<String>> {
        let key = (policy.digest().to_owned(), params.to_owned());
        self.params.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn params_errors(&self, policy: &Policy, params: &str) -> Result<Vec<String>, CallFailure> {
        if let Some(known) = self.params_known(policy, params) {
            return Ok(known);
        }
        let errors = policy.validate(params).map_err(|fault| {
            self.metrics.decision_fault(fault.reason());
            let why = format!("while it validated its params: {}", told(&fault));
            CallFailure::Fault { why, is_infrastructure: fault.is_infrastructure() }
        })?;
        if params.len() > PARAMS_REMEMBERED_SIZE {
            return Ok(errors);
        }
        let mut remembered = self.params.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= PARAMS_REMEMBERED {
            remembered.clear();
        }
        remembered.insert((policy.digest().to_owned(), params.to_owned()), errors.clone());
        Ok(errors)
    }

    /// The health when there is nothing to ask: what was said last still counts, as long as the same
    /// module is in use and it was this replica that saw it fail.
    fn health_unasked(&self, key: &Key, observed: &Observed, resolved: &Resolved) -> Health {
        let same = resolved.policy.as_ref().is_some_and(|p| self.breaker.has_failed(key, p.digest()));
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
        self.breaker.forget(key);
        self.shadow_breaker.forget(key);
    }
}

/// A call that has not come to an end that we know of: our defect, and not the module's.
fn panicked(panic: &JoinError) -> CallFailure {
    CallFailure::Fault { why: format!("the host failed: {panic}"), is_infrastructure: true }
}

/// A fault as the condition tells it: its kind in one word, then the sentence.
fn told(fault: &Fault) -> String {
    format!("{}: {}", fault.reason(), fault)
}

impl Health {
    /// The health after the policy was asked.
    fn asked(resolved: &Resolved, answer: &Answer) -> Self {
        match answer {
            Ok(_) => Self::of(resolved),
            Err(failed) => Self { ready: false, reason: failed.reason.to_owned(), message: failed.message.clone() },
        }
    }

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

/// For how long nobody decides, because what the lease names was uploaded a moment ago and is not looked at
/// yet: until then the built-in policy would grant by other rules than those. A renewal does not wait.
fn first_look(resolved: &Resolved, question: &Question) -> Option<Duration> {
    let renews = question.hold.as_ref().is_some_and(|hold| hold.renewal_requested && !hold.due);
    resolved.first_look.filter(|_| !renews)
}

#[cfg(test)]
mod tests;
