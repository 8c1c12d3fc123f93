//! The compiler as a child: the controller's own binary, and programs that only pretend.
#![allow(missing_docs, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use konductor_core::{LeaseFacts, Millis, Question, Time};
use konductor_policy::{
    Bytes, Cache, CompileFault, CompileLimits, Compiler, CompilerProgram, Host, HostOptions, Policy, Rejection, Source,
};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function, FunctionSection, Instruction,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_konductor-controller");

/// A whole policy that answers `{}`, with so many more functions of so many loops each.
fn policy(functions: u32, loops: u32, locals: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32, ValType::I32], [ValType::I64]);
    let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
    let answers: [(u32, Option<Instruction<'_>>); 3] =
        [(0, None), (1, Some(Instruction::I32Const(1024))), (2, Some(Instruction::I64Const(8 << 32 | 2)))];
    for (ty, answer) in answers {
        declared.function(ty);
        let mut body = Function::new([]);
        answer.iter().for_each(|answer| _ = body.instruction(answer));
        code.function(body.instruction(&Instruction::End));
    }
    for _ in 0..functions {
        declared.function(0);
        code.function(&dear(loops, locals));
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("konductor_policy_v1", ExportKind::Func, 0);
    exports.export("konductor_alloc", ExportKind::Func, 1);
    exports.export("konductor_decide", ExportKind::Func, 2);
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(8), *b"{}");
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&memories).section(&exports).section(&code).section(&data);
    module.finish()
}

/// A function that is short and dear: loops in loops, sixty deep, and every value may come from any
/// of them. 5,000 of them are 112 KB; they take 5 to 18 s with 60 locals, and 200 MB with 400.
fn dear(loops: u32, locals: u32) -> Function {
    const DEEP: u32 = 60;
    let mut body = Function::new([(locals, ValType::I64)]);
    for n in 0..loops {
        body.instruction(&Instruction::Loop(BlockType::Empty));
        body.instruction(&Instruction::LocalGet(n * 13 % locals)).instruction(&Instruction::LocalGet(n % locals));
        body.instruction(&Instruction::I64Add).instruction(&Instruction::LocalSet(n * 5 % locals));
        body.instruction(&Instruction::LocalGet(n * 3 % locals)).instruction(&Instruction::I64Eqz);
        body.instruction(&Instruction::BrIf(0));
        if n % DEEP == DEEP - 1 {
            (0..DEEP).for_each(|_| _ = body.instruction(&Instruction::End));
        }
    }
    (0..loops % DEEP).for_each(|_| _ = body.instruction(&Instruction::End));
    body.instruction(&Instruction::End);
    body
}

/// Takes the compiler many seconds.
fn slow() -> Vec<u8> {
    policy(1, 5_000, 60)
}

/// Takes the compiler more memory than it may have.
fn large() -> Vec<u8> {
    policy(1, 5_000, 400)
}

/// Takes it some time and memory, as honest modules do.
fn ordinary() -> Vec<u8> {
    policy(3, 60, 10)
}

/// Takes it next to nothing.
fn tiny() -> Vec<u8> {
    policy(0, 0, 1)
}

fn limits(time: Duration) -> CompileLimits {
    CompileLimits { time, ..CompileLimits::default() }
}

/// Far more than any machine needs for what is expected to succeed.
fn patient() -> CompileLimits {
    limits(Duration::from_secs(55))
}

fn host(compiler: CompilerProgram) -> Host {
    Host::with_options(HostOptions { compiler: Compiler::Child(compiler), ..HostOptions::default() }).expect("a host")
}

fn own(limits: CompileLimits) -> Host {
    host(CompilerProgram::other(CONTROLLER, limits))
}

/// A shell that only pretends to be a compiler.
fn pretender(script: &str, limits: CompileLimits) -> Host {
    host(CompilerProgram::other("/bin/sh", limits).with_args(["-c", script]))
}

fn fault(host: &Host, module: &[u8]) -> CompileFault {
    match host.load(module).expect_err("a fault") {
        Rejection::Compiler(fault) => {
            assert!(Rejection::Compiler(fault.clone()).is_infrastructure());
            fault
        }
        other => panic!("{other}"),
    }
}

fn question() -> Question {
    Question {
        now: Time(1_790_000_000_000),
        lease: LeaseFacts { ttl: Some(Millis(1000)), ..LeaseFacts::default() },
        ttl: Millis(1000),
        ..Question::default()
    }
}

