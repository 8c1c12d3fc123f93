//! The binaries of this project.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The path of a binary of this workspace, built with the same profile as the running one.
///
/// `KONDUCTOR_BIN_DIR` names another directory to look in.
///
/// # Errors
/// If it has not been built: a test without it fails, it is never skipped.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("KONDUCTOR_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            // target/debug/konductor-dev, target/debug/deps/it-0123, target/debug/deps/konductor_tests-0123
            let own = std::env::current_exe().context("cannot tell the path of the running binary")?;
            let mut directory = own.parent().context("the running binary is in no directory")?.to_path_buf();
            if directory.ends_with("deps") || directory.ends_with("examples") {
                directory.pop();
            }
            directory
        }
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("{} does not exist. Build it first: cargo build -p {name} (make test does)", path.display());
    }
    Ok(path)
}
