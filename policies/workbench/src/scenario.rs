//! Scenarios: who comes when, works for how long and crashes, played in virtual time with the rules
//! of the controller and the real module.
//!
//! [`parse`] reads one, [`play`] plays it, and the [`Story`] says what happened: as text, as a
//! drawing for a terminal and as SVG. `policies/README.md` has the format with an example.
//!
//! What is not in it, because here one clock is right and nothing fails: clock skew, lost races,
//! late watches, a controller that restarts. The tests of the controller have those. Nor what the
//! controller does about a policy that fails again and again: here it is asked each time, without the
//! pauses in between (the breaker), and without the return to the last module that worked.

mod judge;
mod lanes;
mod story;
mod svg;
mod text;
mod world;

use konductor_crds::time::DURATION_MAX_MS;
use konductor_policy_abi::v1::Labels;
use serde_json::{Map, Value};

pub use story::{Entry, Happening, HoldSpan, Story, Summary, Wait, WaitEnd};
pub use world::{Broken, play, play_and_record};

use crate::{
    fixture::NOW,
    read::{Fields, Mistake, document, kind, suggestion},
};

/// The most requests that a scenario can make. Each reconcile looks at all that there are, as the
/// controller does, so more would take minutes; a policy is shown 512 at most anyway.
const VISITS_MAX: usize = 1_000;

/// The endings of a hold, as `expect.ends` names them.
const ENDINGS: [&str; 5] = ["Released", "Expired", "Preempted", "ForceReleased", "Superseded"];

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What it shows.
    pub description: String,
    /// When it ends, in virtual milliseconds.
    pub until: i64,
    /// The wall-clock time at virtual 0, in milliseconds since the epoch.
    pub start: i64,
    lease: Lease,
    visits: Vec<Visit>,
    expect: Expect,
}

#[derive(Debug, Clone)]
struct Lease {
    ttl: i64,
    priority: i32,
    renewable: bool,
    /// JSON.
    params: String,
    on_failure: OnFailure,
    labels: Labels<'static>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    Default,
    Hold,
}

/// One actor coming once: one LeaseRequest.
#[derive(Debug, Clone)]
struct Visit {
    holder: String,
    at: i64,
    priority: Option<i32>,
    ttl: Option<i64>,
    timeout: Option<i64>,
    labels: Labels<'static>,
    /// It releases after having held so long.
    work: Option<i64>,
    renews: bool,
    /// It stops so long after being granted.
    crash: Option<i64>,
    /// It withdraws at this time if it was not granted.
    leaves: Option<i64>,
    /// How long after being asked to leave it releases; `None`: it does not.
    makes_room_after: Option<i64>,
}

/// What has to be so at the end. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
struct Expect {
    holders: Option<Vec<String>>,
    ends: Option<Vec<Option<String>>>,
    denied: Option<Vec<String>>,
    faults: Option<usize>,
    vetoes: Option<usize>,
    max_wait: Option<i64>,
}

/// Reads a scenario.
///
/// # Errors
/// The first [`Mistake`] in it.
pub fn parse(text: &str) -> Result<Scenario, Mistake> {
    let document = document(text)?;
    let fields = Fields::of(&document, "", &["description", "lease", "until", "start", "actors", "expect"])?;
    let until = match time(&fields, "until")? {
        Some(until) if until > 0 => until,
        _ => return Err(Mistake::new("until", "it is missing or zero; say when the scenario ends, such as 5m")),
    };
    let start = fields.moment("start", NOW)?.unwrap_or(NOW);
    let mut visits = Vec::new();
    for (value, place) in fields.list("actors")? {
        visits.append(&mut actor(value, &place, until)?);
        if visits.len() > VISITS_MAX {
            return Err(Mistake::new(place, format!("with it there are more than {VISITS_MAX} requests in all")));
        }
    }
    if visits.is_empty() {
        return Err(Mistake::new("actors", "nobody comes; list at least one, such as `- holder: web-1`"));
    }
    let Some(value) = fields.value("lease") else {
        return Err(Mistake::new("lease", "it is missing; `lease: {ttl: 30s}` will do"));
    };
    Ok(Scenario {
        description: fields.text("description")?.unwrap_or_default().trim().to_owned(),
        until,
        start,
        lease: lease(value)?,
        visits,
        expect: fields.value("expect").map(expect).transpose()?.unwrap_or_default(),
    })
}

fn lease(value: &Value) -> Result<Lease, Mistake> {
    let fields = Fields::of(value, "lease", &["ttl", "priority", "renewable", "params", "onFailure", "labels"])?;
    let ttl = match time(&fields, "ttl")? {
        Some(ttl) if ttl > 0 => ttl,
        _ => return Err(fields.mistake("ttl", "it is missing or zero; write a duration such as 30s")),
    };
    let params = match fields.value("params") {
        None => Value::Object(Map::new()),
        Some(Value::Object(members)) => Value::Object(members.clone()),
        Some(other) => return Err(fields.mistake("params", format!("this is {}; params are a mapping", kind(other)))),
    };
    let on_failure = match fields.text("onFailure")? {
        None | Some("Default") => OnFailure::Default,
        Some("Hold") => OnFailure::Hold,
        Some(other) => return Err(fields.mistake("onFailure", format!("it is {other:?}; there are Default and Hold"))),
    };
    Ok(Lease {
        ttl,
        priority: fields.priority("priority")?.unwrap_or(0),
        renewable: fields.flag("renewable")?.unwrap_or(true),
        params: params.to_string(),
        on_failure,
        labels: fields.labels("labels")?,
    })
}

