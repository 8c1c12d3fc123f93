//! `koncli lease explain`.

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{
    DEFAULT_POLICY, Lease, LeaseRequest, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY,
    time::{parse_duration, parse_timestamp, parse_ttl},
    v1::LeasePhase,
};
use konductor_workbench::{
    Policy,
    explain::{About, Explanation, explain},
    load,
};
use kube::Api;
use serde_json::{Value, json};

use super::{client_for, policy::files};
use crate::{
    args::{ExplainArgs, Format},
    client::{Access, Connection, Error, Result, call},
    output::{Output, lease_name, relative, wall_clock_ms},
};

pub(super) async fn run(connection: &Connection, out: Output, args: &ExplainArgs) -> Result<()> {
    let client = client_for(connection);
    let lease = client.get(&args.name).await?;
    if out.format == Format::Name {
        return out.data(lease_name(&args.name));
    }
    let mut queue = client.queue(&lease).await?;
    // As the controller asks: in order of arrival.
    queue.sort_by_cached_key(|request| {
        let arrived = request.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
        let sequence = request.status.as_ref().and_then(|status| status.sequence).unwrap_or(i64::MAX);
        (arrived, sequence, request.metadata.name.clone())
    });
    let now = wall_clock_ms();
    let (input, about) = input(&lease, &queue, args, now);
    let decider = policy_of(connection, &lease).await;
    let explained = match &decider {
        Ok((policy, _)) => {
            let explained = explain(policy, input.to_string().as_bytes(), about);
            explained.map_err(|mistake| mistake.to_string())
        }
        Err(why) => Err(why.clone()),
    };
    let told = Told {
        lease: &lease,
        policy: policy_name(&lease),
        digest: decider.as_ref().ok().map(|(_, digest)| digest.as_str()),
        explained: &explained,
        waiting: queue.len(),
    };
    match out.format {
        Format::Json | Format::Yaml => out.structured(&told.structured()),
        _ => out.data(told.text(now)),
    }
}

fn policy_name(lease: &Lease) -> String {
    let status = lease.status.as_ref().and_then(|status| status.policy.as_ref()).map(|policy| policy.name.clone());
    let spec = lease.spec.policy.as_ref().and_then(|policy| policy.name.clone());
    spec.or(status).unwrap_or_else(|| DEFAULT_POLICY.to_owned())
}

/// The module that decides, ready to be asked, and its digest; or why it cannot be asked.
async fn policy_of(connection: &Connection, lease: &Lease) -> Result<(std::sync::Arc<Policy>, String), String> {
    let host = files::host().map_err(|error| error.to_string())?;
    let name = policy_name(lease);
    if name == DEFAULT_POLICY {
        let policy = host.builtin();
        let digest = policy.digest().to_owned();
        return Ok((policy, digest));
    }
    let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let doing = format!("read the policy \"{name}\" in namespace \"{}\"", connection.namespace);
    let map = call(Access::config_maps("get"), || maps.get(&name)).await;
    let map = map.map_err(|failure| {
        let error = Error::from_call(doing, failure);
        [vec![error.to_string()], error.help()].concat().join("; ")
    })?;
    let data = map.binary_data.unwrap_or_default();
    let stored = data.get(POLICY_MODULE_KEY).or_else(|| data.get(POLICY_MODULE_GZIP_KEY));
    let stored = &stored.ok_or_else(|| format!("the ConfigMap \"{name}\" has no module"))?.0;
    let policy = load(&host, stored).map_err(|rejection| rejection.to_string())?;
    let digest = policy.digest().to_owned();
    Ok((policy, digest))
}

