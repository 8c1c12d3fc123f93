//! Seeds, played in `make test`; `make sim` plays more. Each of these tests is a process of its own, so that all
//! processors are used.

use konductor_sim::{Figures, Mutant, run};

/// How many seeds each of the tests below plays: together they take about a minute on two busy processors.
const SEEDS: u64 = 175;

#[track_caller]
fn plays(from: u64) {
    let mut figures = Figures::default();
    for seed in from..from + SEEDS {
        let report = run(seed, None);
        assert!(report.violations.is_empty(), "{report}");
        figures += report.figures;
    }
    println!("{}", figures.sentence(SEEDS, 0));
    // A simulation in which nothing happens finds nothing.
    assert!(figures.grants > SEEDS * 5 && figures.faults > SEEDS * 10, "{figures:?}");
    assert!(figures.fenced > 0, "no paused holder ever came back to what it does not hold any more: {figures:?}");
}

macro_rules! seeds {
    ($($test:ident from $nth:literal),*) => {$(
        #[test]
        fn $test() {
            plays(1 + $nth * SEEDS);
        }
    )*};
}

seeds!(seeds_1 from 0, seeds_2 from 1, seeds_3 from 2, seeds_4 from 3, seeds_5 from 4, seeds_6 from 5, seeds_7 from 6, seeds_8 from 7);

#[test]
fn a_seed_plays_the_same_run_each_time() {
    for seed in 1..=40 {
        let (first, second) = (run(seed, None), run(seed, None));
        for (n, (a, b)) in first.timeline.iter().zip(&second.timeline).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {n}");
        }
        assert_eq!(first.timeline.len(), second.timeline.len(), "seed {seed}");
        assert_eq!((first.trace, first.figures), (second.trace, second.figures), "seed {seed}");
    }
    assert_ne!(run(1, None).trace, run(2, None).trace);
}

/// What is broken on purpose is found within so many seeds, and for the right reason.
#[track_caller]
fn is_found(mutant: Mutant, within: u64, because: &[&str]) {
    for seed in 1..=within {
        let found = run(seed, Some(mutant)).violations;
        if found.iter().any(|what| because.iter().any(|reason| what.contains(reason))) {
            println!("{mutant:?}: found by seed {seed}: {}", found[0]);
            return;
        }
    }
    panic!("{mutant:?} was not found within {within} seeds");
}

#[test]
fn a_client_that_believes_its_request_is_found() {
    is_found(Mutant::BelievesItsRequest, 60, &["believes for another", "relies for another"]);
}

#[test]
fn a_client_that_counts_from_the_answer_is_found() {
    is_found(Mutant::CountsFromTheAnswer, 60, &["believes for another", "relies for another"]);
}

#[test]
fn an_api_server_that_ignores_versions_is_found() {
    is_found(Mutant::AnyVersion, 60, &["go", "token", "granted", "tells"]);
}

#[test]
fn a_resource_that_compares_no_tokens_is_found() {
    is_found(Mutant::AnyToken, 60, &["after somebody has with"]);
}

#[test]
fn a_controller_that_trusts_clocks_is_found() {
    is_found(Mutant::TrustsClocks, 60, &["believes for another", "relies for another"]);
}
