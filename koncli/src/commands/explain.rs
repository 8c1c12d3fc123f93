//! `koncli lease explain`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use konductor_crds::{
    DEFAULT_POLICY, DEFAULT_POLICY_ANNOTATION, Lease, LeaseRequest, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY,
    POLICY_MODULE_LABEL,
    time::{parse_duration, parse_timestamp, parse_ttl},
    v1::{
        LeasePhase, OnFailure,
        reasons::{POLICY_NOT_FOUND, READY},
    },
};
use konductor_workbench::{
    Policy,
    explain::{About, Explanation, SERVED_MAX, explain},
    load,
};
use kube::Api;
use serde_json::{Value, json};

use super::{
    client_for,
    policy::files,
    problem::{Problem, problems},
};
use crate::{
    args::{ExplainArgs, Format},
    client::{Access, Connection, Error, Result, call},
    output::{Output, lease_name, relative, wall_clock_ms},
};

/// Nobody waits for long for a name that is only good to know.
const ANNOTATION_TIMEOUT: Duration = Duration::from_secs(2);

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
    let holding = holding(connection, &lease).await;
    let (mut input, about) = input(&lease, holding.as_ref(), &queue, args, now);
    let policy = match policy_name(&lease) {
        Some(name) => name,
        None => namespace_policy(connection).await.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
    };
    let decider = policy_of(connection, &policy).await;
    let problems = problems(&lease);
    let decides = decides(&lease, &problems, decider.is_ok());
    let asked = match (&decides, &decider) {
        (Decides::Nobody(why), _) => Err((*why).to_owned()),
        (Decides::BuiltIn, _) => {
            // As the controller asks it then: the params are the other policy's.
            input["params"] = json!({});
            files::host().map(|host| host.builtin()).map_err(|error| error.to_string())
        }
        (Decides::LastGood, _) => Err("it is the last good module, which only the controller has".to_owned()),
        (Decides::Policy | Decides::PolicySoon, decider) => {
            decider.as_ref().map(|(policy, _)| policy.clone()).map_err(Clone::clone)
        }
    };
    let explained = asked.and_then(|policy| {
        explain(&policy, input.to_string().as_bytes(), about).map_err(|mistake| mistake.to_string())
    });
    let told = Told {
        lease: &lease,
        policy,
        digest: decider.as_ref().ok().map(|(_, digest)| digest.as_str()),
        problems: &problems,
        decides,
        explained: &explained,
        waiting: queue.len(),
    };
    match out.format {
        Format::Json | Format::Yaml => out.structured(&told.structured()),
        _ => out.data(told.text(now)),
    }
}

/// The request that holds the lease: what it asked for is what the policy compares with. Without it (it may not be
/// read, or is just being deleted) the lease's own values have to do.
async fn holding(connection: &Connection, lease: &Lease) -> Option<LeaseRequest> {
    let status = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held))?;
    let named = status.request.as_ref()?;
    let requests: Api<LeaseRequest> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let found = call(Access::requests("get"), || requests.get(&named.name)).await.ok()?;
    (found.metadata.uid.as_deref() == Some(named.uid.as_str())).then_some(found)
}

/// The policy that the namespace's annotation names, if whoever asks may read the namespace.
async fn namespace_policy(connection: &Connection) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(connection.client.clone());
    let found = tokio::time::timeout(ANNOTATION_TIMEOUT, namespaces.get_metadata(&connection.namespace)).await;
    let annotations = found.ok()?.ok()?.metadata.annotations?;
    annotations.get(DEFAULT_POLICY_ANNOTATION).filter(|name| !name.is_empty()).cloned()
}

/// The policy that the lease names, or else that decided about it last.
fn policy_name(lease: &Lease) -> Option<String> {
    let status = lease.status.as_ref().and_then(|status| status.policy.as_ref()).map(|policy| policy.name.clone());
    let spec = lease.spec.policy.as_ref().and_then(|policy| policy.name.clone());
    spec.or(status)
}

