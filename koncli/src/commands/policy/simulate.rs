//! `koncli policy simulate`.

use std::path::Path;

use konductor_workbench::scenario;

use super::files;
use crate::{
    args::{Format, SimulateArgs},
    client::{Error, Problem, Result},
    output::Output,
};

/// How wide a drawing is where the terminal does not say.
const WIDTH: usize = 100;

pub(super) fn run(out: Output, args: &SimulateArgs) -> Result<()> {
    let shown = args.scenario.display();
    let scenario = scenario::parse(&files::text(&args.scenario)?).map_err(|mistake| {
        Error::new(format!("understand the scenario {shown}"), Problem::Invalid(mistake.to_string()))
    })?;
    let host = files::host()?;
    let policy = files::policy(&host, &args.policy)?;
    let story = scenario::play(&scenario, &host, policy)
        .map_err(|broken| Error::new(format!("play the scenario {shown}"), Problem::Failed(broken.to_string())))?;
    if let Some(file) = &args.svg {
        write(file, &story.svg())?;
        out.say(format_args!("drawn into {}", file.display()));
    }
    match out.format {
        Format::Json | Format::Yaml => out.structured(&story)?,
        Format::Name => {}
        Format::Text | Format::Wide => {
            if !story.description.is_empty() {
                out.data(format_args!("{}\n", story.description))?;
            }
            out.data(if args.draw { story.lanes(width()) } else { story.timeline() })?;
            out.data(format_args!("\n{}", story.totals()))?;
        }
    }
    let differences = story.differences(&scenario);
    if differences.is_empty() {
        return Ok(());
    }
    let mut error =
        Error::new(format!("find in {shown} what it expects"), Problem::Failed("it went otherwise".to_owned()));
    for line in differences {
        error = error.with_note(line);
    }
    Err(error)
}

/// As wide as the terminal says, by the variable that shells keep.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text)
        .map_err(|error| Error::new(format!("write {}", file.display()), Problem::Local(error.to_string())))
}