/// No child of this test is left, dead or alive. Of this thread: other tests may run in the same process.
fn no_children() {
    let children = fs::read_to_string("/proc/thread-self/children").expect("the kernel tells of children");
    assert_eq!(children, "", "children are left");
}

#[test]
fn what_a_child_compiles_decides_as_what_is_compiled_here() {
    let module = ordinary();
    let (child, here) = (own(patient()), Host::new().expect("a host"));
    let (child, here) = (child.load(&module).expect("good"), here.load(&module).expect("good"));
    assert_eq!(child.digest(), here.digest());
    let ask = |policy: &Policy| policy.decide(&question(), "{}").map(|decided| (decided.decision, decided.fuel));
    assert_eq!(ask(&child), ask(&here));
    assert!(ask(&child).is_ok());
    no_children();
}

/// The limit on sizes lets this module in; only its time ends it.
#[test]
fn a_compile_bomb_is_ended_at_its_deadline() {
    let module = slow();
    let begun = Instant::now();
    let time = Duration::from_millis(150);
    assert_eq!(fault(&own(limits(time)), &module), CompileFault::TimedOut(time));
    assert!(begun.elapsed() >= time);
    no_children();
    // A child that does nothing at all, and one that has children of its own that keep its pipes.
    for script in ["sleep 1000", "sleep 1000 & sleep 1000", "sleep 1000 & exit 0"] {
        let fault = fault(&pretender(script, limits(time)), &module);
        let ended = matches!(fault, CompileFault::TimedOut(_) | CompileFault::Garbled(_));
        assert!(ended, "{script}: {fault}");
        no_children();
    }
}