/// The module that decides, ready to be asked, and its digest; or why it cannot be asked.
async fn policy_of(connection: &Connection, name: &str) -> Result<(std::sync::Arc<Policy>, String), String> {
    let host = files::host().map_err(|error| error.to_string())?;
    if name == DEFAULT_POLICY {
        let policy = host.builtin();
        let digest = policy.digest().to_owned();
        return Ok((policy, digest));
    }
    let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let doing = format!("read the policy \"{name}\" in namespace \"{}\"", connection.namespace);
    let map = call(Access::config_maps("get"), || maps.get(name)).await;
    let map = map.map_err(|failure| {
        if failure.is_object_missing() {
            return format!(
                "there is no ConfigMap \"{name}\" in namespace \"{}\"; it may be a shared policy in the controller's namespace, which koncli does not read",
                connection.namespace
            );
        }
        let error = Error::from_call(doing, failure);
        [vec![error.to_string()], error.help()].concat().join("; ")
    })?;
    if map.metadata.labels.as_ref().and_then(|labels| labels.get(POLICY_MODULE_LABEL)).is_none_or(|is| is != "true") {
        return Err(format!("the ConfigMap \"{name}\" is no policy without the label {POLICY_MODULE_LABEL}=true"));
    }
    let data = map.binary_data.unwrap_or_default();
    let stored = data.get(POLICY_MODULE_KEY).or_else(|| data.get(POLICY_MODULE_GZIP_KEY));
    let stored = &stored.ok_or_else(|| format!("the ConfigMap \"{name}\" has no module"))?.0;
    let policy = load(&host, stored).map_err(|rejection| rejection.to_string())?;
    let digest = policy.digest().to_owned();
    Ok((policy, digest))
}

/// Who decides about a lease as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decides {
    /// The policy that it has.
    Policy,
    /// That one too, as soon as the controller has looked at a module that is there by now.
    PolicySoon,
    /// A module that the policy had before: its newest is not used.
    LastGood,
    /// The built-in rules, until that policy works.
    BuiltIn,
    /// Nobody, and why: there is nothing to foretell.
    Nobody(&'static str),
}

/// How the controller says in a condition that the policy works on with the module that it had (`policies/slot.rs` there).
const LAST_GOOD: &str = "the last good one, ";

/// What the conditions mean, as the controller acts on them. `is_there` says whether the policy's module was found and
/// could be loaded here.
fn decides(lease: &Lease, problems: &[Problem], is_there: bool) -> Decides {
    let on_failure = lease.spec.policy.as_ref().and_then(|policy| policy.on_failure).unwrap_or_default();
    match (problems, on_failure) {
        ([], _) => Decides::Policy,
        ([first, ..], _) if first.condition == READY => {
            Decides::Nobody("nothing is granted until the lease's spec is mended")
        }
        ([first, ..], _) if first.message.contains(LAST_GOOD) => Decides::LastGood,
        ([first, ..], _) if is_there && first.reason == POLICY_NOT_FOUND => Decides::PolicySoon,
        (_, OnFailure::Hold) => {
            Decides::Nobody("spec.policy.onFailure is Hold: nothing is granted until the policy works")
        }
        (_, OnFailure::Default) => Decides::BuiltIn,
    }
}

