//! The small configurations, exhaustively. `make model` goes through the larger ones.

use konductor_model::{check, configs, named};

fn holds(name: &str) {
    let outcome = check(named(name, false));
    println!("{outcome:?}");
    for (property, trace) in &outcome.violations {
        println!("violated: {property}\n{trace}");
    }
    assert!(outcome.violations.is_empty(), "\"{name}\" does not hold: the trace is above");
    // A model in which nothing happens proves nothing.
    assert!(outcome.unique > 1_000, "\"{name}\" has only {} states", outcome.unique);
}

macro_rules! configurations {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            holds($name);
        })*

        #[test]
        fn every_configuration_has_a_test() {
            let tested = [$($name),*];
            let all: Vec<&str> = configs(false).iter().map(|config| config.name).collect();
            assert_eq!(all, tested);
        }
    };
}

configurations! {
    two_stale_controllers: "two stale controllers",
    clocks_of_two_replicas: "clocks of two replicas",
    clients_and_clocks: "clients and clocks",
    a_wall_clock_that_jumps: "a wall clock that jumps",
    waiters_that_die: "waiters that die",
    restarts: "restarts",
    lost_answers: "lost answers",
    lists_that_are_late: "lists that are late",
    a_full_history: "a full history",
    a_full_history_and_who_gives_up: "a full history and who gives up",
    preemption: "preemption",
    preemption_by_force: "preemption by force",
    a_person: "a person",
    a_lease_that_is_made_anew: "a lease that is made anew",
    holders_that_restart: "holders that restart",
    nobody_waits_for_ever: "nobody waits for ever",
    everybody_is_told: "everybody is told",
    nobody_waits_for_two: "nobody waits for two",
    first_come_first_served: "first come, first served",
    a_watch_that_leaves_out: "a watch that leaves out",
}
