//! `koncli policy replay`.

use std::{collections::BTreeMap, sync::Arc};

use konductor_workbench::{
    Host, Policy, Record,
    replay::{self, Comparison},
};
use serde_json::{Value, json};

use super::files;
use crate::{
    args::{Format, ReplayArgs},
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, args: &ReplayArgs) -> Result<()> {
    let shown = args.journal.display();
    let journal = replay::parse(&files::text(&args.journal)?).map_err(|mistake| {
        Error::new(format!("understand the journal {shown}"), Problem::Invalid(mistake.to_string()))
    })?;
    let host = files::host()?;
    let modules = modules(&host, &args.modules)?;
    let with = args.with.as_deref().map(|with| files::policy(&host, with)).transpose()?;

    let reproduced = reproduce(out, args, &journal, &modules)?;
    let (comparison, changes) = match &with {
        Some(with) => {
            let (comparison, changes) = redecide(out, args, &journal, with)?;
            (Some(comparison), changes)
        }
        None => (None, Vec::new()),
    };
    match out.format {
        Format::Json | Format::Yaml => out.structured(&json!({
            "decisions": journal.len(),
            "reproduced": journal.len() - reproduced.differing - reproduced.unknown.values().sum::<usize>(),
            "differing": reproduced.differing,
            "unknownModules": reproduced.unknown,
            "comparison": comparison,
            "changes": changes,
        }))?,
        Format::Name => {}
        Format::Text | Format::Wide => {
            let unknown: usize = reproduced.unknown.values().sum();
            out.data(format_args!(
                "{} decisions: {} reproduced byte for byte, {} differ, {unknown} of unknown modules",
                journal.len(),
                journal.len() - reproduced.differing - unknown,
                reproduced.differing
            ))?;
            if let Some(comparison) = &comparison {
                told(out, args, comparison)?;
            }
        }
    }
    reproduced.verdict(args)
}

/// The modules by their digest.
fn modules(host: &Host, named: &[String]) -> Result<BTreeMap<String, Arc<Policy>>> {
    let mut modules = BTreeMap::from([(host.builtin().digest().to_owned(), host.builtin())]);
    for named in named {
        let policy = files::policy(host, named)?;
        modules.insert(policy.digest().to_owned(), policy);
    }
    Ok(modules)
}

#[derive(Default)]
struct Reproduced {
    differing: usize,
    first: Option<usize>,
    /// How many decisions are of a module that is not here, by policy and digest.
    unknown: BTreeMap<String, usize>,
}

fn reproduce(
    out: Output,
    args: &ReplayArgs,
    journal: &[(usize, Record)],
    modules: &BTreeMap<String, Arc<Policy>>,
) -> Result<Reproduced> {
    let mut reproduced = Reproduced::default();
    for (line, record) in journal {
        let Some(policy) = modules.get(&record.digest) else {
            *reproduced.unknown.entry(format!("{} {}", record.policy, record.digest)).or_default() += 1;
            continue;
        };
        let differences = replay::reproduce(record, policy);
        if differences.is_empty() {
            continue;
        }
        reproduced.differing += 1;
        reproduced.first.get_or_insert(*line);
        if reproduced.differing <= args.limit && is_text(out) {
            out.data(format_args!("line {line} differs: {} at {}", record.lease, record.at))?;
            differences.iter().try_for_each(|text| out.data(format_args!("  {text}")))?;
        }
    }
    Ok(reproduced)
}

impl Reproduced {
    fn verdict(&self, args: &ReplayArgs) -> Result<()> {
        let doing = format!("reproduce {}", args.journal.display());
        if let Some(first) = self.first {
            let why = format!("{} decisions differ, the first in line {first}", self.differing);
            return Err(Error::new(doing, Problem::Failed(why)));
        }
        if self.unknown.is_empty() {
            return Ok(());
        }
        let all: Vec<String> = self.unknown.iter().map(|(module, count)| format!("{module} ({count})")).collect();
        let why = format!("the modules of some decisions are not here: {}", all.join(", "));
        Err(Error::new(doing, Problem::Failed(why)).with_note("name each module's file with --module"))
    }
}

fn redecide(
    out: Output,
    args: &ReplayArgs,
    journal: &[(usize, Record)],
    with: &Policy,
) -> Result<(Comparison, Vec<Value>)> {
    let mut comparison = Comparison::default();
    let mut listed = Vec::new();
    for (line, record) in journal {
        let change = replay::redecide(record, with).map_err(|mistake| {
            let doing = format!("decide line {line} of {} again", args.journal.display());
            Error::new(doing, Problem::Invalid(mistake.to_string()))
        })?;
        comparison.count(change.as_ref());
        let Some(change) = change.filter(|_| comparison.different <= args.limit) else { continue };
        if is_text(out) {
            let applied = if record.applied { "" } else { " (it did not come to pass)" };
            out.data(format_args!("line {line}: {} at {}{applied}", record.lease, record.at))?;
            out.data(format_args!("  was       {}", change.was))?;
            out.data(format_args!("  would be  {}", change.would_be))?;
        } else {
            listed.push(json!({ "line": line, "at": record.at, "lease": record.lease, "change": change }));
        }
    }
    Ok((comparison, listed))
}

fn told(out: Output, args: &ReplayArgs, comparison: &Comparison) -> Result<()> {
    let with = args.with.as_deref().unwrap_or_default();
    let more = comparison.different.saturating_sub(args.limit);
    let more = if more > 0 { format!(" ({more} of them not listed: --limit)") } else { String::new() };
    out.data(format_args!(
        "with {with}: {} of {} decisions would be otherwise{more}",
        comparison.different, comparison.compared
    ))?;
    comparison.kinds.iter().try_for_each(|(kind, count)| out.data(format_args!("  {count:>5}  {}", kind.words())))
}

fn is_text(out: Output) -> bool {
    matches!(out.format, Format::Text | Format::Wide)
}
