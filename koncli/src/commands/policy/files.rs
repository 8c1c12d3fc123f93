//! Reading what the workbench works on.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use konductor_workbench::{Host, Policy, load};

use crate::client::{Error, Problem, Result};

/// No module, fixture or journal that makes sense is larger; more is not even read.
const READ_MAX: u64 = 64 * 1024 * 1024;

/// The name that means the built-in policy.
pub(super) const DEFAULT: &str = "default";

/// The name that means stdin.
pub(super) const STDIN: &str = "-";

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
    contents(Path::new(named)).map_err(|why| {
        Error::new(format!("read {named}"), Problem::Invalid(why))
            .with_note(format!("name a .wasm or .wasm.gz file, or {DEFAULT} for the built-in policy"))
    })
}

/// The bytes of a file, or of stdin where `-` is typed.
pub(super) fn bytes(file: &Path) -> Result<Vec<u8>> {
    let read = if file == Path::new(STDIN) { whole(std::io::stdin().lock()) } else { contents(file) };
    read.map_err(|why| Error::new(format!("read {}", file.display()), Problem::Invalid(why)))
}

/// A text file, or stdin where `-` is typed.
pub(super) fn text(file: &Path) -> Result<String> {
    String::from_utf8(bytes(file)?).map_err(|_| {
        Error::new(format!("read {}", file.display()), Problem::Invalid("it is not text (UTF-8)".to_owned()))
    })
}

/// A file, or stdin where `-` is typed, to be read bit by bit.
pub(super) fn opened(file: &Path) -> Result<Box<dyn BufRead>> {
    if file == Path::new(STDIN) {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    match File::open(file) {
        Ok(opened) => Ok(Box::new(BufReader::new(opened))),
        Err(error) => Err(Error::new(format!("read {}", file.display()), Problem::Invalid(error.to_string()))),
    }
}

/// All that is in a file; else why not, in words.
pub(super) fn contents(file: &Path) -> Result<Vec<u8>, String> {
    whole(File::open(file).map_err(|error| error.to_string())?)
}

/// All of it, and never only its beginning: what was cut may still be valid, and mean something else.
fn whole(from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // One byte more than the limit tells "at it" from "above it".
    from.take(READ_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > READ_MAX {
        return Err(format!("it is larger than {} MiB, which is the most that is read", READ_MAX / 1024 / 1024));
    }
    Ok(bytes)
}

/// The files that were named: each itself, of a directory its `*.yaml` and `*.yml` in the order of their names.
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
            // What lies in directories below is not looked at, whatever they are called.
            if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") && !file.is_dir() {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::new(doing(), Problem::Invalid("there is no *.yaml or *.yml in it".to_owned())));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_refused_and_never_cut() {
        let zeros = |count: u64| std::io::repeat(0).take(count);
        assert_eq!(whole(zeros(READ_MAX)).map(|bytes| bytes.len() as u64), Ok(READ_MAX));
        assert!(whole(zeros(READ_MAX + 1)).expect_err("too long").contains("larger than 64 MiB"));
    }
}
