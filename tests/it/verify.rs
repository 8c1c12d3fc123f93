//! `koncli lease record` and `koncli lease verify`: what really happened is fine, and what is forged is found.

use std::path::{Path, PathBuf};

use konductor_crds::v1::LeasePhase;
use konductor_tests::*;
use serde_json::{Value, json};

use super::storm::Storm;

const LEASES: [&str; 2] = ["north", "east"];

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A recording is on when both kinds were listed.
async fn records(file: &Path) {
    eventually("the recording is on", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.matches("\"type\":\"LIST\"").count() == 2 { Ok(()) } else { Err(text) }
    })
    .await;
}

/// The same lines, with one of them changed.
fn forged(file: &Path, name: &str, mut forge: impl FnMut(&Value, &Value) -> Option<Value>) -> PathBuf {
    let mut all = lines(file);
    let mut last: std::collections::BTreeMap<String, Value> = Default::default();
    let at = all.iter().enumerate().find_map(|(index, line)| {
        let object = ["object", "responseObject"].iter().find_map(|name| line.get(name))?;
        if !object.get("kind").is_some_and(|kind| kind == "Lease") || line["type"] == "LISTED" {
            return None;
        }
        let before = last.insert(object["metadata"]["name"].to_string(), line.clone())?;
        Some((index, forge(&before, line)?))
    });
    let (index, line) = at.unwrap_or_else(|| panic!("nothing to forge for {name}"));
    all[index] = line;
    let to = file.with_extension(name);
    let text: Vec<String> = all.iter().map(Value::to_string).collect();
    std::fs::write(&to, text.join("\n") + "\n").expect("written");
    to
}

