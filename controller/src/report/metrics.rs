//! Prometheus metrics. Every label has a bounded set of values: names of leases, holders and
//! policies never are labels.

use std::{sync::atomic::AtomicU64, time::Duration};

use konductor_core::{Clamp, Ending, Notice, Refusal};
use konductor_policy::Fault;
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
use crate::{commit::Outcome, observe::Census};

/// One label. A slice of pairs is a label set; a type of its own for each would say no more.
type Label = [(&'static str, &'static str); 1];
type Counters = Family<Label, Counter>;
type Gauges = Family<Label, Gauge>;
type Histograms = Family<Label, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// What a lease was before a grant: free, or somebody else's.
const FREE: &str = "free";
const HAND_OVER: &str = "hand_over";

/// The result of asking a policy that is not asked for a while, because it has failed.
pub const PAUSED: &str = "Paused";

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
    grant_latency: Histograms,
    answers: Counters,
    reconcile_seconds: Histogram,
    api_errors: Counters,
    events_dropped: Counter,
    policies: PolicyMetrics,
    leader: Gauge,
    leases: Gauges,
    requests: Gauges,
    not: Gauges,
    oldest_wait: Seconds,
    overdue: Seconds,
    queue_depth: Gauge,
    answers_under_way: Gauge,
    start: Seconds,
}

/// A family of counters whose labels are known: they begin at zero and not with the first event, which a rate or an
/// increase would not see otherwise.
pub(super) fn known<'a>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = &'a &'static str>,
) -> Counters {
    let counters: Counters = added(registry, name, help);
    for value in values {
        drop(counters.get_or_create(&[(label, *value)]));
    }
    counters
}