/// What the controller would ask now, and the index of the request that is asked about. One that does not wait yet is
/// put at the end.
fn input(
    lease: &Lease,
    holding: Option<&LeaseRequest>,
    queue: &[LeaseRequest],
    args: &ExplainArgs,
    now: i64,
) -> (Value, Option<usize>) {
    let own = lease.spec.priority.unwrap_or_default();
    let ttl = parse_ttl(&lease.spec.ttl).unwrap_or_default();
    let status = lease.status.clone().unwrap_or_default();
    let time = |text: Option<&str>| text.and_then(parse_timestamp).unwrap_or(now);
    let mut requests: Vec<Value> = queue
        .iter()
        .map(|request| {
            json!({
                "holder": request.spec.holder,
                "priority": request.spec.priority.unwrap_or(own),
                "ttlMs": asked_ttl(request).unwrap_or(ttl),
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
            "holder": status.holder,
            "priority": holding.and_then(|request| request.spec.priority).unwrap_or(own),
            "ttlMs": holding.and_then(asked_ttl).unwrap_or(ttl),
            "labels": holding.and_then(|request| request.metadata.labels.clone()).unwrap_or_default(),
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

fn asked_ttl(request: &LeaseRequest) -> Option<i64> {
    parse_duration(request.spec.ttl.as_deref()?).ok()
}

/// What there is to tell.
struct Told<'a> {
    lease: &'a Lease,
    policy: String,
    digest: Option<&'a str>,
    problems: &'a [Problem],
    decides: Decides,
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
            "problems": self.problems,
            "meanwhile": (self.decides == Decides::BuiltIn).then_some(DEFAULT_POLICY),
        })
    }

    /// What is wrong, and what it means for those who wait.
    fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for problem in self.problems {
            lines.push(format!("{} is False, {problem}", problem.condition));
            let means = match (problem.condition == READY, self.decides) {
                (true, _) => "Nobody is granted until the spec is mended. A hold that exists runs to its end.",
                // An invalid spec, which is said already, is in the way first.
                (false, _) if self.problems.len() > 1 => continue,
                (false, Decides::Nobody(_)) => {
                    "spec.policy.onFailure is Hold: nobody is granted, and nothing is renewed, until the policy works."
                }
                (false, Decides::PolicySoon) => {
                    "The module is there now: it decides as soon as the controller has looked at it."
                }
                (false, Decides::LastGood) => continue,
                (false, _) => {
                    "spec.policy.onFailure is Default: the built-in rules decide meanwhile, without the policy's params."
                }
            };
            lines.push(format!("  {means}"));
        }
        lines
    }

    fn text(&self, now: i64) -> String {
        let status = self.lease.status.clone().unwrap_or_default();
        let name = self.lease.metadata.name.clone().unwrap_or_default();
        let mut lines = self.wrong();
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
        if self.decides == Decides::BuiltIn && self.policy != DEFAULT_POLICY {
            lines.push(format!("  Meanwhile: {DEFAULT_POLICY} (built in)"));
        }
        if decided.digest.as_deref().is_some_and(|last| self.digest.is_some_and(|digest| last != digest)) {
            lines.push(format!("  The last decision was made by {}.", decided.digest.unwrap_or_default()));
        }
        match self.explained {
            Err(why) if matches!(self.decides, Decides::Nobody(_)) => lines.push(match self.waiting {
                0 => format!("Nobody waits, and whoever comes waits in vain: {why}."),
                count => format!("Nobody is next, and {count} in line: {why}."),
            }),
            Err(why) => lines.push(format!("Who is next cannot be said, since the policy cannot be asked: {why}")),
            Ok(explained) => {
                let asked = status.preemption.as_ref().map(|preemption| preemption.by.as_str());
                lines.extend(explanation(explained, holder.is_some(), asked));
            }
        }
        lines.join("\n")
    }
}

fn explanation(explained: &Explanation, held: bool, asked: Option<&str>) -> Vec<String> {
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
            if let Some(why) = &explained.nobody {
                lines.push(format!("  Then nobody: {why}"));
            }
        }
    }
    for denied in &explained.denied {
        lines.push(format!("Denied: {}{}", denied.holder, because(&denied.reason)));
    }
    if let Some(about) = &explained.about {
        lines.extend(wins(about, explained.nobody.is_some(), held, asked));
    }
    lines
}

/// What would have to change for a request to win. `unserved` says whether the policy would leave some in line though the
/// lease is free; `asked` is whom the holder is already asked to hand over to.
fn wins(about: &About, unserved: bool, held: bool, asked: Option<&str>) -> Vec<String> {
    let who = format!("{} (priority {})", about.holder, about.priority);
    let mut lines = vec![match (&about.denied, about.place) {
        (Some(why), _) => format!("{who} is denied: {why}"),
        (None, Some(1)) if held => {
            format!("{who} is next: it gets the lease when the holder releases it or its time is over.")
        }
        (None, Some(1)) => format!("{who} gets the lease now."),
        (None, Some(place)) => format!("{who} is number {place}: {} must be done first.", place - 1),
        (None, None) if unserved => format!("{who}: the policy does not serve it now."),
        (None, None) => format!("{who} is not among the first {SERVED_MAX}."),
    }];
    if about.place != Some(1) {
        lines.push(match about.next_with_priority {
            Some(priority) => format!("  With priority {priority} it would be next."),
            None => "  No priority would make it next.".to_owned(),
        });
    }
    if held {
        lines.push(match about.preempts_with_priority {
            _ if asked == Some(about.holder.as_str()) => "  The holder is asked to leave for it.".to_owned(),
            Some(priority) if priority == about.priority => "  The holder is asked to leave for it.".to_owned(),
            Some(priority) => format!("  With priority {priority} the holder would be asked to leave for it."),
            // Later it may: a hold may be protected at its beginning, or be about to be handed over.
            None => "  At no priority does this policy ask the holder to leave for it now.".to_owned(),
        });
    }
    lines
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
