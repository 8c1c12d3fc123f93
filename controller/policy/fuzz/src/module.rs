//! An uploaded module, through every check, the compiler and a call.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use arbitrary::{Arbitrary as _, Result, Unstructured};
use konductor_core::{Candidate, LeaseFacts, Millis, Question, Time, check};
use konductor_policy::{EpochTicks, Fuel, Host, Limits, Policy, Rejection};

use crate::mutate;

/// The sandbox that everything runs in, with a hundredth of the usual fuel: a module that loops is
/// as good a case as any other, and should not take a thousand times as long.
#[must_use]
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let limits = Limits {
            start_fuel: Fuel(100_000),
            call_fuel: Fuel(1_000_000),
            // Instrumented code on a busy machine is slow, and the deadline is no verdict.
            deadline: EpochTicks(20_000),
            ..Limits::default()
        };
        Host::with_limits(limits).expect("a sandbox")
    })
}

pub(crate) fn run(bytes: &[u8]) -> String {
    let mut u = Unstructured::new(bytes);
    let Ok((compressed, module)) = case(&mut u) else { return "too short".to_owned() };
    let loaded = if compressed { host().load_gzip(&module) } else { host().load(&module) };
    let outcome = match loaded {
        Err(rejection) => refused(&rejection),
        Ok(policy) => asked(&policy),
    };
    // Whatever it was, the next one is served.
    let next = host().builtin().decide(question(), "{}").expect("the built-in policy after a stranger");
    assert!(next.decision.grant.is_some_and(|grant| grant.request == 1), "the built-in policy decides otherwise");
    outcome
}

fn refused(rejection: &Rejection) -> String {
    let said = rejection.to_string();
    assert!(
        said.len() < 4096 && !said.chars().any(char::is_control),
        "a message that is not fit to be shown: {said:?}"
    );
    format!("refused {}", rejection.reason())
}

fn asked(policy: &Arc<Policy>) -> String {
    if let Err(fault) = policy.validate("{}") {
        assert!(!fault.is_infrastructure(), "{fault}");
        return format!("validate {}", fault.reason());
    }
    let input = Policy::input(question(), "{}").expect("an input");
    let (first, second) = (policy.answer(&input), policy.answer(&input));
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first.output, second.output, "asked the same it has answered differently");
            assert_eq!(first.fuel, second.fuel, "asked the same it has cost differently");
            assert!(first.memory <= host().limits().memory.0, "{} bytes of memory", first.memory);
        }
        (Err(first), Err(second)) => assert_eq!(first, second, "asked the same it has failed differently"),
        (first, second) => panic!("asked the same once it failed and once it did not: {first:?} {second:?}"),
    }
    match policy.decide(question(), "{}") {
        Err(fault) => {
            let said = fault.to_string();
            assert!(said.len() < 2048 && !said.chars().any(char::is_control), "{said:?}");
            assert!(!fault.is_infrastructure(), "{said}");
            fault.reason().to_owned()
        }
        Ok(decided) => match check(question(), decided.decision) {
            Ok(_) => "decided".to_owned(),
            Err(refusal) => format!("vetoed {}", refusal.rule()),
        },
    }
}

/// A free lease that two want, the second of them more.
fn question() -> &'static Question {
    static QUESTION: OnceLock<Question> = OnceLock::new();
    QUESTION.get_or_init(|| {
        let candidate = |holder: &str, priority| Candidate {
            uid: format!("{holder}-uid"),
            holder: holder.to_owned(),
            priority,
            ttl: Millis::from_secs(30),
            arrived: Time(1_790_000_000_000),
            labels: vec![("app".to_owned(), "shop".to_owned())],
        };
        Question {
            now: Time(1_790_000_000_000),
            lease: LeaseFacts { name: "fuzz".to_owned(), ttl: Some(Millis::from_secs(60)), ..LeaseFacts::default() },
            ttl: Millis::from_secs(60),
            requests: vec![candidate("pod-a", 0), candidate("pod-b", 5)],
            waiting: 2,
            ..Question::default()
        }
    })
}

/// The bytes that are uploaded, and whether as gzip.
fn case(u: &mut Unstructured<'_>) -> Result<(bool, Vec<u8>)> {
    Ok(match u.int_in_range(0u8..=15)? {
        0 => (false, u.bytes(u.len())?.to_vec()),
        1 => (true, u.bytes(u.len())?.to_vec()),
        2 => (false, [b"\0asm\x01\0\0\0", u.bytes(u.len())?].concat()),
        3 => (false, wasm_smith::Module::new(wasm_smith::Config::arbitrary(u)?, u)?.to_bytes()),
        4..=9 => (false, wasm_smith::Module::new(policy_like(u)?, u)?.to_bytes()),
        // The built-in policy is large, so it takes a hundred times as long to compile as the others.
        10 => (false, mutate::mutated(u, builtin())?),
        _ => {
            let base = u.choose(corpus())?;
            (false, mutate::mutated(u, base)?)
        }
    })
}

/// Random modules with the exports of a policy, within what the sandbox allows most of the time.
fn policy_like(u: &mut Unstructured<'_>) -> Result<wasm_smith::Config> {
    static EXPORTS: OnceLock<Vec<u8>> = OnceLock::new();
    let exports = EXPORTS.get_or_init(|| {
        let text = r#"(module
            (memory (export "memory") 2)
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) unreachable)
            (func (export "konductor_decide") (param i32 i32) (result i64) unreachable))"#;
        wat::parse_str(text).expect("the exports of a policy")
    });
    let switched_off = u.ratio(1, 16)?;
    Ok(wasm_smith::Config {
        exports: Some(exports.clone()),
        max_imports: usize::from(u.ratio(1, 32)?),
        max_memory32_bytes: 16 << 20,
        max_table_elements: 10_000,
        // One has the memory of a policy already.
        max_memories: 0,
        max_tables: 1,
        max_tags: 0,
        max_instructions: 300,
        disallow_traps: u.arbitrary()?,
        allow_start_export: u.ratio(1, 4)?,
        // Off with the engine's garbage collector, external references are; tables of functions are not.
        reference_types_enabled: switched_off,
        gc_enabled: switched_off,
        exceptions_enabled: switched_off,
        threads_enabled: switched_off,
        memory64_enabled: switched_off,
        relaxed_simd_enabled: switched_off,
        tail_call_enabled: switched_off,
        ..wasm_smith::Config::default()
    })
}

fn builtin() -> &'static mutate::Base {
    static BUILTIN: OnceLock<mutate::Base> = OnceLock::new();
    BUILTIN.get_or_init(|| mutate::Base::new(Host::builtin_module().to_vec()))
}

/// The small modules of `testdata`, good and hostile: every one of them does something.
fn corpus() -> &'static [mutate::Base] {
    static CORPUS: OnceLock<Vec<mutate::Base>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
        let entries = fs::read_dir(&testdata).unwrap_or_else(|e| panic!("no corpus in {}: {e}", testdata.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        // The order of a directory is chance, and a case has to be the same everywhere.
        files.sort();
        files
            .iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "wat"))
            .map(|file| mutate::Base::new(wat::parse_file(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))))
            .collect()
    })
}
