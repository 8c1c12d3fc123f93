//! `deploy/chart`: it makes what kustomize makes, refuses what makes no sense, and keeps what people hold through an
//! upgrade and an uninstallation, by the commands of `deploy/README.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use konductor_crds::v1::LeasePhase;
use konductor_tests::{
    manifests::Manifest,
    tools::{run, tool},
    *,
};
use serde_json::{Value, json};

use crate::lifecycle::{alone, ask, hold, holds, touch, wait_for};

/// Everything that can be switched on.
const FULL: &str = r#"{
    "image": {"repository": "registry.example/konductor-controller", "pullPolicy": "Always",
        "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
    "imagePullSecrets": [{"name": "pull"}],
    "replicas": 3,
    "controller": {"logFormat": "text", "log": "info,konductor_controller=debug", "defaultPolicy": "once",
        "leaderElectionDuration": "20s", "maxClockSkew": "2s", "maxHold": "24h", "expiredRetention": "1m",
        "finishedRetention": "1h", "policyCompileTime": "500ms", "maxWaiting": 100000, "workers": 8,
        "extraArgs": ["--decision-journal=/var/cache/konductor/journal", "--decision-journal-size=64"]},
    "policyCache": {"sizeLimit": "1Gi", "keySecret": "vouch"},
    "podLabels": {"team": "platform"}, "podAnnotations": {"note": "x"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "control", "operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
    "networkPolicy": {"apiServerPorts": [7443], "metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}, "admission": {"creatorPolicy": true}
}"#;

/// Renders the chart; what Helm says if it does not.
fn rendered(values: &str, kubernetes: &str) -> Result<Vec<Manifest>, String> {
    let words = ["template", "konductor", "deploy/chart", "--namespace=konductor-system", "--kube-version", kubernetes];
    let (well, said) = run(&tool("helm"), &[&words[..], &["--values=-"]].concat(), values);
    if well { Ok(manifests::objects(&said, Path::new("deploy/chart")).expect("objects")) } else { Err(said) }
}

/// An object without what Helm adds to it.
fn plain(mut object: Value) -> Value {
    for (map, ours) in [("labels", &["app.kubernetes.io/", "helm.sh/"][..]), ("annotations", &["helm.sh/"][..])] {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        if let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) {
            entries.retain(|name, _| !ours.iter().any(|prefix| name.starts_with(prefix)));
            if entries.is_empty() {
                metadata.remove(map);
            }
        }
    }
    object
}

fn by_name(manifests: Vec<Manifest>) -> BTreeMap<String, Value> {
    let all = manifests.into_iter().map(|manifest| {
        let object = plain(manifest.object);
        (format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""), object)
    });
    all.collect()
}

#[test]
fn the_chart_makes_what_kustomize_makes() {
    let chart = by_name(rendered("{}", "1.30.0").expect("it renders"));
    let mut base = by_name(manifests::read(&repo::path("deploy")).expect("deploy/ is readable"));
    // Helm makes the namespace itself, or is given one: an object of the release would go with it.
    base.remove("Namespace konductor-system").expect("kustomize makes it");
    assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &base {
        let shown = |object: &Value| serde_json::to_string_pretty(object).expect("JSON");
        assert!(chart[name] == *object, "{name}\nchart: {}\nkustomize: {}", shown(&chart[name]), shown(object));
    }
    // Helm looks for this when it uninstalls.
    for manifest in rendered("{}", "1.30.0").expect("it renders") {
        let kept = manifest.object.pointer("/metadata/annotations/helm.sh~1resource-policy").is_some();
        assert_eq!(kept, manifest.object["kind"] == "CustomResourceDefinition", "{}", manifest.title());
    }
    let chart: Value = serde_yaml::from_str(&repo::text("deploy/chart/Chart.yaml")).expect("YAML");
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&json!(env!("CARGO_PKG_VERSION")), &json!(env!("CARGO_PKG_VERSION")))
    );
    let (well, said) = run(&tool("helm"), &["lint", "--strict", "deploy/chart"], "");
    assert!(well, "{said}");
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (values, said) in [
        (json!({"replica": 3}), "Additional property replica is not allowed"),
        (json!({"replicas": 0}), "replicas: Must be greater than or equal to 1"),
        (json!({"replicas": "two"}), "replicas: Invalid type. Expected: integer, given: string"),
        (json!({"image": {"repository": ""}}), "image.repository"),
        (json!({"image": {"digest": "latest"}}), "image.digest"),
        (json!({"controller": {"maxHold": "soon"}}), "controller.maxHold"),
        (json!({"controller": {"maxHold": 60}}), "controller.maxHold"),
        (json!({"controller": {"workers": 257}}), "controller.workers: Must be less than or equal to 256"),
        (json!({"controller": {"maxWaiting": 0}}), "controller.maxWaiting"),
        (json!({"controller": {"extraArgs": ["workers"]}}), "controller.extraArgs.0"),
        (json!({"controller": {"logFormat": "xml"}}), "controller.logFormat"),
        (json!({"policyCache": {"sizeLimit": "lots"}}), "policyCache.sizeLimit"),
        (json!({"networkPolicy": {"apiServerPorts": []}}), "networkPolicy.apiServerPorts"),
        (json!({"networkPolicy": {"apiServerPorts": [70000]}}), "networkPolicy.apiServerPorts.0"),
        (json!({"serviceMonitor": {"enabled": "yes"}}), "serviceMonitor.enabled"),
        (json!({"podLabels": {"a": 1}}), "podLabels.a"),
    ] {
        let problem = rendered(&values.to_string(), "1.30.0").expect_err(&values.to_string());
        assert!(problem.contains(said), "{values} is refused, but not for {said:?}: {problem}");
    }
}

