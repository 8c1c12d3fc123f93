//! Builds the policies of the library, in four languages, the same bytes on every machine.
//!
//! A directory with a `policy.c`, a `policy.zig`, a `policy.ts` or a `Cargo.toml` is a policy; its
//! name is the directory's. The default policy is one more. A module ends up in
//! `target/policies/NAME.wasm`, without debug information.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

mod guest;
mod sections;

/// The stack of a module in C or Zig: 64 KiB, as the Rust ones have. The rules need a few KiB, and
/// the parser's recursion, which is bounded, not more than 40. A smaller memory is a cheaper instance.
const STACK: &str = "65536";

/// What a policy is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, on the SDK.
    Rust,
    /// C, on `glue/c`.
    C,
    /// Zig, on `glue/zig`.
    Zig,
    /// AssemblyScript, on `glue/assemblyscript`.
    AssemblyScript,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
        })
    }
}

/// A policy of the library, or the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is written in.
    pub language: Language,
    /// Where its sources, fixtures and scenario are.
    pub directory: PathBuf,
}

/// A module that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The policy.
    pub policy: Policy,
    /// Where the module is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Module {
    /// Its size as `koncli policy upload` compresses it, in bytes.
    #[must_use]
    pub fn gzip_len(&self) -> usize {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Neither of them can fail: a vector takes everything.
        encoder.write_all(&self.bytes).and_then(|()| encoder.finish()).map_or(0, |gzip| gzip.len())
    }

    /// Its digest, as it stands in a Lease's `status.policy.digest`.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(&self.bytes).iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"))
    }
}

fn glue(path: &str) -> PathBuf {
    root().join("policies/library/glue").join(path)
}

fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.join("../..").canonicalize().unwrap_or_else(|_| here.to_owned())
    })
}

/// All policies, by name.
///
/// # Errors
/// If the library cannot be read.
pub fn policies() -> Result<Vec<Policy>, String> {
    let library = root().join("policies/library");
    let unreadable = |error| format!("cannot list {}: {error}", library.display());
    let mut found = vec![policy(&root().join("policies/default"))];
    for entry in fs::read_dir(&library).map_err(unreadable)? {
        found.push(policy(&entry.map_err(unreadable)?.path()));
    }
    let mut policies: Vec<_> = found.into_iter().flatten().collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(policies)
}

fn policy(directory: &Path) -> Option<Policy> {
    let sources = [
        ("Cargo.toml", Language::Rust),
        ("policy.c", Language::C),
        ("policy.zig", Language::Zig),
        ("policy.ts", Language::AssemblyScript),
    ];
    let (_, language) = sources.into_iter().find(|(source, _)| directory.join(source).is_file())?;
    let name = directory.file_name()?.to_str()?.to_owned();
    Some(Policy { name, language, directory: directory.to_owned() })
}

/// Builds all policies, by name.
///
/// # Errors
/// What does not build and what its compiler says, or which compiler is missing.
pub fn build_all() -> Result<Vec<Module>, String> {
    build(policies()?)
}

/// Builds the policy of this name.
///
/// # Errors
/// If there is none, and as [`build_all`].
pub fn build_one(name: &str) -> Result<Module, String> {
    let all = policies()?;
    let names = || all.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(policy) = all.iter().find(|policy| policy.name == name) else {
        return Err(format!("there is no policy {name:?} in policies/library; there are {}", names()));
    };
    build(vec![policy.clone()])?.pop().ok_or_else(|| format!("nothing was built of {name}"))
}