/// The same by the processor's clock: the child ends itself, should nobody else do it.
#[test]
fn a_compile_bomb_without_a_parents_watch_ends_itself() {
    let mut child = Command::new(CONTROLLER)
        .args(["compile-module", "1", &patient().memory.0.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    send(&mut child, &slow());
    let status = child.wait().expect("it ends");
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(24), "SIGXCPU: {status:?}");
}

#[test]
fn a_compiler_that_wants_too_much_memory_is_ended() {
    let usual = patient().memory;
    assert_eq!(fault(&own(patient()), &large()), CompileFault::OutOfMemory(usual));
    no_children();
    // An honest module, and limits that are small even for it. Where it fails is another place each
    // time, and has its own last words; what is said of it is the same.
    let module = policy(3, 500, 10);
    own(patient()).load(&module).expect("with the usual memory it is compiled");
    for kib in (512..4096).step_by(256) {
        let memory = Bytes(kib * 1024);
        match own(CompileLimits { memory, ..patient() }).load(&module) {
            Err(Rejection::Compiler(fault)) => assert_eq!(fault, CompileFault::OutOfMemory(memory)),
            Err(other) => panic!("{kib} KiB: {other}"),
            Ok(_) => assert!(kib > 1024, "{kib} KiB are enough"),
        }
    }
    no_children();
}

#[test]
fn a_compiler_that_dies_is_told_from_one_that_refuses() {
    let module = tiny();
    for (script, signal, says) in [
        ("kill -KILL $$", Some(9), "no memory"),
        ("kill -SEGV $$", Some(11), "signal 11"),
        ("kill -ABRT $$", Some(6), "signal 6"),
        ("echo thread main panicked >&2; echo at the disco >&2; exit 101", None, "exit status 101: at the disco"),
        ("exec 0<&-; exit 3", None, "exit status 3"),
    ] {
        let fault = fault(&pretender(script, patient()), &module);
        let CompileFault::Crashed { signal: by, .. } = &fault else { panic!("{script}: {fault}") };
        assert!(*by == signal && fault.to_string().contains(says), "{script}: {fault}");
        assert_eq!(fault.reason(), "CompileCrashed");
        no_children();
    }
    let missing = fault(&host(CompilerProgram::other("/no/such/compiler", patient())), &module);
    assert!(matches!(&missing, CompileFault::Unavailable { .. }), "{missing}");
    assert!(missing.to_string().contains("/no/such/compiler"), "{missing}");
}

#[test]
fn a_result_that_is_none_is_not_loaded() {
    let module = tiny();
    for (script, says) in [
        ("cat >/dev/null", "before its beginning"),
        ("echo hello", "before its beginning"),
        ("head -c 200 /dev/zero", "does not begin as one"),
        // More than is ever read, and nobody waits for the rest.
        ("cat /dev/zero", "more than 64 MiB"),
    ] {
        let fault = fault(&pretender(script, patient()), &module);
        assert!(matches!(&fault, CompileFault::Garbled(why) if why.contains(says)), "{script}: {fault}");
        no_children();
    }
    // What it says is bounded too, and does not stop it.
    let talker = "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 7";
    assert!(fault(&pretender(talker, patient()), &module).to_string().len() < 500);
}

/// Gives a module to a child as the host does.
fn send(child: &mut Child, module: &[u8]) {
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may end before it has read all.
    let _ = stdin
        .write_all(b"knd>cmp1")
        .and_then(|()| stdin.write_all(&(module.len() as u64).to_le_bytes()))
        .and_then(|()| stdin.write_all(module));
}

#[test]
fn a_child_has_nothing_that_it_does_not_need() {
    // Open for the child to inherit, if it did.
    let secret = tempfile::NamedTempFile::new().expect("a file");
    let mut child = Command::new(CONTROLLER)
        .args(["compile-module", "7", "100000000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let own = fs::read_to_string("/proc/thread-self/children").expect("the kernel tells of children");
    assert_eq!(own.trim(), child.id().to_string(), "this is how the other tests see that none is left");
    // Half a module: it waits for the rest, with its limits in place.
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"knd>cmp1\x10\0\0\0\0\0\0\0half").expect("sent");
    let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default();
    let limits = || -> BTreeMap<String, Vec<String>> {
        let line = |line: &str| {
            let (name, values) = (line.get(..26)?.trim().to_owned(), line.get(26..)?);
            Some((name, values.split_whitespace().map(str::to_owned).collect()))
        };
        proc("limits").lines().filter_map(line).collect()
    };
    // The last that it does to itself is to be nice.
    let begun = Instant::now();
    while niceness(&proc("stat")) != Some(nicer()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not nice: {}", proc("stat"));
        std::thread::yield_now();
    }
    let limits = limits();
    let limit = |name: &str| limits[name][..2].join(" ");
    assert_eq!(limit("Max cpu time"), "7 8");
    assert_eq!(limit("Max data size"), "100000000 100000000");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max file size"), "0 0");
    assert_eq!(limit("Max open files"), "4 4");
    assert_eq!(proc("oom_score_adj").trim(), "1000");
    // What this test itself was started with it may have; nothing that was opened here.
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).expect("its files");
    let open = |file: std::io::Result<fs::DirEntry>| fs::read_link(file.expect("a file").path()).ok();
    let files: Vec<_> = files.filter_map(open).collect();
    assert!(files.len() >= 3 && !files.iter().any(|file| file == secret.path()), "{files:?}");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "4 bytes of a module came, 16 were announced");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_child_gets_no_environment() {
    // What a shell does not make itself: there is none of it.
    let script =
        "env=$(/usr/bin/env | grep -vE '^(PWD|OLDPWD|SHLVL|_)='); test -z \"$env\" && exit 9; echo $env >&2; exit 8";
    let fault = fault(&pretender(script, patient()), &tiny());
    assert!(fault.to_string().contains("exit status 9"), "{fault}");
    assert!(std::env::vars().count() > 0, "there is something to inherit");
}

/// A controller that is killed leaves no compiler behind.
#[test]
fn a_child_dies_with_its_parent() {
    // The parent is a shell. It starts a compiler, says its number, and waits for us; the compiler waits for a module.
    // By another number: of what runs beside it a shell takes the standard input away.
    let compile = format!("{CONTROLLER} compile-module 50 {}", patient().memory.0);
    let script = format!("exec 3<&0; {compile} <&3 3<&- & echo $!; exec sleep 1000");
    let mut parent = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Kept open: the end of its input would end the compiler too.
    let _stdin = parent.stdin.take().expect("a pipe");
    let mut said = [0; 64];
    let mut stdout = parent.stdout.take().expect("a pipe");
    let length = stdout.read(&mut said).expect("it says its child's number");
    let child = String::from_utf8_lossy(&said[..length]).trim().to_owned();
    let status = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    let begun = Instant::now();
    while niceness(&status()) != Some(nicer()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not ready: {}", status());
        std::thread::yield_now();
    }
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    // The pipe is closed when the last that had it is gone.
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the end");
    assert!(rest.is_empty());
}

#[test]
fn who_calls_it_by_hand_is_told() {
    for (args, says) in [
        (vec!["compile-module"], "started by the controller: its time in seconds is None"),
        (vec!["compile-module", "1"], "its memory in bytes"),
        (vec!["compile-module", "one", "2"], "not a number"),
        (vec!["compile-module", "9", "100000000"], "no module came"),
    ] {
        let output = Command::new(CONTROLLER).args(&args).stdin(Stdio::null()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains(says), "{args:?}: {said}");
    }
    let help = Command::new(CONTROLLER).arg("--help").output().expect("it runs").stdout;
    let help = String::from_utf8_lossy(&help);
    assert!(help.contains("--policy-cache-dir") && !help.contains("compile-module"), "{help}");
}

/// The whole way: compiled once, found by the next process, and not when it was tampered with.
#[test]
fn a_restart_finds_what_was_compiled_unless_it_was_tampered_with() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        let (cache, warnings) = Cache::open(directory.path(), None).expect("a cache");
        assert_eq!(warnings, [""; 0]);
        let compiler = Compiler::Child(CompilerProgram::other(CONTROLLER, patient()));
        Host::with_options(HostOptions { compiler, cache: Some(cache), ..HostOptions::default() }).expect("a host")
    };
    let module = ordinary();
    let build = |host: &Host| host.build(&host.check(&module).expect("good"));
    let host = start();
    let first = build(&host);
    let policy = first.policy.expect("good");
    assert!(matches!(first.source, Source::Compiler(_)) && first.unfit.is_none() && first.not_kept.is_none());
    // The same bytes again, perhaps of another ConfigMap: one policy.
    let again = build(&host);
    assert_eq!(again.source, Source::Shared);
    assert!(Arc::ptr_eq(&policy, &again.policy.expect("good")));
    drop((policy, host));

    let restarted = build(&start());
    assert_eq!(restarted.source, Source::Cache);
    let decided = restarted.policy.expect("good").decide(&question(), "{}");
    assert!(decided.is_ok(), "{decided:?}");

    let files = fs::read_dir(directory.path().join("compiled")).expect("files");
    let code =
        files.map(|file| file.expect("a file").path()).find(|path| path.extension().is_some_and(|e| e == "code"));
    let code = code.expect("it is there");
    let mut bytes = Vec::new();
    fs::File::open(&code).and_then(|mut file| file.read_to_end(&mut bytes)).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&code, bytes).expect("written");
    let tampered = build(&start());
    assert!(matches!(tampered.source, Source::Compiler(_)) && tampered.policy.is_ok());
    assert!(tampered.unfit.is_some_and(|problem| problem.contains("not what this program wrote")));
    assert_eq!(build(&start()).source, Source::Cache, "it was replaced");
}

