//! What is told of a lease, without a cluster.

use konductor_crds::{
    LeaseRequestSpec, LeaseSpec, LeaseStatus,
    v1::{PolicySpec, Preemption, RequestRef},
};
use konductor_workbench::explain::Served;

use super::*;
use crate::commands::problem::tests::lease;

/// A lease that `ana` holds with the priority 7 that she asked for; the lease's own is 0.
fn held() -> (Lease, LeaseRequest) {
    let mut lease = Lease::new("x", LeaseSpec { ttl: "10m".to_owned(), ..LeaseSpec::default() });
    lease.status = Some(LeaseStatus {
        phase: Some(LeasePhase::Held),
        holder: Some("ana".to_owned()),
        request: Some(RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 0, counted: None }),
        ..LeaseStatus::default()
    });
    let asked = LeaseRequestSpec {
        holder: "ana".to_owned(),
        priority: Some(7),
        ttl: Some("1m".to_owned()),
        ..LeaseRequestSpec::default()
    };
    (lease, LeaseRequest::new("r", asked))
}

#[test]
fn the_holder_has_what_it_asked_for() {
    let (lease, request) = held();
    let args = ExplainArgs { name: "x".to_owned(), holder: None, priority: None };
    let hold = |holding| input(&lease, holding, &[], &args, 0).0["hold"].clone();
    assert_eq!((&hold(Some(&request))["priority"], &hold(Some(&request))["ttlMs"]), (&json!(7), &json!(60_000)));
    assert_eq!((&hold(None)["priority"], &hold(None)["ttlMs"]), (&json!(0), &json!(600_000)));
}

/// Who is next, and for whom the policy asks nobody to leave.
fn ben() -> About {
    About {
        holder: "ben".to_owned(),
        priority: 9,
        place: Some(1),
        denied: None,
        next_with_priority: Some(9),
        preempts_with_priority: None,
    }
}

#[test]
fn what_is_not_so_is_not_said() {
    let about = ben();
    let said = |about: &About, asked| wins(about, false, true, asked).join("\n");
    assert!(said(&about, Some("ben")).ends_with("The holder is asked to leave for it."));
    for asked in [None, Some("cid")] {
        assert!(said(&about, asked).ends_with("ask the holder to leave for it now."), "{asked:?}");
    }
    assert!(said(&About { place: None, ..about }, None).contains("is not among the first 10."));
}

#[test]
fn a_hand_over_that_is_under_way_is_told_of_whom_it_is_for() {
    let (mut lease, _) = held();
    lease.status.get_or_insert_default().preemption =
        Some(Preemption { by: "ben".to_owned(), ..Preemption::default() });
    let explained = Ok(Explanation { now: vec![], next: vec![], denied: vec![], nobody: None, about: Some(ben()) });
    let policy = DEFAULT_POLICY.to_owned();
    let (digest, problems, decides) = (None, &[][..], Decides::Policy);
    let text = Told { lease: &lease, policy, digest, problems, decides, explained: &explained, waiting: 1 }.text(0);
    assert!(text.ends_with("The holder is asked to leave for it."), "{text}");
}

#[test]
fn who_is_not_served_is_told_so_and_from_which_priority_it_would_be() {
    let low = About { holder: "low".to_owned(), priority: 0, place: None, next_with_priority: Some(3), ..ben() };
    let nobody = Some("only from 3 on".to_owned());
    let explained = Explanation { now: vec![], next: vec![], denied: vec![], nobody, about: Some(low) };
    assert_eq!(
        explanation(&explained, false, None),
        [
            "Nobody is next: only from 3 on",
            "low (priority 0): the policy does not serve it now.",
            "  With priority 3 it would be next."
        ]
    );
}

#[test]
fn what_is_wrong_is_said_first_and_nobody_wins_who_is_not_granted() {
    const SPEC: [&str; 4] = ["Ready", "False", "InvalidSpec", "spec.ttl is \"1y\""];
    const POLICY: [&str; 4] = ["PolicyReady", "False", "PolicyNotFound", "there is no p"];
    let told = |conditions: &[[&str; 4]], on_failure| {
        let mut lease = lease("x", conditions);
        lease.spec.policy = Some(PolicySpec { on_failure, ..PolicySpec::default() });
        let problems = problems(&lease);
        let decides = decides(&lease, &problems, false);
        // What would be simulated if anybody was.
        let next = vec![Served { holder: "me".to_owned(), reason: String::new() }];
        let explained = match decides {
            Decides::Nobody(why) => Err(why.to_owned()),
            _ => Ok(Explanation { now: vec![], next, denied: vec![], nobody: None, about: None }),
        };
        let (policy, digest, problems) = ("p".to_owned(), None, &problems[..]);
        let told = Told { lease: &lease, policy, digest, problems, decides, explained: &explained, waiting: 1 };
        (told.text(0), told.structured())
    };
    let (text, json) = told(&[POLICY, SPEC], None);
    let invalid = "Ready is False, InvalidSpec: spec.ttl is \"1y\"\n  Nobody is granted until the spec is mended.";
    assert!(text.starts_with(invalid) && !text.contains("Next, now"), "{text}");
    assert!(text.ends_with("Nobody is next, and 1 in line: nothing is granted until the lease's spec is mended."));
    let known = json!({"condition": "Ready", "reason": "InvalidSpec", "message": "spec.ttl is \"1y\""});
    assert_eq!((&json["problems"][0], &json["explanation"]), (&known, &Value::Null), "{json:#}");
    assert_eq!(json["problems"][1]["reason"], "PolicyNotFound");

    let (text, json) = told(&[POLICY], Some(OnFailure::Hold));
    let hold = "PolicyReady is False, PolicyNotFound: there is no p\n  spec.policy.onFailure is Hold: nobody";
    assert!(text.starts_with(hold) && !text.contains("Next, now"), "{text}");
    assert_eq!((&json["explanation"], &json["meanwhile"]), (&Value::Null, &Value::Null));

    let (text, json) = told(&[POLICY], None);
    assert!(text.contains("onFailure is Default: the built-in rules decide meanwhile"), "{text}");
    assert!(text.ends_with("Policy: p\n  Meanwhile: default (built in)\nNext, now: me"), "{text}");
    assert_eq!(json["meanwhile"], "default");

    let (text, json) = told(&[["PolicyReady", "True", "PolicyActive", ""]], Some(OnFailure::Hold));
    assert!(text.starts_with("Nobody holds x.") && text.ends_with("Next, now: me"), "{text}");
    assert_eq!(json["problems"], json!([]));
}

#[test]
fn a_policy_that_works_on_or_is_about_to_is_not_taken_for_one_that_fails() {
    let hold = |reason, message| {
        let mut lease = lease("x", &[["PolicyReady", "False", reason, message]]);
        lease.spec.policy = Some(PolicySpec { on_failure: Some(OnFailure::Hold), ..PolicySpec::default() });
        lease
    };
    let whose = |lease: &Lease, is_there| decides(lease, &problems(lease), is_there);
    let refused =
        hold("PolicyRejected", "the newest module was refused: too large; the last good one, sha256:0, decides");
    assert_eq!(whose(&refused, false), Decides::LastGood);
    let looked_at = hold("PolicyNotFound", "the module of ConfigMap team/p is being looked at");
    assert_eq!(whose(&looked_at, true), Decides::PolicySoon);
    assert!(matches!(whose(&looked_at, false), Decides::Nobody(_)));
    // That it can be loaded does not say that it works.
    assert!(matches!(whose(&hold("PolicyFault", "a trap"), true), Decides::Nobody(_)));
}
