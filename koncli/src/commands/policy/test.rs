//! `koncli policy test`.

use konductor_workbench::fixture::{self, Outcome};
use serde_json::json;

use super::files;
use crate::{
    args::{Format, TestArgs},
    client::{Error, Problem, Result},
    output::Output,
};

pub(super) fn run(out: Output, args: &TestArgs) -> Result<()> {
    let mut cases = Vec::new();
    for file in files::yaml(&args.fixtures)? {
        let parsed = fixture::parse(&files::text(&file)?).map_err(|mistake| {
            Error::new(format!("understand the fixtures of {}", file.display()), Problem::Invalid(mistake.to_string()))
        })?;
        cases.extend(parsed.into_iter().map(|case| (file.display().to_string(), case)));
    }
    let host = files::host()?;
    let policy = files::policy(&host, &args.module)?;
    let text = matches!(out.format, Format::Text | Format::Wide);
    let mut failed = 0;
    let mut results = Vec::new();
    for (file, case) in &cases {
        let outcome = fixture::run(case, &policy);
        failed += usize::from(!outcome.passed());
        if text {
            line(out, file, &case.name, &outcome)?;
        } else {
            results.push(json!({
                "file": file, "name": case.name, "passed": outcome.passed(), "failures": outcome.failures, "fuel": outcome.fuel,
            }));
        }
    }
    let passed = cases.len() - failed;
    match out.format {
        Format::Text | Format::Wide => out.data(format_args!("{passed} passed, {failed} failed"))?,
        Format::Name => {}
        Format::Json | Format::Yaml => out.structured(&json!({
            "module": args.module, "digest": policy.digest(), "passed": passed, "failed": failed, "cases": results,
        }))?,
    }
    if failed == 0 {
        return Ok(());
    }
    let doing = format!("pass the fixtures with {}", args.module);
    Err(Error::new(doing, Problem::Failed(format!("{failed} of {} cases failed", cases.len()))))
}

fn line(out: Output, file: &str, name: &str, outcome: &Outcome) -> Result<()> {
    if outcome.passed() {
        let fuel = outcome.fuel.map_or_else(String::new, |fuel| format!("  ({fuel} fuel)"));
        return out.data(format_args!("ok    {name}{fuel}"));
    }
    out.data(format_args!("FAIL  {name}  ({file})"))?;
    outcome.failures.iter().try_for_each(|line| out.data(format_args!("      {line}")))
}
