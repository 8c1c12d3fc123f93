//! What becomes of an input that has found something.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use crate::Target;

/// Where failing inputs are kept, below the workspace's root.
pub const FAILURES: &str = "target/fuzz/failures";

/// Runs a target. If it panics, keeps the bytes in a file, says how to repeat it, and panics on.
///
/// # Panics
/// As the target does.
#[must_use]
pub fn guarded(target: Target, bytes: &[u8]) -> String {
    // Nothing that the closure has touched is used after a panic but the bytes.
    match catch_unwind(AssertUnwindSafe(|| target.run(bytes))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            keep(target, bytes);
            resume_unwind(panic)
        }
    }
}

fn keep(target: Target, bytes: &[u8]) {
    let digest = Sha256::digest(bytes);
    let name = format!("{target}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."));
    let directory = root.join(FAILURES);
    match fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(&name), bytes)) {
        Ok(()) => eprintln!(
            "the failing input is in {FAILURES}/{name}; repeat it with\n    target/debug/konductor-fuzz repeat {target} {FAILURES}/{name}"
        ),
        Err(problem) => {
            eprintln!("the failing input cannot be kept in {FAILURES}/{name} ({problem}); it is {bytes:02x?}")
        }
    }
}
