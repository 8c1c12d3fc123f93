//! `koncli man`.

use std::{io::Write as _, path::Path};

use clap_mangen::Man;

use crate::{
    args,
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, directory: Option<&Path>) -> Result<()> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let Some(directory) = directory else {
        let mut page = Vec::new();
        let written = Man::new(command).render(&mut page).and_then(|()| std::io::stdout().lock().write_all(&page));
        return match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::new("write to stdout", Problem::Local(error.to_string())))
            }
            _ => Ok(()),
        };
    };
    let doing = || format!("write the manual into {}", directory.display());
    let failed = |error: std::io::Error| Error::new(doing(), Problem::Local(error.to_string()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut pages = Vec::new();
    for command in all(&command) {
        let man = Man::new(command.clone());
        man.generate_to(directory).map_err(failed)?;
        pages.push(man.get_filename());
    }
    let data = serde_json::json!({ "directory": directory, "pages": pages });
    let line = format!("wrote {} pages into {}", pages.len(), directory.display());
    out.done(&directory.display().to_string(), line, &data)
}

/// A command and all below it, without those that are not for people.
fn all(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    std::iter::once(command).chain(below.flat_map(all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_says_what_its_help_says() {
        let mut command = args::command().disable_help_subcommand(true);
        command.build();
        let all = all(&command);
        assert!(all.len() > 30, "{}", all.len());
        for command in all {
            let man = Man::new(command.clone());
            let mut page = Vec::new();
            man.render(&mut page).expect("rendered");
            let page = String::from_utf8(page).expect("UTF-8").replace("\\*(Aq", "'").replace('\\', "");
            let name = man.get_filename();
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && page.contains(&about), "{name}: {about}\n{page}");
            for argument in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("--{argument}")), "{name}: --{argument}");
            }
        }
    }
}
