//! What a seed decides at the beginning: who takes part, and how bad the weather is.

use std::time::Duration;

use crate::{Mutant, server::Weather};

/// A lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeasePlan {
    /// Its name.
    pub name: String,
    /// Its ttl.
    pub ttl_ms: u64,
    /// Whether holds of it can be renewed.
    pub renewable: bool,
    /// Whether a higher priority takes it over.
    pub preemption: bool,
}

/// Everything that is decided before a simulation begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The leases.
    pub leases: Vec<LeasePlan>,
    /// Whether clients hurry: holds are short and follow each other, so that histories forget.
    pub busy: bool,
    /// How many clients.
    pub clients: usize,
    /// How many controllers, all of them at work: safety does not depend on an election.
    pub controllers: usize,
    /// How long there are faults.
    pub span: Duration,
    /// What goes wrong on the way to the API server.
    pub weather: Weather,
    /// The mean pause between two larger misfortunes.
    pub misfortune_ms: u64,
    /// By how much clocks may differ: what the controllers are told, and what is true.
    pub max_skew: Duration,
    /// Whether all clocks show the same: then what is recorded can be compared to the millisecond.
    pub exact_clocks: bool,
    /// Whether wall clocks jump further than that: only where there is one controller, and it never restarts.
    pub wild_clock: bool,
    /// How long finished requests are kept, in seconds.
    pub finished_retention: i64,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(chance: &mut fastrand::Rng, mutant: Option<Mutant>) -> Self {
        // Of each kind of fault there is none in many seeds: some defects show only where others do not hide them.
        let mut of = |most: f64| if chance.u8(0..5) < 2 { 0.0 } else { chance.f64() * chance.f64() * most };
        let mut weather = Weather {
            refused: of(0.15),
            reset: of(0.1),
            lost: of(0.15),
            slow: of(0.08),
            late: of(0.15),
            cut: of(0.08),
            stale: of(0.5),
            crash: of(0.04),
            nudge: of(0.2),
        };
        let busy = chance.u8(0..3) == 0;
        let leases = (0..if busy { 1 } else { chance.u8(1..=3) }).map(|n| LeasePlan {
            name: format!("lease-{n}"),
            ttl_ms: if busy { chance.u64(900..3_000) } else { chance.u64(1_500..12_000) },
            renewable: chance.u8(0..6) != 0,
            preemption: chance.u8(0..3) == 0,
        });
        let leases = leases.collect();
        let controllers = chance.usize(1..=2);
        let exact_clocks = chance.u8(0..4) == 0;
        let wild_clock = !exact_clocks && controllers == 1 && chance.u8(0..4) == 0;
        if wild_clock {
            weather.crash = 0.0;
        }
        Self {
            leases,
            busy,
            clients: chance.usize(2..=4),
            controllers,
            span: Duration::from_secs(chance.u64(12..45)),
            weather,
            misfortune_ms: chance.u64(1_000..15_000),
            max_skew: Duration::from_secs(1),
            exact_clocks,
            wild_clock,
            finished_retention: chance.i64(10..60),
            mutant,
        }
    }

    /// How much faster than time a machine's oscillator runs, in millionths: what cheap ones do, corrected by nobody.
    #[must_use]
    pub fn drift(&self, chance: &mut fastrand::Rng) -> i64 {
        if self.exact_clocks { 0 } else { chance.i64(-300..=300) }
    }

    /// How wrong a wall clock may be, in nanoseconds: two of them differ by less than the most.
    #[must_use]
    pub fn skew_within(&self, chance: &mut fastrand::Rng) -> i64 {
        if self.exact_clocks {
            return 0;
        }
        let half = i64::try_from(self.max_skew.as_nanos() / 2).unwrap_or(0) - 1_000_000;
        chance.i64(-half..=half)
    }
}
