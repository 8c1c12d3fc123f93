//! Builds the built-in policy, `policies/default`, for WebAssembly, as `make policies` builds it and all others.

use std::{env, fs, path::PathBuf, process::ExitCode};

#[path = "../../policies/library/src/guest.rs"]
mod guest;

/// What the module is made of, from the workspace's root. Of a directory cargo looks at every file.
const SOURCES: [&str; 11] = [
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
    "policies/library/src/guest.rs",
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
    for module in guest::build(&root, &["default"], &out.join("guest"))? {
        fs::copy(&module, out.join("default.wasm"))
            .map_err(|error| format!("cannot copy {}: {error}", module.display()))?;
    }
    Ok(())
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set; build this with cargo"))
}
