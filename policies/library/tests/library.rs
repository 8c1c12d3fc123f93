//! Every policy of the library, as it is built for users, in the sandbox: its fixtures, its scenario, what it says of
//! itself, and input that was made to break it.

use std::{fs, path::Path, sync::Arc};

use konductor_policy::{Fault, Host, Policy};
use konductor_policy_abi::limits::{INPUT_MAX, REQUESTS_MAX};
use konductor_policy_library::{Language, Module, build_all, build_one};
use konductor_workbench::{fixture, scenario};
use serde_json::{Value, json};

#[path = "../../../tests/src/markdown.rs"]
mod markdown;
#[path = "../../sdk/tests/json/texts.rs"]
mod texts;

/// What fits a ConfigMap several times over, and an Event's reader's patience.
const SIZE_MAX: usize = 256 * 1024;

struct Loaded {
    module: Module,
    policy: Arc<Policy>,
}

impl Loaded {
    fn name(&self) -> &str {
        &self.module.policy.name
    }

    fn text(&self, file: &str) -> String {
        let path = self.module.policy.directory.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Params with which it can be asked anything: those of the Lease in its README where it needs some.
    fn params(&self) -> Value {
        if self.policy.validate("{}") == Ok(Vec::new()) { json!({}) } else { self.example()["params"].clone() }
    }

    /// `spec.policy` of the Lease in its README.
    fn example(&self) -> Value {
        let readme = self.text("README.md");
        let lease = markdown::blocks(&readme)
            .into_iter()
            .find(|block| block.info == "yaml" && block.text.contains("kind: Lease"))
            .unwrap_or_else(|| panic!("{}: its README has no Lease", self.name()));
        let lease: Value = serde_yaml::from_str(&lease.text).unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        let mut policy = lease["spec"]["policy"].clone();
        if policy["params"].is_null() {
            policy["params"] = json!({});
        }
        policy
    }
}

fn library(host: &Host) -> Vec<Loaded> {
    let modules = build_all().unwrap_or_else(|problem| panic!("{problem}"));
    let load = |module: Module| {
        let policy = host.load(&module.bytes).unwrap_or_else(|rejection| panic!("{}: {rejection}", module.policy.name));
        Loaded { module, policy }
    };
    modules.into_iter().map(load).collect()
}

fn host() -> Host {
    Host::new().expect("a host")
}

/// The fixtures of a file that fail, in words; and how many there are.
fn failures(policy: &Policy, file: &Path) -> (usize, Vec<String>) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let cases = fixture::parse(&text).unwrap_or_else(|mistake| panic!("{}: {mistake}", file.display()));
    let failed = cases.iter().filter_map(|case| {
        let outcome = fixture::run(case, policy);
        let said = || format!("{}: {}\n    {}", file.display(), case.name, outcome.failures.join("\n    "));
        (!outcome.passed()).then(said)
    });
    (cases.len(), failed.collect())
}

