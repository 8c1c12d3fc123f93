//! `koncli policy replay`.

use std::{collections::BTreeMap, sync::Arc};

use konductor_workbench::{
    Host, Policy, Record,
    replay::{self, Comparison, Records},
};
use serde_json::{Value, json};

use super::files;
use crate::{
    args::{Format, ReplayArgs},
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, args: &ReplayArgs) -> Result<()> {
    let doing = || format!("understand the journal {}", args.journal.display());
    let journal = files::opened(&args.journal)?;
    let host = files::host()?;
    let modules = modules(&host, &args.modules)?;
    let with = args.with.as_deref().map(|with| files::policy(&host, with)).transpose()?;

    let mut reproduced = Reproduced::default();
    let mut redecided = with.map(|with| Redecided { with, comparison: Comparison::default(), changes: Vec::new() });
    let mut records = Records::of(journal);
    for read in records.by_ref() {
        let (line, record) = read.map_err(|mistake| Error::new(doing(), Problem::Invalid(mistake.to_string())))?;
        reproduced.one(out, args, line, &record, &modules)?;
        if let Some(redecided) = &mut redecided {
            redecided.one(out, args, line, &record)?;
        }
    }
    if let Some(line) = records.cut() {
        out.say(format_args!("line {line}, the last one, is cut off and left out: who wrote it was stopped"));
    }
    if let Some((line, fault)) = &reproduced.machine_first {
        out.say(format_args!(
            "{} decisions cannot be made again, because the machine failed and not the policy, the first in line {line}: {fault}",
            reproduced.machine
        ));
    }
    let unknown: usize = reproduced.unknown.values().sum();
    match out.format {
        Format::Json | Format::Yaml => out.structured(&json!({
            "decisions": reproduced.decisions,
            "reproduced": reproduced.same,
            "differing": reproduced.differing,
            "machineFailed": reproduced.machine,
            "unknownModules": reproduced.unknown,
            "comparison": redecided.as_ref().map(|redecided| &redecided.comparison),
            "changes": redecided.as_ref().map_or(&[][..], |redecided| &redecided.changes),
        }))?,
        Format::Name => {}
        Format::Text | Format::Wide => {
            out.data(format_args!(
                "{} decisions: {} reproduced byte for byte, {} differ, {unknown} of unknown modules",
                reproduced.decisions, reproduced.same, reproduced.differing
            ))?;
            if let Some(redecided) = &redecided {
                told(out, args, &redecided.comparison)?;
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
    decisions: usize,
    same: usize,
    differing: usize,
    first: Option<usize>,
    /// How many say nothing of a module, because the machine failed.
    machine: usize,
    machine_first: Option<(usize, String)>,
    /// How many decisions are of a module that is not here, by policy and digest.
    unknown: BTreeMap<String, usize>,
}

impl Reproduced {
    /// One more decision.
    fn one(
        &mut self,
        out: Output,
        args: &ReplayArgs,
        line: usize,
        record: &Record,
        modules: &BTreeMap<String, Arc<Policy>>,
    ) -> Result<()> {
        self.decisions += 1;
        let Some(policy) = modules.get(&record.digest) else {
            *self.unknown.entry(format!("{} {}", record.policy, record.digest)).or_default() += 1;
            return Ok(());
        };
        match replay::reproduce(record, policy) {
            replay::Reproduced::Same => self.same += 1,
            replay::Reproduced::MachineFailed(fault) => {
                self.machine += 1;
                self.machine_first.get_or_insert((line, fault));
            }
            replay::Reproduced::Differs(differences) => {
                self.differing += 1;
                self.first.get_or_insert(line);
                if self.differing <= args.limit && is_text(out) {
                    out.data(format_args!("line {line} differs: {} at {}", record.lease, record.at))?;
                    differences.iter().try_for_each(|text| out.data(format_args!("  {text}")))?;
                }
            }
        }
        Ok(())
    }

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

/// Every decision, made again by another module.
struct Redecided {
    with: Arc<Policy>,
    comparison: Comparison,
    /// As many as are listed, as JSON.
    changes: Vec<Value>,
}

impl Redecided {
    /// One more decision.
    fn one(&mut self, out: Output, args: &ReplayArgs, line: usize, record: &Record) -> Result<()> {
        let change = replay::redecide(record, &self.with).map_err(|mistake| {
            let doing = format!("decide line {line} of {} again", args.journal.display());
            Error::new(doing, Problem::Invalid(mistake.to_string()))
        })?;
        self.comparison.count(change.as_ref());
        let Some(change) = change.filter(|_| self.comparison.different <= args.limit) else { return Ok(()) };
        if is_text(out) {
            let applied = if record.applied { "" } else { " (it did not come to pass)" };
            out.data(format_args!("line {line}: {} at {}{applied}", record.lease, record.at))?;
            out.data(format_args!("  was       {}", change.was))?;
            out.data(format_args!("  would be  {}", change.would_be))?;
        } else {
            self.changes.push(json!({ "line": line, "at": record.at, "lease": record.lease, "change": change }));
        }
        Ok(())
    }
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
