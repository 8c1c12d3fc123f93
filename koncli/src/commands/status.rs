//! `koncli lease status`.

use konductor_crds::{Lease, LeaseRequest, v1::LeasePhase};

use super::client_for;
use crate::{
    args::Format,
    client::{Completed, Connection, Result, completed_in},
    output::{Output, lease_name, relative, wall_clock_ms},
    text::span,
};

/// The queue is shown up to here; the rest is counted.
const QUEUE_SHOWN: usize = 10;

pub(super) async fn run(connection: &Connection, out: Output, name: &str) -> Result<()> {
    let client = client_for(connection);
    let lease = client.get(name).await?;
    match out.format {
        Format::Json | Format::Yaml => out.structured(&lease),
        Format::Name => out.data(lease_name(name)),
        Format::Text | Format::Wide => {
            // Who waits is good to know; the status of the lease is what was asked for.
            let queue = match client.queue(&lease).await {
                Ok(queue) => Some(queue),
                Err(error) => {
                    out.say(format_args!("{error}"));
                    None
                }
            };
            out.data(view(&lease, queue.as_deref(), wall_clock_ms()))
        }
    }
}

/// A status for people: one fact a line.
fn view(lease: &Lease, queue: Option<&[LeaseRequest]>, now_ms: i64) -> String {
    let mut lines = Lines(Vec::new());
    let status = lease.status.clone().unwrap_or_default();
    let held = status.phase == Some(LeasePhase::Held);
    let at = |timestamp: &str| format!("{timestamp} ({})", relative(timestamp, now_ms));

    lines.add("Lease", lease.metadata.name.clone());
    lines.add("Namespace", lease.metadata.namespace.clone());
    let phase = status.phase.map_or("unknown: no controller has looked at it yet", LeasePhase::as_str);
    lines.add("Phase", Some(phase.to_owned()));
    lines.add("Holder", status.holder.filter(|holder| !holder.is_empty()));
    lines.add("TTL", Some(lease.spec.ttl.clone()));
    if held {
        lines.add("Acquired", status.acquired.as_deref().map(at));
        lines.add("Expires", status.expires.as_deref().map(at));
        lines.add("Renewals", status.renewals.map(|count| count.to_string()));
    }
    if lease.spec.renewable == Some(false) {
        lines.add("Renewable", Some("false".to_owned()));
    }
    lines.add("Token", status.fencing_token.map(|token| token.to_string()));
    if let Some(request) = status.request.filter(|_| held) {
        lines.add("Request", Some(request.name));
    }
    if let Some(policy) = &status.policy {
        let reason = policy.reason.as_deref().filter(|reason| !reason.is_empty());
        lines.add(
            "Policy",
            Some(reason.map_or_else(|| policy.name.clone(), |reason| format!("{} ({reason})", policy.name))),
        );
    }
    if let Some(preemption) = &status.preemption {
        let force = if preemption.force { ", by force then" } else { "" };
        let reason = preemption.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines
            .add("Preemption", Some(format!("by {} until {}{force}{reason}", preemption.by, at(&preemption.deadline))));
    }
    for Completed { key, at, holder, .. } in completed_in(lease) {
        let by = if at.is_empty() { String::new() } else { format!(" at {at} by {holder}") };
        lines.add("Completed", Some(format!("{key}{by}")));
    }
    for condition in &status.conditions {
        // Held=False only says once more that it is free.
        if condition.status != "True" && condition.type_ != "Held" {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
            lines.add("Condition", Some(format!("{}={} {reason}{message}", condition.type_, condition.status)));
        }
    }
    let waiting = queue.map_or_else(|| status.waiting, |queue| i64::try_from(queue.len()).ok());
    lines.add("Waiting", Some(waiting.unwrap_or_default().to_string()));
    let mut text = lines.to_text();
    for (place, request) in queue.unwrap_or_default().iter().enumerate().take(QUEUE_SHOWN) {
        let arrived = request.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
        let since = arrived.map(|at| format!(", since {}", span(now_ms - at))).unwrap_or_default();
        let priority = request.spec.priority.or(lease.spec.priority).unwrap_or_default();
        text.push_str(&format!("\n  {}. {} (priority {priority}{since})", place + 1, request.spec.holder));
    }
    match queue.map_or(0, |queue| queue.len().saturating_sub(QUEUE_SHOWN)) {
        0 => text,
        more => format!("{text}\n  and {more} more"),
    }
}

struct Lines(Vec<(&'static str, String)>);

impl Lines {
    fn add(&mut self, key: &'static str, value: Option<String>) {
        self.0.extend(value.map(|value| (key, value)));
    }

    fn to_text(&self) -> String {
        let width = self.0.iter().map(|(key, _)| key.len() + 1).max().unwrap_or_default();
        let lines: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{:<width$}  {value}", format!("{key}:"))).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        LeaseRequestSpec, LeaseSpec, LeaseStatus,
        time::parse_timestamp,
        v1::{Condition, PolicyStatus, RequestRef},
    };

    use super::*;

    #[test]
    fn a_lease_that_nobody_has_looked_at() {
        let lease = Lease::new("db", LeaseSpec { ttl: "10m".into(), ..LeaseSpec::default() });
        assert_eq!(
            view(&lease, Some(&[]), 0),
            "Lease:    db\nPhase:    unknown: no controller has looked at it yet\nTTL:      10m\nWaiting:  0"
        );
    }

    #[test]
    fn a_lease_that_is_held_and_waited_for() {
        let mut lease =
            Lease::new("db", LeaseSpec { ttl: "10m".into(), renewable: Some(false), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("prod".into());
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("pod-a".into()),
            acquired: Some("2025-12-31T23:54:10.000Z".into()),
            expires: Some("2026-01-01T00:04:10.000Z".into()),
            renewals: Some(0),
            fencing_token: Some(7),
            waiting: Some(0),
            request: Some(RequestRef { name: "db-bcdfgh".into(), uid: "u".into(), renewals: 0, counted: None }),
            policy: Some(PolicyStatus {
                name: "default".into(),
                reason: Some("first come".into()),
                ..PolicyStatus::default()
            }),
            conditions: vec![Condition {
                type_: "PolicyReady".into(),
                status: "False".into(),
                reason: Some("PolicyFault".into()),
                message: Some("out of fuel".into()),
                ..Condition::default()
            }],
            ..LeaseStatus::default()
        });
        let request = LeaseRequest::new(
            "r",
            LeaseRequestSpec {
                lease: "db".into(),
                holder: "pod-b".into(),
                priority: Some(5),
                ..LeaseRequestSpec::default()
            },
        );
        let now = parse_timestamp("2026-01-01T00:00:00Z").expect("a time");
        assert_eq!(
            view(&lease, Some(&[request]), now),
            "Lease:      db\n\
             Namespace:  prod\n\
             Phase:      Held\n\
             Holder:     pod-a\n\
             TTL:        10m\n\
             Acquired:   2025-12-31T23:54:10.000Z (5m50s ago)\n\
             Expires:    2026-01-01T00:04:10.000Z (in 4m10s)\n\
             Renewals:   0\n\
             Renewable:  false\n\
             Token:      7\n\
             Request:    db-bcdfgh\n\
             Policy:     default (first come)\n\
             Condition:  PolicyReady=False PolicyFault: out of fuel\n\
             Waiting:    1\n\
             \x20 1. pod-b (priority 5)"
        );
    }
}
