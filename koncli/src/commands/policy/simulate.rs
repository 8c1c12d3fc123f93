//! `koncli policy simulate`.

use std::{os::unix::fs::MetadataExt as _, path::Path};

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
    targets(args)?;
    let shown = args.scenario.display();
    let scenario = scenario::parse(&files::text(&args.scenario)?).map_err(|mistake| {
        Error::new(format!("understand the scenario {shown}"), Problem::Invalid(mistake.to_string()))
    })?;
    let host = files::host()?;
    let policy = files::policy(&host, &args.policy)?;
    let failed = |why: String| Error::new(format!("play the scenario {shown}"), Problem::Failed(why));
    let story = match &args.journal {
        None => scenario::play(&scenario, &host, policy).map_err(|broken| failed(broken.to_string()))?,
        Some(file) => {
            let (story, journal) =
                scenario::play_and_record(&scenario, &host, policy).map_err(|broken| failed(broken.to_string()))?;
            let mut lines = String::new();
            for record in &journal {
                lines.push_str(&record.line().map_err(|error| failed(error.to_string()))?);
                lines.push('\n');
            }
            write(file, &lines)?;
            out.say(format_args!("{} decisions written to {}", journal.len(), file.display()));
            story
        }
    };
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

/// Nothing that is read is written over, and no two things are written into one file.
fn targets(args: &SimulateArgs) -> Result<()> {
    let mut taken = vec![("the scenario", args.scenario.as_path())];
    if args.policy != files::DEFAULT {
        taken.push(("the policy's module", Path::new(&args.policy)));
    }
    for (flag, target) in [("--svg", &args.svg), ("--journal", &args.journal)] {
        let Some(target) = target.as_deref() else { continue };
        let refused =
            |why: String| Err(Error::new(format!("write {flag} {}", target.display()), Problem::Invalid(why)));
        if target == Path::new(files::STDIN) {
            return refused("- is no file; name one, or /dev/stdout together with -o name".to_owned());
        }
        if let Some((what, _)) = taken.iter().find(|(_, other)| is_same(other, target)) {
            return refused(format!("{what} is that file; name another one"));
        }
        taken.push((flag, target));
    }
    Ok(())
}

/// Whether both mean one file, by whatever names.
fn is_same(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => std::path::absolute(a).ok() == std::path::absolute(b).ok(),
        _ => false,
    }
}

/// As wide as the terminal is.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(WIDTH)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text)
        .map_err(|error| Error::new(format!("write {}", file.display()), Problem::Local(error.to_string())))
}
