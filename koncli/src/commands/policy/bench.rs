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

pub(super) fn run(out: Output, args: &BenchArgs) -> Result<()> {
    let inputs = inputs(args)?;
    let host = files::host()?;
    let policy = files::policy(&host, &args.module)?;
    let mut costs = Vec::new();
    for (name, input) in &inputs {
        match bench::measure(&policy, input, args.runs as usize) {
            Ok(cost) => costs.push((name, cost)),
            // A fixture may be about a fault; its cost is no decision's.
            Err(fault) if args.fixtures.is_some() => out.say(format_args!("{name}: {}", fault.reason())),
            Err(fault) => {
                let why = format!("{}: {fault}", fault.reason());
                return Err(Error::new(format!("decide with {}", args.module), Problem::Failed(why)));
            }
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
    let most = costs.iter().max_by_key(|(_, cost)| cost.fuel);
    match (args.max_fuel, most) {
        (Some(limit), Some((name, cost))) if cost.fuel > limit => {
            let why = format!("{name} takes {} fuel, {} more than {limit}", cost.fuel, cost.fuel - limit);
            Err(Error::new(format!("stay within --max-fuel {limit} with {}", args.module), Problem::Failed(why)))
        }
        _ => Ok(()),
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

/// What is measured: a name and an input each.
fn inputs(args: &BenchArgs) -> Result<Vec<(String, Vec<u8>)>> {
    let understand = |named: String| {
        move |mistake: konductor_workbench::Mistake| {
            Error::new(format!("understand {named}"), Problem::Invalid(mistake.to_string()))
        }
    };
    if let Some(named) = &args.fixtures {
        let mut inputs = Vec::new();
        for file in files::yaml(std::slice::from_ref(named))? {
            let cases = fixture::parse(&files::text(&file)?).map_err(understand(file.display().to_string()))?;
            inputs.extend(bench::inputs(&cases).into_iter().map(|(name, input)| (name.to_owned(), input)));
        }
        return Ok(inputs);
    }
    let (name, filled) = match &args.input {
        Some(file) => (file.display().to_string(), fixture::input(&files::text(file)?)),
        None => (format!("{} requests", args.requests), bench::crowd(args.requests)),
    };
    let filled = filled.map_err(understand(name.clone()))?;
    Ok(vec![(name, filled.json())])
}
