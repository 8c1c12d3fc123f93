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
    registry::{Metric, Registry, Unit},
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

/// Registers a metric that begins at zero, and gives it back to be counted with.
pub(super) fn added<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// The same for a histogram.
pub(super) fn measured(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    buckets: impl Iterator<Item = f64>,
) -> Histogram {
    let metric = Histogram::new(buckets);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
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
        let start = Gauge::default();
        r.register_with_unit("start_time", "When the process started, since the epoch", Unit::Seconds, start.clone());
        r.register("build", "The version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            reconciles: added(r, "reconciles", "Reconciles by how they ended"),
            grants: added(r, "grants", "Grants"),
            ends: added(r, "holds_ended", "Holds that have ended, by how"),
            renewals: added(r, "renewals", "Renewals by whether they were given"),
            preemptions: added(r, "preemptions", "Holders asked to hand over"),
            denials: added(r, "requests_denied", "Requests denied by a policy"),
            decisions: added(r, "policy_decisions", "Calls of a policy by result: ok, or the kind of fault"),
            // 2 µs to 0.26 s: a native function to the outermost fence.
            decision_seconds: measured(
                r,
                "policy_decision",
                "Time of a policy call",
                Some(Unit::Seconds),
                exponential_buckets(2e-6, 2.0, 18),
            ),
            decision_fuel: measured(r, "policy_fuel", "Fuel of a policy call", None, exponential_buckets(1e3, 4.0, 10)),
            // A page to the most that a policy may have.
            decision_memory: measured(
                r,
                "policy_memory",
                "Most memory of a policy call",
                Some(Unit::Bytes),
                exponential_buckets(65_536.0, 2.0, 9),
            ),
            guard: added(r, "guard", "Proposals of policies refused or cut by the guard, by rule"),
            shadow: added(
                r,
                "shadow_comparisons",
                "Decisions of shadow policies compared with the real ones, by result",
            ),
            journal: added(r, "journal_records", "Records for the journal of decisions, by what became of them"),
            grant_wait: measured(
                r,
                "grant_wait",
                "Time from first seeing a request to its grant",
                Some(Unit::Seconds),
                exponential_buckets(0.001, 4.0, 12),
            ),
            reconcile_seconds: measured(
                r,
                "reconcile",
                "Time of a reconcile",
                Some(Unit::Seconds),
                exponential_buckets(1e-4, 2.0, 16),
            ),
            api_errors: added(r, "api_errors", "Failed calls of the API server, by operation"),
            events_dropped: added(r, "events_dropped", "Events that were not written because too many waited"),
            policies: PolicyMetrics::register(r),
            leader: added(r, "leader", "1 while this replica reconciles"),
            leases: added(r, "leases", "Leases by phase"),
            requests: added(r, "lease_requests", "LeaseRequests by phase"),
            queue_depth: added(r, "queue_depth", "Leases that wait to be reconciled"),
            answers_under_way: added(r, "answers_under_way", "Statuses of requests that are being written"),
            start,
            registry,
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
