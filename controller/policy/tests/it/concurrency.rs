//! Many calls at once: they wait for a place, they do not fail.

use konductor_policy::{Host, Limits};

use crate::common::{question, wasm};

#[test]
fn more_callers_than_places_wait_for_their_turn() {
    let host = Host::with_limits(Limits { concurrent: 2, ..Limits::default() }).expect("a host");
    let (builtin, hostile) = (host.builtin(), host.load(&wasm("traps")).expect("loads"));
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (builtin, hostile) = (&builtin, &hostile);
            scope.spawn(move || {
                for _ in 0..50 {
                    let question = question(&[("a", 1), ("b", thread)]);
                    let decided = builtin.decide(&question, "{}").expect("decides");
                    let expected = usize::from(thread > 1);
                    assert_eq!(decided.decision.grant.map(|grant| grant.request), Some(expected));
                    assert_eq!(hostile.decide(&question, "{}").expect_err("traps").reason(), "Trap");
                }
            });
        }
    });
}

#[test]
fn a_policy_outlives_its_host() {
    let host = Host::new().expect("a host");
    let policy = host.builtin();
    drop(host);
    assert!(policy.decide(&question(&[("a", 0)]), "{}").expect("decides").decision.grant.is_some());
}
