//! Builds the built-in policy, `policies/default`, for WebAssembly.
//!
//! It is a package of this workspace for another target, which cargo cannot yet express as a
//! dependency, so a second cargo builds it: in a target directory of its own, because the first one
//! holds the lock of the usual one, and from the same lock file.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

const TARGET: &str = "wasm32-unknown-unknown";

/// What the module is made of, from the workspace's root. Of a directory cargo looks at every file.
const SOURCES: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "policies/abi/Cargo.toml",
    "policies/abi/src",
    "policies/sdk/Cargo.toml",
    "policies/sdk/src",
    "policies/default/Cargo.toml",
    "policies/default/build.rs",
    "policies/default/params.schema.json",
    "policies/default/src",
];

/// What must not reach the second cargo: flags, wrappers and directories that are meant for this
/// build. `cargo clippy` is such a wrapper.
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

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            for line in problem.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = directory("CARGO_MANIFEST_DIR")?.join("../..");
    let out = directory("OUT_DIR")?;
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }

    let cargo = env::var_os("CARGO").ok_or("CARGO is not set; build this with cargo")?;
    let target_dir = out.join("guest");
    let mut command = Command::new(cargo);
    command
        .current_dir(&root)
        .args(["build", "--locked", "--package", "konductor-policy-default", "--lib"])
        .args(["--profile", "guest", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    // The module names source files in its panics. Without the place where this machine keeps them,
    // it is the same bytes, and has the same digest, wherever it is built. Set, even to nothing, the
    // variable also switches off the flags of any configuration file.
    command.env("CARGO_ENCODED_RUSTFLAGS", cargo_home().map_or_else(String::new, remap));
    let built = command.output().map_err(|error| format!("cannot run cargo for the built-in policy: {error}"))?;
    if !built.status.success() {
        return Err(explain(&String::from_utf8_lossy(&built.stderr)));
    }
    let module = target_dir.join(TARGET).join("guest/konductor_policy_default.wasm");
    fs::copy(&module, out.join("default.wasm"))
        .map_err(|error| format!("cannot copy {}: {error}", module.display()))?;
    Ok(())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

fn remap(cargo_home: PathBuf) -> String {
    format!("--remap-path-prefix={}=/cargo", cargo_home.display())
}

/// What a person should do about a failed build.
fn explain(stderr: &str) -> String {
    if stderr.contains("target may not be installed") || stderr.contains("can't find crate for `core`") {
        return format!("the built-in policy needs Rust's {TARGET} target: run `rustup target add {TARGET}`");
    }
    format!("the built-in policy (policies/default) does not build for {TARGET}:\n{stderr}")
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set; build this with cargo"))
}
