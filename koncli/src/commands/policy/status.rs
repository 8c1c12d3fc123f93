//! `koncli policy status`: what became of a policy, for who has just uploaded it.

use std::fmt::Display;

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use konductor_crds::{
    DEFAULT_POLICY, Lease, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY,
    time::format_timestamp,
    v1::{Condition, reasons},
};
use konductor_workbench::{Host, digest};
use kube::{Api, api::ListParams};
use serde::Serialize;

use super::{config_maps, files, is_policy};
use crate::{
    args::Format,
    client::{Access, CallFailure, Connection, Error, Problem, Result, call},
    output::{Output, Table, relative, wall_clock_ms},
    text::bytes,
};

/// How many Events are shown: the newest. Older ones are mostly of an older module.
const EVENTS_SHOWN: usize = 10;

/// What there is to know of a policy.
#[derive(Debug, Serialize)]
struct Status {
    policy: String,
    namespace: String,
    /// The ConfigMap's module; none for the built-in policy, and for one of the controller's namespace.
    module: Option<Module>,
    leases: Vec<Use>,
    events: Vec<Told>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Module {
    key: &'static str,
    size: usize,
    /// Of the inflated module; none if it cannot be inflated.
    digest: Option<String>,
}

/// A lease that is decided by the policy, or is rehearsing it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    lease: String,
    /// `policy` or `shadow`.
    r#as: &'static str,
    ready: Option<bool>,
    reason: Option<String>,
    message: Option<String>,
    /// The module that decided last: another digest than the ConfigMap's is the last good one, or the built-in policy.
    decided_by: Option<String>,
    decision: Option<String>,
}

#[derive(Debug, Serialize)]
struct Told {
    at: String,
    about: String,
    reason: String,
    message: String,
}

pub(super) async fn run(connection: &Connection, out: Output, name: &str) -> Result<()> {
    let doing = format!("tell the status of policy \"{name}\" in namespace \"{}\"", connection.namespace);
    let failed = |failure: CallFailure| Error::from_call(&doing, failure);
    let maps = config_maps(connection);
    let map = match call(Access::config_maps("get"), || maps.get(name)).await {
        Ok(map) if is_policy(&map) => Some(map),
        Ok(_) => None,
        Err(failure) if failure.is_object_missing() => None,
        Err(failure) => return Err(failed(failure)),
    };
    let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
    let all = ListParams::default();
    let leases = call(Access::leases("list"), || leases.list(&all)).await.map_err(failed)?.items;
    let uses: Vec<Use> = leases.iter().flat_map(|lease| uses(lease, name)).collect();
    if map.is_none() && uses.is_empty() && name != DEFAULT_POLICY {
        let why = format!(
            "there is no policy of that name here, and no lease that names it; see `koncli policy list -n {}`",
            connection.namespace
        );
        return Err(Error::new(doing, Problem::Failed(why)));
    }
    let module = match &map {
        Some(map) => module(map)?,
        None => None,
    };
    let status = Status {
        policy: name.to_owned(),
        namespace: connection.namespace.clone(),
        module,
        events: events(connection, out, name, &uses).await,
        leases: uses,
    };
    match out.format {
        Format::Json | Format::Yaml => out.structured(&status),
        Format::Name => status.leases.iter().try_for_each(|used| out.data(crate::output::lease_name(&used.lease))),
        Format::Text | Format::Wide => text(out, &status, wall_clock_ms()),
    }
}

fn module(map: &ConfigMap) -> Result<Option<Module>> {
    let Some(data) = &map.binary_data else { return Ok(None) };
    if let Some(raw) = data.get(POLICY_MODULE_KEY) {
        return Ok(Some(Module { key: POLICY_MODULE_KEY, size: raw.0.len(), digest: Some(digest(&raw.0)) }));
    }
    let Some(packed) = data.get(POLICY_MODULE_GZIP_KEY) else { return Ok(None) };
    let host: Host = files::host()?;
    let inflated = konductor_workbench::gunzip(&packed.0, host.limits()).ok();
    Ok(Some(Module { key: POLICY_MODULE_GZIP_KEY, size: packed.0.len(), digest: inflated.map(|raw| digest(&raw)) }))
}

/// How a lease uses a policy: as its own, as its shadow, or both.
fn uses(lease: &Lease, name: &str) -> Vec<Use> {
    let policy = lease.spec.policy.as_ref();
    let status = lease.status.as_ref();
    let decided = status.and_then(|status| status.policy.as_ref());
    // What an unnamed policy means is the controller's to say, and it says it in the status.
    let own = policy
        .and_then(|policy| policy.name.as_deref())
        .filter(|own| !own.is_empty())
        .or_else(|| decided.map(|decided| decided.name.as_str()))
        .unwrap_or(DEFAULT_POLICY);
    let shadow = policy.and_then(|policy| policy.shadow.as_deref());
    let condition = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == reasons::POLICY_READY));
    let used = |r#as, condition: Option<&Condition>| Use {
        lease: lease.metadata.name.clone().unwrap_or_default(),
        r#as,
        ready: condition.map(|c| c.status == "True"),
        reason: condition.and_then(|c| c.reason.clone()),
        message: condition.and_then(|c| c.message.clone()),
        decided_by: decided.and_then(|decided| decided.digest.clone()),
        decision: decided.and_then(|decided| decided.reason.clone()),
    };
    let own = (own == name).then(|| used("policy", condition));
    // What is said of readiness and decisions is said of the other policy.
    let shadow = (shadow == Some(name)).then(|| Use { decided_by: None, decision: None, ..used("shadow", None) });
    own.into_iter().chain(shadow).collect()
}

