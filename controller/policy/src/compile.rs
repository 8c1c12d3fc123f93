//! The compiler, in a process of its own that can be killed.
//!
//! What a guest does is bounded by fuel; what compiling it costs is not. Cranelift's time grows
//! faster than some functions' length, and its memory with it. So a module is compiled by a child:
//! the same program, started anew with [`SUBCOMMAND`], which first of all limits itself, takes a
//! module on its standard input and gives machine code on its standard output. The parent gives it a
//! time, reads at most so much, and kills and reaps it whatever happens.
//!
//! The child is trusted as far as the compiler is: its code runs in the controller's process. It is
//! a child because it may be slow, large or dead, not because it may lie. What comes out of the pipe
//! is framed with a digest all the same, so that half an answer is none.

use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use sha2::{Digest as _, Sha256};
use wasmtime::{CodeBuilder, Engine};

use crate::{
    engine,
    limits::{
        ARTEFACT_MAX, Bytes, COMPILER_FILES, COMPILER_NICENESS, COMPILER_SAID_MAX, COMPILER_SPACE, CompileLimits,
        Limits,
    },
    module::CheckedModule,
    text,
};

/// The first argument of a program that is to be a compiler: see [`child_main`].
pub const SUBCOMMAND: &str = "compile-module";

/// What a request and a result begin with; the number is the version of the framing.
const REQUEST: [u8; 8] = *b"knd>cmp1";
const RESULT: [u8; 8] = *b"knd<cmp1";

/// How a compilation failed, other than by the compiler's own no to the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileFault {
    /// It took too long, by the clock on the wall or by the processor's.
    #[error("the compiler was still at work after {} ms and was ended; make the module's functions smaller", .0.as_millis())]
    TimedOut(Duration),
    /// It wanted more memory than it may have.
    #[error("the compiler needed more than {0} of memory; make the module smaller")]
    OutOfMemory(Bytes),
    /// It died.
    #[error("the compiler died: {how}{}", Said(said))]
    Crashed {
        /// The signal that ended it, if one did.
        signal: Option<i32>,
        /// In words.
        how: String,
        /// What it said last.
        said: String,
    },
    /// It ended well, but what it gave is no result.
    #[error("the compiler's result cannot be used: {0}")]
    Garbled(String),
    /// There is no compiler.
    #[error("the compiler {program} cannot be started: {problem}")]
    Unavailable {
        /// What was to be started.
        program: String,
        /// Why it was not.
        problem: String,
    },
    /// The compiler's own no.
    #[error("{0}")]
    Refused(String),
}

/// ": what it said", or nothing.
struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl CompileFault {
    /// The fault in one word, for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "CompileTimedOut",
            Self::OutOfMemory(_) => "CompileOutOfMemory",
            Self::Crashed { .. } => "CompileCrashed",
            Self::Garbled(_) => "CompileGarbled",
            Self::Unavailable { .. } => "CompilerUnavailable",
            Self::Refused(_) => "Uncompilable",
        }
    }
}

/// Who compiles.
#[derive(Debug, Clone, Default)]
pub enum Compiler {
    /// This process itself, without limits: for tools whose user can interrupt them, and for tests.
    #[default]
    InProcess,
    /// A child, for each module a new one.
    Child(CompilerProgram),
}

/// The program that is the compiler.
#[derive(Debug, Clone)]
pub struct CompilerProgram {
    program: PathBuf,
    args: Vec<OsString>,
    limits: CompileLimits,
}

