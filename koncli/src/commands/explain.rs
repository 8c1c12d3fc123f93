//! `koncli lease explain`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use konductor_crds::{
    DEFAULT_POLICY, DEFAULT_POLICY_ANNOTATION, Lease, LeaseRequest, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY,
    time::{parse_duration, parse_timestamp, parse_ttl},
    v1::LeasePhase,
};
use konductor_workbench::{
    Policy,
    explain::{About, Explanation, SERVED_MAX, explain},
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
    let (input, about) = input(&lease, holding.as_ref(), &queue, args, now);
    let policy = match policy_name(&lease) {
        Some(name) => name,
        None => namespace_policy(connection).await.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
    };
    let decider = policy_of(connection, &policy).await;
    let explained = match &decider {
        Ok((policy, _)) => {
            let explained = explain(policy, input.to_string().as_bytes(), about);
            explained.map_err(|mistake| mistake.to_string())
        }
        Err(why) => Err(why.clone()),
    };
    let told = Told {
        lease: &lease,
        policy,
        digest: decider.as_ref().ok().map(|(_, digest)| digest.as_str()),
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
    let data = map.binary_data.unwrap_or_default();
    let stored = data.get(POLICY_MODULE_KEY).or_else(|| data.get(POLICY_MODULE_GZIP_KEY));
    let stored = &stored.ok_or_else(|| format!("the ConfigMap \"{name}\" has no module"))?.0;
    let policy = load(&host, stored).map_err(|rejection| rejection.to_string())?;
    let digest = policy.digest().to_owned();
    Ok((policy, digest))
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
        }
    }
    for denied in &explained.denied {
        lines.push(format!("Denied: {}{}", denied.holder, because(&denied.reason)));
    }
    if let Some(about) = &explained.about {
        lines.extend(wins(about, held, asked));
    }
    lines
}

/// What would have to change for a request to win. `asked` is whom the holder is already asked to hand over to.
fn wins(about: &About, held: bool, asked: Option<&str>) -> Vec<String> {
    let who = format!("{} (priority {})", about.holder, about.priority);
    let mut lines = vec![match (&about.denied, about.place) {
        (Some(why), _) => format!("{who} is denied: {why}"),
        (None, Some(1)) if held => {
            format!("{who} is next: it gets the lease when the holder releases it or its time is over.")
        }
        (None, Some(1)) => format!("{who} gets the lease now."),
        (None, Some(place)) => format!("{who} is number {place}: {} must be done first.", place - 1),
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
mod tests {
    use konductor_crds::{
        LeaseRequestSpec, LeaseSpec, LeaseStatus,
        v1::{Preemption, RequestRef},
    };

    use super::*;

    /// A lease that `ana` holds with the priority 7 that she asked for; the lease's own is 0.
    fn held() -> (Lease, LeaseRequest) {
        let mut lease = Lease::new("x", LeaseSpec { ttl: "10m".to_owned(), ..LeaseSpec::default() });
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("ana".to_owned()),
            request: Some(RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 0, counted: None }),
            ..LeaseStatus::default()
        });
        let asked = LeaseRequestSpec {
            holder: "ana".to_owned(),
            priority: Some(7),
            ttl: Some("1m".to_owned()),
            ..LeaseRequestSpec::default()
        };
        (lease, LeaseRequest::new("r", asked))
    }

    #[test]
    fn the_holder_has_what_it_asked_for() {
        let (lease, request) = held();
        let args = ExplainArgs { name: "x".to_owned(), holder: None, priority: None };
        let hold = |holding| input(&lease, holding, &[], &args, 0).0["hold"].clone();
        assert_eq!((&hold(Some(&request))["priority"], &hold(Some(&request))["ttlMs"]), (&json!(7), &json!(60_000)));
        assert_eq!((&hold(None)["priority"], &hold(None)["ttlMs"]), (&json!(0), &json!(600_000)));
    }

    /// Who is next, and for whom the policy asks nobody to leave.
    fn ben() -> About {
        About {
            holder: "ben".to_owned(),
            priority: 9,
            place: Some(1),
            denied: None,
            next_with_priority: Some(9),
            preempts_with_priority: None,
        }
    }

    #[test]
    fn what_is_not_so_is_not_said() {
        let about = ben();
        let said = |about: &About, asked| wins(about, true, asked).join("\n");
        assert!(said(&about, Some("ben")).ends_with("The holder is asked to leave for it."));
        for asked in [None, Some("cid")] {
            assert!(said(&about, asked).ends_with("ask the holder to leave for it now."), "{asked:?}");
        }
        assert!(said(&About { place: None, ..about }, None).contains("is not among the first 10."));
    }

    #[test]
    fn a_hand_over_that_is_under_way_is_told_of_whom_it_is_for() {
        let (mut lease, _) = held();
        lease.status.get_or_insert_default().preemption =
            Some(Preemption { by: "ben".to_owned(), ..Preemption::default() });
        let explained = Ok(Explanation { now: vec![], next: vec![], denied: vec![], nobody: None, about: Some(ben()) });
        let policy = DEFAULT_POLICY.to_owned();
        let text = Told { lease: &lease, policy, digest: None, explained: &explained, waiting: 1 }.text(0);
        assert!(text.ends_with("The holder is asked to leave for it."), "{text}");
    }
}
