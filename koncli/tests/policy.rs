//! The commands on a policy's module that need no cluster, as processes.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// A directory of a test's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("konductor-koncli-{name}-{}", std::process::id()));
        // What is left of a run that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    fn says(self, stderr: &str) -> Self {
        assert!(self.stderr.contains(stderr), "{stderr:?} is not in {self:#?}");
        self
    }

    #[track_caller]
    fn prints(self, stdout: &str) -> Self {
        assert!(self.stdout.contains(stdout), "{stdout:?} is not in {self:#?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

fn koncli(args: &[&str]) -> Ran {
    koncli_with("", Path::new("."), args)
}

fn koncli_with(stdin: &str, directory: &Path, args: &[&str]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_koncli"))
        .args(args)
        .current_dir(directory)
        // A command that looked for a cluster would find none.
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("koncli starts");
    // It may end before it has read everything.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("koncli ends");
    Ran {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A policy that never says anything.
fn silent() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 4) (data (i32.const 16) "{}")
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 68719476738)))"#,
    )
    .expect("WebAssembly text")
}

const CASES: &str = "
- name: the highest priority is next
  input: {requests: [{holder: a}, {holder: b, priority: 5}]}
  expect: {grant: {request: b}}
- name: a renewal is allowed
  input: {hold: {holder: a, renewalRequested: true}}
  expect: {hold: renew}
";

#[test]
fn fixtures_are_run_from_files_and_directories() {
    let scratch = Scratch::new("test");
    let first = scratch.write("1.yaml", CASES);
    scratch.write("2.yml", "- {name: nobody waits, input: {}, expect: {}}");
    fs::create_dir(scratch.0.join("3.yaml")).expect("a directory");
    scratch.write("notes.txt", "not a fixture");
    koncli(&["policy", "test", "default", path(&scratch.0)])
        .ends(0)
        .prints("ok    nobody waits")
        .prints("3 passed, 0 failed");
    let module = scratch.write("silent.wasm", silent());
    koncli(&["policy", "test", path(&module), path(&first)])
        .ends(1)
        .prints("FAIL  the highest priority is next")
        .prints("expected  request 1 (b)\n                got       none")
        .prints("0 passed, 2 failed")
        .says("2 of 2 cases failed");
    let report = koncli(&["policy", "test", path(&module), path(&first), "-o", "json"]).ends(1).json();
    assert_eq!((&report["failed"], &report["cases"][0]["name"]), (&2.into(), &"the highest priority is next".into()));
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name() {
    let scratch = Scratch::new("wrong");
    let cases = scratch.write("cases.yaml", "- {name: x, input: {requests: [{holdr: a}]}, expect: {}}");
    let empty = scratch.0.join("empty");
    fs::create_dir(&empty).expect("a directory");
    let text = scratch.write("text.wasm", "(module)");
    for (args, said) in [
        (
            ["policy", "test", "default", path(&cases)],
            "cases.yaml: case 1 \"x\", input.requests[0]: there is no member \"holdr\" here; did you mean holder?",
        ),
        (["policy", "test", "default", path(&empty)], "there is no *.yaml or *.yml in it"),
        (["policy", "test", "default", "/nonexistent.yaml"], "cannot read /nonexistent.yaml"),
        (["policy", "test", "/nonexistent.wasm", path(&cases)], "cases.yaml"),
        (["policy", "eval", "/nonexistent.wasm", "-"], "or default for the built-in policy"),
        (["policy", "simulate", "--policy=default", "/nonexistent.yaml"], "cannot read /nonexistent.yaml"),
        (["policy", "replay", "--with=default", path(&cases)], "line 1: the line is not a record"),
        (["policy", "new", "Night", "--lang=c"], "write lowercase letters"),
        (["policy", "new", "night", "--lang=go"], "wasm-merge"),
    ] {
        koncli(&args).ends(2).says(said);
    }
    koncli(&["policy", "eval", path(&text)]).ends(1).says("WebAssembly text").says("koncli policy inspect");
}

#[test]
fn a_module_is_inspected_refused_or_not() {
    let scratch = Scratch::new("inspect");
    koncli(&["policy", "inspect", "default"])
        .ends(0)
        .prints("default: a host would take it")
        .prints("imports: none")
        .prints("konductor_decide")
        .prints("it says of itself\n  default ");
    let report = koncli(&["policy", "inspect", "default", "-o", "json"]).ends(0).json();
    assert_eq!(report["accepted"], true);
    assert!(report["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{report}");
    assert_eq!(report["description"]["paramsSchema"]["additionalProperties"], false);
    let wasi = wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#).expect("text");
    let wasi = scratch.write("wasi.wasm", wasi);
    koncli(&["policy", "inspect", path(&wasi)])
        .ends(1)
        .prints("ForbiddenImports: the module imports wasi_snapshot_preview1.fd_write")
        .prints("MissingExport: the module does not export memory")
        .prints("function names  stripped")
        .says("cannot use");
}

#[test]
fn a_decision_is_made_of_a_short_input_or_of_exact_bytes() {
    let scratch = Scratch::new("eval");
    let input = "requests: [{holder: a}, {holder: b, priority: 5}]";
    let ran = koncli_with(input, Path::new("."), &["policy", "eval", "default", "-"]).ends(0);
    assert_eq!(ran.json()["grant"]["request"], 1);
    ran.says("grant: request 1 (b) for 10m").says(" fuel, ");
    koncli_with(input, Path::new("."), &["policy", "eval", "default", "-", "--params", r#"{"minHold": 1}"#])
        .ends(1)
        .says("InvalidParams: minHold");
    let bytes = r#"{"requests":[],"future":1}"#;
    koncli_with(bytes, Path::new("."), &["policy", "eval", "default", "-"]).ends(2).says("--exact");
    let file = scratch.write("input.json", bytes);
    let module = scratch.write("silent.wasm", silent());
    let raw = koncli(&["policy", "eval", path(&module), path(&file), "--exact", "--raw"]).ends(0);
    assert_eq!(raw.stdout, "{}");
}

#[test]
fn fuel_is_measured_and_limited() {
    let bench = |more: &[&str]| koncli(&[&["policy", "bench", "default", "--runs", "5"], more].concat());
    let fuel = |requests: &str| {
        bench(&["--requests", requests, "-o", "json"]).ends(0).json()["inputs"][0]["cost"]["fuel"].as_u64()
    };
    let (ten, again, more) = (fuel("10").expect("fuel"), fuel("10").expect("fuel"), fuel("50").expect("fuel"));
    assert!(ten == again && more > 2 * ten, "{ten} {again} {more}");
    bench(&["--max-fuel", &ten.to_string()]).ends(0);
    bench(&["--max-fuel", &(ten - 1).to_string()]).ends(1).says("1 more than");
    for more in ["513", "99999999999", "18446744073709551616", "-1"] {
        bench(&[&format!("--requests={more}")]).ends(2).says("--requests");
    }
    let scratch = Scratch::new("bench");
    let cases = scratch.write("cases.yaml", CASES);
    bench(&["--fixtures", path(&cases)]).ends(0).prints("a renewal is allowed");
}

/// A policy that never comes to an end.
fn endless() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 4)
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "konductor_decide") (param i32 i32) (result i64) (loop (br 0)) (unreachable)))"#,
    )
    .expect("WebAssembly text")
}

