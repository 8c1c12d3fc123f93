//! `koncli policy new`.

use std::{fs, path::PathBuf};

use konductor_workbench::scaffold::{self, Language};
use serde_json::json;

use crate::{
    args::NewArgs,
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, args: &NewArgs) -> Result<()> {
    let directory = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let doing = || format!("begin the policy {} in {}", args.name, directory.display());
    let invalid = |why: String| Error::new(doing(), Problem::Invalid(why));
    let sdk = match &args.sdk_path {
        Some(_) if args.lang != Language::Rust => {
            return Err(invalid(format!("--sdk-path is for Rust; a policy in {} has no SDK", args.lang)));
        }
        None if args.lang != Language::Rust => None,
        named => named.clone().or_else(|| std::env::var_os("KONDUCTOR_POLICY_SDK").map(PathBuf::from)),
    };
    let sdk = match sdk {
        Some(path) => {
            // Cargo reads it from where the new policy lies.
            let absolute = path.canonicalize().ok().filter(|path| path.join("Cargo.toml").is_file());
            let absolute = absolute.ok_or_else(|| invalid(format!("there is no package in {}", path.display())))?;
            Some(absolute.to_string_lossy().into_owned())
        }
        None => None,
    };
    let files = scaffold::files(&args.name, args.lang, sdk.as_deref()).map_err(|error| invalid(error.to_string()))?;
    // Somebody's work is never written over.
    match fs::read_dir(&directory).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            let why = "there is something in that directory already; name another one with --dir".to_owned();
            return Err(Error::new(doing(), Problem::AlreadyExists(why)));
        }
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(invalid(error.to_string())),
    }
    for file in &files {
        let path = directory.join(file.path);
        let parent = path.parent().unwrap_or(&directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, &file.text))
            .map_err(|error| Error::new(doing(), Problem::Local(format!("{}: {error}", path.display()))))?;
    }
    let names: Vec<&str> = files.iter().map(|file| file.path).collect();
    // As it is shown: a path need not be UTF-8, and JSON has to be.
    let shown = directory.display().to_string();
    let data = json!({ "policy": args.name, "language": args.lang.to_string(), "directory": shown, "files": names });
    let text = format!(
        "{} begun in {}: {}\nnext: cd {} && make test",
        args.name,
        directory.display(),
        names.join(", "),
        directory.display()
    );
    out.done(&directory.display().to_string(), text, &data)
}