/// The newest Events about the ConfigMap, and about what a shadow would have done.
async fn events(connection: &Connection, out: Output, name: &str, uses: &[Use]) -> Vec<Told> {
    let events = Api::<Event>::namespaced(connection.client.clone(), &connection.namespace);
    let wanted = |event: &Event| {
        let about = &event.involved_object;
        let named = |name: &str| about.name.as_deref() == Some(name);
        match about.kind.as_deref() {
            Some("ConfigMap") => named(name),
            Some("Lease") => match event.reason.as_deref() {
                Some(reasons::EVENT_SHADOW_DIFFERS) => {
                    uses.iter().any(|used| used.r#as == "shadow" && named(&used.lease))
                }
                Some(reasons::EVENT_POLICY_FAILED) => {
                    uses.iter().any(|used| used.r#as == "policy" && named(&used.lease))
                }
                _ => false,
            },
            _ => false,
        }
    };
    // They are a courtesy: who may not list them is told the rest.
    let all = ListParams::default();
    let listed = match call(Access::events("list"), || events.list(&all)).await {
        Ok(listed) => listed,
        Err(failure) => {
            out.say(format_args!("no Events: cannot {} in namespace \"{}\"", failure.access, connection.namespace));
            return Vec::new();
        }
    };
    let mut told: Vec<(i64, Told)> = listed
        .items
        .into_iter()
        .filter(wanted)
        .map(|event| {
            let at = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref().map(|time| time.0.as_millisecond()))
                .or_else(|| event.event_time.as_ref().map(|time| time.0.as_millisecond()))
                .or_else(|| event.last_timestamp.as_ref().map(|time| time.0.as_millisecond()))
                .unwrap_or_default();
            let about = &event.involved_object;
            let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
            let told = Told {
                at: format_timestamp(at),
                about: format!("{kind}/{}", about.name.as_deref().unwrap_or_default()),
                reason: event.reason.unwrap_or_default(),
                message: event.message.unwrap_or_default(),
            };
            (at, told)
        })
        .collect();
    told.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    told.truncate(EVENTS_SHOWN);
    told.into_iter().map(|(_, told)| told).collect()
}

fn text(out: Output, status: &Status, now: i64) -> Result<()> {
    let Status { policy, namespace, module, leases, events } = status;
    let what: Box<dyn Display> = match module {
        Some(module) => {
            let digest = module.digest.as_deref().unwrap_or("which cannot be inflated");
            Box::new(format!("{}, {}, {digest}", module.key, bytes(module.size)))
        }
        None if policy == DEFAULT_POLICY => Box::new("built in"),
        None => Box::new(format!("no module in namespace {namespace}; perhaps one in the controller's")),
    };
    out.data(format_args!("policy {policy}: {what}"))?;
    if leases.is_empty() {
        out.data(format_args!("no lease in namespace {namespace} uses it"))?;
    } else {
        out.data("")?;
        let mut table = Table::new(&["LEASE", "AS", "READY", "REASON", "DECIDED-BY", "LAST-DECISION"]);
        let own = module.as_ref().and_then(|module| module.digest.as_deref());
        for used in leases {
            let by = match used.decided_by.as_deref() {
                Some(digest) if Some(digest) == own => "this module".to_owned(),
                Some(digest) if policy == DEFAULT_POLICY || own.is_none() => short(digest).to_owned(),
                Some(digest) => format!("another: {}", short(digest)),
                None => String::new(),
            };
            table.row(vec![
                used.lease.clone(),
                used.r#as.to_owned(),
                used.ready.map(|ready| if ready { "yes" } else { "no" }.to_owned()).unwrap_or_default(),
                used.reason.clone().unwrap_or_default(),
                by,
                used.decision.clone().unwrap_or_default(),
            ]);
        }
        out.data(table)?;
        for used in leases.iter().filter(|used| used.ready == Some(false)) {
            let message = used.message.as_deref().unwrap_or("no message");
            out.data(format_args!("\n{}: {message}", used.lease))?;
        }
    }
    if !events.is_empty() {
        out.data("\nlast events")?;
        for Told { at, about, reason, message } in events {
            out.data(format_args!("  {} {about} {reason}: {message}", relative(at, now)))?;
        }
    }
    Ok(())
}

/// The first digits of a digest: enough to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use konductor_crds::{
        LeaseSpec, LeaseStatus,
        v1::{PolicySpec, PolicyStatus},
    };

    use super::*;

    fn lease(name: Option<&str>, shadow: Option<&str>, decided: Option<&str>) -> Lease {
        let policy =
            PolicySpec { name: name.map(str::to_owned), shadow: shadow.map(str::to_owned), ..PolicySpec::default() };
        let mut lease = Lease::new("l", LeaseSpec { policy: Some(policy), ..LeaseSpec::default() });
        lease.status = decided.map(|name| LeaseStatus {
            policy: Some(PolicyStatus { name: name.to_owned(), ..PolicyStatus::default() }),
            ..LeaseStatus::default()
        });
        lease
    }

    #[test]
    fn a_lease_uses_what_it_names_and_else_what_decided_for_it() {
        for (lease, expected) in [
            (lease(Some("p"), None, None), vec!["policy"]),
            (lease(Some("p"), Some("p"), None), vec!["policy", "shadow"]),
            (lease(None, Some("p"), None), vec!["shadow"]),
            (lease(None, None, Some("p")), vec!["policy"]),
            (lease(Some(""), None, Some("p")), vec!["policy"]),
            (lease(Some("q"), None, Some("p")), vec![]),
        ] {
            let found: Vec<_> = uses(&lease, "p").into_iter().map(|used| used.r#as).collect();
            assert_eq!(found, expected, "{:?}", lease.spec.policy);
        }
        assert_eq!(uses(&lease(None, None, None), DEFAULT_POLICY).len(), 1);
    }
}
