//! What a policy is asked before a lease may use it.

use std::time::Duration;

use konductor_policy::{Probe, ProbeFailure, Probed, probe};

use crate::common::{host, load};

/// Time enough on any machine: these are about verdicts, not about the clock.
fn with(params: &[&str]) -> Probe {
    Probe { params: params.iter().map(|&params| params.to_owned()).collect(), time: Duration::from_secs(50) }
}

fn probed(name: &str, params: &[&str]) -> Result<Probed, ProbeFailure> {
    probe(&load(name).expect(name), &with(params))
}

#[test]
fn what_no_policy_may_do_is_found_before_a_lease_is_there() {
    for (name, reason, case, says) in [
        (
            "probe_grants_always",
            "ProbeVetoed",
            "a held lease that an equal wants",
            "granted the lease while it is held",
        ),
        ("probe_traps_on_long_input", "ProbeFault", "512 requests", "konductor_decide trapped: access outside"),
        ("probe_keeps_too_much", "ProbeVetoed", "a free lease that one wants", "6000 bytes of state"),
        ("probe_spoils_its_state", "ProbeFault", "with the state that it answered", "gave up"),
        ("probe_refuses_params_by_trapping", "ProbeFault", "whether params are valid", "konductor_validate trapped"),
        ("traps", "ProbeFault", "a free lease that one wants", "konductor_decide trapped"),
        ("loops", "ProbeFault", "a free lease that one wants", "used up its 50000000 units of fuel"),
        ("not_json", "ProbeFault", "a free lease that one wants", "not JSON"),
        ("answers_nothing", "ProbeFault", "a free lease that one wants", "answered nothing"),
        ("negative_index", "ProbeFault", "a free lease that one wants", "does not know"),
    ] {
        let failure = probed(name, &[]).expect_err(name);
        assert_eq!(failure.reason(), reason, "{name}: {failure}");
        let text = failure.to_string();
        assert!(text.starts_with("asked about ") && text.contains(case) && text.contains(says), "{name}: {text}");
        assert!(!failure.is_infrastructure(), "{name}: the same bytes do it again");
    }
}

#[test]
fn what_is_legal_passes() {
    for name in ["good", "counts_calls", "asks_for_nan", "dirty_reason", "v1_and_v2", "initialized"] {
        let probed = probed(name, &[]).expect(name);
        assert!(probed.questions >= 25 && probed.params == 1 && probed.warning().is_none(), "{name}: {probed:?}");
    }
}

#[test]
fn it_is_asked_with_the_params_that_it_will_get() {
    let params = [r#"{"a":1}"#, r#"{"a":"bad!"}"#];
    assert_eq!(probed("probe_fears_its_params", &params[..1]).expect("no reason to fear").params, 1);
    let failure = probed("probe_fears_its_params", &params).expect_err("what it fears");
    assert!(failure.to_string().contains(r#", with the params {"a":"bad!"}: konductor_decide trapped"#), "{failure}");
    // Twice the same is once; and what cannot be used is not asked with.
    let builtin = host().builtin();
    let refused = r#"{"preemption":"Sometimes"}"#;
    let passed = probe(&builtin, &with(&[r#"{"aging":1}"#, refused, r#"{"aging":1}"#])).expect("it passes");
    assert_eq!(passed.params, 1);
    assert_eq!(probe(&builtin, &with(&[refused])).expect("with none, then").params, 1);
    let many: Vec<String> = (0..40).map(|n| format!(r#"{{"aging":{n}}}"#)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let passed = probe(&builtin, &with(&many)).expect("it passes");
    assert_eq!((passed.params, passed.params_left), (16, 0), "no more than that are tried");
}

#[test]
fn who_needs_nearly_all_of_its_fuel_passes_with_a_warning() {
    let probed = probed("probe_needs_nearly_all_fuel", &[]).expect("it is legal");
    assert!(probed.is_near_budget(), "{probed:?}");
    let warning = probed.warning().expect("a warning");
    assert!(
        warning.starts_with("NearBudget: asked about 512 requests") && warning.contains("of its 50000000"),
        "{warning}"
    );
}
