//! Prometheus metrics. Every label has a bounded set of values: names of leases, holders and
//! policies never are labels.

use std::{collections::HashMap, sync::atomic::AtomicU64, time::Duration};

use konductor_core::{Ending, Notice};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::policies::PolicyMetrics;

/// One label. A slice of pairs is a label set; a type of its own for each would say no more.
type Label = [(&'static str, &'static str); 1];
type Counters = Family<Label, Counter>;
type Gauges = Family<Label, Gauge>;

/// Every metric of the controller.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Counters,
    grants: Counter,
    ends: Counters,
    renewals: Counters,
    preemptions: Counter,
    denials: Counter,
    decisions: Counters,
    decision_seconds: Histogram,
    decision_fuel: Histogram,
    decision_memory: Histogram,
    guard: Counters,
    shadow: Counters,
    journal: Counters,
    grant_wait: Histogram,
    reconcile_seconds: Histogram,
    api_errors: Counters,
    events_dropped: Counter,
    policies: PolicyMetrics,
    leader: Gauge,
    leases: Gauges,
    requests: Gauges,
    queue_depth: Gauge,
    answers_under_way: Gauge,
    start: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The metrics, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("konductor");
        let r = &mut registry;
        let reconciles = Counters::default();
        r.register("reconciles", "Reconciles by how they ended", reconciles.clone());
        let grants = Counter::default();
        r.register("grants", "Grants", grants.clone());
        let ends = Counters::default();
        r.register("holds_ended", "Holds that have ended, by how", ends.clone());
        let renewals = Counters::default();
        r.register("renewals", "Renewals by whether they were given", renewals.clone());
        let preemptions = Counter::default();
        r.register("preemptions", "Holders asked to hand over", preemptions.clone());
        let denials = Counter::default();
        r.register("requests_denied", "Requests denied by a policy", denials.clone());
        let decisions = Counters::default();
        r.register("policy_decisions", "Calls of a policy by result: ok, or the kind of fault", decisions.clone());
        // 2 µs to 0.26 s: a native function to the outermost fence.
        let decision_seconds = Histogram::new(exponential_buckets(2e-6, 2.0, 18));
        r.register_with_unit("policy_decision", "Time of a policy call", Unit::Seconds, decision_seconds.clone());
        let decision_fuel = Histogram::new(exponential_buckets(1e3, 4.0, 10));
        r.register("policy_fuel", "Fuel of a policy call", decision_fuel.clone());
        // A page to the most that a policy may have.
        let decision_memory = Histogram::new(exponential_buckets(65_536.0, 2.0, 9));
        let what = "Most memory of a policy call";
        r.register_with_unit("policy_memory", what, Unit::Bytes, decision_memory.clone());
        let guard = Counters::default();
        r.register("guard", "Proposals of policies refused or cut by the guard, by rule", guard.clone());
        let shadow = Counters::default();
        r.register(
            "shadow_comparisons",
            "Decisions of shadow policies compared with the real ones, by result",
            shadow.clone(),
        );
        let journal = Counters::default();
        r.register("journal_records", "Records for the journal of decisions, by what became of them", journal.clone());
        let grant_wait = Histogram::new(exponential_buckets(0.001, 4.0, 12));
        r.register_with_unit(
            "grant_wait",
            "Time from first seeing a request to its grant",
            Unit::Seconds,
            grant_wait.clone(),
        );
        let reconcile_seconds = Histogram::new(exponential_buckets(1e-4, 2.0, 16));
        r.register_with_unit("reconcile", "Time of a reconcile", Unit::Seconds, reconcile_seconds.clone());
        let api_errors = Counters::default();
        r.register("api_errors", "Failed calls of the API server, by operation", api_errors.clone());
        let events_dropped = Counter::default();
        r.register("events_dropped", "Events that were not written because too many waited", events_dropped.clone());
        let policies = PolicyMetrics::register(r);
        let leader = Gauge::default();
        r.register("leader", "1 while this replica reconciles", leader.clone());
        let leases = Gauges::default();
        r.register("leases", "Leases by phase", leases.clone());
        let requests = Gauges::default();
        r.register("lease_requests", "LeaseRequests by phase", requests.clone());
        let queue_depth = Gauge::default();
        r.register("queue_depth", "Leases that wait to be reconciled", queue_depth.clone());
        let answers_under_way = Gauge::default();
        r.register("answers_under_way", "Statuses of requests that are being written", answers_under_way.clone());
        let start = Gauge::<f64, AtomicU64>::default();
        r.register_with_unit("start_time", "When the process started, since the epoch", Unit::Seconds, start.clone());
        r.register("build", "The version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry,
            reconciles,
            grants,
            ends,
            renewals,
            preemptions,
            denials,
            decisions,
            decision_seconds,
            decision_fuel,
            decision_memory,
            guard,
            shadow,
            journal,
            grant_wait,
            reconcile_seconds,
            api_errors,
            events_dropped,
            policies,
            leader,
            leases,
            requests,
            queue_depth,
            answers_under_way,
            start,
        }
    }

    /// The text that a scrape gets.
    ///
    /// # Errors
    /// If a metric cannot be written, which none of ours can cause.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// When the process started, in seconds since the epoch.
    pub fn started(&self, seconds: f64) {
        self.start.set(seconds);
    }

    /// A reconcile has ended so.
    pub fn outcome(&self, name: &'static str) {
        self.reconciles.get_or_create(&[("outcome", name)]).inc();
    }

    /// A reconcile took so long.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A policy was called: its fuel and its memory in bytes, or the kind of its fault.
    pub fn decision(&self, took: Duration, result: Result<(u64, usize), &'static str>) {
        self.decision_seconds.observe(took.as_secs_f64());
        match result {
            #[expect(clippy::cast_precision_loss, reason = "a histogram's bucket needs no more than 52 bits")]
            Ok((fuel, memory)) => {
                self.decisions.get_or_create(&[("result", "ok")]).inc();
                self.decision_fuel.observe(fuel as f64);
                self.decision_memory.observe(memory as f64);
            }
            Err(fault) => self.decision_fault(fault),
        }
    }

    /// A policy has failed.
    pub fn decision_fault(&self, fault: &'static str) {
        self.decisions.get_or_create(&[("result", fault)]).inc();
    }

    /// The guard has refused or cut something.
    pub fn guard(&self, rule: &'static str) {
        self.guard.get_or_create(&[("rule", rule)]).inc();
    }

    /// A shadow policy's decision was compared.
    pub fn shadow(&self, result: &'static str) {
        self.shadow.get_or_create(&[("result", result)]).inc();
    }

    /// A record was written to the journal, or why not.
    pub fn journal(&self, result: &'static str) {
        self.journal.get_or_create(&[("result", result)]).inc();
    }

    /// Something has happened to a lease.
    pub fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Granted { waited, .. } => {
                self.grants.inc();
                #[expect(clippy::cast_precision_loss, reason = "a histogram's bucket needs no more than 52 bits")]
                self.grant_wait.observe(waited.0 as f64 / 1e3);
            }
            Notice::Ended { how, .. } => {
                let how = match how {
                    Ending::Released => "released",
                    Ending::Expired => "expired",
                    Ending::Preempted => "preempted",
                    Ending::ForceReleased => "force_released",
                    Ending::Superseded => "superseded",
                };
                self.ends.get_or_create(&[("how", how)]).inc();
            }
            Notice::Renewed { .. } => {
                self.renewals.get_or_create(&[("result", "renewed")]).inc();
            }
            Notice::RenewalRefused { .. } => {
                self.renewals.get_or_create(&[("result", "refused")]).inc();
            }
            Notice::Preempting { .. } => {
                self.preemptions.inc();
            }
            Notice::Denied { .. } => {
                self.denials.inc();
            }
        }
    }

    /// A call of the API server has failed.
    pub fn api_error(&self, operation: &'static str) {
        self.api_errors.get_or_create(&[("operation", operation)]).inc();
    }

    /// An Event was not written.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// What is counted of policy modules on their way into use.
    #[must_use]
    pub fn policies(&self) -> &PolicyMetrics {
        &self.policies
    }

    /// Whether this replica reconciles.
    pub fn leading(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }

    /// What there is, counted when it is asked for.
    pub fn census(
        &self,
        leases: &HashMap<&'static str, i64>,
        requests: &HashMap<&'static str, i64>,
        queue_depth: usize,
        answers: usize,
    ) {
        for (phase, count) in leases {
            self.leases.get_or_create(&[("phase", phase)]).set(*count);
        }
        for (phase, count) in requests {
            self.requests.get_or_create(&[("phase", phase)]).set(*count);
        }
        self.queue_depth.set(i64::try_from(queue_depth).unwrap_or(i64::MAX));
        self.answers_under_way.set(i64::try_from(answers).unwrap_or(i64::MAX));
    }
}