/// The visits of an actor.
fn actor(value: &Value, place: &str, until: i64) -> Result<Vec<Visit>, Mistake> {
    let fields = Fields::of(
        value,
        place,
        &[
            "holder",
            "at",
            "priority",
            "ttl",
            "timeout",
            "labels",
            "work",
            "renew",
            "crash",
            "leaves",
            "every",
            "count",
            "sameHolder",
            "onPreempt",
            "leaveAfter",
        ],
    )?;
    let at = time(&fields, "at")?.unwrap_or(0);
    let leaves = time(&fields, "leaves")?;
    if leaves.is_some_and(|leaves| leaves < at) {
        return Err(fields.mistake("leaves", "it leaves before it comes; both are counted from the beginning"));
    }
    let ttl = time(&fields, "ttl")?;
    if ttl == Some(0) {
        return Err(fields.mistake("ttl", "a ttl is above zero"));
    }
    let leave_after = time(&fields, "leaveAfter")?;
    let makes_room_after = match fields.text("onPreempt")? {
        None | Some("release") => Some(leave_after.unwrap_or(1_000)),
        Some("ignore") if leave_after.is_some() => {
            return Err(fields.mistake("leaveAfter", "it ignores being asked, so it does not leave"));
        }
        Some("ignore") => None,
        Some(other) => {
            return Err(fields.mistake("onPreempt", format!("it is {other:?}; there are release and ignore")));
        }
    };
    let first = Visit {
        holder: fields.required_text("holder")?.to_owned(),
        at,
        priority: fields.priority("priority")?,
        ttl,
        timeout: time(&fields, "timeout")?,
        labels: fields.labels("labels")?,
        work: time(&fields, "work")?,
        renews: fields.flag("renew")?.unwrap_or(true),
        crash: time(&fields, "crash")?,
        leaves,
        makes_room_after,
    };
    let count = fields.count("count")?;
    let Some(every) = time(&fields, "every")? else {
        return match count {
            None => Ok(vec![first]),
            Some(_) => Err(fields.mistake("count", "it comes so often, but how far apart? write every too")),
        };
    };
    if every == 0 {
        return Err(fields.mistake("every", "it would come for ever at once; write a duration such as 60s"));
    }
    // As often as there is time for, where it does not say how often.
    let fitting = usize::try_from((until - at).max(0) / every).unwrap_or(usize::MAX).saturating_add(1);
    let count = count.unwrap_or(fitting);
    if count > VISITS_MAX {
        return Err(fields.mistake("count", format!("it would come {count} times; at most {VISITS_MAX} fit")));
    }
    let same = fields.flag("sameHolder")?.unwrap_or(false);
    Ok((0..count)
        .map(|i| {
            // At most a thousand times a year.
            let later = every.saturating_mul(i64::try_from(i).unwrap_or(i64::MAX));
            Visit {
                holder: if same { first.holder.clone() } else { format!("{}-{}", first.holder, i + 1) },
                at: first.at.saturating_add(later),
                leaves: first.leaves.map(|leaves| leaves.saturating_add(later)),
                ..first.clone()
            }
        })
        .collect())
}

fn expect(value: &Value) -> Result<Expect, Mistake> {
    let fields = Fields::of(value, "expect", &["holders", "ends", "denied", "faults", "vetoes", "maxWait"])?;
    let texts = |name| if fields.is_named(name) { fields.texts(name).map(Some) } else { Ok(None) };
    let mut ends = None;
    if fields.is_named("ends") {
        let mut list = Vec::new();
        for (value, place) in fields.list("ends")? {
            list.push(match value {
                Value::Null => None,
                Value::String(how) if ENDINGS.contains(&how.as_str()) => Some(how.clone()),
                other => {
                    let near = other.as_str().map(|name| suggestion(name, ENDINGS)).unwrap_or_default();
                    let problem =
                        format!("this is no ending{near} (there are {}, and null: still held)", ENDINGS.join(", "));
                    return Err(Mistake::new(place, problem));
                }
            });
        }
        ends = Some(list);
    }
    Ok(Expect {
        holders: texts("holders")?,
        ends,
        denied: texts("denied")?,
        faults: fields.count("faults")?,
        vetoes: fields.count("vetoes")?,
        max_wait: time(&fields, "maxWait")?,
    })
}

/// A span of virtual time, or a point in it.
fn time(fields: &Fields<'_>, name: &str) -> Result<Option<i64>, Mistake> {
    match fields.span(name)? {
        Some(ms) if !(0..=DURATION_MAX_MS).contains(&ms) => {
            Err(fields.mistake(name, "it is below zero, or above the limit of 366 days"))
        }
        ms => Ok(ms),
    }
}
