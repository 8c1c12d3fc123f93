//! What a decision costs: time, which differs from run to run, and fuel, which does not.

use konductor_policy::{Fault, Policy};
use serde::Serialize;

use crate::fixture::{self, Case, Filled};

/// The decisions that are made before counting begins: the first ones find cold caches.
const WARM_UP: usize = 100;

/// What a decision costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The fuel of a decision, the same in every run and on every machine.
    pub fuel: u64,
    /// The most memory in bytes that an instance had.
    pub memory: usize,
    /// The length of the input.
    pub input_bytes: usize,
    /// The length of the output.
    pub output_bytes: usize,
    /// How many decisions were timed, each in a fresh sandbox.
    pub runs: usize,
    /// Half of them took at most so many microseconds;
    pub p50_us: f64,
    /// nine of ten at most so many;
    pub p90_us: f64,
    /// and ninety-nine of a hundred.
    pub p99_us: f64,
}

/// Measures one input.
///
/// # Errors
/// The [`Fault`] of a call that failed.
pub fn measure(policy: &Policy, input: &[u8], runs: usize) -> Result<Cost, Fault> {
    let runs = runs.max(1);
    let first = policy.answer(input)?;
    for _ in 0..WARM_UP.min(runs) {
        policy.answer(input)?;
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        times.push(policy.answer(input)?.duration);
    }
    times.sort_unstable();
    // The value below which so many of a hundred lie; there is at least one.
    let percentile = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        (times[place].as_secs_f64() * 1e7).round() / 10.0
    };
    Ok(Cost {
        fuel: first.fuel,
        memory: first.memory,
        input_bytes: input.len(),
        output_bytes: first.output.len(),
        runs,
        p50_us: percentile(50),
        p90_us: percentile(90),
        p99_us: percentile(99),
    })
}

/// An input with so many waiting requests, of different priorities, for a free lease.
///
/// # Errors
/// A [`Mistake`](crate::Mistake) above what a host shows.
pub fn crowd(requests: usize) -> Result<Filled, crate::Mistake> {
    let list: Vec<String> = (0..requests)
        .map(|i| {
            format!("{{\"holder\":\"worker-{i:03}\",\"priority\":{},\"labels\":{{\"team\":\"t{}\"}}}}", i % 10, i % 4)
        })
        .collect();
    fixture::input(&format!("{{\"requests\":[{}]}}", list.join(",")))
}

/// The inputs of a file of cases, those that ask for a decision.
#[must_use]
pub fn inputs(cases: &[Case]) -> Vec<(&str, Vec<u8>)> {
    cases.iter().filter_map(|case| Some((case.name.as_str(), case.input()?.json()))).collect()
}
