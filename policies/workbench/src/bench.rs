//! What a decision costs: time, which differs from run to run, and fuel, which does not.

use konductor_policy::{Fault, Policy};
use konductor_policy_abi::limits::REQUESTS_MAX;
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
    // Before a text is made of them, which may be larger than this machine's memory.
    if requests > REQUESTS_MAX {
        return Err(crate::Mistake::new(
            "requests",
            format!("{requests} are asked for; a host shows at most {REQUESTS_MAX}"),
        ));
    }
    let list: Vec<String> = (0..requests)
        .map(|i| {
            format!("{{\"holder\":\"worker-{i:03}\",\"priority\":{},\"labels\":{{\"team\":\"t{}\"}}}}", i % 10, i % 4)
        })
        .collect();
    fixture::input(&format!("{{\"requests\":[{}]}}", list.join(",")))
}

/// The inputs of a file of cases, with the cases: those that ask for a decision.
#[must_use]
pub fn inputs(cases: &[Case]) -> Vec<(&Case, Vec<u8>)> {
    cases.iter().filter_map(|case| Some((case, case.input()?.json()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_as_large_as_a_host_shows_and_no_larger() {
        assert_eq!(crowd(REQUESTS_MAX).expect("as many as fit").0.requests.len(), REQUESTS_MAX);
        let mistake = crowd(usize::MAX).expect_err("more than a machine has memory for").to_string();
        assert!(mistake.contains("at most 512"), "{mistake}");
    }
}
