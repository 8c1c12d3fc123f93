//! Metrics of policy modules on their way into use. Their labels are words of ours and digests, never a
//! policy's name: see [`super::Metrics`].

use std::{collections::HashSet, time::Duration};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::metrics::{added, known, measured};

type Counters = Family<[(&'static str, &'static str); 1], Counter>;

/// What is counted of modules.
#[derive(Debug)]
pub struct PolicyMetrics {
    loads: Counters,
    rejects: Counters,
    cache: Counters,
    compile: Histogram,
    active: Gauge,
    digests: Family<[(&'static str, String); 1], Gauge>,
}

impl PolicyMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            loads: known(
                r,
                "policy_loads",
                "Policy modules looked at, by outcome",
                "outcome",
                &["active", "refused", "known_bad", "rolled_back", "failing"],
            ),
            rejects: added(r, "policy_rejects", "Policy modules refused, by reason"),
            cache: known(
                r,
                "policy_cache",
                "Where the machine code of policy modules was looked for, by result",
                "result",
                &["shared", "hit", "miss", "tampered", "not_kept"],
            ),
            // 1 ms to 16 s: a tiny module to the deadline.
            compile: measured(
                r,
                "policy_compile",
                "Time of compiling a policy module, successful or not",
                Some(Unit::Seconds),
                exponential_buckets(1e-3, 2.0, 15),
            ),
            active: added(r, "policies_active", "Policy modules in use, each counted once"),
            digests: added(r, "policy_digest", "1 for the digest of each policy module in use"),
        }
    }

    /// A module was looked at: `active`, `refused`, `known_bad`, `rolled_back` or `failing`.
    pub fn loaded(&self, outcome: &'static str) {
        self.loads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A module was refused for this reason, one of the host's words.
    pub fn rejected(&self, reason: &'static str) {
        self.rejects.get_or_create(&[("reason", reason)]).inc();
    }

    /// Machine code was looked for: `shared`, `hit`, `miss`; or a file was `tampered` with, or `not_kept`.
    pub fn cache(&self, result: &'static str) {
        self.cache.get_or_create(&[("result", result)]).inc();
    }

    /// The compiler has worked for so long.
    pub fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    /// These modules are in use. Their number is bounded where they are loaded.
    pub fn active(&self, digests: &HashSet<String>) {
        self.active.set(i64::try_from(digests.len()).unwrap_or(i64::MAX));
        self.digests.clear();
        for digest in digests {
            self.digests.get_or_create(&[("digest", digest.clone())]).set(1);
        }
    }
}
