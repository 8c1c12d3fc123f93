//! Runs the cases of a table.

use std::{fmt::Write as _, fs, path::PathBuf};

/// Runs every case of a table and compares, or rewrites. Returns what came of all of them.
pub(crate) fn run(table: &str, mut case: impl FnMut(&[&str]) -> String) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(table);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut rewritten = String::new();
    let mut all = String::new();
    let mut wrong = String::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut input: Vec<&str> = Vec::new();
    while let Some((number, line)) = lines.next() {
        writeln!(rewritten, "{line}").unwrap();
        if line != "----" {
            if !line.is_empty() && !line.starts_with('#') {
                input.push(line);
            }
            continue;
        }
        let mut expected = String::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
            expected.push_str(line);
            expected.push('\n');
        }
        let got = case(&input);
        if got != expected {
            let input = input.join("\n");
            writeln!(wrong, "{table}:{}\n{input}\n---- expected\n{expected}---- got\n{got}", number + 1).unwrap();
        }
        rewritten.push_str(&got);
        all.push_str(&got);
        input.clear();
    }
    assert!(input.is_empty(), "{table} ends within a case: {input:?}");
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, rewritten).unwrap();
    } else {
        assert!(wrong.is_empty(), "\n{wrong}\nREWRITE=1 accepts all of this");
    }
    all
}
