//! What this program is called: `koncli`, or `kubectl konductor` where kubectl has found it as its plugin.

use std::path::Path;

use clap::{Command, CommandFactory as _, FromArgMatches as _};

use super::Cli;

/// Its own name.
pub const NAME: &str = "koncli";
/// The name under which kubectl finds it, and how it is called then.
const PLUGIN: (&str, &str) = ("kubectl-konductor", "kubectl konductor");

/// The name of the file that was started, which may be a link to it.
#[must_use]
pub fn file_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// How a person calls it.
#[must_use]
pub fn program() -> &'static str {
    called(&file_name())
}

fn called(file: &str) -> &'static str {
    if file == PLUGIN.0 { PLUGIN.1 } else { NAME }
}

/// A text that tells people what to type, as they have to type it here.
#[must_use]
pub fn as_typed(text: &str) -> String {
    renamed(text, program())
}

fn renamed(text: &str, program: &str) -> String {
    text.replace(&format!("{NAME} "), &format!("{program} "))
}

/// The commands, with help that says what to type here.
#[must_use]
pub fn command() -> Command {
    command_of(program())
}

fn command_of(program: &'static str) -> Command {
    if program == NAME { Cli::command() } else { told(Cli::command().bin_name(program), program) }
}

fn told(mut command: Command, program: &'static str) -> Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(renamed(&text, program));
    }
    if let Some(text) = command.get_about().map(ToString::to_string) {
        command = command.about(renamed(&text, program));
    }
    let command = command.mut_args(|arg| match arg.get_help().map(ToString::to_string) {
        Some(text) => arg.help(renamed(&text, program)),
        None => arg,
    });
    command.mut_subcommands(|command| told(command, program))
}

/// Reads what was typed.
///
/// # Errors
/// If it is not understood, or asks for help: clap says what to write.
pub fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_says_what_to_type_for_kubectl() {
        for (file, program) in
            [("koncli", "koncli"), ("kubectl-konductor", "kubectl konductor"), ("koncli-0.1", "koncli"), ("", "koncli")]
        {
            assert_eq!(called(file), program, "{file}");
        }
        let mut plugin = command_of("kubectl konductor");
        plugin.build();
        let mut all = vec![&mut plugin];
        let mut seen = 0;
        while let Some(command) = all.pop() {
            let help = command.render_long_help().to_string();
            assert!(!help.contains("koncli lease") && !help.contains("koncli policy"), "{help}");
            if !command.is_hide_set() && command.get_name() != "help" {
                assert!(help.contains("Usage: kubectl konductor"), "{help}");
            }
            seen += 1;
            all.extend(command.get_subcommands_mut());
        }
        assert!(seen > 30, "{seen}");
        assert!(command_of(NAME).render_long_help().to_string().contains("koncli lease create"));
    }
}
