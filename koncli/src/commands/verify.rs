//! `koncli lease verify`.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use konductor_verify::{Format as Source, Options, Problem as Unreadable, Reader, Report, check, join};
use serde_json::json;

use crate::{
    args::{Format, VerifyArgs},
    client::{Error, Problem, Result},
    output::{Output, Table, lease_name},
};

/// No line of a recording or an audit log that makes sense is longer: etcd keeps no object above 1.5 MiB, and an audit
/// event has it twice.
const LINE_MAX: u64 = 8 << 20;
/// So many violations are shown to people; the rest is counted. One mistake often makes many.
const SHOWN_MAX: usize = 50;

pub(super) fn run(out: Output, args: &VerifyArgs) -> Result<()> {
    let mut parts = Vec::new();
    for file in &args.files {
        let shown = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
        let (source, history) = read(file, args.cut_off, out, &shown)?;
        out.detail(format_args!("{shown}: {}", source.as_str()));
        parts.push((source, history));
    }
    let sources: Vec<Source> = parts.iter().map(|(source, _)| *source).collect();
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let options = Options {
        lag: ms(args.lag),
        tolerance: ms(args.tolerance),
        max_clock_skew: ms(args.max_clock_skew),
        order: !args.any_order,
    };
    let report = check(&join(parts), &options);
    match out.format {
        Format::Json | Format::Yaml => out.structured(&json!({
            "files": args.files.iter().zip(&sources).map(|(file, format)| json!({ "file": file, "format": format })).collect::<Vec<_>>(),
            "violations": report.violations,
            "figures": report.figures,
        }))?,
        Format::Name => {
            let mut named: Vec<&str> = report.violations.iter().map(|violation| &*violation.lease).collect();
            named.sort_unstable();
            named.dedup();
            named.into_iter().try_for_each(|name| out.data(lease_name(name)))?;
        }
        Format::Text | Format::Wide => text(out, &report)?,
    }
    match report.violations.len() {
        0 => Ok(()),
        count => Err(Error::new(
            format!("call {} right", args.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")),
            Problem::Failed(format!("{count} violations of what must never happen")),
        )),
    }
}

fn text(out: Output, report: &Report) -> Result<()> {
    if !report.violations.is_empty() {
        let mut table = Table::new(&["REVISION", "LEASE", "RULE", "WHAT"]);
        for violation in report.violations.iter().take(SHOWN_MAX) {
            let lease = format!("{}/{}", violation.namespace, violation.lease);
            let rule = violation.rule.as_str().to_owned();
            table.row(vec![violation.revision.to_string(), lease, rule, violation.what.clone()]);
            let mut more = |name: &str, text: String| {
                table.row(vec![" ".into(), " ".into(), name.to_owned(), text]);
            };
            if let Some(before) = &violation.before {
                more("  before:", before.to_string());
            }
            more("  then:", violation.event.to_string());
        }
        out.data(&table)?;
        if report.violations.len() > SHOWN_MAX {
            out.data(format_args!("and {} more: all of them with -o json", report.violations.len() - SHOWN_MAX))?;
        }
        out.data("")?;
    }
    out.data(summary(report))
}

/// The figures in a few lines.
fn summary(report: &Report) -> String {
    let figures = &report.figures;
    let list = |all: Vec<(&str, usize)>| {
        all.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!(
        "{} events, {} leases, {} requests, {} holds, {} grants seen, {} gaps",
        figures.events, figures.leases, figures.requests, figures.holds, figures.grants, figures.gaps
    );
    if !figures.endings.is_empty() {
        text.push_str(&format!(
            "\nholds: {}",
            list(figures.endings.iter().map(|(how, count)| (*how, *count)).collect())
        ));
    }
    let unjudged = figures.unjudged.iter().map(|(why, count)| (why.as_str(), *count)).collect::<Vec<_>>();
    let unjudged = if unjudged.is_empty() { "nothing".to_owned() } else { list(unjudged) };
    text.push_str(&format!("\nnot judged: {unjudged}\n{} violations", report.violations.len()));
    text
}

fn read(file: &Path, cut_off: bool, out: Output, shown: &str) -> Result<(Source, konductor_verify::History)> {
    let doing = || format!("judge {shown}");
    let invalid = |why: String| Error::new(doing(), Problem::Invalid(why));
    let mut lines: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).map_err(|error| invalid(error.to_string()))?))
    };
    let mut reader = Reader::new();
    let mut line = Vec::new();
    let mut number = 0_usize;
    loop {
        line.clear();
        number += 1;
        let mut one = std::io::Read::take(&mut lines, LINE_MAX);
        one.read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))?;
        if line.is_empty() {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && line.len() as u64 == LINE_MAX {
            return Err(invalid(format!("line {number} is longer than {} MiB", LINE_MAX >> 20)));
        }
        // A file that was cut in the middle of a letter is cut off; anything else that is not text is of neither format.
        let taken = reader.line(&String::from_utf8_lossy(&line), whole);
        match taken {
            Err(Unreadable::CutOff(number)) if cut_off => {
                out.say(format_args!("{shown}: line {number} is cut off and left out"));
            }
            taken => taken.map_err(|problem| unreadable(doing(), &problem))?,
        }
    }
    reader.finish().map_err(|problem| unreadable(doing(), &problem))
}

fn unreadable(doing: String, problem: &Unreadable) -> Error {
    let error = Error::new(doing, Problem::Invalid(problem.to_string()));
    match problem {
        Unreadable::CutOff(_) => error.with_note(
            "it is still written, or whoever wrote it was killed; with --cut-off it is judged without that line",
        ),
        Unreadable::NoWrites => error.with_note("the audit policy that is needed: koncli lease verify --help"),
        Unreadable::Neither(_) | Unreadable::Empty => {
            error.with_note("make a recording with: koncli lease record --file history.jsonl")
        }
        Unreadable::TooMany(_) => error.with_note("judge its parts one by one, or record fewer leases"),
        Unreadable::Line(..) => error,
    }
}
