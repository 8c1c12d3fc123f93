//! Reading what the workbench works on.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use konductor_workbench::{Host, Policy, load};

use crate::client::{Error, Problem, Result};

/// No module, fixture or journal that makes sense is larger; more is not even read.
const READ_MAX: u64 = 64 * 1024 * 1024;

/// The name that means the built-in policy.
pub(super) const DEFAULT: &str = "default";

/// A sandbox.
pub(crate) fn host() -> Result<Host> {
    Host::new().map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Error::new("start the sandbox of policies", Problem::Local(format!("{error}{why}")))
    })
}

/// The policy that was named: a file, or `default`.
pub(super) fn policy(host: &Host, named: &str) -> Result<Arc<Policy>> {
    if named == DEFAULT {
        return Ok(host.builtin());
    }
    load(host, &module(named)?).map_err(|rejection| {
        let why = format!("{rejection} ({})", rejection.reason());
        Error::new(format!("load the policy {named}"), Problem::Failed(why))
            .with_note(format!("everything that is wrong with it: koncli policy inspect {named}"))
    })
}

/// The bytes of a module's file.
pub(super) fn module(named: &str) -> Result<Vec<u8>> {
    bytes(Path::new(named)).map_err(|error| {
        error.with_note(format!("name a .wasm or .wasm.gz file, or {DEFAULT} for the built-in policy"))
    })
}

/// The bytes of a file.
pub(super) fn bytes(file: &Path) -> Result<Vec<u8>> {
    let invalid = |why: String| Error::new(format!("read {}", file.display()), Problem::Invalid(why));
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(READ_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| invalid(error.to_string()))?;
    if bytes.len() as u64 > READ_MAX {
        return Err(invalid(format!("it is larger than {} MiB", READ_MAX / 1024 / 1024)));
    }
    Ok(bytes)
}

/// A text file, or stdin where `-` is typed.
pub(super) fn text(file: &Path) -> Result<String> {
    let invalid = |why: String| Error::new(format!("read {}", file.display()), Problem::Invalid(why));
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(READ_MAX).read_to_end(&mut bytes);
        read.map_err(|error| invalid(error.to_string()))?;
        bytes
    } else {
        bytes(file)?
    };
    String::from_utf8(bytes).map_err(|_| invalid("it is not text (UTF-8)".to_owned()))
}

/// The files that were named: each itself, of a directory its `*.yaml` in the order of their names.
pub(super) fn yaml(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let doing = || format!("read the directory {}", path.display());
        let local = |error: std::io::Error| Error::new(doing(), Problem::Invalid(error.to_string()));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(local)? {
            let file = entry.map_err(local)?.path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::new(doing(), Problem::Invalid("there is no *.yaml in it".to_owned())));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}