#[test]
fn every_fixture_passes() {
    let host = host();
    let frame = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/frame.yaml");
    let mut failed = Vec::new();
    for one in library(&host) {
        let fixtures = fs::read_dir(one.module.policy.directory.join("fixtures")).expect("fixtures");
        let mut files: Vec<_> = fixtures.map(|entry| entry.expect("a file").path()).collect();
        if one.params() == json!({}) {
            files.push(frame.clone());
        }
        let mut count = 0;
        for file in files {
            let (cases, broken) = failures(&one.policy, &file);
            count += cases;
            failed.extend(broken.into_iter().map(|broken| format!("{}: {broken}", one.name())));
        }
        assert!(count > 20, "{}: only {count} cases were read", one.name());
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn every_simulation_ends_as_it_says() {
    let host = host();
    for one in library(&host) {
        let text = one.text("simulation.yaml");
        assert!(text.contains("\nexpect:\n  "), "{}: its simulation expects nothing", one.name());
        let scenario = scenario::parse(&text).unwrap_or_else(|mistake| panic!("{}: {mistake}", one.name()));
        let story = scenario::play(&scenario, &host, one.policy.clone())
            .unwrap_or_else(|broken| panic!("{}: {broken}", one.name()));
        let differences = story.differences(&scenario);
        assert!(differences.is_empty(), "{}:\n{}\n{}", one.name(), differences.join("\n"), story.timeline());
    }
}

#[test]
fn every_policy_is_what_its_page_says() {
    let host = host();
    let all = library(&host);
    for language in [Language::Rust, Language::C, Language::Zig, Language::AssemblyScript] {
        assert!(all.iter().any(|one| one.module.policy.language == language), "none is in {language}");
    }
    let index = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    for one in &all {
        let name = one.name();
        assert!(one.module.bytes.len() <= SIZE_MAX, "{name}: {} bytes", one.module.bytes.len());
        let said = one.policy.describe().unwrap_or_else(|| panic!("{name}: it does not describe itself"));
        assert_eq!((said.name.as_str(), said.version.as_str()), (name, env!("CARGO_PKG_VERSION")));
        assert!(said.description.ends_with('.'), "{name}: {}", said.description);
        let schema: Value = serde_json::from_str(&one.text("params.schema.json")).expect("a schema");
        assert_eq!(said.params_schema.as_ref(), Some(&schema), "{name}");

        // Its page tells of each param, and so does the sentence about one that there is not.
        let readme = one.text("README.md");
        let errors = one.policy.validate(r#"{"no such": 1}"#).expect("errors");
        for (param, property) in schema["properties"].as_object().expect("properties") {
            assert!(readme.contains(&format!("| `{param}` |")), "{name}: README.md has no row for {param}");
            assert!(errors.iter().any(|error| error.contains(param)), "{name}: {errors:?} has no {param}");
            assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {param}");
            // The default that the schema names is one that is accepted.
            if let Some(default) = property.get("default")
                && one.params() == json!({})
                && (name, param.as_str()) != ("quota", "label")
            {
                assert_eq!(one.policy.validate(&json!({param: default}).to_string()), Ok(vec![]), "{name}: {param}");
            }
        }
        let example = one.example();
        if name != "default" {
            assert_eq!(example["name"], json!(name));
            assert!(index.contains(&format!("[{name}]({name}/README.md)")), "the library's README has no {name}");
        }
        assert_eq!(one.policy.validate(&example["params"].to_string()), Ok(vec![]), "{name}: its example");
    }
}

/// A digest says the same thing wherever it is read: the module of `make policies` is the one that the controller has.
#[test]
fn the_default_policy_is_the_built_in_one() {
    let built = build_one("default").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(built.digest(), host().builtin().digest());
}

#[test]
fn a_policy_that_is_not_there_is_named_with_those_that_are() {
    let problem = build_one("newest").expect_err("there is none");
    assert!(problem.contains("no policy \"newest\"") && problem.contains("newest-first"), "{problem}");
}

/// The input with everything in it that the host sends.
fn whole(one: &Loaded, requests: &[Value]) -> Value {
    json!({
        "now": 1_767_225_600_000_i64, "cause": "release",
        "lease": {"name": "l", "namespace": "n", "uid": "u", "ttlMs": 60_000, "priority": 0, "renewable": true, "labels": {}},
        "params": one.params(), "hold": null, "requests": requests, "waiting": requests.len(),
        "history": [{"holder": "h", "token": 3, "acquired": 0, "ended": 60_000, "how": "Released"}], "state": "",
    })
}

fn request(holder: &str, labels: &Value) -> Value {
    json!({"holder": holder, "priority": 1, "ttlMs": 60_000, "arrived": 1_767_225_590_000_i64, "labels": labels})
}

#[test]
fn the_largest_input_is_answered_within_the_fuel() {
    let host = host();
    for one in library(&host) {
        // Every character an escape, which is the slow way to read a text, and names that differ only at their ends.
        let holder = |i: usize| format!("{}-{i:04}", "\u{1}\"\\é".repeat(8));
        let labels = json!({"team": "\"\\\n😀".repeat(12), "other": "\\".repeat(20)});
        let requests: Vec<_> = (0..REQUESTS_MAX).map(|i| request(&holder(i), &labels)).collect();
        let mut input = whole(&one, &requests);
        // What is left is filled with what nobody knows.
        input["added later"] = json!([[[["\\"]]], {"a": {"b": null}}, 1.5e-3]);
        let room = INPUT_MAX - input.to_string().len();
        input["padding"] = json!("\"".repeat(room / 2 - 16));
        let bytes = input.to_string();
        assert!(bytes.len() <= INPUT_MAX && bytes.len() > INPUT_MAX - 64, "{}", bytes.len());
        let answer = one.policy.answer(bytes.as_bytes()).unwrap_or_else(|fault| panic!("{}: {fault}", one.name()));
        let decision = Policy::read(&answer.output).unwrap_or_else(|fault| panic!("{}: {fault}", one.name()));
        let outside = one.name() == "change-window" && decision.wake_in.is_some();
        assert!(decision.grant.is_some() || outside, "{}: {decision:?}", one.name());
        println!("{:<16} {:>9} fuel  {:>8} bytes of memory", one.name(), answer.fuel, answer.memory);
    }
}

#[test]
fn what_is_json_is_read_and_what_is_not_traps() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
    let host = host();
    for one in library(&host) {
        let around = |member: &str| {
            let input = whole(&one, &[request("a", &json!({}))]).to_string();
            format!("{},\"added later\":{member}}}", input.strip_suffix('}').expect("an object"))
        };
        for text in texts::GOOD.iter().copied().chain([&*deep, &*deep_objects]) {
            let answer = one.policy.answer(around(text).as_bytes());
            assert!(answer.is_ok(), "{}: {text}: {answer:?}", one.name());
        }
        for text in texts::BAD {
            let answer = one.policy.answer(around(text).as_bytes());
            assert!(matches!(answer, Err(Fault::Trap { .. })), "{}: {text}: {answer:?}", one.name());
        }
        for text in ["", "[]", "7", "null", "{} {}"] {
            let answer = one.policy.answer(text.as_bytes());
            assert!(matches!(answer, Err(Fault::Trap { .. })), "{}: {text}: {answer:?}", one.name());
        }
        // However deep: it is read or it traps, and the stack holds.
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let answer = one.policy.answer(around(&deep).as_bytes());
        assert!(matches!(answer, Ok(_) | Err(Fault::Trap { .. })), "{}: {answer:?}", one.name());
    }
}

/// An input that is cut off anywhere, or with any byte replaced, never makes a policy hang, overflow its stack or answer
/// what the host cannot read.
#[test]
fn a_damaged_input_ends_in_an_answer_or_a_trap() {
    let host = host();
    for one in library(&host) {
        let labels = json!({"team": "x\"y", "é": "\u{7}"});
        let mut input = whole(&one, &[request("a-1", &labels), request("b-1", &labels)]);
        input["hold"] = json!({"holder": "h", "priority": 0, "ttlMs": 1, "acquired": 5, "due": true, "token": 4, "preemption": null});
        let bytes = input.to_string().into_bytes();
        let (mut answers, mut traps) = (0, 0);
        let mut check = |damaged: &[u8]| match one.policy.answer(damaged) {
            Ok(answer) => {
                answers += 1;
                let json: Result<Value, _> = serde_json::from_slice(&answer.output);
                // What comes back may be a name that is not UTF-8 any more: then so is the answer. The host vouches.
                assert!(json.is_ok() || std::str::from_utf8(damaged).is_err(), "{}: {json:?}", one.name());
            }
            Err(Fault::Trap { .. }) => traps += 1,
            Err(other) => panic!("{}: {other}: {}", one.name(), String::from_utf8_lossy(damaged)),
        };
        for place in 0..bytes.len() {
            check(&bytes[..place]);
            for byte in [b'"', b'\\', b'{', b'9', b'-', 0, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] = byte;
                check(&damaged);
            }
        }
        assert!(answers > 100 && traps > 1000, "{}: {answers} answers, {traps} traps", one.name());
    }
}