fn build(policies: Vec<Policy>) -> Result<Vec<Module>, String> {
    let out = root().join("target/policies");
    fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    let written = |path: &Path, error| format!("cannot write {}: {error}", path.display());
    // Tests are processes of their own, and may build at the same time as `make policies`.
    let lock = out.join(".lock");
    let lock_file = fs::File::create(&lock).map_err(|error| written(&lock, error))?;
    lock_file.lock().map_err(|error| format!("cannot lock {}: {error}", lock.display()))?;

    let rust: Vec<&str> =
        policies.iter().filter(|p| p.language == Language::Rust).map(|policy| policy.name.as_str()).collect();
    // In one go: cargo then compiles what they share once.
    let built = if rust.is_empty() { Vec::new() } else { guest::build(root(), &rust, &root().join("target/guest"))? };
    let built: HashMap<String, PathBuf> = rust.into_iter().map(str::to_owned).zip(built).collect();
    let tools =
        if policies.iter().all(|p| p.language == Language::Rust) { Tools::default() } else { Tools::installed()? };

    let mut modules = Vec::new();
    for policy in policies {
        let read = |path: &Path| fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        let path = out.join(format!("{}.wasm", policy.name));
        let bytes = match built.get(&policy.name) {
            // Stripped already, and what the controller embeds of the default policy.
            Some(module) => read(module)?,
            None if is_newer(&path, &[&policy.directory, &glue("")]) => read(&path)?,
            None => {
                let raw = tools.compile(&policy, &out)?;
                sections::without_debug(&read(&raw)?).map_err(|problem| format!("{}: {problem}", raw.display()))?
            }
        };
        place(&path, &bytes).map_err(|error| written(&path, error))?;
        modules.push(Module { policy, path, bytes });
    }
    Ok(modules)
}

