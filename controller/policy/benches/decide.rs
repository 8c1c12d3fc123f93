//! How long a decision takes: the built-in policy's rules natively, and in a fresh sandbox each time.
//!
//! `cargo bench -p konductor-policy`, or with `-- FILE.wasm` for another policy. Both get the same bytes and give the same bytes. The last
//! column is what a caller sees: from a question to a decision, with the JSON on the host's side.
//! Rows alternate between what they measure, so that a busy machine slows all columns alike. There
//! is no assertion on time: what counts are the ratios of one run.

use std::{hint::black_box, time::Instant};

use konductor_core::{Candidate, LeaseFacts, Millis, Question, Time};
use konductor_policy::{Host, Policy};

const WARM_UP: usize = 2_000;
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new()?;
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let policy = match &file {
        Some(file) => host.load(&std::fs::read(file)?)?,
        None => host.builtin(),
    };
    println!("{}: {} bytes, {}", file.as_deref().unwrap_or("built-in policy"), policy.size(), policy.digest());
    println!(
        "{:>8} {:>7} {:>8}  {:>23}  {:>23}  {:>23}  {:>7}",
        "requests",
        "input",
        "fuel",
        "native p50/p90/p99 µs",
        "sandbox p50/p90/p99 µs",
        "decide p50/p90/p99 µs",
        "ratio"
    );
    for requests in [1, 10, 100] {
        row(&policy, &question(requests), file.is_none())?;
    }
    Ok(())
}

fn row(policy: &Policy, question: &Question, builtin: bool) -> Result<(), Box<dyn std::error::Error>> {
    let input = Policy::input(question, "{}")?;
    let answer = policy.answer(&input)?;
    if builtin {
        assert_eq!(
            konductor_policy_default::decide_json(&input),
            answer.output,
            "natively and in the sandbox the same"
        );
    }

    let mut native = Vec::with_capacity(ROUNDS);
    let mut sandbox = Vec::with_capacity(ROUNDS);
    let mut decide = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UP + ROUNDS {
        let times = [
            timed(|| drop(black_box(konductor_policy_default::decide_json(black_box(&input))))),
            timed(|| drop(black_box(policy.answer(black_box(&input))))),
            timed(|| drop(black_box(policy.decide(black_box(question), "{}")))),
        ];
        if round >= WARM_UP {
            native.push(times[0]);
            sandbox.push(times[1]);
            decide.push(times[2]);
        }
    }
    let (native, sandbox, decide) = (Percentiles::of(native), Percentiles::of(sandbox), Percentiles::of(decide));
    println!(
        "{:>8} {:>7} {:>8}  {native:>23}  {sandbox:>23}  {decide:>23}  {:>7.1}",
        question.requests.len(),
        input.len(),
        answer.fuel,
        sandbox.0[0] / native.0[0],
    );
    Ok(())
}

fn timed(f: impl FnOnce()) -> u128 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_nanos()
}

/// p50, p90, p99 in microseconds.
struct Percentiles([f64; 3]);

impl Percentiles {
    fn of(mut nanoseconds: Vec<u128>) -> Self {
        nanoseconds.sort_unstable();
        Self([50, 90, 99].map(|p| nanoseconds[nanoseconds.len() * p / 100] as f64 / 1000.0))
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p90, p99] = self.0;
        f.pad(&format!("{p50:.1}/{p90:.1}/{p99:.1}"))
    }
}

/// A free lease for which so many ask, as they look in a cluster.
fn question(requests: usize) -> Question {
    let now = Time(1_790_000_000_000);
    Question {
        now,
        lease: LeaseFacts {
            name: "db-migration".to_owned(),
            namespace: "default".to_owned(),
            uid: "6b1f0d3e-8d5c-4f7a-9d0e-2f4c8a1b3c5d".to_owned(),
            labels: vec![("app".to_owned(), "shop".to_owned())],
            ttl: Some(Millis::from_secs(600)),
            priority: 1,
            renewable: true,
            ..LeaseFacts::default()
        },
        ttl: Millis::from_secs(600),
        requests: (0..requests)
            .map(|i| Candidate {
                uid: format!("00000000-0000-0000-0000-{i:012}"),
                holder: format!("migrate-db-7d9c6b5f4-{i:05}"),
                priority: i32::try_from(i * 7 % 5).unwrap_or_default(),
                ttl: Millis::from_secs(600),
                arrived: Time(now.0 - 60_000 + i64::try_from(i).unwrap_or_default()),
                labels: vec![("job-name".to_owned(), "migrate-db".to_owned())],
            })
            .collect(),
        waiting: requests,
        ..Question::default()
    }
}
