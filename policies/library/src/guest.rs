// Builds policies written in Rust for WebAssembly. Also part of the build script of controller/policy, which embeds the
// default policy: so the module that `make policies` makes of it has the same bytes.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-unknown-unknown";

/// What must not reach the second cargo: flags, wrappers and directories that are meant for the
/// build that runs it. `cargo clippy` is such a wrapper.
const NOT_INHERITED: [&str; 12] = [
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// Builds the policies of these names and says where their modules are, in the same order.
///
/// They are packages of the workspace for another target, so a second cargo builds them: in a target
/// directory of its own, because the first one may hold the lock of the usual one, and from the same
/// lock file.
pub fn build(root: &Path, names: &[&str], target_dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["build", "--locked", "--lib", "--profile", "guest", "--target", TARGET]);
    for name in names {
        command.arg("--package").arg(format!("konductor-policy-{name}"));
    }
    command.arg("--target-dir").arg(target_dir);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    // The module names source files in its panics. Without the place where this machine keeps them,
    // it is the same bytes, and has the same digest, wherever it is built. Set, even to nothing, the
    // variable also switches off the flags of any configuration file.
    command.env("CARGO_ENCODED_RUSTFLAGS", cargo_home().map_or_else(String::new, remap));
    let built = command.output().map_err(|error| format!("cannot run cargo for {}: {error}", names.join(", ")))?;
    if !built.status.success() {
        return Err(explain(names, &String::from_utf8_lossy(&built.stderr)));
    }
    let module = |name: &&str| format!("{TARGET}/guest/konductor_policy_{}.wasm", name.replace('-', "_"));
    Ok(names.iter().map(|name| target_dir.join(module(name))).collect())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

fn remap(cargo_home: PathBuf) -> String {
    format!("--remap-path-prefix={}=/cargo", cargo_home.display())
}

/// What a person should do about a failed build.
fn explain(names: &[&str], stderr: &str) -> String {
    let names = names.join(", ");
    if stderr.contains("target may not be installed") || stderr.contains("can't find crate for `core`") {
        return format!("{names}: Rust's {TARGET} target is missing: run `rustup target add {TARGET}`");
    }
    format!("{names}: does not build for {TARGET}:\n{stderr}")
}