/// What the controller would ask now, and the index of the request that is asked about. One that does not wait yet is
/// put at the end.
fn input(lease: &Lease, queue: &[LeaseRequest], args: &ExplainArgs, now: i64) -> (Value, Option<usize>) {
    let own = lease.spec.priority.unwrap_or_default();
    let ttl = parse_ttl(&lease.spec.ttl).unwrap_or_default();
    let status = lease.status.clone().unwrap_or_default();
    let time = |text: Option<&str>| text.and_then(parse_timestamp).unwrap_or(now);
    let mut requests: Vec<Value> = queue
        .iter()
        .map(|request| {
            let asked = request.spec.ttl.as_deref().and_then(|ttl| parse_duration(ttl).ok());
            json!({
                "holder": request.spec.holder,
                "priority": request.spec.priority.unwrap_or(own),
                "ttlMs": asked.unwrap_or(ttl),
                "arrived": request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0.as_millisecond()),
                "labels": request.metadata.labels.clone().unwrap_or_default(),
            })
        })
        .collect();
    let mut about = args.holder.as_ref().map(|holder| {
        requests.iter().position(|request| request["holder"] == **holder).unwrap_or_else(|| {
            requests.push(json!({"holder": holder, "priority": own, "ttlMs": ttl, "arrived": now, "labels": {}}));
            requests.len() - 1
        })
    });
    if let (Some(index), Some(priority)) = (about, args.priority) {
        requests[index]["priority"] = json!(priority);
    }
    let held = status.phase == Some(LeasePhase::Held);
    if about.is_some() && held && status.holder == args.holder {
        // It has it already: what it would ask for is its own lease.
        requests.truncate(queue.len());
        about = None;
    }
    let hold = held.then(|| {
        json!({
            "holder": status.holder, "priority": own, "ttlMs": ttl,
            "acquired": time(status.acquired.as_deref()), "expires": time(status.expires.as_deref()),
            "renewals": status.renewals.unwrap_or_default(), "token": status.fencing_token.unwrap_or_default(),
            "preemption": status.preemption.as_ref().map(|preemption| json!({
                "by": preemption.by, "deadline": time(Some(&preemption.deadline)), "force": preemption.force,
                "reason": preemption.reason.clone().unwrap_or_default(),
            })),
        })
    });
    let history: Vec<Value> = status
        .history
        .iter()
        .map(|past| {
            let (acquired, ended) = (time(Some(&past.acquired)), time(Some(&past.ended)));
            json!({"holder": past.holder, "token": past.token, "acquired": acquired, "ended": ended, "how": past.how})
        })
        .collect();
    let spec = lease.spec.policy.as_ref();
    let input = json!({
        "now": now, "cause": "request",
        "lease": {
            "name": lease.metadata.name, "namespace": lease.metadata.namespace, "uid": lease.metadata.uid, "ttlMs": ttl,
            "priority": own, "renewable": lease.spec.renewable.unwrap_or(true),
            "labels": lease.metadata.labels.clone().unwrap_or_default(),
        },
        "params": spec.and_then(|policy| policy.params.clone()).unwrap_or_default(),
        "hold": hold, "waiting": requests.len(), "requests": requests, "history": history,
        "state": status.policy.and_then(|policy| policy.state).unwrap_or_default(),
    });
    (input, about)
}

/// What there is to tell.
struct Told<'a> {
    lease: &'a Lease,
    policy: String,
    digest: Option<&'a str>,
    explained: &'a Result<Explanation, String>,
    waiting: usize,
}

