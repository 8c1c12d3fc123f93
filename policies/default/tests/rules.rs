//! The rules, as tables: `testdata/rules.txt`.

use std::fmt::Write as _;

use konductor_policy_default::decide;
use konductor_policy_sdk::{Hold, HoldAction, Input, Lease, Output, Past, Preemption, Request, duration, json};

const NOW: i64 = 1_790_000_000_000;
const TABLES: &str = include_str!("testdata/rules.txt");

#[test]
fn the_tables_hold() {
    let mut count = 0;
    let mut failures = String::new();
    for case in TABLES.split("\ncase ").skip(1) {
        let name = case.lines().next().unwrap_or_default();
        let lines = || case.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let expected = lines().find_map(|line| line.strip_prefix("=> ")).unwrap_or("no expectation");
        let input = input(lines().filter(|line| !line.starts_with("=>")));
        let found = render(&decide(&input), &input);
        if found != expected {
            let _ = writeln!(failures, "{name}\n  expected {expected}\n  found    {found}");
        }
        count += 1;
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(count > 40, "only {count} cases were read");
}

fn input<'a>(lines: impl Iterator<Item = &'a str>) -> Input<'a, konductor_policy_default::params::Reading> {
    let mut input =
        Input { now: NOW, lease: Lease { ttl_ms: 600_000, renewable: true, ..Lease::default() }, ..Input::default() };
    for line in lines {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = || rest.split(' ');
        let has = |flag| words().any(|w| w == flag);
        let value = |key: &str| words().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let number = |key| value(key).map_or(0, |text| text.parse().expect("a number"));
        let span = |key, default| value(key).map_or(default, ms);
        let name = words().next().unwrap_or_default();
        match word {
            "lease" => {
                input.lease.ttl_ms = span("ttl", 600_000);
                input.lease.renewable = value("renewable") != Some("false");
            }
            "params" => input.params = json::from_str(rest).expect("params"),
            "hold" => {
                let acquired = NOW - span("held", 0);
                input.hold = Some(Hold {
                    holder: name.into(),
                    priority: number("priority"),
                    ttl_ms: span("ttl", 600_000),
                    acquired,
                    renewal_requested: has("renew"),
                    due: has("due"),
                    preemption: has("leaving").then(Preemption::default),
                    ..Hold::default()
                });
            }
            "last" => input.history.push(Past {
                how: json::from_str(&format!("\"{name}\"")).expect("an ending"),
                ended: NOW - span("ago", 0),
                ..Past::default()
            }),
            "request" => input.requests.push(Request {
                holder: name.into(),
                priority: number("priority"),
                ttl_ms: span("ttl", 600_000),
                arrived: NOW - span("waited", 0),
                ..Request::default()
            }),
            other => panic!("what is {other}?"),
        }
    }
    input.waiting = input.requests.len() as u64;
    input
}

/// A duration, perhaps below zero.
fn ms(text: &str) -> i64 {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    sign * duration::parse_ms(text).unwrap_or_else(|| panic!("{text} is no duration"))
}

fn render<P>(output: &Output<'_>, input: &Input<'_, P>) -> String {
    let name = |index: u32| &input.requests[index as usize].holder;
    let mut parts = Vec::new();
    match output.hold {
        None => {}
        Some(HoldAction::Keep) => parts.push("keep".to_owned()),
        Some(HoldAction::Renew { ttl_ms }) => parts.push(format!("renew {}", span(ttl_ms))),
        Some(HoldAction::Expire) => parts.push("expire".to_owned()),
        Some(HoldAction::Preempt { r#for, grace_ms, force }) => {
            let force = if force { " by force" } else { "" };
            parts.push(format!("preempt for {} grace {}{force}", name(r#for), span(grace_ms)));
        }
    }
    if let Some(grant) = output.grant {
        parts.push(format!("grant {} {}", name(grant.request), span(grant.ttl_ms)));
    }
    for denial in &output.deny {
        parts.push(format!("deny {}", name(denial.request)));
    }
    if let Some(ms) = output.wake_in_ms {
        parts.push(format!("wake {}", span(ms)));
    }
    let mut text = if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") };
    if !output.reason.is_empty() {
        let _ = write!(text, " ({})", output.reason);
    }
    text
}

/// The shortest way to write a whole number of one unit.
fn span(ms: i64) -> String {
    match ms {
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}