/// A span as a gauge.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let gauge = Seconds::default();
    registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
    gauge
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
        let start = seconds(r, "start_time", "When the process started, since the epoch");
        // 0.5 ms to 65 s: an API server that is near and idle, to one that has been away.
        let grant_latency = Histograms::new_with_constructor(|| Histogram::new(exponential_buckets(5e-4, 2.0, 18)));
        for kind in [FREE, HAND_OVER] {
            drop(grant_latency.get_or_create(&[("kind", kind)]));
        }
        r.register_with_unit(
            "grant_latency",
            "Time from what allowed a grant (a request, a release, a deadline) to its commit, by what the lease was before",
            Unit::Seconds,
            grant_latency.clone(),
        );
        let faults = Fault::REASONS.iter().chain(&["ok", PAUSED]);
        let clamps = [Clamp::Ttl, Clamp::Grace, Clamp::Wake, Clamp::Reason].map(Clamp::rule);
        r.register("build", "The version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            reconciles: known(
                r,
                "reconciles",
                "Reconciles by how they ended",
                "outcome",
                &["unchanged", "committed", "conflict", "gone", "error", "panic"],
            ),
            grants: added(r, "grants", "Grants"),
            ends: known(
                r,
                "holds_ended",
                "Holds that have ended, by how",
                "how",
                &["released", "expired", "preempted", "force_released", "superseded"],
            ),
            renewals: known(r, "renewals", "Renewals by whether they were given", "result", &["renewed", "refused"]),
            preemptions: added(r, "preemptions", "Holders asked to hand over"),
            denials: added(r, "requests_denied", "Requests denied by a policy"),
            decisions: known(
                r,
                "policy_decisions",
                "Calls of a policy by result: ok, or the kind of fault",
                "result",
                faults,
            ),
            // 2 µs to 1 s: a native function to twice the outermost fence, for what had to wait as well.
            decision_seconds: measured(
                r,
                "policy_decision",
                "Time of a policy call, with the wait for a place in the sandbox",
                Some(Unit::Seconds),
                exponential_buckets(2e-6, 2.0, 20),
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
            guard: known(
                r,
                "guard",
                "Proposals of policies refused or cut by the guard, by rule",
                "rule",
                Refusal::RULES.iter().chain(&clamps),
            ),
            shadow: known(
                r,
                "shadow_comparisons",
                "Decisions of shadow policies compared with the real ones, by result",
                "result",
                &["same", "different", "failed", "skipped"],
            ),
            journal: known(
                r,
                "journal_records",
                "Records for the journal of decisions, by what became of them",
                "result",
                &["written", "dropped", "too_long", "failed"],
            ),
            grant_wait: measured(
                r,
                "grant_wait",
                "Time from first seeing a request to its grant",
                Some(Unit::Seconds),
                exponential_buckets(0.001, 4.0, 12),
            ),
            grant_latency,
            answers: known(
                r,
                "answers",
                "Statuses of requests that were written, by their reason",
                "reason",
                &super::answers::WORDS,
            ),
            reconcile_seconds: measured(
                r,
                "reconcile",
                "Time of a reconcile",
                Some(Unit::Seconds),
                exponential_buckets(1e-4, 2.0, 16),
            ),
            api_errors: known(
                r,
                "api_errors",
                "Failed calls of the API server, by operation",
                "operation",
                &["commit", "answer", "event", "watch", "pods"],
            ),
            events_dropped: added(r, "events_dropped", "Events that were not written because too many waited"),
            policies: PolicyMetrics::register(r),
            leader: added(r, "leader", "1 while this replica reconciles"),
            leases: added(r, "leases", "Leases by phase"),
            requests: added(r, "lease_requests", "LeaseRequests by phase"),
            not: added(r, "leases_with_problem", "Leases of which this condition is False"),
            oldest_wait: seconds(
                r,
                "oldest_wait",
                "For how long the request waits that has waited longest; 0 for none",
            ),
            overdue: seconds(
                r,
                "overdue",
                "How long ago the hold should have ended that should have ended first and still stands; 0 for none",
            ),
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

    /// What was planned has come to this, so long after it could.
    pub fn committed(&self, notices: &[Notice], outcome: &Outcome, after: Duration) {
        let granted = notices.iter().any(|notice| matches!(notice, Notice::Granted { .. }));
        if granted && matches!(outcome, Outcome::Committed(_)) {
            let ended = notices.iter().any(|notice| matches!(notice, Notice::Ended { .. }));
            let kind = if ended { HAND_OVER } else { FREE };
            self.grant_latency.get_or_create(&[("kind", kind)]).observe(after.as_secs_f64());
        }
    }

    /// The status of a request was written, with this reason: one of our words.
    pub fn answered(&self, reason: &'static str) {
        self.answers.get_or_create(&[("reason", reason)]).inc();
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
    pub fn census(&self, census: &Census, queue_depth: usize, answers: usize) {
        for (phase, count) in &census.leases {
            self.leases.get_or_create(&[("phase", phase)]).set(*count);
        }
        for (phase, count) in &census.requests {
            self.requests.get_or_create(&[("phase", phase)]).set(*count);
        }
        for (condition, count) in &census.not {
            self.not.get_or_create(&[("condition", condition)]).set(*count);
        }
        self.oldest_wait.set(census.oldest_wait.as_secs_f64());
        self.overdue.set(census.overdue.as_secs_f64());
        self.queue_depth.set(i64::try_from(queue_depth).unwrap_or(i64::MAX));
        self.answers_under_way.set(i64::try_from(answers).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use konductor_policy::{Limits, limits::TICK};

    use super::*;

    #[test]
    fn a_call_that_its_deadline_has_ended_is_within_the_buckets() {
        let metrics = Metrics::new();
        let ticks = u32::try_from(Limits::default().deadline.0).expect("milliseconds");
        metrics.decision(TICK * ticks, Err("Deadline"));
        let text = metrics.encode().expect("text");
        let buckets = text.lines().filter(|line| line.starts_with("konductor_policy_decision_seconds_bucket"));
        let with_it = buckets.filter(|line| line.ends_with(" 1")).count();
        assert!(with_it > 1, "one of them is +Inf: {text}");
    }
}