/// What the host has no room for is a verdict on the module, and not a failure of the machine.
#[test]
fn a_module_that_does_not_fit_the_sandbox_is_refused() {
    // 160,000 bytes of globals fit, 16 bytes each; twice as much is above what an instance may have.
    let with_globals = |count: usize| {
        let globals = "(global (mut v128) (v128.const i64x2 0 0))".repeat(count);
        let tables = "(table 1 funcref)".repeat(2);
        let text = format!(
            r#"(module (memory (export "memory") 1) {tables} (func (export "konductor_policy_v1"))
               (func (export "konductor_alloc") (param i32) (result i32) (i32.const 8))
               (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0)) {globals})"#
        );
        wat::parse_str(text).expect("wat")
    };
    let tight = || konductor_policy::Limits { memory: Bytes(64 * 1024), ..konductor_policy::Limits::default() };
    own(patient()).load(&with_globals(9_999)).expect("it fits");
    let compiler = Compiler::Child(CompilerProgram::other(CONTROLLER, patient()));
    let host = Host::with_options(HostOptions { limits: tight(), compiler, cache: None });
    // The built-in policy itself needs more than a page: such a host cannot be made, and says why.
    assert!(host.expect_err("too tight").to_string().contains("built-in policy"));
}

/// How nice a process is, by its `stat`: the 19th field.
fn niceness(stat: &str) -> Option<i32> {
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok())
}

/// How nice a compiler is: by 10 nicer than whoever starts it, and at most 19.
fn nicer() -> i32 {
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    (niceness(&own).expect("our own stat") + 10).min(19)
}
