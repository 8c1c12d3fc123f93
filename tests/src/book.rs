//! The book in `docs/`: its pages, the links between them, and what of it is generated.

mod api;
mod cli;
mod controller;
mod markdown_table;
mod scenes;
pub mod terminal;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::repo;

pub use scenes::record;

/// The pages of the reference, by their path in the repository: each is written by [`reference()`], and nobody else.
///
/// # Errors
/// If a program that says its own flags is not built.
pub fn reference() -> Result<BTreeMap<&'static str, String>> {
    Ok(BTreeMap::from([
        ("docs/reference/cli.md", cli::page()),
        ("docs/reference/api.md", api::page()?),
        ("docs/reference/controller.md", controller::page()?),
    ]))
}

/// The pictures that are played in virtual time: the scenario and the picture. They are the same in each run.
pub const SCENARIOS: [(&str, &str); 2] = [
    ("docs/pictures/handover.yaml", "docs/pictures/handover.svg"),
    ("docs/pictures/preemption.yaml", "docs/pictures/preemption.svg"),
];

/// Plays a scenario of the repository with the built-in policy, and returns the picture of it.
///
/// # Errors
/// If the scenario does not come out as it expects.
pub fn played(koncli: &Path, scenario: &Path) -> Result<String> {
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let picture = directory.path().join("picture.svg");
    let mut command = std::process::Command::new(koncli);
    command.args(["policy", "simulate"]).arg(repo::root().join(scenario)).arg("--svg").arg(&picture);
    let output = command.output().with_context(|| format!("cannot run {}", koncli.display()))?;
    ensure!(
        output.status.success(),
        "{}: {}{}",
        scenario.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read_to_string(&picture).with_context(|| format!("{} was not drawn", scenario.display()))
}

/// What the first line of a generated page says.
pub(crate) fn generated(from: &str) -> String {
    format!("<!-- GENERATED from {from} by `make generate`. Do not edit. -->\n\n")
}

/// Every page for users: those of the book, and those at the root and in `policies/` and `deploy/` that it links.
///
/// # Errors
/// If a directory cannot be read.
pub fn pages() -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let places = ["", "docs", "docs/reference", "docs/tutorials", "policies", "policies/library"];
    for directory in places.into_iter().chain(["deploy", "deploy/chart", "deploy/monitoring"]) {
        let entries = std::fs::read_dir(repo::path(directory)).with_context(|| format!("cannot read {directory}"))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// What a page links: everything in `](…)` and in `<img src="…">` outside of blocks and `code`.
#[must_use]
pub fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(page) {
        let words: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for (before, after) in [("](", ')'), ("src=\"", '"')] {
            found.extend(words.split(before).skip(1).filter_map(|rest| rest.split(after).next()).map(str::to_owned));
        }
    }
    found
}

/// The anchors of a page: what GitHub makes of its headings.
#[must_use]
pub fn anchors(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(page) {
        let title = line.trim_start_matches('#');
        let depth = line.len() - title.len();
        if (1..=6).contains(&depth) && title.starts_with(' ') {
            let plain = anchor(title.trim());
            let mut name = plain.clone();
            let mut again = 0;
            while !found.insert(name) {
                again += 1;
                name = format!("{plain}-{again}");
            }
        }
    }
    found
}

/// What GitHub makes of a heading: small letters, a dash for each space, nothing of the punctuation.
fn anchor(title: &str) -> String {
    title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

/// The lines of a page that are not in a block.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut open = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        open ^= fence;
        !open && !fence
    })
}

/// The links of a page that lead nowhere.
///
/// # Errors
/// If the page, or one that it links, cannot be read.
pub fn broken_links(page: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let mut broken = Vec::new();
    for link in links(&read(page)?) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
        let target = match file {
            "" => page.to_path_buf(),
            file => page.parent().unwrap_or(page).join(file),
        };
        let there = target.exists();
        let found = match anchor {
            Some(anchor) if there => anchors(&read(&target)?).contains(anchor),
            _ => there,
        };
        if !found {
            broken.push(link);
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_become_anchors_as_on_github() {
        let page = "# What can go wrong?\n## `lease run`, and its codes\n```sh\n# no heading\n```\n## A_b-c\n## A_b-c\n#none\n";
        let expected = ["what-can-go-wrong", "lease-run-and-its-codes", "a_b-c", "a_b-c-1"];
        assert_eq!(anchors(page), expected.map(str::to_owned).into());
    }

    #[test]
    fn links_in_code_do_not_count() {
        let page = "[a](b.md#c) and `[x](y)` ![p](q.svg)\n```\n[no](no)\n```\n<img src=\"r.svg\" alt=\"r\">\n";
        assert_eq!(links(page), ["b.md#c", "q.svg", "r.svg"]);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let page = directory.path().join("a.md");
        std::fs::write(&page, "# Here\n[1](#here) [2](#there) [3](a.md#here) [4](b.md) [5](https://example.com/x)\n")
            .expect("written");
        assert_eq!(broken_links(&page).expect("readable"), ["#there", "b.md"]);
    }
}