/// A child that does not outlive this, also if we panic meanwhile.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// Kills and reaps it. Always, and last: whatever it has started itself has its group, and until it is
    /// reaped nobody else can get its number.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        if !self.reaped {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl CompilerProgram {
    /// The running program itself, whose `main` must call [`child_main`] when its first argument is
    /// [`SUBCOMMAND`].
    ///
    /// # Errors
    /// If the program cannot be found.
    pub fn own(limits: CompileLimits) -> std::io::Result<Self> {
        // The link leads to the file that runs, even if another one has taken its place on disk.
        let link = Path::new("/proc/self/exe");
        let program = if link.exists() { link.to_path_buf() } else { std::env::current_exe()? };
        Ok(Self::other(program, limits))
    }

    /// Another program that does the same.
    #[must_use]
    pub fn other(program: impl Into<PathBuf>, limits: CompileLimits) -> Self {
        Self { program: program.into(), args: Vec::new(), limits }
    }

    /// With arguments before [`SUBCOMMAND`].
    #[must_use]
    pub fn with_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Compiles a module in a child. Blocks until the child has ended, one way or another.
    ///
    /// The calling thread must not end before this returns: the kernel kills the child then.
    pub(crate) fn compile(&self, engine: &Engine, module: &CheckedModule<'_>) -> Result<Vec<u8>, CompileFault> {
        let begun = Instant::now();
        let mut running = Running { child: self.spawn()?, reaped: false };
        let ended = self.converse(&mut running.child, module.bytes(), begun);
        let status = running.end().map_err(|error| self.unavailable(&error))?;
        let Some((output, said)) = ended else { return Err(CompileFault::TimedOut(self.limits.time)) };
        if output.len() > HEADER + ARTEFACT_MAX.0 {
            // It could not send the rest, which is how it ended, but not why.
            return Err(CompileFault::Garbled(format!("it has more than {ARTEFACT_MAX}")));
        }
        if !status.success() {
            return Err(self.crashed(status, &said));
        }
        receive(&output, &engine::engine_hash(engine), self.limits.memory)
    }

    fn unavailable(&self, error: &std::io::Error) -> CompileFault {
        CompileFault::Unavailable { program: self.program.display().to_string(), problem: error.to_string() }
    }

    fn spawn(&self) -> Result<Child, CompileFault> {
        let seconds = self.limits.time.as_secs().saturating_add(1);
        Command::new(&self.program)
            .arg0("konductor-compiler")
            .args(&self.args)
            .arg(SUBCOMMAND)
            .arg(seconds.to_string())
            .arg(self.limits.memory.0.to_string())
            // Nothing of what the controller knows: no credentials, no names of a cluster.
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.unavailable(&error))
    }

    /// Gives the module, takes the result and what is said, and waits for the end, but not for
    /// longer than it may take: `None` then. The child is not reaped.
    fn converse(&self, child: &mut Child, module: &[u8], begun: Instant) -> Option<(Vec<u8>, Vec<u8>)> {
        let pid = Pid::from_child(child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that does not listen to the end is judged by how it ends.
                let _ = stdin.map(|mut stdin| send(&mut stdin, module));
            });
            let output = scope.spawn(move || read_at_most(stdout, HEADER + ARTEFACT_MAX.0 + 1));
            let said = scope.spawn(move || read_at_most(stderr, COMPILER_SAID_MAX));
            let (tell, told) = mpsc::channel();
            scope.spawn(move || {
                // Not reaped: its number stays its own until its group has been killed.
                let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while rustix::process::waitid(WaitId::Pid(pid), ended).is_err_and(|e| e == rustix::io::Errno::INTR) {}
                let _ = tell.send(());
            });
            let left = self.limits.time.saturating_sub(begun.elapsed());
            let in_time = told.recv_timeout(left).is_ok();
            // So that every pipe is closed and every thread of ours comes to its end.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let (output, said) = (output.join().unwrap_or_default(), said.join().unwrap_or_default());
            in_time.then_some((output, said))
        })
    }

    fn crashed(&self, status: ExitStatus, said: &[u8]) -> CompileFault {
        let said = String::from_utf8_lossy(said);
        let signal = status.signal();
        let is = |other: Signal| signal == Some(other.as_raw());
        if is(Signal::XCPU) {
            return CompileFault::TimedOut(self.limits.time);
        }
        let died = is(Signal::ABORT) || status.code() == Some(PANICKED);
        if died && OUT_OF_MEMORY.iter().any(|words| said.contains(words)) {
            return CompileFault::OutOfMemory(self.limits.memory);
        }
        let how = match signal {
            Some(signal) if is(Signal::KILL) => {
                format!("signal {signal}, with which the kernel also ends processes when the machine has no memory")
            }
            Some(signal) => format!("signal {signal}"),
            None => format!("exit status {}", status.code().unwrap_or(-1)),
        };
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        CompileFault::Crashed { signal, how, said: text::cleaned(last, 256) }
    }
}

/// The exit status of a Rust program that has panicked.
const PANICKED: i32 = 101;

/// The last words of the standard library, and of Cranelift, when an allocation fails. There is no
/// other sign of it: the process aborts, or panics. A test holds this against those that we are built with.
const OUT_OF_MEMORY: [&str; 2] = ["memory allocation of ", "unhandled out-of-memory error"];

/// What could be read, at most so much; what is beyond it stays in the pipe.
fn read_at_most(pipe: Option<impl Read>, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // An error is an end: what is missing shows in the frame.
        let _ = pipe.take(most as u64).read_to_end(&mut bytes);
    }
    bytes
}

/// A module on its way to a child.
fn send(to: &mut impl Write, module: &[u8]) -> std::io::Result<()> {
    to.write_all(&REQUEST)?;
    to.write_all(&(module.len() as u64).to_le_bytes())?;
    to.write_all(module)
}

