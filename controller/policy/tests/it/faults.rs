//! Every hostile module of the corpus ends in the fault that it stands for, and nothing else happens.

use std::time::{Duration, Instant};

use konductor_core::{Decision, HoldAction};
use konductor_policy::{EpochTicks, Fault, Fuel, Host, Limits, Rejection, Step, TrapKind};

use crate::common::{host, load, question, wasm};

/// Module, fault, and for a trap its kind.
const FAULTS: &[(&str, &str, Option<TrapKind>)] = &[
    ("loops", "FuelExhausted", None),
    ("loops_in_alloc", "FuelExhausted", None),
    ("fills", "FuelExhausted", None),
    ("grows", "MemoryLimit", None),
    ("grows_at_once", "MemoryLimit", None),
    ("grows_table", "TableLimit", None),
    ("recurses", "StackOverflow", None),
    ("recurses_with_large_frames", "StackOverflow", None),
    ("traps", "Trap", Some(TrapKind::Unreachable)),
    ("divides_by_zero", "Trap", Some(TrapKind::DivisionByZero)),
    ("overflows", "Trap", Some(TrapKind::IntegerOverflow)),
    ("reads_out_of_bounds", "Trap", Some(TrapKind::MemoryOutOfBounds)),
    ("calls_null", "Trap", Some(TrapKind::CallToNull)),
    ("calls_wrong_type", "Trap", Some(TrapKind::BadSignature)),
    ("converts_nan", "Trap", Some(TrapKind::BadConversion)),
    ("alloc_fails", "AllocFailed", None),
    ("alloc_lies", "AllocOutOfBounds", None),
    ("alloc_negative", "AllocOutOfBounds", None),
    ("lies_about_length", "OutputOutOfBounds", None),
    ("points_beyond", "OutputOutOfBounds", None),
    ("negative_pointer", "OutputOutOfBounds", None),
    ("answers_too_much", "OutputTooLarge", None),
    ("answers_nothing", "OutputEmpty", None),
    ("not_utf8", "OutputNotUtf8", None),
    ("not_json", "OutputNotJson", None),
    ("truncated_json", "OutputNotJson", None),
    ("trailing_bytes", "OutputNotJson", None),
    ("byte_order_mark", "OutputNotJson", None),
    ("infinite_number", "OutputNotJson", None),
    ("not_an_object", "OutputSchema", None),
    ("deeply_nested", "OutputSchema", None),
    ("unknown_action", "OutputSchema", None),
    ("unknown_member", "OutputSchema", None),
    ("negative_number", "OutputSchema", None),
    ("negative_index", "OutputSchema", None),
    ("huge_number", "OutputSchema", None),
];

#[test]
fn every_hostile_module_ends_in_its_own_fault_and_the_next_policy_works() {
    for &(name, reason, kind) in FAULTS {
        let policy = load(name).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        let fault = policy.decide(&question(&[("a", 0)]), "{}").expect_err(name);
        assert_eq!(fault.reason(), reason, "{name}: {fault}");
        if let Fault::Trap { kind: found, .. } = &fault {
            assert_eq!(Some(*found), kind, "{name}");
        }
        assert!(!fault.is_infrastructure(), "{name} blames the machine: {fault}");
        let sentence = fault.to_string();
        assert!(sentence.len() < 600 && !sentence.chars().any(char::is_control), "{name}: {sentence:?}");

        let next = host().builtin().decide(&question(&[("a", 0)]), "{}").expect("the built-in policy after a fault");
        assert!(next.decision.grant.is_some(), "after {name}");
    }
}

#[test]
fn honest_modules_are_not_punished() {
    for name in ["good", "alloc_grows", "initialized", "v1_and_v2"] {
        let policy = load(name).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        for _ in 0..3 {
            let decided = policy.decide(&question(&[("a", 0)]), "{}").unwrap_or_else(|fault| panic!("{name}: {fault}"));
            assert_eq!(decided.decision, Decision::default(), "{name}");
        }
    }
}

#[test]
fn a_trap_names_the_functions_that_it_was_in() {
    let fault = load("traps").expect("loads").decide(&question(&[]), "{}").expect_err("traps");
    let Fault::Trap { step: Step::Decide, functions, .. } = &fault else { panic!("{fault:?}") };
    assert_eq!(functions, &["panic", "decide"]);
    assert_eq!(
        fault.to_string(),
        "konductor_decide trapped: it gave up (unreachable), as a panic does, in panic < decide"
    );
}

#[test]
fn a_module_that_fails_to_start_is_refused() {
    for (name, reason, step) in [
        ("loops_in_start", "FuelExhausted", Step::Start),
        ("traps_in_start", "Trap", Step::Start),
        ("loops_in_initialize", "FuelExhausted", Step::Initialize),
        ("traps_in_initialize", "Trap", Step::Initialize),
        ("loops_in_describe", "FuelExhausted", Step::Describe),
        ("describes_nonsense", "OutputNotJson", Step::Describe),
    ] {
        let rejection = load(name).expect_err(name);
        let Rejection::Unstartable(fault) = &rejection else { panic!("{name}: {rejection}") };
        assert_eq!(fault.reason(), reason, "{name}: {fault}");
        assert!(rejection.to_string().contains(&step.to_string()), "{name}: {rejection}");
    }
}

#[test]
fn what_an_instance_does_is_gone_with_it() {
    let policy = load("counts_calls").expect("loads");
    for _ in 0..20 {
        let decided = policy.decide(&question(&[]), "{}").expect("decides");
        assert_eq!(decided.decision.wake_in.map(|ms| ms.0), Some(1), "an instance was used twice");
    }
}

#[test]
fn a_dirty_reason_comes_out_clean() {
    let decided = load("dirty_reason").expect("loads").decide(&question(&[]), "{}").expect("decides");
    let reason = &decided.decision.reason;
    assert!(reason.starts_with("[2J forgxxx"), "{reason:?}");
    assert_eq!((reason.len(), decided.texts_cut), (256, true));
}

#[test]
fn a_policy_that_only_keeps_does_nothing() {
    let decided = load("good").expect("loads").decide(&question(&[("a", 0)]), "").expect("decides");
    assert_eq!(decided.decision.hold, HoldAction::Keep);
    assert!(!decided.texts_cut);
}

/// With fuel for hours, it is the deadline that ends a loop.
#[test]
fn the_deadline_ends_what_fuel_does_not() {
    let limits = Limits { call_fuel: Fuel(u64::MAX / 2), deadline: EpochTicks(20), ..Limits::default() };
    let host = Host::with_limits(limits).expect("a host");
    for name in ["loops", "fills", "loops_in_alloc"] {
        let policy = host.load(&wasm(name)).expect(name);
        let begun = Instant::now();
        let fault = policy.decide(&question(&[]), "{}").expect_err(name);
        assert_eq!(fault.reason(), "DeadlineExceeded", "{name}: {fault}");
        assert!(fault.is_infrastructure());
        assert!(begun.elapsed() >= Duration::from_millis(19), "{name}: not before its time");
    }
    assert!(host.builtin().decide(&question(&[("a", 0)]), "{}").is_ok());
}

/// A thread of an ordinary size survives a guest that exhausts its stack.
#[test]
fn a_small_thread_survives_a_stack_overflow() {
    let policy = load("recurses").expect("loads");
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    let fault = thread.spawn(move || policy.decide(&question(&[]), "{}")).expect("a thread").join().expect("no panic");
    assert_eq!(fault.expect_err("recurses").reason(), "StackOverflow");
}