/// Puts a module where it is read, by other processes too: they find the old bytes or the new ones, and never a part.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        // The same, of newer sources: else it would be compiled again each time.
        return fs::File::options().write(true).open(path)?.set_modified(SystemTime::now());
    }
    // Nobody else writes it: there is a lock.
    let beside = path.with_extension("wasm.new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

/// Whether a module is newer than all that it is made of, the flags in this program included. Zig takes seconds.
fn is_newer(module: &Path, sources: &[&Path]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let (Some(made), Ok(program)) = (time(module), std::env::current_exe()) else { return false };
    let mut left = vec![program];
    left.extend(sources.iter().map(|path| path.to_path_buf()));
    while let Some(path) = left.pop() {
        // A directory's time changes when something in it is made or deleted.
        if time(&path).is_none_or(|changed| changed >= made) {
            return false;
        }
        if path.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { return false };
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    true
}

/// The compilers of `hack/toolchains`.
#[derive(Default)]
struct Tools {
    zig: PathBuf,
    node: PathBuf,
    asc: PathBuf,
}

impl Tools {
    /// Where they are; installs what is missing, and says so on stderr.
    fn installed() -> Result<Self, String> {
        let script = root().join("hack/toolchains");
        let mut command = Command::new(&script);
        // What it installs takes a minute: its words should be seen while it does.
        command.stderr(std::process::Stdio::inherit());
        let output = command.output().map_err(|error| format!("cannot run {}: {error}", script.display()))?;
        if !output.status.success() {
            return Err(format!("hack/toolchains failed ({}); it has said why", output.status));
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let path = |name: &str| {
            let path = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            path.map(PathBuf::from).ok_or_else(|| format!("hack/toolchains did not say where {name} is, but: {said}"))
        };
        Ok(Self { zig: path("zig")?, node: path("node")?, asc: path("asc")? })
    }

    /// Compiles a policy and says where its module is, debug information and all.
    fn compile(&self, policy: &Policy, out: &Path) -> Result<PathBuf, String> {
        let work = out.join("build").join(&policy.name);
        fs::create_dir_all(&work).map_err(|error| format!("cannot make {}: {error}", work.display()))?;
        let module = work.join("policy.wasm");
        let source = |name: &str| policy.directory.join(name);
        let mut command = match policy.language {
            Language::C => {
                let mut command = Command::new(&self.zig);
                command.args([
                    "cc",
                    "-target",
                    "wasm32-freestanding",
                    "-std=c23",
                    "-O2",
                    "-ffreestanding",
                    "-nostdlib",
                ]);
                command.args(["-Wall", "-Wextra", "-Werror", "-mbulk-memory", "-fvisibility=hidden"]);
                // What C leaves undefined traps: a wrong decision would be worse.
                command.args(["-fsanitize=undefined", "-fsanitize-trap=undefined"]);
                command.arg(format!("-DKONDUCTOR_NAME=\"{}\"", policy.name));
                command.arg(format!("-DKONDUCTOR_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")));
                command.arg(format!("-Wl,--no-entry,-z,stack-size={STACK}"));
                command.arg("-I").arg(glue("c")).arg("-o").arg(&module);
                command.arg(source("policy.c")).arg(glue("c/konductor.c"));
                command
            }
            Language::Zig => {
                let build = work.join("build.zig");
                let facts = format!(
                    "pub const name = {:?};\npub const version = {:?};\n",
                    policy.name,
                    env!("CARGO_PKG_VERSION")
                );
                fs::write(&build, facts).map_err(|error| format!("cannot write {}: {error}", build.display()))?;
                let mut command = Command::new(&self.zig);
                // ReleaseSafe: an overflow or an index out of bounds traps.
                command.args(["build-exe", "-target", "wasm32-freestanding", "-O", "ReleaseSafe"]);
                command.args(["-fno-entry", "-rdynamic", "--stack", STACK, "--dep", "konductor"]);
                command.arg(format!("-Mroot={}", source("policy.zig").display())).args(["--dep", "build"]);
                command.arg(format!("-Mkonductor={}", glue("zig/konductor.zig").display()));
                command.arg(format!("-Mbuild={}", build.display())).arg(format!("-femit-bin={}", module.display()));
                command
            }
            Language::AssemblyScript => {
                let schema = source("params.schema.json");
                let schema = fs::read_to_string(&schema)
                    .map_err(|error| format!("cannot read {}: {error}", schema.display()))?;
                let constant = |name: &str, value: &str| format!("export const {name}: string = {value:?};\n");
                let facts = constant("NAME", &policy.name)
                    + &constant("VERSION", env!("CARGO_PKG_VERSION"))
                    + &constant("PARAMS_SCHEMA", &schema);
                let build = work.join("build.ts");
                fs::write(&build, facts).map_err(|error| format!("cannot write {}: {error}", build.display()))?;
                let mut command = Command::new(&self.node);
                command.arg(&self.asc).arg(source("policy.ts")).arg("--lib").arg(&work);
                // stub: an allocator that never frees. abort=: what would be a call out of the module traps.
                // --debug: the names of functions stay.
                command.args(["--runtime", "stub", "--use", "abort=", "-O3", "--debug", "--outFile"]).arg(&module);
                command
            }
            Language::Rust => return Err(format!("{} is built by cargo", policy.name)),
        };
        let cache = out.join("build/zig-cache");
        command.current_dir(root()).env("ZIG_LOCAL_CACHE_DIR", &cache).env("ZIG_GLOBAL_CACHE_DIR", &cache);
        let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        if output.status.success() {
            return Ok(module);
        }
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        Err(format!("{}: does not compile ({}):\n{said}", policy.name, output.status))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::MetadataExt as _, time::Duration};

    use super::*;

    #[test]
    fn who_reads_a_module_while_it_is_placed_reads_a_whole_one() {
        let directory = std::env::temp_dir().join(format!("konductor-library-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("p.wasm");
        let file = || fs::metadata(&path).expect("it is there");
        place(&path, b"old bytes").expect("placed");
        let mut reader = fs::File::open(&path).expect("it is there");

        // Unchanged: the same file, with the time of now.
        let (long_ago, made) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1), file().ino());
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(long_ago)).expect("aged");
        place(&path, b"old bytes").expect("placed");
        assert_eq!(file().ino(), made);
        assert!(file().modified().expect("a time") > long_ago);

        // Changed: another file, and the one that is being read stays whole.
        place(&path, b"new").expect("placed");
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read");
        assert_eq!((read.as_slice(), fs::read(&path).expect("read").as_slice()), (&b"old bytes"[..], &b"new"[..]));
        assert_eq!(fs::read_dir(&directory).expect("listed").count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&directory).expect("removed");
    }
}
