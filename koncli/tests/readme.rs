//! policies/README.md: an author who follows it sees what it says.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "../../tests/src/markdown.rs"]
mod markdown;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// In one directory, in the order of the page: a block `sh` is run, a block with the name of a file is
/// written into it, and every line of a block `text` was printed before.
#[test]
fn every_command_of_the_authors_page_works() {
    let page = fs::read_to_string(root().join("policies/README.md")).expect("the page");
    let blocks = markdown::blocks(&page);
    // The language, and the name of a file.
    let blocks: Vec<(&str, Option<&str>, &str)> = blocks
        .iter()
        .map(|block| {
            let mut words = block.info.split_whitespace();
            (words.next().unwrap_or_default(), words.next(), &*block.text)
        })
        .collect();
    let of = |wanted: &str| blocks.iter().filter(|(language, ..)| *language == wanted).count();
    let files = blocks.iter().filter(|(_, file, _)| file.is_some()).count();
    assert!(of("sh") >= 6 && of("text") >= 3 && files >= 4, "the page has lost its examples");

    let mut script = String::from("set -eu\n");
    let mut said = Vec::new();
    for (language, file, text) in blocks {
        match (language, file) {
            ("sh", _) => {
                // The crates of this repository, so that what is begun builds without a network.
                let lock = "if [ -f Cargo.toml ] && ! [ -f Cargo.lock ]; then cp \"$LOCK\" Cargo.lock; fi";
                let _ = writeln!(script, "{lock}\n{text}");
            }
            ("text", _) => said.extend(text.lines()),
            (_, Some(file)) => {
                let _ = writeln!(script, "cat > {file} <<'END_OF_THE_FILE'\n{text}END_OF_THE_FILE");
                // make compares times, and some file systems count them in seconds.
                let _ = writeln!(script, "touch -d '1 minute' {file}");
            }
            _ => {}
        }
    }
    let scratch = std::env::temp_dir().join(format!("konductor-authors-page-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).expect("a directory");
    let koncli = Path::new(env!("CARGO_BIN_EXE_koncli"));
    let path =
        format!("{}:{}", koncli.parent().expect("a directory").display(), std::env::var("PATH").expect("a PATH"));
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .current_dir(&scratch)
        .env("PATH", path)
        .env("LOCK", root().join("Cargo.lock"))
        .env("KONDUCTOR_POLICY_SDK", root().join("policies/sdk"))
        .env("CARGO_NET_OFFLINE", "true")
        .env("KUBECONFIG", "/nonexistent/kubeconfig");
    // What the cargo that runs this test says to its children is not for these builds.
    for variable in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "MAKEFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let ran = command.output().expect("bash runs");
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&ran.stderr));
    let mut rest = stdout.as_str();
    for line in said {
        let Some(at) = rest.find(line) else { panic!("the page says {line:?}, which was not printed here:\n{rest}") };
        rest = &rest[at + line.len()..];
    }
    assert!(scratch.join("newest/scenario.svg").is_file());
    let _ = fs::remove_dir_all(&scratch);
}
