//! `koncli policy eval`.

use konductor_workbench::{eval, fixture};

use super::files;
use crate::{
    args::{EvalArgs, Format},
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, args: EvalArgs) -> Result<()> {
    let input = input(&args)?;
    let host = files::host()?;
    let policy = files::policy(&host, &args.module)?;
    let found = eval::evaluate(&policy, &input);
    if args.raw {
        out.raw(&found.output)?;
    } else if matches!(out.format, Format::Json | Format::Yaml) {
        out.structured(&found)?;
    } else if let Some(decision) = &found.decision {
        out.data(serde_json::to_string_pretty(decision).unwrap_or_default())?;
    } else if !found.output.is_empty() {
        out.data(String::from_utf8_lossy(&found.output).escape_debug())?;
    }
    for line in &found.words {
        out.say(line);
    }
    for rule in &found.clamped {
        out.say(format_args!("the host would cut it: {rule}"));
    }
    if let (Some(fuel), Some(micros)) = (found.fuel, found.micros) {
        out.say(format_args!("{fuel} fuel, {micros} µs"));
    }
    if found.problems.is_empty() {
        return Ok(());
    }
    let why = "a host would not ask it, or not obey its answer".to_owned();
    let mut error = Error::new(format!("decide with {}", args.module), Problem::Failed(why));
    for problem in found.problems {
        error = error.with_note(problem);
    }
    Err(error)
}

fn input(args: &EvalArgs) -> Result<Vec<u8>> {
    let file = args.input.as_deref();
    if args.exact {
        // Clap has seen to it that there is one.
        return files::bytes(file.unwrap_or(std::path::Path::new(files::STDIN)));
    }
    let text = file.map(files::text).transpose()?.unwrap_or_default();
    let named = file.map_or_else(|| "the empty input".to_owned(), |file| file.display().to_string());
    let mut filled = fixture::input(&text).map_err(|mistake| {
        Error::new(format!("understand the input {named}"), Problem::Invalid(mistake.to_string()))
            .with_note("to give it to the policy as it is: --exact")
    })?;
    if let Some(params) = &args.params {
        filled.0.params = serde_json::Value::Object(params.clone());
    }
    Ok(filled.json())
}