#[tokio::test]
async fn a_recorded_storm_is_fine_and_every_forgery_is_found() {
    let (plane, audit) = audited(konductor_verify::audit::POLICY).await;
    let team = plane.namespace("team").await;
    let viewer = team.user(&["konductor-lease-viewer"]).await;
    let options = ControllerOptions::with("--leader-elect=false --max-clock-skew=0s --expired-retention=1s");
    let _pair = [Controller::start(&plane, options.clone()).await, Controller::start(&plane, options).await];
    let storm = Storm::new(&team, &LEASES).await;

    let file = plane.directory().join("history.jsonl");
    let recorder = viewer.koncli("lease record -v --file").arg(&file).spawn();
    records(&file).await;
    let meanwhile = async {
        storm.more_grants(40).await;
        plane.kill_apiserver();
        plane.start_apiserver().await;
        storm.more_grants(40).await;
    };
    storm.rages(8, meanwhile).await;
    for lease in LEASES {
        team.lease_is(lease, "free", |lease| lease.phase() == LeasePhase::Available).await;
    }
    let holds = checker::check(&plane.history(&team).await).unwrap_or_else(|violations| panic!("{violations}"));
    let revision = team.lease("east").await.metadata.resource_version.expect("a version");
    eventually("the last write is recorded", async || {
        let text = std::fs::read_to_string(&file).expect("readable");
        if text.contains(&format!("\"resourceVersion\":\"{revision}\"")) { Ok(()) } else { Err(text.len()) }
    })
    .await;
    recorder.signal(Signal::TERM);
    recorder.wait().await.succeeds().complains("it was asked to stop");
    let recorded = lines(&file);
    assert_eq!((&recorded[0]["type"], &recorded[recorded.len() - 1]["type"]), (&json!("RECORDING"), &json!("END")));
    assert!(!std::fs::read_to_string(&file).expect("readable").contains("managedFields"), "it is not trimmed");

    let verify = |file: &Path| viewer.koncli("lease verify --max-clock-skew 0s -o json").arg(file).run();
    let fine = verify(&file).await.succeeds();
    let figures = &fine.json()["figures"];
    println!("recording: {figures}");
    let count = |figures: &Value, name: &str| figures[name].as_u64().expect("a number");
    assert_eq!(fine.json()["files"][0]["format"], "recording");
    // A gap hides what was granted until the recorder is back, which on a machine that does much else takes seconds.
    assert!(count(figures, "holds") as usize * 3 >= holds.len() * 2 && count(figures, "grants") > 60, "{figures}");

    let fine = verify(&audit).await.succeeds();
    let figures = &fine.json()["figures"];
    println!("audit log: {figures}");
    assert_eq!(fine.json()["files"][0]["format"], "audit-log");
    assert!(count(figures, "holds") as usize + 3 >= holds.len() && count(figures, "grants") > 60, "{figures}");

    // The same forgeries in both.
    for (file, object) in [(&file, "/object"), (&audit, "/responseObject")] {
        let status = |name: &str| format!("{object}/status/{name}");
        let held = |line: &Value| line.pointer(&status("phase")).is_some_and(|phase| phase == "Held");
        let token = |line: &Value| line.pointer(&status("fencingToken")).and_then(Value::as_i64).unwrap_or_default();
        let set = |line: &Value, pointer: &str, value: Value| {
            let mut forged = line.clone();
            *forged.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {line}")) = value;
            Some(forged)
        };
        let lowered = forged(file, "lowered", |before, line| {
            let grant = held(line) && token(line) > token(before) && token(before) > 1;
            grant.then(|| set(line, &status("fencingToken"), json!(token(before) - 1))).flatten()
        });
        let overlap = forged(file, "overlap", |before, line| {
            let hand_over = held(before) && held(line) && token(line) > token(before);
            hand_over.then(|| set(line, &status("history"), json!([]))).flatten()
        });
        let early = forged(file, "early", |before, line| {
            let past = status("history/0");
            let new = held(before) && line.pointer(&past) != before.pointer(&past);
            let expired = line.pointer(&format!("{past}/how")).is_some_and(|how| how == "Expired");
            let acquired = line.pointer(&format!("{past}/acquired"))?.clone();
            (new && expired).then(|| set(line, &format!("{past}/ended"), acquired)).flatten()
        });
        let shortened = forged(file, "shortened", |before, line| {
            let same = held(before) && held(line) && token(line) == token(before);
            let acquired = line.pointer(&status("acquired"))?.clone();
            same.then(|| set(line, &status("expires"), acquired)).flatten()
        });
        for (file, rule) in [
            (lowered, "token-does-not-rise"),
            (overlap, "overlap"),
            (early, "early-expiry"),
            (shortened, "hold-changes"),
        ] {
            let found = verify(&file).await.exits_with(1);
            let violations = found.json()["violations"].clone();
            let fits = |v: &&Value| v["rule"] == rule && v["namespace"] == "team" && v["event"]["revision"].is_i64();
            let violation = violations.as_array().expect("violations").iter().find(fits);
            let violation = violation.unwrap_or_else(|| panic!("no {rule} in {}: {violations:#}", file.display()));
            assert!(violation["before"]["says"].as_str().is_some_and(|says| !says.is_empty()), "{violation:#}");
        }
    }
    let text = viewer.koncli("lease verify").arg(file.with_extension("lowered")).run().await.exits_with(1);
    text.prints("token-does-not-rise")
        .prints("before:")
        .prints("then:")
        .complains("violations of what must never happen");
    let name = viewer.koncli("lease verify -o name").arg(file.with_extension("lowered")).run().await.exits_with(1);
    assert!(name.stdout.starts_with("lease.konductor.io/"), "{name}");
}