/// The length of what stands before a result's body: magic, kind, the engine's hash, the body's digest and length.
const HEADER: usize = 8 + 1 + 32 + 32 + 8;

/// What a result's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Artefact = 0,
    Refused = 1,
    OutOfMemory = 2,
}

fn result(kind: Kind, engine_hash: &[u8; 32], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend(RESULT);
    frame.push(kind as u8);
    frame.extend(engine_hash);
    frame.extend(Sha256::digest(body));
    frame.extend((body.len() as u64).to_le_bytes());
    frame.extend(body);
    frame
}

/// The artefact in a result.
fn receive(frame: &[u8], engine_hash: &[u8; 32], memory: Bytes) -> Result<Vec<u8>, CompileFault> {
    let garbled = |problem: &str| CompileFault::Garbled(problem.to_owned());
    let (head, body) = frame.split_at_checked(HEADER).ok_or_else(|| garbled("it ends before its beginning does"))?;
    let (magic, head) = head.split_at(8);
    let (kind, head) = head.split_at(1);
    let (engine, head) = head.split_at(32);
    let (digest, length) = head.split_at(32);
    if magic != RESULT {
        return Err(garbled("it does not begin as one"));
    }
    if length != (body.len() as u64).to_le_bytes() {
        return Err(garbled("it is shorter or longer than it says"));
    }
    if digest != Sha256::digest(body).as_slice() {
        return Err(garbled("it is not what its digest says"));
    }
    match kind {
        [kind] if *kind == Kind::Refused as u8 => {
            Err(CompileFault::Refused(text::cleaned(String::from_utf8_lossy(body), 512)))
        }
        [kind] if *kind == Kind::OutOfMemory as u8 => Err(CompileFault::OutOfMemory(memory)),
        [kind] if *kind == Kind::Artefact as u8 => {
            if engine != engine_hash {
                return Err(garbled("it was made with other settings than this program's"));
            }
            Ok(body.to_vec())
        }
        _ => Err(garbled("it is of an unknown kind")),
    }
}

/// The main function of a compiling child. `args` are those after [`SUBCOMMAND`]: the seconds and
/// the bytes that it may use.
///
/// Call it before anything else: before threads, logs, or flags. It limits itself, reads one module
/// and writes one result.
#[must_use]
pub fn child_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // To the parent, which shows it; there is nobody else to tell when even that fails.
            let _ = writeln!(std::io::stderr(), "{problem}");
            ExitCode::from(3)
        }
    }
}

fn serve(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let mut args = args.into_iter();
    let mut number = |what: &str| {
        let arg = args.next();
        let number = arg.as_deref().and_then(OsStr::to_str).and_then(|arg| arg.parse::<u64>().ok());
        number.ok_or_else(|| format!("{SUBCOMMAND} is started by the controller: {what} is {arg:?}, not a number"))
    };
    let (seconds, memory) = (number("its time in seconds")?, number("its memory in bytes")?);
    limit_self(seconds, memory)?;
    let module = receive_module(std::io::stdin().lock())?;
    let engine = engine::compiling().map_err(|error| format!("the engine cannot be made: {error:#}"))?;
    let hash = engine::engine_hash(&engine);
    let frame = match precompile(&engine, &module) {
        Ok(artefact) => result(Kind::Artefact, &hash, &artefact),
        Err(error) if is_out_of_memory(&error) => result(Kind::OutOfMemory, &hash, &[]),
        Err(error) => result(Kind::Refused, &hash, format!("{error:#}").as_bytes()),
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&frame)
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("the result cannot be sent: {error}"))
}

/// Machine code for a module, as [`wasmtime::Module::deserialize`] takes it.
pub(crate) fn precompile(engine: &Engine, module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    // From the binary format only: nothing else that wasmtime could read may come from a user.
    CodeBuilder::new(engine).wasm_binary(module, None)?.compile_module_serialized()
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::OutOfMemory>()
        || error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::OutOfMemory)
}

fn receive_module(mut from: impl Read) -> Result<Vec<u8>, String> {
    let mut head = [0; 16];
    from.read_exact(&mut head).map_err(|error| format!("no module came: {error}"))?;
    let (magic, length) = head.split_at(8);
    if magic != REQUEST {
        return Err(format!("{SUBCOMMAND} is started by the controller: this is not a module as it sends one"));
    }
    let length = length.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    let most = Limits::default().module_inflated;
    if length > most.0 as u64 {
        return Err(format!("a module of {length} bytes was announced; the limit is {most}"));
    }
    let mut module = Vec::new();
    from.take(length).read_to_end(&mut module).map_err(|error| format!("the module did not come: {error}"))?;
    if module.len() as u64 == length {
        Ok(module)
    } else {
        Err(format!("{} bytes of a module came, {length} were announced", module.len()))
    }
}

