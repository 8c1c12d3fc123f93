//! `docs/reference/cli.md`: every command of koncli, as koncli itself says it.

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::{
    generated,
    markdown_table::{cell, table},
};

/// A line of a block has so many characters at most.
const WIDTH: usize = 100;

/// The page.
pub fn page() -> String {
    let mut root = koncli::args::Cli::command();
    root.build();
    let mut page = generated("koncli/src/args.rs");
    page.push_str("# koncli\n\n");
    page.push_str(
        "The same is said by `koncli COMMAND --help`. Exit codes are with each command that has its own.\n\n",
    );
    let mut contents = Vec::new();
    let mut sections = String::new();
    for command in visible(&root) {
        walk(&mut command.clone(), "koncli", &mut contents, &mut sections);
    }
    page.push_str(&contents.join("\n"));
    page.push_str("\n\n## Global options\n\nEvery command takes them.\n\n");
    let globals: Vec<_> = root.get_arguments().filter(|arg| arg.is_global_set() && !arg.is_hide_set()).collect();
    page.push_str(&options(&globals));
    page.push_str(&sections);
    page.trim_end().to_owned() + "\n"
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn walk(command: &mut Command, above: &str, contents: &mut Vec<String>, sections: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let groups = visible(command).count() > 0;
    if !groups {
        let short = command.get_about().map(ToString::to_string).unwrap_or_default();
        contents.push(format!("- [`{name}`](#{}): {}", name.replace(' ', "-"), cell(&short)));
    }
    sections.push_str(&format!("## {name}\n\n{}.\n\n", cell(&about)));
    if !groups {
        let usage = command.render_usage().to_string();
        sections.push_str(&format!("```text\n{}\n```\n\n", usage.trim_start_matches("Usage: ").trim()));
        let own = command.get_arguments().filter(|arg| {
            !arg.is_global_set() && !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
        });
        let (positional, flags): (Vec<_>, Vec<_>) = own.partition(|arg| arg.is_positional());
        let rows: Vec<_> = positional.into_iter().map(|arg| vec![format!("`{}`", values(arg)), meaning(arg)]).collect();
        sections.push_str(&table(&["argument", "meaning"], &rows));
        sections.push_str(&options(&flags));
    }
    let after = command.get_after_long_help().or(command.get_after_help());
    if let Some(after) = after {
        sections.push_str(&format!("```text\n{}\n```\n\n", wrapped(after.to_string().trim_end())));
    }
    for sub in visible(command) {
        walk(&mut sub.clone(), &name, contents, sections);
    }
}

/// Paragraphs, broken where a terminal would; what is indented stays as it is.
fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        let words = if paragraph.starts_with(' ') { vec![paragraph] } else { paragraph.split(' ').collect() };
        for word in words {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}

fn options(args: &[&Arg]) -> String {
    let rows: Vec<_> = args.iter().map(|arg| vec![flag(arg), meaning(arg)]).collect();
    table(&["option", "meaning"], &rows)
}

fn flag(arg: &Arg) -> String {
    let mut names: Vec<String> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let value = if takes_value(arg) { format!(" {}", values(arg)) } else { String::new() };
    format!("`{}{value}`", names.join(", "))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn values(arg: &Arg) -> String {
    let names: Vec<_> = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { arg.get_id().to_string().to_uppercase() } else { names.join(" ") };
    let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    if many || matches!(arg.get_action(), ArgAction::Append) { format!("{names}…") } else { names }
}

/// What it is for, what it may be, and what it is when nothing is said.
fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_long_help().or(arg.get_help()).map(|help| cell(&help.to_string())).unwrap_or_default();
    let possible: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|value| takes_value(arg) && !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), cell(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !possible.is_empty() {
        text.push_str(&format!(". {}", possible.join("; ")));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes_value(arg) && !defaults.is_empty() {
        text.push_str(&format!(". Default: `{}`", defaults.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_that_is_not_hidden_is_on_the_page() {
        fn all(command: &Command, page: &str) -> usize {
            let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
            for flag in flags.filter(|flag| !["help", "version"].contains(flag)) {
                assert!(page.contains(&format!("--{flag}")), "{} --{flag}", command.get_name());
            }
            visible(command).map(|sub| all(sub, page)).sum::<usize>() + 1
        }
        let page = page();
        let commands = all(&koncli::args::Cli::command(), &page);
        assert_eq!(page.matches("\n## koncli ").count() + 1, commands);
        assert!(!page.contains("__watchdog"), "it is not for people");
    }

    #[test]
    fn paragraphs_are_broken_and_examples_are_not() {
        let long = "word ".repeat(30);
        let text = wrapped(&format!("{long}\n  {long}"));
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().next().is_some_and(|line| line.len() <= WIDTH));
    }
}
