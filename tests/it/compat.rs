//! The promises of docs/compatibility.md, held against what earlier versions said: see tests/compat/README.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use konductor_tests::*;
use konductor_workbench::{Host, fixture, load};
use serde_json::{Map, Value, json};

use crate::lifecycle::{hold, wait_for};

/// Every version that made promises, oldest first.
fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repo::path("tests/compat")).expect("there is one");
    let mut versions: Vec<_> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    versions.sort();
    assert!(!versions.is_empty());
    versions
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("YAML")
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Which way a schema is used.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Others write it: what was valid must stay valid.
    Written,
    /// Others read it: what was there must stay there.
    Read,
}

/// A schema as a comparison needs it: `$ref` followed, a type that may be null as that type.
fn plain<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a local reference");
        return plain(root.pointer(pointer).unwrap_or_else(|| panic!("no {name}")), root);
    }
    let some = schema["anyOf"].as_array().and_then(|all| all.iter().find(|s| s["type"] != "null"));
    some.map_or(schema, |some| plain(some, root))
}

/// The values that a schema names, if it names them: `enum`, or `oneOf` constants.
fn named(schema: &Value) -> Option<BTreeSet<String>> {
    let all = schema["enum"].as_array().cloned().or_else(|| {
        let all = schema["oneOf"].as_array()?;
        all.iter().map(|one| one.get("const").cloned()).collect()
    })?;
    Some(all.iter().filter(|value| !value.is_null()).map(Value::to_string).collect())
}

/// What a new schema takes away from an old one.
fn taken(side: Side, old: (&Value, &Value), new: (&Value, &Value), at: &str) -> Vec<String> {
    let (old, new) = ((plain(old.0, old.1), old.1), (plain(new.0, new.1), new.1));
    let mut found = Vec::new();
    let types = |schema: &Value| -> BTreeSet<String> {
        let listed = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
        listed.iter().filter(|t| !t.is_null() && *t != "null").map(Value::to_string).collect()
    };
    if types(old.0) != types(new.0) {
        found.push(format!("{at}: the type was {:?} and is {:?}", types(old.0), types(new.0)));
    }
    if let Some(before) = named(old.0) {
        // Who reads has to bear new values; who writes must not lose one.
        match named(new.0) {
            Some(now) => found.extend(before.difference(&now).map(|lost| format!("{at}: {lost} is gone"))),
            None if side == Side::Read => found.push(format!("{at}: its values are not named any more")),
            None => {}
        }
    } else if named(new.0).is_some() && side == Side::Written {
        found.push(format!("{at}: only some values are allowed now"));
    }
    if side == Side::Written {
        for (limit, lower) in [
            ("maxLength", false),
            ("maxItems", false),
            ("maxProperties", false),
            ("maximum", false),
            ("minLength", true),
            ("minItems", true),
            ("minimum", true),
        ] {
            let [before, now] = [old.0, new.0].map(|schema| schema[limit].as_f64());
            let tighter = match (before, now) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(before), Some(now)) => {
                    if lower {
                        now > before
                    } else {
                        now < before
                    }
                }
            };
            if tighter {
                found.push(format!("{at}: {limit} was {before:?} and is {now:?}"));
            }
        }
        for rule in ["pattern", "format"] {
            if !new.0[rule].is_null() && new.0[rule] != old.0[rule] {
                found.push(format!("{at}: {rule} was {} and is {}", old.0[rule], new.0[rule]));
            }
        }
        let rules = |schema: &Value| -> BTreeSet<String> {
            let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
            rules.iter().map(|rule| rule["rule"].to_string()).collect()
        };
        found.extend(rules(new.0).difference(&rules(old.0)).map(|rule| format!("{at}: a new rule, {rule}")));
    }
    let required = |schema: &Value| -> BTreeSet<String> {
        schema["required"].as_array().into_iter().flatten().map(Value::to_string).collect()
    };
    let (before, now) = (required(old.0), required(new.0));
    let stricter = if side == Side::Written { now.difference(&before) } else { before.difference(&now) };
    found.extend(stricter.map(|name| format!("{at}: whether {name} is required has changed")));
    let properties = |schema: &Value| schema["properties"].as_object().cloned().unwrap_or_default();
    for (name, before) in &properties(old.0) {
        match properties(new.0).get(name) {
            None => found.push(format!("{at}.{name} is gone")),
            Some(now) => found.extend(taken(side, (before, old.1), (now, new.1), &format!("{at}.{name}"))),
        }
    }
    for inner in ["items", "additionalProperties"] {
        if old.0[inner].is_object() {
            found.extend(taken(side, (&old.0[inner], old.1), (&new.0[inner], new.1), &format!("{at}[]")));
        }
    }
    found
}

