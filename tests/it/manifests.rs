//! What users and operators apply: the manifests of the Lease API's page, of `crds/` and of `deploy/`.

use std::path::Path;

use futures::{StreamExt as _, stream};
use konductor_tests::{manifests::Manifest, *};
use kube::api::PostParams;
use serde_json::{Value, json};

/// Every document of every YAML block of the Lease API's page, as it is printed there.
fn printed() -> Vec<Manifest> {
    let page = repo::text("tests/fixtures/lease-api.md");
    let objects = |block: String| manifests::objects(&block, Path::new("lease-api.md")).expect("YAML");
    manifests::fenced(&page, "yaml").into_iter().flat_map(objects).collect()
}

/// What cannot be applied as it is printed, on any Kubernetes: a Job's Pods need a restartPolicy. And a CronJob is
/// batch/v1 since Kubernetes 1.21.
pub(crate) fn completed(mut manifest: Manifest, version: Version) -> Manifest {
    let template = match manifest.object["kind"].as_str() {
        Some("Job") => "/spec/template/spec",
        Some("CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => return manifest,
    };
    let pod = manifest.object.pointer_mut(template).expect("a Pod template");
    pod["restartPolicy"] = json!("OnFailure");
    if version < Version(1, 21) && manifest.object["kind"] == "CronJob" {
        manifest.object["apiVersion"] = json!("batch/v1beta1");
    }
    manifest
}

fn write(plane: &ControlPlane, name: &str, manifest: &Manifest) -> String {
    let path = plane.directory().join(name);
    std::fs::write(&path, serde_yaml::to_string(&manifest.object).expect("YAML")).expect("written");
    path.display().to_string()
}

#[tokio::test]
async fn every_printed_manifest_applies() {
    let plane = ControlPlane::installed().await;
    plane.namespace("default").await;
    let printed = printed();
    let count = |kind: &str| printed.iter().filter(|manifest| manifest.object["kind"] == kind).count();
    assert_eq!(
        (count("Lease"), count("Job"), count("CronJob"), printed.len()),
        (8, 1, 1, 10),
        "of the page's examples"
    );

    for (number, manifest) in printed.iter().enumerate() {
        let title = manifest.title();
        let as_printed = write(&plane, &format!("{number}.yaml"), manifest);
        let applied = plane.kubectl("apply -f").arg(&as_printed).run().await;
        if manifest.object["kind"] == "Lease" {
            applied.succeeds().prints("lease.konductor.io/");
            continue;
        }
        // Whoever tries gets told by Kubernetes; this test only makes sure that it is about nothing else.
        let refused = applied.exits_with(1);
        let known = refused.stderr.contains("restartPolicy: Required value")
            || refused.stderr.contains("no matches for kind \"CronJob\" in version \"batch/v1\"");
        assert!(known, "{title}: {refused}");
        let completed =
            write(&plane, &format!("{number}-completed.yaml"), &completed(manifest.clone(), plane.version()));
        plane.kubectl("apply -f").arg(completed).run().await.succeeds();
    }

    // The status that is printed in the first example is not taken from there: only the controller writes it.
    let default = plane.namespace("default").await;
    assert_eq!(default.lease("db-migration").await.status, None);
    let columns = plane.kubectl("get kl").run().await.succeeds().stdout;
    let columns: Vec<&str> = columns.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "HOLDER", "PHASE", "TTL", "EXPIRES", "WAITING", "TOKEN", "POLICY", "AGE"]);
    let columns = plane.kubectl("get klr -o wide").run().await.succeeds();
    assert!(columns.stderr.contains("No resources found"), "{columns}");
    for name in ["leases.konductor.io", "klease", "konductor"] {
        plane.kubectl("get -o name").arg(name).run().await.succeeds().prints("lease.konductor.io/app-init");
    }
}

#[tokio::test]
async fn every_manifest_of_the_repository_is_valid() {
    let plane = ControlPlane::installed().await;
    for mut manifest in manifests::read(&repo::path("deploy")).expect("deploy/ is readable") {
        if plane.version() < Version(1, 21) && manifest.object["apiVersion"] == "policy/v1" {
            // The same object under its older name: policy/v1 is there since Kubernetes 1.21.
            manifest.object["apiVersion"] = json!("policy/v1beta1");
        }
        manifests::dry_run(plane.admin(), &manifest).await.unwrap_or_else(|problem| panic!("{problem:#}"));
    }
    // Installing twice is an upgrade, and works.
    plane.install().await;
}

/// The image is Debian's, without anything installed into it, and is made of the release that compiles for it.
#[test]
fn the_image_has_the_libraries_that_its_programs_need() {
    let dockerfile = repo::text("deploy/Dockerfile");
    let stages: Vec<&str> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages.len(), 2, "{stages:?}");
    assert!(stages.iter().all(|stage| stage.contains("bookworm")), "another glibc than it was linked with: {stages:?}");
    for program in ["konductor-controller", "koncli"] {
        let path = binary(program).expect("built");
        let output = std::process::Command::new("readelf").arg("-d").arg(&path).output().expect("the linker's readelf");
        let said = String::from_utf8_lossy(&output.stdout);
        let needed: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| line.split('[').nth(1)?.split(']').next())
            .collect();
        assert!(needed.contains(&"libc.so.6"), "{program}: {said}");
        for library in needed {
            let there =
                ["libc.so.6", "libm.so.6", "libgcc_s.so.1"].contains(&library) || library.starts_with("ld-linux");
            assert!(there, "{program} needs {library}, which debian:bookworm-slim has not");
        }
    }
}

