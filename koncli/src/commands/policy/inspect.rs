//! `koncli policy inspect`.

use konductor_workbench::inspect::{self, Module, Report, Typed};

use super::files;
use crate::{
    args::{Format, InspectArgs},
    client::{Error, Problem, Result},
    output::{Output, Table},
    text::bytes,
};

pub(super) fn run(out: Output, args: &InspectArgs) -> Result<()> {
    let host = files::host()?;
    let report = match args.module.as_str() {
        files::DEFAULT => inspect::builtin(&host),
        file => inspect::inspect(&host, &files::module(file)?),
    };
    match out.format {
        Format::Json | Format::Yaml => out.structured(&report)?,
        Format::Name => out.data(report.module.as_ref().map_or("", |module| &module.digest))?,
        Format::Text | Format::Wide => text(out, &args.module, &report)?,
    }
    if report.accepted {
        return Ok(());
    }
    let all: Vec<&str> = report.refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    Err(Error::new(format!("use {} as a policy", args.module), Problem::Failed(all.join("; "))))
}

fn text(out: Output, named: &str, report: &Report) -> Result<()> {
    let verdict = if report.accepted { "a host would take it" } else { "a host would refuse it" };
    out.data(format_args!("{named}: {verdict}"))?;
    for refusal in &report.refusals {
        out.data(format_args!("  {}: {}", refusal.reason, refusal.message))?;
    }
    if let Some(module) = &report.module {
        out.data("")?;
        out.data(facts(module))?;
        list(out, "exports", &module.exports)?;
        list(out, "imports", &module.imports)?;
        out.data("\nsections")?;
        let mut table = Table::new(&["  NAME", "SIZE"]);
        for section in &module.sections {
            table.row(vec![format!("  {}", section.name), bytes(section.size)]);
        }
        out.data(table)?;
    }
    let Some(says) = &report.description else {
        return if report.accepted {
            out.data("\nit does not describe itself (no konductor_describe)")
        } else {
            Ok(())
        };
    };
    out.data(format_args!("\nit says of itself\n  {} {}\n  {}", says.name, says.version, says.description))?;
    match &says.params_schema {
        None => out.data("  no schema of its params"),
        Some(schema) => {
            let schema = serde_json::to_string_pretty(schema).unwrap_or_default();
            let indented: Vec<String> = schema.lines().map(|line| format!("  {line}")).collect();
            out.data(format_args!("\nschema of its params\n{}", indented.join("\n")))
        }
    }
}

fn facts(module: &Module) -> Table {
    let mut table = Table::new(&["digest", &module.digest]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    let compressed = bytes(module.compressed_size);
    row("size", format!("{}, compressed {compressed}", bytes(module.size)));
    let at_most = module.memory_max.map_or_else(String::new, |most| format!(", at most {}", size(most)));
    row("memory", module.memory.map_or_else(|| "none".to_owned(), |first| format!("{}{at_most}", size(first))));
    row("functions", format!("{}, the longest has {}", module.functions, bytes(module.longest_function)));
    let names = if module.function_names { "kept: a trap says where" } else { "stripped: a trap does not say where" };
    row("function names", names.to_owned());
    let debug: usize = module.sections.iter().filter(|s| s.name.starts_with("\".debug")).map(|s| s.size).sum();
    if debug > 0 {
        row("debug information", format!("{}, which nothing reads here: strip it", bytes(debug)));
    }
    row("start section", if module.start_section { "yes" } else { "no" }.to_owned());
    row("made by", module.producers.join(", "));
    table
}

fn list(out: Output, title: &str, entries: &[Typed]) -> Result<()> {
    let none = if entries.is_empty() { ": none" } else { "" };
    out.data(format_args!("\n{title}{none}"))?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["  NAME", "TYPE"]);
    for entry in entries {
        table.row(vec![format!("  {}", entry.name), entry.ty.clone()]);
    }
    out.data(table)
}

fn size(count: u64) -> String {
    bytes(usize::try_from(count).unwrap_or(usize::MAX))
}