/// What a new CustomResourceDefinition takes away from an old one.
fn taken_of_crd(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for pointer in ["/metadata/name", "/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural"] {
        if old.pointer(pointer) != new.pointer(pointer) {
            found.push(format!("{pointer} has changed"));
        }
    }
    let list = |crd: &Value, pointer: &str| -> BTreeSet<String> {
        crd.pointer(pointer).and_then(Value::as_array).into_iter().flatten().map(Value::to_string).collect()
    };
    for pointer in ["/spec/names/shortNames", "/spec/names/categories"] {
        found.extend(
            list(old, pointer).difference(&list(new, pointer)).map(|lost| format!("{pointer}: {lost} is gone")),
        );
    }
    for old in old["spec"]["versions"].as_array().expect("versions") {
        let versions = new["spec"]["versions"].as_array().expect("versions");
        let Some(new) = versions.iter().find(|new| new["name"] == old["name"] && new["served"] == true) else {
            found.push(format!("version {} is not served", old["name"]));
            continue;
        };
        if old["subresources"] != new["subresources"] {
            found.push("the subresources have changed".to_owned());
        }
        let columns = |version: &Value| -> BTreeMap<String, String> {
            let columns = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
            columns.iter().map(|column| (column["name"].to_string(), column["jsonPath"].to_string())).collect()
        };
        for (column, path) in columns(old) {
            if columns(new).get(&column) != Some(&path) {
                found.push(format!("the column {column} has changed"));
            }
        }
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        let (before, now) = (schema(old), schema(new));
        // A manifest is written, and its status is read. What is written to a status comes from the controller.
        for (side, part) in [(Side::Written, "spec"), (Side::Read, "spec"), (Side::Read, "status")] {
            let [before, now] = [&before, &now].map(|schema| &schema["properties"][part]);
            let loses = taken(side, (before, before), (now, now), part);
            // Whether a member is required is the writer's matter here: an object that is read may lack what is optional.
            found.extend(loses.into_iter().filter(|lost| side == Side::Written || !lost.contains("is required")));
        }
    }
    found
}

#[test]
fn manifests_and_clients_of_earlier_versions_are_served() {
    for version in versions() {
        for name in ["lease.yaml", "leaserequest.yaml"] {
            let (old, new) = (yaml(&read(version.join(name))), yaml(&repo::text(&format!("crds/{name}"))));
            assert_eq!(taken_of_crd(&old, &new), [""; 0], "{name} since {}", version.display());
        }
    }
}

#[test]
fn the_comparison_sees_what_is_taken_away() {
    let crd = yaml(&repo::text("crds/lease.yaml"));
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let changed = |pointer: &str, change: &dyn Fn(&mut Value)| {
        let mut new = crd.clone();
        change(new.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")));
        taken_of_crd(&crd, &new).join("; ")
    };
    let spec = format!("{schema}/spec/properties");
    let remove =
        |name: &'static str| move |value: &mut Value| drop(value.as_object_mut().expect("an object").remove(name));
    assert_eq!(changed("", &|_| {}), "");
    assert_eq!(changed("", &|new| new["spec"]["names"]["kind"] = json!("L")), "/spec/names/kind has changed");
    assert!(changed("/spec/names/shortNames", &|new| *new = json!([])).contains("is gone"));
    assert!(changed("/spec/versions/0/served", &|new| *new = json!(false)).contains("not served"));
    assert!(changed(&spec, &remove("priority")).contains("spec.priority is gone"));
    assert!(
        changed(&format!("{schema}/status/properties"), &remove("fencingToken"))
            .contains("status.fencingToken is gone")
    );
    assert!(changed(&format!("{spec}/priority/type"), &|new| *new = json!("string")).contains("the type was"));
    assert!(changed(&format!("{spec}/ttl"), &|new| new["maxLength"] = json!(1)).contains("maxLength"));
    assert!(
        changed(&format!("{schema}/spec/required"), &|new| *new = json!(["ttl", "priority"])).contains("is required")
    );
    assert!(
        changed(&format!("{schema}/status/properties/phase/enum"), &|new| *new = json!(["Held"])).contains("is gone")
    );
    // What is added takes nothing away.
    assert_eq!(changed(&spec, &|new| new["more"] = json!({"type": "string"})), "");
}

#[test]
fn a_host_sends_what_it_sent_and_accepts_what_it_accepted() {
    for version in versions() {
        for (name, side) in [("input", Side::Read), ("output", Side::Written), ("describe", Side::Written)] {
            let file = format!("{name}.schema.json");
            let old: Value = serde_json::from_str(&read(version.join(&file))).expect("JSON");
            let new: Value = serde_json::from_str(&repo::text(&format!("policies/abi/schema/{file}"))).expect("JSON");
            assert_eq!(taken(side, (&old, &old), (&new, &new), name), [""; 0], "since {}", version.display());
        }
    }
}

#[test]
fn a_module_of_an_earlier_version_decides_as_it_did() {
    let host = Host::new().expect("a sandbox");
    let mut cases = 0;
    for version in versions() {
        for entry in std::fs::read_dir(&version).expect("readable") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let Some(stem) = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".wasm") else { continue };
            let policy =
                load(&host, &std::fs::read(&path).expect("readable")).unwrap_or_else(|e| panic!("{name}: {e}"));
            for case in fixture::parse(&read(version.join(format!("{stem}.yaml")))).expect("fixtures") {
                let failures = fixture::run(&case, &policy).failures;
                assert!(failures.is_empty(), "{name}: {}: {failures:?}", case.name);
                cases += 1;
            }
        }
    }
    assert!(cases > 20, "{cases}");
}