/// Takes away from this process what a compiler does not need.
fn limit_self(seconds: u64, memory: u64) -> Result<(), String> {
    let limit = |what: Resource, name: &str, current: u64, maximum: u64| {
        rustix::process::setrlimit(what, Rlimit { current: Some(current), maximum: Some(maximum) })
            .map_err(|error| format!("{name} cannot be limited to {current}: {error}"))
    };
    // A parent that is gone cannot kill us. Its thread counts, so it waits in the one that started us.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("the death of the parent cannot be watched: {error}"))?;
    // If the container has no memory left, we are the one to go. Where that cannot be said, the
    // limits below must do.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // The soft limit ends us with a signal of its own; the hard one is for who would ignore it.
    limit(Resource::Cpu, "processor time", seconds, seconds.saturating_add(1))?;
    // What is written to, which is what costs memory. The whole address space says little: it also
    // counts the program itself and what is only reserved. It is limited too, far above, since some
    // sandboxed kernels know only that one.
    limit(Resource::Data, "memory", memory, memory)?;
    limit(Resource::As, "address space", COMPILER_SPACE.0 as u64, COMPILER_SPACE.0 as u64)?;
    // A dump would be a copy of a stranger's module, of any size.
    limit(Resource::Core, "the size of a core dump", 0, 0)?;
    limit(Resource::Fsize, "the size of a file", 0, 0)?;
    limit(Resource::Nofile, "the number of open files", COMPILER_FILES, COMPILER_FILES)?;
    // Decisions come first, whoever else is at work.
    rustix::process::nice(COMPILER_NICENESS).map_err(|error| format!("the niceness cannot be raised: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [u8; 32] = [7; 32];

    fn receive(frame: &[u8], engine_hash: &[u8; 32]) -> Result<Vec<u8>, CompileFault> {
        super::receive(frame, engine_hash, Bytes(1024))
    }

    #[test]
    fn a_child_compiles_as_the_host_does() {
        let host = crate::Host::new().expect("a host");
        let compiling = engine::compiling().expect("an engine");
        assert_eq!(engine::engine_hash(&host.sandbox().engine), engine::engine_hash(&compiling));
        let mut other = wasmtime::Config::new();
        other.consume_fuel(false);
        let other = Engine::new(&other).expect("an engine");
        assert_ne!(engine::engine_hash(&other), engine::engine_hash(&compiling), "the hash sees the settings");
    }

    #[test]
    fn what_is_not_a_whole_result_is_none() {
        let good = result(Kind::Artefact, &HASH, b"machine code");
        assert_eq!(receive(&good, &HASH), Ok(b"machine code".to_vec()));
        for cut in 0..good.len() {
            assert!(matches!(receive(&good[..cut], &HASH), Err(CompileFault::Garbled(_))), "{cut} bytes");
        }
        for (place, at) in [("magic", 0), ("kind", 8), ("engine", 9), ("digest", 41), ("length", 73), ("body", HEADER)]
        {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(matches!(receive(&bad, &HASH), Err(CompileFault::Garbled(_))), "{place}");
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert!(matches!(receive(&longer, &HASH), Err(CompileFault::Garbled(_))));
        assert!(matches!(receive(&good, &[8; 32]), Err(CompileFault::Garbled(why)) if why.contains("settings")));
        let refused = result(Kind::Refused, &HASH, b"no\x1b[31m");
        assert_eq!(receive(&refused, &HASH), Err(CompileFault::Refused("no[31m".to_owned())));
        let starved = result(Kind::OutOfMemory, &HASH, &[]);
        assert_eq!(receive(&starved, &HASH), Err(CompileFault::OutOfMemory(Bytes(1024))));
    }

    #[test]
    fn what_is_not_a_whole_module_is_not_compiled() {
        let mut sent = Vec::new();
        send(&mut sent, b"module").expect("sent");
        assert_eq!(receive_module(sent.as_slice()), Ok(b"module".to_vec()));
        for cut in 0..sent.len() {
            assert!(receive_module(&sent[..cut]).is_err(), "{cut} bytes");
        }
        let mut huge = sent.clone();
        huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(receive_module(huge.as_slice()).expect_err("huge").contains("the limit is 4 MiB"));
        let mut other = sent;
        other[0] = b'K';
        assert!(receive_module(other.as_slice()).expect_err("other").contains("started by the controller"));
    }
}
