//! Every target for a fixed seed and a fixed count: what `make test` can afford. `make fuzz` goes on.

use std::sync::{Mutex, PoisonError};

use konductor_policy_fuzz::{Figures, Mappings, PeakAlloc, Target, host};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One at a time: what is allocated and mapped is counted for the process.
static ALONE: Mutex<()> = Mutex::new(());

/// The seed of `make test`. Any will do, as long as it stays.
const SEED: u64 = 20_261_121;

fn sweep(target: Target, cases: u64) -> Figures {
    let mut figures = Figures::new(target);
    target.sweep(SEED, cases, &mut figures);
    println!("{figures}");
    assert_eq!(figures.cases(), cases);
    figures
}

#[test]
fn whatever_a_guest_answers_is_read_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = sweep(Target::Answer, 12_000);
    // The generator reaches what it is for; a sweep that only ever sees rubbish proves little.
    for how in ["legal", "legal, cut", "refused", "OutputSchema", "OutputNotJson", "OutputNotUtf8", "OutputTooLarge"] {
        assert!(figures.ended(how) >= 20, "{how}: {figures}");
    }
    for rule in konductor_core::Refusal::RULES {
        assert!(figures.ended(&format!("refused {rule}")) > 0, "{rule}: {figures}");
    }
}

#[test]
fn whatever_is_uploaded_ends_in_a_word_and_leaves_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // What is made once is there before the count begins.
    sweep(Target::Module, 100);
    let (heap, mappings) = (ALLOCATOR.current_usage(), Mappings::now());
    let figures = sweep(Target::Module, 600);
    for how in ["decided", "refused Invalid", "refused NotWasm", "FuelExhausted", "Trap", "Output"] {
        assert!(figures.ended(how) > 0, "{how}: {figures}");
    }
    assert!(
        figures.cases() - figures.ended("refused") - figures.ended("too short") > 150,
        "few of them ran: {figures}"
    );
    // The engine keeps places for a few instances and a table of types. A module that was
    // not given back would be some mappings each, and the text of its machine code.
    let (grown, mapped) =
        (ALLOCATOR.current_usage().saturating_sub(heap), Mappings::now().0.saturating_sub(mappings.0));
    println!("after them {grown} bytes and {mapped} mappings more");
    assert!(grown < 1 << 20, "{grown} bytes were not given back");
    assert!(mapped < 64 + 8 * host().limits().concurrent, "{mapped} mappings were not given back");
}

#[test]
fn whatever_is_asked_is_told_as_it_is_and_natively_decided_the_same() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = sweep(Target::Input, 3_000);
    for how in ["decided", "params refused", "ParamsNotJson"] {
        assert!(figures.ended(how) >= 50, "{how}: {figures}");
    }
}
