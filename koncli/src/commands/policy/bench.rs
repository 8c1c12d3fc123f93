//! `koncli policy bench`.

use konductor_workbench::{
    bench::{self, Cost},
    fixture,
};
use serde_json::json;

use super::files;
use crate::{
    args::{BenchArgs, Format},
    client::{Error, Problem, Result},
    output::{Output, Table},
    text::bytes,
};

/// How many inputs that were not decided are listed; all are counted.
const FAILURES_MAX: usize = 20;

/// What is measured.
struct Measured {
    name: String,
    input: Vec<u8>,
    /// A fixture may be about a fault; its cost is no decision's.
    may_fail: bool,
}

pub(super) fn run(out: Output, args: &BenchArgs) -> Result<()> {
    let inputs = inputs(args)?;
    let host = files::host()?;
    let policy = files::policy(&host, &args.module)?;
    let mut costs = Vec::new();
    let mut failures = Vec::new();
    for Measured { name, input, may_fail } in &inputs {
        match bench::measure(&policy, input, args.runs as usize) {
            Ok(cost) => costs.push((name, cost)),
            Err(fault) if *may_fail => out.say(format_args!("{name}: {}", fault.reason())),
            Err(fault) => failures.push(format!("{name}: {}: {fault}", fault.reason())),
        }
    }
    match out.format {
        Format::Json | Format::Yaml => {
            let list: Vec<_> = costs.iter().map(|(name, cost)| json!({ "name": name, "cost": cost })).collect();
            out.structured(&json!({ "module": args.module, "digest": policy.digest(), "inputs": list }))?;
        }
        Format::Name => {}
        Format::Text | Format::Wide => out.data(table(&costs))?,
    }
    if !failures.is_empty() {
        let why = format!("{} of {} inputs are not decided", failures.len(), inputs.len());
        let error = Error::new(format!("decide with {}", args.module), Problem::Failed(why));
        let (shown, more) = failures.split_at(failures.len().min(FAILURES_MAX));
        let error = shown.iter().fold(error, |error, failure| error.with_note(failure.clone()));
        return Err(if more.is_empty() { error } else { error.with_note(format!("and {} more", more.len())) });
    }
    let Some(limit) = args.max_fuel else { return Ok(()) };
    let beyond = |why: String| {
        Err(Error::new(format!("stay within --max-fuel {limit} with {}", args.module), Problem::Failed(why)))
    };
    match costs.iter().max_by_key(|(_, cost)| cost.fuel) {
        Some((name, cost)) if cost.fuel > limit => {
            beyond(format!("{name} takes {} fuel, {} more than {limit}", cost.fuel, cost.fuel - limit))
        }
        Some(_) => Ok(()),
        None => beyond("no decision was measured: there is no case that expects one".to_owned()),
    }
}

fn table(costs: &[(&String, Cost)]) -> Table {
    let mut table = Table::new(&["INPUT", "FUEL", "P50 µs", "P90 µs", "P99 µs", "MEMORY", "IN", "OUT"]);
    for (name, cost) in costs {
        table.row(vec![
            (*name).clone(),
            cost.fuel.to_string(),
            cost.p50_us.to_string(),
            cost.p90_us.to_string(),
            cost.p99_us.to_string(),
            bytes(cost.memory),
            bytes(cost.input_bytes),
            bytes(cost.output_bytes),
        ]);
    }
    table
}

fn inputs(args: &BenchArgs) -> Result<Vec<Measured>> {
    let understand = |named: String| {
        move |mistake: konductor_workbench::Mistake| {
            Error::new(format!("understand {named}"), Problem::Invalid(mistake.to_string()))
        }
    };
    if let Some(named) = &args.fixtures {
        let mut inputs = Vec::new();
        for file in files::yaml(std::slice::from_ref(named))? {
            let cases = fixture::parse(&files::text(&file)?).map_err(understand(file.display().to_string()))?;
            inputs.extend(bench::inputs(&cases).into_iter().map(|(case, input)| Measured {
                name: case.name.clone(),
                input,
                may_fail: case.expects_a_fault(),
            }));
        }
        return Ok(inputs);
    }
    let (name, filled) = match &args.input {
        Some(file) => (file.display().to_string(), fixture::input(&files::text(file)?)),
        None => (format!("{} requests", args.requests), bench::crowd(usize::from(args.requests))),
    };
    let filled = filled.map_err(understand(name.clone()))?;
    Ok(vec![Measured { name, input: filled.json(), may_fail: false }])
}