#[tokio::test]
async fn an_invalid_spec_is_refused_by_name() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let long = "1".repeat(70);
    let leases = [
        (json!({}), "spec.ttl"),
        (json!({"ttl": 600}), "spec.ttl"),
        (json!({"ttl": format!("{long}s")}), "spec.ttl"),
        (json!({"ttl": "1m", "priority": "high"}), "spec.priority"),
        (json!({"ttl": "1m", "renewable": "no"}), "spec.renewable"),
        (json!({"ttl": "1m", "policy": {"onFailure": "Banana"}}), "spec.policy.onFailure"),
        (json!({"ttl": "1m", "policy": {"params": "x"}}), "spec.policy.params"),
    ];
    let requests = [
        (json!({"holder": "a"}), "spec.lease"),
        (json!({"lease": "x"}), "spec.holder"),
        (json!({"lease": "", "holder": "a"}), "spec.lease"),
        (json!({"lease": "x", "holder": "a".repeat(254)}), "spec.holder"),
        (json!({"lease": "x", "holder": "a", "renewals": -1}), "spec.renewals"),
        (json!({"lease": "x", "holder": "a", "renewals": "1"}), "spec.renewals"),
    ];
    // CEL rules: an extra defence since Kubernetes 1.25; before, the controller is the one to say it.
    let ruled_leases = [
        (json!({"ttl": "0s"}), "spec.ttl"),
        (json!({"ttl": "-5m"}), "spec.ttl"),
        (json!({"ttl": "banana"}), "spec.ttl"),
    ];
    let ruled_requests = [
        (json!({"lease": "x", "holder": "a b"}), "spec.holder"),
        (json!({"lease": "x", "holder": "a", "ttl": "0s"}), "spec.ttl"),
        (json!({"lease": "x", "holder": "a", "timeout": "soon"}), "spec.timeout"),
    ];
    for (ruled, kind, specs) in [
        (false, "Lease", &leases[..]),
        (false, "LeaseRequest", &requests[..]),
        (true, "Lease", &ruled_leases[..]),
        (true, "LeaseRequest", &ruled_requests[..]),
    ] {
        for (spec, field) in specs {
            let object = json!({"apiVersion": "konductor.io/v1", "kind": kind,
                "metadata": {"name": "invalid", "namespace": team.name()}, "spec": spec});
            let manifest = Manifest { file: "test".into(), object };
            match manifests::dry_run(plane.admin(), &manifest).await {
                Err(problem) => {
                    let said = format!("{problem:#}");
                    assert!(said.contains(field), "{spec} is refused, but not because of {field}: {said}");
                }
                Ok(_) => assert!(ruled && plane.version() < Version(1, 25), "{kind} {spec} is accepted"),
            }
        }
    }
    team.leases()
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"apiVersion": "konductor.io/v1",
        "kind": "Lease", "metadata": {"name": "valid"}, "spec": {"ttl": "1h30m"}}))
            .expect("a Lease"),
        )
        .await
        .expect("valid");
}

/// The paths of all fields of a schema, such as `spec.policy.onFailure`.
fn fields(schema: &Value, path: &str, found: &mut Vec<String>) {
    let inner = if schema["type"] == "array" { &schema["items"] } else { schema };
    for (name, property) in inner["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.push(path.clone());
        fields(property, &path, found);
    }
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let plane = ControlPlane::installed().await;
    let mut all = Vec::new();
    for (file, short) in [("crds/lease.yaml", "kl"), ("crds/leaserequest.yaml", "klr")] {
        let crd: Value = serde_yaml::from_str(&repo::text(file)).expect("YAML");
        fields(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], short, &mut all);
    }
    assert!(all.len() > 40 && all.contains(&"kl.spec.policy.onFailure".to_owned()), "{all:?}");
    // The server publishes what it serves a moment later.
    for short in ["kl", "klr"] {
        eventually(&format!("{short} is explained"), async || {
            let output = plane.kubectl("explain").arg(short).run().await;
            if output.code == 0 { Ok(()) } else { Err(output) }
        })
        .await;
    }
    let explained = stream::iter(all).map(async |field| {
        let output = plane.kubectl("explain").arg(&field).run().await.succeeds();
        let text = output.stdout.split_once("DESCRIPTION:").map_or("", |(_, text)| text);
        let text = text.split("FIELDS:").next().unwrap_or_default().trim();
        assert!(text.len() > 5 && text != "<empty>", "{field} is not explained\n{output}");
    });
    explained.buffer_unordered(4).collect::<Vec<_>>().await;
}
