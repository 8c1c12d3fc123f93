//! The repository that this crate was built from.

use std::path::{Path, PathBuf};

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    // tests/ lies directly under the root, at compile time and ever after.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent")
}

/// A file or directory of the repository.
#[must_use]
pub fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// The text of a file of the repository.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("cannot read {relative}: {e}"))
}