/// The leaves of the values: a value, a list, or a map in which everything is the user's.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value.as_object().filter(|map| !map.is_empty() && path != "resources" && path != "dashboard.labels") {
        Some(map) => {
            for (name, value) in map {
                leaves(value, &format!("{path}{}{name}", if path.is_empty() { "" } else { "." }), found);
            }
        }
        None => drop(found.insert(path.to_owned(), value.clone())),
    }
}

#[test]
fn every_value_is_documented_with_its_default() {
    let values: Value = serde_yaml::from_str(&repo::text("deploy/chart/values.yaml")).expect("YAML");
    let mut all = BTreeMap::new();
    leaves(&values, "", &mut all);
    let readme = repo::text("deploy/chart/README.md");
    let rows: BTreeMap<&str, &str> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>())
        .map(|cells| (cells[1], cells[2]))
        .collect();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), all.keys().map(String::as_str).collect::<BTreeSet<_>>());
    for (name, value) in all.iter().filter(|(name, _)| *name != "resources") {
        let shown = match value {
            Value::String(text) if !text.is_empty() => text.clone(),
            other => other.to_string().replace(',', ", "),
        };
        assert_eq!(rows[name.as_str()].replace(", ", ","), shown.replace(", ", ","), "{name}");
    }
}

/// The arguments that a rendering gives to the controller.
fn arguments(manifests: &[Manifest]) -> Vec<String> {
    let deployment = manifests.iter().find(|manifest| manifest.object["kind"] == "Deployment").expect("one");
    let args = &deployment.object["spec"]["template"]["spec"]["containers"][0]["args"];
    args.as_array().expect("args").iter().map(|arg| arg.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_controller_understands_what_the_chart_tells_it() {
    // It checks its flags, and ends because there is no journal to print.
    let understands = |args: &[String]| {
        let program = binary("konductor-controller").expect("built");
        let end = ["--print-journal", "--decision-journal=/nonexistent"];
        let args = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--decision-journal="));
        let output = Command::new(program).args(args).args(end).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for values in ["{}", FULL] {
        let args = arguments(&rendered(values, "1.30.0").expect("it renders"));
        let (code, said) = understands(&args);
        assert!(code == Some(1) && said.contains("cannot print the journal"), "{args:?}: {code:?} {said}");
    }
    let (code, said) = understands(&["--workers=0".to_owned()]);
    assert!(code == Some(2) && said.contains("--workers"), "a flag that is wrong would be seen: {code:?} {said}");
    let full = arguments(&rendered(FULL, "1.30.0").expect("it renders"));
    for expected in [
        "--log-format=text",
        "--log=info,konductor_controller=debug",
        "--default-policy=once",
        "--leader-election-duration=20s",
        "--max-clock-skew=2s",
        "--max-hold=24h",
        "--expired-retention=1m",
        "--finished-retention=1h",
        "--policy-compile-time=500ms",
        "--max-waiting=100000",
        "--workers=8",
        "--policy-cache-key-file=/etc/konductor/key",
        "--decision-journal-size=64",
    ] {
        assert!(full.iter().any(|arg| arg == expected), "{expected} is not among {full:?}");
    }
}

#[tokio::test]
async fn every_rendering_is_valid() {
    let plane = ControlPlane::installed().await;
    let Version(major, minor) = plane.version();
    for values in ["{}", FULL] {
        let all = rendered(values, &format!("{major}.{minor}.0")).expect("it renders");
        let kinds: BTreeSet<&str> = all.iter().filter_map(|manifest| manifest.object["kind"].as_str()).collect();
        assert!(kinds.contains("PodDisruptionBudget") && kinds.contains("NetworkPolicy"), "{kinds:?}");
        for manifest in &all {
            let group = manifest.object["apiVersion"].as_str().unwrap_or_default();
            // Kinds of the Prometheus operator, and of Kubernetes 1.30: compared with what is checked elsewhere.
            if group.starts_with("monitoring.coreos.com/") || group.starts_with("admissionregistration.k8s.io/") {
                continue;
            }
            manifests::dry_run(plane.admin(), manifest).await.unwrap_or_else(|problem| panic!("{problem:#}"));
        }
    }
    let full = by_name(rendered(FULL, "1.30.0").expect("it renders"));
    let yaml = |file: &str| -> Vec<Manifest> { manifests::read(&repo::path(file)).expect("readable") };
    for manifest in yaml("deploy/admission/creator.yaml") {
        let name = format!("{} {}", manifest.object["kind"], manifest.object["metadata"]["name"]).replace('"', "");
        assert_eq!(full[&name], plain(manifest.object));
    }
    let rules = yaml("deploy/monitoring/prometheusrule.yaml").remove(0).object;
    assert_eq!(full["PrometheusRule konductor-lease"], plain(rules));
    let mut monitor = yaml("deploy/monitoring/servicemonitor.yaml").remove(0).object;
    monitor["metadata"]["labels"]["release"] = json!("prometheus");
    assert_eq!(full["ServiceMonitor konductor-controller"], plain(monitor));
    let dashboard = full["ConfigMap konductor-lease-dashboard"]["data"]["konductor-lease.json"].as_str().expect("one");
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let file: Value = serde_json::from_str(&repo::text("deploy/monitoring/dashboard.json")).expect("JSON");
    assert_eq!(dashboard, file);
    let one = by_name(rendered(r#"{"replicas": 1}"#, "1.30.0").expect("it renders"));
    assert!(!one.contains_key("PodDisruptionBudget konductor-controller"), "it would hold up every drain");
}

/// A block of `deploy/README.md`, by what stands behind its language.
fn block(title: &str) -> String {
    let blocks = markdown::blocks(&repo::text("deploy/README.md"));
    let mut found: Vec<_> = blocks.into_iter().filter(|block| block.info == format!("sh {title}")).collect();
    assert_eq!(found.len(), 1, "blocks marked {title:?}");
    found.remove(0).text
}

/// What a reader has checked out, to change it.
fn checkout(plane: &ControlPlane) -> PathBuf {
    let directory = plane.directory().join("checkout");
    std::fs::create_dir(&directory).expect("a directory");
    for part in ["deploy", "crds"] {
        let copied = Command::new("cp").arg("-R").arg(repo::path(part)).arg(&directory).status().expect("cp runs");
        assert!(copied.success());
    }
    directory
}

/// As a later version of the CRDs would: a new optional field, a new column.
fn extend_crds(checkout: &Path, field: &str) {
    for directory in ["crds", "deploy/chart/files/crds"] {
        let file = checkout.join(directory).join("lease.yaml");
        let text = std::fs::read_to_string(&file).expect("readable");
        let mut crd: Value = serde_yaml::from_str(&text).expect("YAML");
        let version = &mut crd["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][field] = json!({"type": "string"});
        let column = json!({"name": field, "type": "string", "jsonPath": format!(".spec.{field}"), "priority": 1});
        version["additionalPrinterColumns"].as_array_mut().expect("columns").push(column);
        std::fs::write(&file, serde_yaml::to_string(&crd).expect("YAML")).expect("written");
    }
}

/// Waits until the API server serves a field of a Lease's spec: it drops what it does not know.
async fn serves(team: &Namespace<'_>, lease: &str, field: &str) {
    eventually(&format!("spec.{field} is served"), async || {
        let leases: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(
            team.leases().into_client(),
            team.name(),
            &kube::api::ApiResource::erase::<konductor_crds::Lease>(&()),
        );
        let patch = kube::api::Patch::Merge(json!({"spec": {field: "new"}}));
        let patched =
            leases.patch(lease, &kube::api::PatchParams::default(), &patch).await.map_err(|e| e.to_string())?;
        if patched.data["spec"][field] == "new" { Ok(()) } else { Err(patched.data["spec"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn upgrades_and_an_uninstallation_by_the_readme_lose_no_hold() {
    let plane = ControlPlane::installed().await;
    let checkout = checkout(&plane);
    // As the README says of an API server that does not know all fields of the CRDs.
    let old = plane.version() < Version(1, 30);
    let does = async |title: &str| {
        let mut text = block(title);
        if old {
            text = text.replace("kubectl apply ", "kubectl apply --validate=false ");
            for verb in ["helm install ", "helm upgrade "] {
                text = text.replace(verb, &format!("{verb}--disable-openapi-validation "));
            }
        }
        plane.script(&checkout, &text).run().await.succeeds()
    };
    let controller = Controller::start(&plane, alone()).await;
    let team = plane.namespace("team").await;
    team.create_lease("demo", "10m").await;
    let (first, _) = hold(&team, "demo", "first").await;
    let second = wait_for(&team, ask("demo", "second")).await;
    // Who holds, since when, until when, by which right: everything but which version of the spec was looked at, since
    // this test changes the spec to see that the new CRDs are served.
    let status = async || {
        let lease = team.lease("demo").await;
        let mut status = serde_json::to_value(lease.status).expect("JSON");
        for condition in status["conditions"].as_array_mut().expect("conditions") {
            condition.as_object_mut().expect("one").remove("observedGeneration");
        }
        status.as_object_mut().expect("one").remove("observedGeneration");
        status
    };
    // That number is written only now and then.
    team.lease_is("demo", "waited for", |l| l.status.as_ref().and_then(|s| s.waiting) == Some(1)).await;
    let before = status().await;

    // With kubectl: later CRDs over those that are there.
    extend_crds(&checkout, "later");
    does("upgrade with kubectl").await;
    serves(&team, "demo", "later").await;
    assert_eq!(status().await, before, "an upgrade of the CRDs changes nothing that is held");

    // From kubectl to Helm, and on with Helm.
    does("from kubectl to helm").await;
    assert_eq!(status().await, before);
    extend_crds(&checkout, "muchLater");
    does("upgrade with helm").await;
    serves(&team, "demo", "muchLater").await;
    assert_eq!(status().await, before);
    // The controller has lived through it.
    touch(&team, &first, 1).await;
    team.lease_is("demo", "renewed", |l| l.status.as_ref().and_then(|s| s.renewals) == Some(1)).await;

    // Without a controller nobody is granted, and nobody loses.
    let held = status().await;
    does("uninstall with helm").await;
    controller.terminate().await;
    plane.kubectl("get clusterrole konductor-controller").run().await.exits_with(1).complains("not found");
    assert_eq!(status().await, held);
    team.delete_request(&first).await;
    assert_eq!(status().await, held, "nobody is there to see that");

    // And it goes on where it was.
    does("install with helm").await;
    // The service account is another one of the same name.
    let known = plane.directory().join("users/konductor-system.konductor-controller.kubeconfig");
    std::fs::remove_file(&known).expect("it was there");
    let controller = Controller::start(&plane, alone()).await;
    let token = holds(&team, &second).await.token;
    checker::check(&plane.history(&team).await).expect("never two holders");

    // The CRDs take everything with them. What is made anew begins above what was.
    does("uninstall with helm").await;
    controller.terminate().await;
    does("save leases").await;
    does("delete the crds").await;
    eventually("the leases are gone", async || {
        let output = plane.kubectl("get kl -A").run().await;
        let unknown = ["doesn't have a resource type", "could not find the requested resource"];
        let gone = output.code != 0 && unknown.iter().any(|said| output.stderr.contains(said));
        if gone { Ok(()) } else { Err(output) }
    })
    .await;
    does("install with helm").await;
    eventually("the specs are back", async || {
        let output = plane.script(&checkout, &block("restore leases")).run().await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    std::fs::remove_file(&known).expect("it was there");
    let _controller = Controller::start(&plane, alone()).await;
    let anew =
        team.lease_is("demo", "free", |l| l.phase() == LeasePhase::Available && l.condition("Ready").is_some()).await;
    assert_eq!(anew.spec.ttl, "10m");
    assert_eq!(
        team.requests().list(&Default::default()).await.expect("a list").items.len(),
        0,
        "requests are not kept"
    );
    let (_, again) = hold(&team, "demo", "third").await;
    assert!(again.token > token, "fencing tokens go on rising: {} after {token}", again.token);
}