impl Told<'_> {
    fn structured(&self) -> Value {
        let status = self.lease.status.clone().unwrap_or_default();
        let decided = status.policy.unwrap_or_default();
        json!({
            "lease": self.lease.metadata.name,
            "namespace": self.lease.metadata.namespace,
            "phase": status.phase.map(LeasePhase::as_str),
            "holder": status.holder.filter(|holder| !holder.is_empty()),
            "waiting": self.waiting,
            "policy": self.policy,
            "digest": self.digest,
            "decided": {"policy": decided.name, "digest": decided.digest, "reason": decided.reason},
            "explanation": self.explained.as_ref().ok(),
            "unexplained": self.explained.as_ref().err(),
        })
    }

    fn text(&self, now: i64) -> String {
        let status = self.lease.status.clone().unwrap_or_default();
        let name = self.lease.metadata.name.clone().unwrap_or_default();
        let mut lines = Vec::new();
        let holder = status.holder.filter(|holder| !holder.is_empty() && status.phase == Some(LeasePhase::Held));
        lines.push(match (&holder, &status.expires) {
            (Some(holder), Some(expires)) => {
                format!("{holder} holds {name} until {expires} ({}).", relative(expires, now))
            }
            (Some(holder), None) => format!("{holder} holds {name}."),
            (None, _) => format!("Nobody holds {name}."),
        });
        let decided = status.policy.unwrap_or_default();
        if let Some(reason) = decided.reason.filter(|reason| !reason.is_empty()) {
            lines.push(format!("  The policy \"{}\" decided so: {reason}", decided.name));
        }
        if let Some(preemption) = &status.preemption {
            let until = relative(&preemption.deadline, now);
            lines.push(format!("  It is asked to hand over to {}, {until}.", preemption.by));
        }
        let digest = self.digest.map(|digest| format!(", {digest}")).unwrap_or_default();
        let built_in = if self.policy == DEFAULT_POLICY { " (built in)" } else { "" };
        lines.push(format!("Policy: {}{built_in}{digest}", self.policy));
        if decided.digest.as_deref().is_some_and(|last| self.digest.is_some_and(|digest| last != digest)) {
            lines.push(format!("  The last decision was made by {}.", decided.digest.unwrap_or_default()));
        }
        match self.explained {
            Err(why) => lines.push(format!("Who is next cannot be said, since the policy cannot be asked: {why}")),
            Ok(explained) => lines.extend(explanation(explained, holder.is_some())),
        }
        lines.join("\n")
    }
}

fn explanation(explained: &Explanation, held: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let when = if held { "when the holder is done" } else { "now" };
    match (&explained.next[..], &explained.nobody) {
        ([], None) => lines.push("Nobody waits.".to_owned()),
        ([], Some(why)) => lines.push(format!("Nobody is next: {why}")),
        ([first, rest @ ..], _) => {
            lines.push(format!("Next, {when}: {}{}", first.holder, because(&first.reason)));
            for (place, served) in rest.iter().enumerate() {
                lines.push(format!("  {}. {}{}", place + 2, served.holder, because(&served.reason)));
            }
        }
    }
    for denied in &explained.denied {
        lines.push(format!("Denied: {}{}", denied.holder, because(&denied.reason)));
    }
    if let Some(about) = &explained.about {
        lines.extend(wins(about, held));
    }
    lines
}

/// What would have to change for a request to win.
fn wins(about: &About, held: bool) -> Vec<String> {
    let who = format!("{} (priority {})", about.holder, about.priority);
    let mut lines = vec![match (&about.denied, about.place) {
        (Some(why), _) => format!("{who} is denied: {why}"),
        (None, Some(1)) if held => {
            format!("{who} is next: it gets the lease when the holder releases it or its time is over.")
        }
        (None, Some(1)) => format!("{who} gets the lease now."),
        (None, Some(place)) => format!("{who} is number {place}: {} must be done first.", place - 1),
        (None, None) => format!("{who} is not among those that are served."),
    }];
    if about.place != Some(1) {
        lines.push(match about.next_with_priority {
            Some(priority) => format!("  With priority {priority} it would be next."),
            None => "  No priority would make it next.".to_owned(),
        });
    }
    if held {
        lines.push(match about.preempts_with_priority {
            Some(priority) if priority == about.priority => "  The holder is asked to leave for it.".to_owned(),
            Some(priority) => format!("  With priority {priority} the holder would be asked to leave for it."),
            None => "  At no priority does this policy ask the holder to leave for it.".to_owned(),
        });
    }
    lines
}