/// The members of a JSON value and their types, by path; the members of all items of a list together.
fn shape(value: &Value, path: &str, into: &mut Map<String, Value>) {
    let kind = match value {
        Value::Null => return,
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), into));
            "array"
        }
        Value::Object(members) => {
            // The names of labels and of figures are data.
            let data = ["labels", "annotations", "figures", "unjudged", "endings", "params"];
            for (name, member) in members.iter().filter(|_| !data.iter().any(|data| path.ends_with(data))) {
                shape(member, &format!("{path}.{name}"), into);
            }
            "object"
        }
    };
    into.insert(path.to_owned(), json!(kind));
}

/// `-o json` of the commands that scripts read: what was there is there, with its type.
#[tokio::test]
async fn koncli_prints_the_json_that_scripts_rely_on() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user", "konductor-policy-author"]).await;
    policies::upload(&team, "p", "policy.wasm", &policies::always("{}")).await;
    team.create_lease("x", "10m").await;
    team.create_lease_with("q", json!({"ttl": "10m", "policy": {"name": "p"}})).await;
    let (request, _) = hold(&team, "x", "first").await;
    team.delete_request(&request).await;
    team.lease_is("x", "free", |lease| lease.holder().is_none_or(str::is_empty)).await;

    team.create_lease("r", "1m").await;
    user.koncli("lease run r --once v1 --holder me -- true").run().await.succeeds();
    let module = plane.directory().join("module.wasm");
    std::fs::write(&module, policies::always("{}")).expect("written");

    let recording = plane.directory().join("x.jsonl");
    let mut now = Map::new();
    for (name, words) in [
        ("version", "version"),
        ("lease acquire", "lease acquire x --holder me"),
        ("lease renew", "lease renew x --holder me"),
        ("lease status", "lease status x"),
        ("lease list", "lease list"),
        ("lease history", "lease history x"),
        ("lease watch", "lease watch x --for 1ms"),
        ("lease once list", "lease once list r"),
        ("lease once clear", "lease once clear r v1"),
        ("man", "man manual"),
        ("policy inspect", "policy inspect module.wasm"),
        ("policy upload", "policy upload up module.wasm --no-check"),
        ("policy delete", "policy delete up"),
        ("lease explain", "lease explain x --holder other"),
        ("lease create", "lease create new --ttl 1m"),
        ("lease delete", "lease delete new"),
        ("policy list", "policy list"),
        ("policy status", "policy status p"),
        ("lease release", "lease release x --holder me"),
    ] {
        if name == "lease explain" {
            wait_for(&team, crate::lifecycle::ask("x", "waiter")).await;
        }
        let output = user.koncli(&format!("{words} -o json")).run().await.succeeds();
        let mut members = Map::new();
        shape(&output.json(), "", &mut members);
        // What Kubernetes itself keeps is its own promise.
        members.retain(|path, _| !path.contains(".metadata.managedFields"));
        now.insert(name.to_owned(), Value::Object(members));
    }
    user.koncli("lease record --for 1ms --file").arg(&recording).run().await.succeeds();
    let verified = user.koncli("lease verify -o json").arg(&recording).run().await.succeeds();
    let mut members = Map::new();
    shape(&verified.json(), "", &mut members);
    now.insert("lease verify".to_owned(), Value::Object(members));

    if std::env::var_os("REWRITE").is_some() {
        let newest = versions().pop().expect("one").join("koncli.json");
        std::fs::write(newest, serde_json::to_string_pretty(&now).expect("JSON") + "\n").expect("written");
    }
    for version in versions() {
        let old: Map<String, Value> = serde_json::from_str(&read(version.join("koncli.json"))).expect("JSON");
        assert!(old.len() >= 13, "{}", old.len());
        for (command, members) in &old {
            for (path, kind) in members.as_object().expect("members") {
                assert_eq!(now[command].get(path), Some(kind), "{command} -o json since {}: {path}", version.display());
            }
        }
    }
}
