//! What the shape of the repository promises.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use konductor_tests::repo;
use serde_json::Value;

fn packages() -> Vec<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(repo::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// The names of what a package is built with, tests aside.
fn dependencies(package: &str) -> Vec<String> {
    let packages = packages();
    let package = packages.iter().find(|p| p["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
    let all = package["dependencies"].as_array().expect("dependencies");
    all.iter().filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn the_rules_depend_on_nothing() {
    assert_eq!(dependencies("konductor-core"), [""; 0], "core: no clock, no I/O, no kube, no tokio, no wasmtime");
}

#[test]
fn the_policy_host_knows_neither_kubernetes_nor_tokio() {
    for dependency in dependencies("konductor-policy") {
        for stranger in ["kube", "k8s-openapi", "tokio", "konductor-crds"] {
            assert!(dependency != stranger, "konductor-policy depends on {dependency}");
        }
    }
}

#[test]
fn the_workbench_opens_nothing_and_starts_nothing() {
    for dependency in dependencies("konductor-workbench") {
        for stranger in ["kube", "k8s-openapi", "tokio", "koncli", "konductor-controller"] {
            assert!(dependency != stranger, "konductor-workbench depends on {dependency}");
        }
    }
    let mut sources = Vec::new();
    files(&repo::path("policies/workbench/src"), &mut sources);
    assert!(sources.len() > 15, "{} sources", sources.len());
    for source in sources {
        let text = std::fs::read_to_string(&source).expect("readable");
        for stranger in ["std::fs", "std::net", "std::process", "std::thread", "Instant::now", "SystemTime::now"] {
            assert!(!text.contains(stranger), "{} uses {stranger}", source.display());
        }
    }
}

#[test]
fn the_judge_of_histories_shares_nothing_with_what_it_judges() {
    assert_eq!(dependencies("konductor-verify"), ["konductor-crds", "serde", "serde_json"]);
    let mut sources = Vec::new();
    files(&repo::path("koncli/verify/src"), &mut sources);
    assert!(sources.len() > 6, "{} sources", sources.len());
    for source in sources {
        let text = std::fs::read_to_string(&source).expect("readable");
        for stranger in ["std::fs", "std::io", "std::net", "std::process", "Instant::now", "SystemTime::now"] {
            assert!(!text.contains(stranger), "{} uses {stranger}", source.display());
        }
    }
}

/// docs/operators.md shows the audit policy that `koncli lease verify` prints.
#[test]
fn the_audit_policy_of_the_book_is_the_one_that_is_shipped() {
    let shipped: Value = serde_yaml::from_str(konductor_verify::audit::POLICY).expect("YAML");
    let page = repo::text("docs/operators.md");
    let blocks = konductor_tests::markdown::blocks(&page);
    let shown: Vec<Value> = blocks
        .iter()
        .filter(|block| block.text.contains("audit.k8s.io"))
        .map(|block| serde_yaml::from_str(&block.text).expect("YAML"))
        .collect();
    assert_eq!(shown, [shipped]);
}

/// Every file below a directory, without what is built and what git keeps for itself.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable")) {
        let name = entry.file_name();
        if ["target", ".git", ".konductor", "node_modules"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type().expect("a type").is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Follows `mod x;` from a file, and what is included.
fn follow(file: &Path, root_of_crate: bool, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_path_buf()) {
        return;
    }
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let here = file.parent().expect("a directory");
    let stem = file.file_stem().expect("a name");
    let below = if root_of_crate || stem == "mod" { here.to_path_buf() } else { here.join(stem) };
    let mut path_attribute = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.split('"').next()) {
            path_attribute = Some(here.join(path));
            continue;
        }
        if let Some(included) = line.split("include_str!(\"").nth(1).or_else(|| line.split("include!(\"").nth(1)) {
            let path = here.join(included.split('"').next().unwrap_or_default());
            if let Ok(path) = path.canonicalize() {
                reached.insert(path);
            }
        }
        let declaration = line.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        let Some(name) = declaration.and_then(|(_, rest)| rest.strip_suffix(';')) else { continue };
        let candidates = match path_attribute.take() {
            Some(path) => vec![path],
            None => vec![below.join(format!("{name}.rs")), below.join(name).join("mod.rs")],
        };
        if let Some(next) = candidates.iter().find(|candidate| candidate.is_file()) {
            follow(next, false, reached);
        }
    }
}

#[test]
fn every_source_file_belongs_to_a_crate() {
    let mut reached = BTreeSet::new();
    for package in packages() {
        for target in package["targets"].as_array().expect("targets") {
            follow(Path::new(target["src_path"].as_str().expect("a path")), true, &mut reached);
        }
    }
    let mut all = Vec::new();
    files(repo::root(), &mut all);
    let dead: Vec<_> = all
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs") && !reached.contains(*file))
        .filter_map(|file| file.strip_prefix(repo::root()).ok())
        .collect();
    assert!(dead.is_empty(), "no crate uses {dead:?}");
}

/// What a Markdown text names as paths of this repository: links, and `code` that begins with a directory of ours.
fn named_paths(text: &str, top: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("](").skip(1) {
        let link = part.split([')', '#', ' ']).next().unwrap_or_default();
        if !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:") {
            found.insert(link.to_owned());
        }
    }
    for code in text.split('`').skip(1).step_by(2) {
        let first = code.split('/').next().unwrap_or_default();
        let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
        if plain && top.contains(first) && (code.contains('/') || code.contains('.')) {
            found.insert(code.to_owned());
        }
    }
    found
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let top: BTreeSet<String> = std::fs::read_dir(repo::root())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    let mut all = Vec::new();
    files(repo::root(), &mut all);
    let documents = all.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    let mut seen = 0;
    let mut missing = Vec::new();
    // The fixtures are pages of another place.
    for document in documents.filter(|document| !document.starts_with(repo::path("tests/fixtures"))) {
        let text = std::fs::read_to_string(document).expect("readable");
        for path in named_paths(&text, &top) {
            seen += 1;
            // Of `crds/*.yaml`, the directory.
            let real = path.split('*').next().unwrap_or_default();
            let real =
                if real.len() < path.len() { real.rsplit_once('/').map_or("", |(before, _)| before) } else { real };
            let beside = document.parent().expect("a directory");
            if !repo::path(real).exists() && !beside.join(real).exists() {
                missing.push(format!("{}: {path}", document.strip_prefix(repo::root()).expect("inside").display()));
            }
        }
    }
    assert!(repo::path("ARCHITECTURE.md").exists() && seen > 10, "{seen} paths are named");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn tests_wait_for_conditions_and_never_for_time() {
    let mut all = Vec::new();
    files(&repo::path("tests/it"), &mut all);
    files(&repo::path("tests/src"), &mut all);
    let pause = ["sleep", "("].concat();
    for file in all.iter().filter(|file| !file.ends_with("tests/src/wait.rs")) {
        let text = std::fs::read_to_string(file).expect("readable");
        assert!(!text.contains(&pause), "{} sleeps; wait for a condition with eventually()", file.display());
    }
}
