//! What becomes of a policy while it decides: one that fails now and then, and one that is only rehearsed.

use konductor_crds::v1::{LeasePhase, reasons};
use konductor_tests::{
    policies::{TRAP, WANTED, rules, upload},
    *,
};
use serde_json::json;

use crate::{
    lifecycle::{ask, event, hold, holds, wait_for, waits},
    policy::{decider, digest_of, is_active, newest_first, policy_is, with_a_note},
};

/// Grants to the first that came, and traps where anything in its input is called "poison".
fn allergic() -> Vec<u8> {
    rules(&[("poison", TRAP), (WANTED, r#"{"grant":{"request":0,"ttlMs":60000}}"#)])
}

#[tokio::test]
async fn a_policy_that_fails_pauses_for_its_lease_and_for_no_other() {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let module = allergic();
    upload(&team, "allergic", "policy.wasm", &module).await;
    is_active(&team, "allergic", &module).await;
    let named = json!({"ttl": "10m", "policy": {"name": "allergic"}});
    team.create_lease_with("sick", named.clone()).await;
    team.create_lease_with("well", named).await;

    // It traps, so the built-in rules decide, and it is said why.
    let (poison, _) = hold(&team, "sick", "poison").await;
    assert_eq!(decider(&team.lease("sick").await).0, "default");
    let said = policy_is(&team, "sick", "False", reasons::POLICY_FAULT).await;
    assert!(said.starts_with("Trap: "), "{said}");
    event(&team, "sick", reasons::EVENT_POLICY_FAILED).await;
    // More of the same is not even asked for a while: many requests come within the pause.
    let mut line = vec![poison];
    for n in 0..20 {
        line.push(team.request("sick", &format!("waiter-{n}")).await);
    }
    for request in &line[1..] {
        waits(&team, request).await;
    }
    let metrics = controller.metrics().await;
    let of = |result| metrics.sum("konductor_policy_decisions_total", &[("result", result)]).unwrap_or_default();
    assert!(of("Paused") > of("Trap"), "it was asked again and again:\n{}", metrics.text());

    // Another lease of the same policy is decided by it all the while.
    let (request, _) = hold(&team, "well", "anybody").await;
    assert_eq!(decider(&team.lease("well").await), ("allergic".to_owned(), digest_of(&module)));
    policy_is(&team, "well", "True", reasons::POLICY_ACTIVE).await;
    team.delete_request(&request).await;

    // When the poison has left the history too, it recovers by itself: nothing happens any more but that time passes.
    for pair in line.windows(2).take(9) {
        team.delete_request(&pair[0]).await;
        holds(&team, &pair[1]).await;
    }
    policy_is(&team, "sick", "True", reasons::POLICY_ACTIVE).await;
    checker::check(&plane.history(&team).await).expect("nothing forbidden");
}

#[tokio::test]
async fn a_shadow_is_compared_and_never_obeyed() {
    let module = newest_first();
    let plane = ControlPlane::installed().await;
    let journal = plane.directory().join("journal");
    let options = ControllerOptions::with(&format!("--decision-journal={}", journal.display()));
    let controller = Controller::start(&plane, options).await;
    let team = plane.namespace("team").await;
    let author = team.user(&["konductor-policy-author"]).await;
    upload(&team, "newest-first", "policy.wasm", &module).await;
    is_active(&team, "newest-first", &module).await;
    team.create_lease_with("x", json!({"ttl": "10m", "policy": {"shadow": "newest-first"}})).await;

    let (holder, _) = hold(&team, "x", "holder").await;
    let first = wait_for(&team, ask("x", "first")).await;
    wait_for(&team, ask("x", "second")).await;
    team.delete_request(&holder).await;
    holds(&team, &first).await;
    assert_eq!(decider(&team.lease("x").await).0, "default");
    let (type_, said) = event(&team, "x", reasons::EVENT_SHADOW_DIFFERS).await;
    assert_eq!(type_, "Normal");
    for part in ["The policy changes nothing", "newest-first denies first"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let metrics = controller.metrics().await;
    for result in ["same", "different"] {
        let counted = metrics.sum("konductor_shadow_comparisons_total", &[("result", result)]);
        assert!(counted >= Some(1.0), "{result}: {}", metrics.text());
    }

    // Its author reads it where the module was uploaded.
    let status = author.koncli("policy status newest-first").run().await.succeeds();
    for part in [&digest_of(&module), "shadow", "ShadowDiffers", "denies first", "PolicyActivated"] {
        assert!(status.stdout.contains(part), "{part}:\n{}", status.stdout);
    }
    let status = author.koncli("policy status newest-first -o json").run().await.succeeds().json();
    assert_eq!(
        status["leases"],
        json!([{"lease": "x", "as": "shadow", "ready": null, "reason": null, "message": null, "decidedBy": null, "decision": null}])
    );
    assert_eq!(status["module"]["digest"], digest_of(&module));
    let status = author.koncli("policy status default").run().await.succeeds();
    for part in ["built in", "x", "PolicyActive", "yes"] {
        assert!(status.stdout.contains(part), "{part}:\n{}", status.stdout);
    }
    author.koncli("policy status nobodys").run().await.exits_with(1).complains("no policy of that name");

    // A shadow that fails is nobody's trouble.
    let allergic = allergic();
    upload(&team, "allergic", "policy.wasm", &allergic).await;
    is_active(&team, "allergic", &allergic).await;
    team.create_lease_with("y", json!({"ttl": "10m", "policy": {"shadow": "allergic"}})).await;
    let (request, _) = hold(&team, "y", "poison").await;
    assert_eq!(decider(&team.lease("y").await).0, "default");
    policy_is(&team, "y", "True", reasons::POLICY_ACTIVE).await;
    team.delete_request(&request).await;
    team.lease_is("y", "free", |lease| lease.phase() == LeasePhase::Available).await;

    // Everything that was decided is in the journal, in the order of what became so, and a shadow's word is only a word.
    let program = ["--print-journal", &format!("--decision-journal={}", journal.display())].map(str::to_owned);
    let records = eventually("the journal has all of it", async || {
        let printed = std::process::Command::new(binaries::binary("konductor-controller").expect("it was built"))
            .args(&program)
            .output();
        let printed = String::from_utf8(printed.map_err(|e| e.to_string())?.stdout).map_err(|e| e.to_string())?;
        let records: Result<Vec<serde_json::Value>, _> = printed.lines().map(serde_json::from_str).collect();
        let records = records.map_err(|e| e.to_string())?;
        let faults = records.iter().filter(|record| record["fault"] == "Trap").count();
        if faults > 0 { Ok(records) } else { Err(format!("{} records", records.len())) }
    })
    .await;
    let applied: Vec<_> = records.iter().filter(|r| r["lease"] == "team/x" && r["applied"] == true).collect();
    assert!(applied.iter().all(|r| r["policy"] == "default"), "{applied:?}");
    let grants = applied.iter().filter(|r| r["output"].as_str().is_some_and(|out| out.contains("\"grant\"")));
    assert_eq!(grants.count(), 2, "holder and first: {applied:?}");
    let shadow = records.iter().find(|r| r["policy"] == "newest-first").expect("the shadow was asked too");
    assert_eq!((shadow["applied"].as_bool(), shadow["digest"].as_str()), (Some(false), Some(&*digest_of(&module))));
    // And it can be made again, byte for byte, and with another module.
    let file = plane.directory().join("journal.jsonl");
    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    std::fs::write(&file, lines.join("\n")).expect("written");
    let wasm = |name: &str, bytes: &[u8]| {
        let path = plane.directory().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let (newest, allergic) = (wasm("newest.wasm", &module), wasm("allergic.wasm", &allergic));
    let replay = format!("policy replay {} --module {newest} --module {allergic}", file.display());
    let replayed = author.koncli(&replay).run().await.succeeds();
    let all = format!("{0} decisions: {0} reproduced byte for byte, 0 differ", records.len());
    assert!(replayed.stdout.contains(&all), "{}", replayed.stdout);
    let other = author.koncli(&format!("{replay} --with {newest}")).run().await.succeeds();
    assert!(other.stdout.contains("would be") && other.stdout.contains("grants second"), "{}", other.stdout);
    assert!(
        shadow["fuel"].as_u64() > Some(0) && shadow["input"].as_str().is_some_and(|input| input.contains("\"now\""))
    );
}

#[tokio::test]
async fn what_was_uploaded_a_moment_ago_decides_the_next_request() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let module = newest_first();
    // Six times: the compiler is not always equally quick, and nor are the watches.
    for n in 0..6 {
        let (lease, policy) = (format!("l-{n}"), format!("p-{n}"));
        team.create_lease_with(&lease, json!({"ttl": "10m", "policy": {"name": policy}})).await;
        policy_is(&team, &lease, "False", reasons::POLICY_NOT_FOUND).await;
        let module = with_a_note(&module, &policy);
        upload(&team, &policy, "policy.wasm", &module).await;
        hold(&team, &lease, "a").await;
        assert_eq!(decider(&team.lease(&lease).await), (policy, digest_of(&module)));
    }
}