#[test]
fn what_is_not_measured_is_not_within_its_limit() {
    let scratch = Scratch::new("unmeasured");
    let module = scratch.write("endless.wasm", endless());
    let bench = |module: &str, cases: &Path, more: &[&str]| {
        koncli(&[&["policy", "bench", module, "--runs=1", "--fixtures", path(cases)], more].concat())
    };
    let cases = scratch.write("cases.yaml", CASES);
    for more in [&["--max-fuel=1000000"][..], &[]] {
        bench(path(&module), &cases, more)
            .ends(1)
            .says("2 of 2 inputs are not decided")
            .says("a renewal is allowed: FuelExhausted");
    }
    let fault = scratch.write("fault.yaml", "- {name: it never ends, input: {}, fault: FuelExhausted}");
    bench(path(&module), &fault, &[]).ends(0).says("it never ends: FuelExhausted");
    bench(path(&module), &fault, &["--max-fuel=1000000"]).ends(1).says("no decision was measured");
    let params = scratch.write("params.yaml", "- {name: no params, validate: {}, errors: []}");
    bench("default", &params, &["--max-fuel=1000000"]).ends(1).says("no decision was measured");
}

#[test]
fn a_file_that_says_a_thing_twice_is_refused() {
    let scratch = Scratch::new("twice");
    let cases = scratch.write("cases.yaml", "- {name: x, input: {}, expect: {}, input: {hold: {holder: a}}}");
    let scenario = scratch.write("scenario.yaml", "{lease: {ttl: 30s, ttl: 60s}, until: 5m, actors: [{holder: a}]}");
    let input = scratch.write("input.json", r#"{"params": {"minHold": "1m", "minHold": "2m"}}"#);
    for (args, name) in [
        (["policy", "test", "default", path(&cases)], "input"),
        (["policy", "simulate", "--policy=default", path(&scenario)], "ttl"),
        (["policy", "eval", "default", path(&input)], "minHold"),
        (["policy", "bench", "default", path(&input)], "minHold"),
    ] {
        koncli(&args).ends(2).says(&format!("the member \"{name}\" stands there twice"));
    }
}

#[test]
fn a_token_below_zero_is_refused() {
    for input in [
        "{hold: {holder: a, token: -9223372036854775808}, history: [{holder: b}]}",
        "{history: [{holder: b, token: -9223372036854775808}, {holder: c}]}",
    ] {
        koncli_with(input, Path::new("."), &["policy", "eval", "default", "-"]).ends(2).says("below zero");
    }
    koncli_with(
        "{hold: {holder: a, token: 0}, history: [{holder: b}]}",
        Path::new("."),
        &["policy", "eval", "default", "-"],
    )
    .ends(0);
}

const SCENARIO: &str = "
description: A crashed leader is replaced.
lease: {ttl: 30s}
until: 5m
actors:
- {holder: web-1, crash: 20s}
- {holder: web-2, at: 5s, work: 45s}
expect:
  holders: [web-1, web-2]
  ends: [Expired, Released]
";

#[test]
fn a_scenario_is_played_drawn_and_written_down_and_replayed() {
    let scratch = Scratch::new("simulate");
    let scenario = scratch.write("crash.yaml", SCENARIO);
    let (svg, journal) = (scratch.0.join("crash.svg"), scratch.0.join("journal.jsonl"));
    koncli(&["policy", "simulate", path(&scenario), "--svg", path(&svg), "--journal", path(&journal)])
        .ends(0)
        .prints("A crashed leader is replaced.")
        .prints("20s    crashes")
        .prints("from a crash to the next holder: longest 20s");
    assert!(fs::read_to_string(&svg).expect("drawn").contains("<title>web-1 crashes at 20s</title>"));
    koncli(&["policy", "simulate", path(&scenario), "--draw"]).ends(0).prints("▒");
    let story = koncli_with(SCENARIO, Path::new("."), &["policy", "simulate", "-", "-o", "json"]).ends(0).json();
    assert_eq!((&story["holds"][0]["how"], &story["holds"][0]["to"]), (&"Expired".into(), &40_000.into()));

    let module = scratch.write("silent.wasm", silent());
    koncli(&["policy", "simulate", path(&scenario), "--policy", path(&module)])
        .ends(1)
        .says("holders  expected  web-1, web-2");

    let count = fs::read_to_string(&journal).expect("written").lines().count();
    koncli(&["policy", "replay", path(&journal)])
        .ends(0)
        .prints(&format!("{count} decisions: {count} reproduced byte for byte, 0 differ, 0 of unknown modules"));
    koncli(&["policy", "replay", path(&journal), "--with", path(&module), "--limit", "1"])
        .ends(0)
        .prints("line 1: default/lease at 2026-01-01T00:00:00.000Z\n  was       grants web-1 for 30s")
        .prints("not listed: --limit")
        .prints("  nobody gets the lease where somebody did");
    let text = fs::read_to_string(&journal).expect("written");
    let tampered = scratch.write("tampered.jsonl", text.replacen("30000", "20000", 1));
    koncli(&["policy", "replay", path(&tampered)])
        .ends(1)
        .prints("line 1 differs")
        .says("1 decisions differ, the first in line 1");
    let unknown = scratch.write("unknown.jsonl", text.replace("sha256:", "sha256:0"));
    koncli(&["policy", "replay", path(&unknown)]).ends(1).says("name each module's file with --module");
    let wrote =
        koncli(&["policy", "simulate", path(&scenario), "--policy", path(&module), "--journal", path(&journal)]);
    wrote.ends(1);
    koncli(&["policy", "replay", path(&journal), "--module", path(&module)]).ends(0).prints("0 of unknown modules");
}

#[test]
fn what_is_not_the_modules_doing_is_counted_apart() {
    let scratch = Scratch::new("machine");
    let (scenario, journal) = (scratch.write("crash.yaml", SCENARIO), scratch.0.join("journal.jsonl"));
    koncli(&["policy", "simulate", path(&scenario), "--journal", path(&journal)]).ends(0);
    let text = fs::read_to_string(&journal).expect("written");
    let count = text.lines().count();
    let mut first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("a record");
    (first["fault"], first["output"], first["fuel"]) = ("DeadlineExceeded".into(), Value::Null, Value::Null);
    let slow = scratch.write("slow.jsonl", format!("{first}\n{text}"));
    koncli(&["policy", "replay", path(&slow)])
        .ends(0)
        .prints(&format!("{} decisions: {count} reproduced byte for byte, 0 differ", count + 1))
        .says("1 decisions cannot be made again")
        .says("line 1: recorded DeadlineExceeded");
    let report = koncli(&["policy", "replay", path(&slow), "-o", "json"]).ends(0).json();
    assert_eq!((&report["machineFailed"], &report["differing"]), (&1.into(), &0.into()));
    let cut = &text[..text.len() - 20];
    koncli_with(cut, Path::new("."), &["policy", "replay", "-"])
        .ends(0)
        .prints(&format!("{0} decisions: {0} reproduced", count - 1))
        .says(&format!("line {count}, the last one, is cut off"));
}

#[test]
fn what_is_read_is_not_written_over() {
    let scratch = Scratch::new("targets");
    let scenario = scratch.write("crash.yaml", SCENARIO);
    let module = scratch.write("silent.wasm", silent());
    std::os::unix::fs::symlink(&scenario, scratch.0.join("link.yaml")).expect("linked");
    fs::hard_link(&scenario, scratch.0.join("hard.yaml")).expect("linked");
    for (args, said) in [
        (&["--svg", "crash.yaml"][..], "the scenario is that file"),
        (&["--svg", "./crash.yaml"], "the scenario is that file"),
        (&["--journal", "link.yaml"], "the scenario is that file"),
        (&["--svg", "hard.yaml"], "the scenario is that file"),
        (&["--policy", path(&module), "--journal", "silent.wasm"], "the policy's module is that file"),
        (&["--svg", "both", "--journal", "./both"], "--svg is that file"),
        (&["--svg", "-"], "/dev/stdout"),
        (&["--journal", "-"], "/dev/stdout"),
    ] {
        let args = [&["policy", "simulate", "crash.yaml"], args].concat();
        koncli_with("", &scratch.0, &args).ends(2).says(said);
    }
    assert_eq!(fs::read_to_string(&scenario).expect("there"), SCENARIO);
    assert!(!scratch.0.join("-").exists() && !scratch.0.join("both").exists());
}

#[test]
fn what_this_machine_cannot_write_is_no_cluster_that_does_not_answer() {
    let scratch = Scratch::new("unwritable");
    let scenario = scratch.write("crash.yaml", SCENARIO);
    for flag in ["--svg", "--journal"] {
        koncli(&["policy", "simulate", path(&scenario), flag, "/nonexistent/x"]).ends(1).says("write /nonexistent/x");
    }
    for args in [&["inspect", "default"][..], &["eval", "default"], &["eval", "default", "--raw"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("it is there");
        let mut koncli = Command::new(env!("CARGO_BIN_EXE_koncli"));
        let output = koncli.arg("policy").args(args).stdout(full).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        // A reader that has gone, as `head` does, is no error.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut koncli = Command::new(env!("CARGO_BIN_EXE_koncli"));
        let output = koncli.arg("policy").args(args).stdout(writer).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }
}

#[test]
fn names_do_not_steer_a_terminal() {
    let scratch = Scratch::new("control");
    let text =
        SCENARIO.replace("web-1", r#""we\eb\a\n-1""#).replace("A crashed leader is replaced.", r#""A \x9b2J leader""#);
    let scenario = scratch.write("crash.yaml", text);
    let svg = scratch.0.join("crash.svg");
    let is_obeyed = |text: &str| text.contains(|c: char| c.is_control() && c != '\n');
    for more in [&["--draw"][..], &["--svg", path(&svg)], &["--journal", path(&scratch.0.join("journal"))]] {
        let ran = koncli(&[&["policy", "simulate", path(&scenario)], more].concat()).ends(0);
        assert!(!is_obeyed(&ran.stdout) && !is_obeyed(&ran.stderr), "{ran:#?}");
        // Of one line each.
        assert!(!ran.stdout.contains("\n-1"), "{ran:#?}");
    }
    let svg = fs::read_to_string(&svg).expect("drawn");
    assert!(svg.contains("we b ") && !is_obeyed(&svg), "{svg}");
    let cases = scratch.write("cases.yaml", r#"- {name: "x\e[2J", input: {}, expect: {hold: renew}}"#);
    let ran = koncli(&["policy", "test", "default", path(&cases)]).ends(1);
    assert!(!is_obeyed(&ran.stdout) && !is_obeyed(&ran.stderr), "{ran:#?}");
}

#[test]
fn nothing_is_written_over() {
    let scratch = Scratch::new("new");
    let ran = koncli_with("", &scratch.0, &["policy", "new", "night", "--lang", "zig", "-o", "json"]).ends(0);
    let files = ran.json()["files"].as_array().expect("a list").len();
    assert!(files >= 8 && scratch.0.join("night/policy.zig").is_file(), "{ran:?}");
    fs::write(scratch.0.join("night/policy.zig"), "mine").expect("written");
    koncli_with("", &scratch.0, &["policy", "new", "night", "--lang", "c"]).ends(1).says("--dir");
    assert_eq!(fs::read_to_string(scratch.0.join("night/policy.zig")).expect("there"), "mine");
    let there = path(&scratch.0).to_owned();
    koncli_with("", &scratch.0, &["policy", "new", "day", "--lang", "zig", "--sdk-path", &there])
        .ends(2)
        .says("no SDK");
    koncli_with("", &scratch.0, &["policy", "new", "day", "--lang", "rust", "--sdk-path", &there])
        .ends(2)
        .says("no package");
}

#[test]
fn a_directory_whose_name_is_not_unicode_is_a_directory() {
    let scratch = Scratch::new("bytes");
    let directory = scratch.0.join(OsStr::from_bytes(b"night-\xff"));
    let output = Command::new(env!("CARGO_BIN_EXE_koncli"))
        .args(["policy", "new", "night", "--lang=c", "-o", "json", "--dir"])
        .arg(&directory)
        .output()
        .expect("koncli runs");
    assert!(output.status.success() && directory.join("policy.c").is_file(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(said["directory"].as_str().is_some_and(|path| path.ends_with("night-\u{fffd}")), "{said}");
}

// ---- What is begun builds, and passes what it came with. For Rust, policies/README.md does it: see readme.rs.

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// Begins a policy, builds it as its README says, with these commands in front of `make test`, and inspects it.
fn builds(language: &str, more: &[&str], make: impl FnOnce(&Path) -> Command) {
    let scratch = Scratch::new(language);
    let begun = [&["policy", "new", "night-shift", "--lang", language], more].concat();
    koncli_with("", &scratch.0, &begun).ends(0);
    let directory = scratch.0.join("night-shift");
    let mut command = make(&directory);
    command.current_dir(&directory).env("KONCLI", env!("CARGO_BIN_EXE_koncli"));
    // Where make policies keeps what Zig has compiled of its own library.
    command.env("ZIG_GLOBAL_CACHE_DIR", root().join("target/policies/build/zig-cache"));
    // What the cargo that runs this test says to its children is not for this build.
    for variable in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "MAKEFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let built = command.output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&built.stdout), String::from_utf8_lossy(&built.stderr));
    assert!(built.status.success(), "{language}: {said}");
    assert!(said.contains("8 passed, 0 failed") && said.contains("3 holds"), "{language}: {said}");
    let report = koncli_with("", &directory, &["policy", "inspect", "policy.wasm", "-o", "json"]).ends(0).json();
    assert_eq!(report["description"]["name"], "night-shift");
    assert!(report["size"].as_u64().is_some_and(|size| size < 256 * 1024), "{language}: {}", report["size"]);
}

fn make(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.arg("test").args(arguments).current_dir(directory);
    command
}

/// Where the compilers are that `hack/toolchains` installs.
fn toolchain(name: &str) -> String {
    let output = Command::new(root().join("hack/toolchains")).output().expect("hack/toolchains runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {said}")).to_owned()
}

#[test]
fn a_new_policy_in_c_builds_and_passes_its_tests() {
    let compiler = format!("WASM_CC={} cc -target wasm32-freestanding", toolchain("zig"));
    builds("c", &[], |directory| make(directory, &[&compiler]));
}

#[test]
fn a_new_policy_in_zig_builds_and_passes_its_tests() {
    let compiler = format!("ZIG={}", toolchain("zig"));
    builds("zig", &[], |directory| make(directory, &[&compiler]));
}

#[test]
fn a_new_policy_in_assemblyscript_builds_and_passes_its_tests() {
    let (node, asc) = (toolchain("node"), toolchain("asc"));
    builds("assemblyscript", &[], |directory| {
        // As npm would run it, with the compiler that is installed already.
        let package: Value =
            serde_json::from_slice(&fs::read(directory.join("package.json")).expect("there")).expect("JSON");
        let build = package["scripts"]["build"].as_str().expect("a script");
        let mut command = Command::new("sh");
        let script = format!(
            "set -e\nnode() {{ '{node}' \"$@\"; }}\nasc() {{ '{node}' '{asc}' \"$@\"; }}\n{build}\nmake -t\nmake test"
        );
        command.args(["-c", &script]);
        command
    });
}