#[tokio::test]
async fn a_recording_ends_as_it_is_told_and_says_why() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    team.create_lease("mine", "10m").await;
    team.create_lease("other", "10m").await;

    // Only what was named, with its requests, from the middle on.
    user.koncli("lease acquire mine --holder a").run().await.succeeds();
    let file = plane.directory().join("mine.jsonl");
    let recorder = user.koncli("lease record mine --file").arg(&file).spawn();
    records(&file).await;
    user.koncli("lease acquire other --holder z").run().await.succeeds();
    user.koncli("lease release mine --holder a").run().await.succeeds();
    user.koncli("lease acquire mine --holder b").run().await.succeeds();
    eventually("b is recorded", async || {
        let text = std::fs::read_to_string(&file).expect("readable");
        if text.contains("\"holder\":\"b\",\"phase\":\"Held\"") { Ok(()) } else { Err(text) }
    })
    .await;
    recorder.signal(Signal::INT);
    recorder.wait().await.succeeds();
    assert!(!std::fs::read_to_string(&file).expect("readable").contains("other"), "more was recorded than was named");
    let fine = user.koncli("lease verify --max-clock-skew 0s -o json").arg(&file).run().await.succeeds().json();
    let figures = &fine["figures"];
    assert_eq!(
        (&figures["leases"], &figures["holds"], &figures["grants"]),
        (&json!(1), &json!(2), &json!(1)),
        "{fine:#}"
    );
    assert_eq!(figures["unjudged"], json!({"grantsNotSeen": 1}), "{fine:#}");
    assert_eq!(figures["endings"], json!({"Released": 1, "Held": 1}), "{fine:#}");

    // Never over another one.
    user.koncli("lease record --file")
        .arg(&file)
        .run()
        .await
        .exits_with(2)
        .complains("name a file that does not exist yet");
    let timed = user.koncli("lease record --for 1ms").run().await.succeeds();
    assert!(timed.stdout.contains("\"END\"") && timed.stdout.contains("its time is over"), "{timed}");
    // As many as there is room for, and still a recording.
    for number in 0..8 {
        team.create_lease(&format!("more-{number}"), "10m").await;
    }
    let small = plane.directory().join("small.jsonl");
    let full = user.koncli("lease record --max-size 4Ki --file").arg(&small).run().await.exits_with(1);
    full.complains("which is what --max-size allows");
    assert!(std::fs::metadata(&small).expect("a file").len() <= 4096);
    // The list for whose end there was no room tells nothing, and is no reason to refuse the rest.
    let kept = lines(&small);
    let listed = kept.iter().filter(|line| line["type"] == "LISTED").count();
    let said = kept.iter().filter_map(|line| line["items"].as_u64()).sum::<u64>();
    assert!(u64::try_from(listed).expect("small") < said && kept[kept.len() - 1]["type"] == "END", "{kept:?}");
    user.koncli("lease verify").arg(&small).run().await.succeeds();

    // Who may not look is told so.
    let stranger = team.user(&[]).await;
    stranger.koncli("lease record").run().await.exits_with(6);
}

#[tokio::test]
async fn a_file_that_cannot_be_judged_is_named_with_what_to_do() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let begin = json!({"seen": "2026-01-01T00:00:00.000Z", "type": "RECORDING", "version": 1, "scope": {}}).to_string();
    let audit = |level: &str, resource: &str| {
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": "x", "stage": "ResponseComplete",
            "requestURI": "/apis", "verb": "update", "responseStatus": {"code": 200},
            "objectRef": {"resource": resource, "apiGroup": "konductor.io", "namespace": "n", "name": "l"},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "stageTimestamp": "2026-01-01T00:00:00.000000Z"})
        .to_string()
    };
    for (name, text, because, help) in [
        ("empty", String::new(), "it is empty", "koncli lease record --file"),
        ("poem", "roses are red\n".to_owned(), "neither a recording", "koncli lease record --file"),
        ("pod", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}\n".to_owned(), "its first line is a Pod of v1", ""),
        ("cut", format!("{begin}\n{{\"seen\":\"2026-"), "line 2, the last one, is cut off", "--cut-off"),
        ("broken", format!("{begin}\n{{\"seen\":\"2026-\n{begin}\n"), "line 2: no JSON object", ""),
        ("newer", begin.replace("\"version\":1", "\"version\":2") + "\n", "version 2 of the format", ""),
        ("metadata", audit("Metadata", "leases") + "\n", "logged at the level Metadata", "RequestResponse"),
        ("others", audit("RequestResponse", "policies") + "\n", "without a single write", "koncli lease verify --help"),
    ] {
        let file = plane.directory().join(name);
        std::fs::write(&file, text).expect("written");
        let refused = user.koncli("lease verify").arg(&file).run().await.exits_with(2).complains(because);
        refused.complains(help).complains(name);
    }
    user.koncli("lease verify --cut-off")
        .arg(plane.directory().join("cut"))
        .run()
        .await
        .succeeds()
        .complains("left out");
    user.koncli("lease verify").arg(plane.directory().join("nowhere")).run().await.exits_with(2).complains("nowhere");
}
