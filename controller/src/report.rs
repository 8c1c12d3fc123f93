//! Report: what a reconcile has to tell, after the write has succeeded and never before.

mod answers;
mod events;
mod format;
mod metrics;
mod policies;

use std::error::Error;

use k8s_openapi::api::core::v1::ObjectReference;
use konductor_core::Notice;
use kube::{Resource, ResourceExt as _};

pub use answers::Answers;
pub use events::Events;
pub use format::Format;
pub use metrics::{Metrics, PAUSED};
pub use policies::PolicyMetrics;

use crate::{
    commit::Outcome,
    decide::Consulted,
    observe::{Key, Observed},
};

/// Tells what came of a reconcile: answers to requests, Events, metrics, one line of log.
pub fn publish(
    key: &Key,
    observed: &Observed,
    consulted: &Consulted,
    outcome: &Outcome,
    answers: &Answers,
    events: &Events,
    metrics: &Metrics,
) {
    metrics.outcome(outcome.name());
    let plan = &consulted.plan;
    let decision = observed.snapshot.resource_version;
    tracing::debug!(lease = %key, decision, outcome = outcome.name(), "reconciled");
    match outcome {
        // What was planned has not happened, and will be planned anew.
        Outcome::Conflict | Outcome::Gone => return,
        Outcome::Unchanged | Outcome::Committed(_) => {}
    }
    answers.send(key, &plan.answers);
    answers.sweep(key, &plan.sweep);
    // A policy that fails is told when it begins to, not with every decision that it fails.
    let failed_before = observed
        .conditions()
        .iter()
        .any(|c| c.type_ == konductor_crds::v1::reasons::POLICY_READY && c.status == "False");
    if !consulted.health.ready && !failed_before {
        let lease = reference_to_version(&*observed.lease, API_VERSION, "Lease");
        events.policy_failed(lease, &consulted.health.message);
    }
    for notice in &plan.notices {
        metrics.notice(notice);
        events.notice(&observed.lease, notice);
        tell(key, decision, consulted, notice);
    }
}

/// The apiVersion of our own objects.
pub const API_VERSION: &str = "konductor.io/v1";

/// One line an outcome. `decision` is the resourceVersion of the Lease from which it was decided: the write was
/// conditional on it, so no other decision of the same number has become so, of this Lease or of any.
fn tell(key: &Key, decision: i64, consulted: &Consulted, notice: &Notice) {
    let (policy, digest) = consulted.decider.as_ref().map_or(("", ""), |(n, d)| (n.as_str(), d.as_str()));
    match notice {
        Notice::Granted { holder, token, waited } => {
            tracing::info!(lease = %key, decision, holder, token, waited_ms = waited.0, policy, digest, "granted");
        }
        Notice::Ended { holder, token, how } => {
            tracing::info!(lease = %key, decision, holder, token, how = ?how, "ended");
        }
        Notice::Renewed { holder } => tracing::debug!(lease = %key, decision, holder, "renewed"),
        Notice::RenewalRefused { holder, reason } => {
            tracing::info!(lease = %key, decision, holder, reason, policy, digest, "renewal refused");
        }
        Notice::Preempting { holder, by, deadline } => {
            tracing::info!(lease = %key, decision, holder, by, deadline_ms = deadline.0, policy, digest, "preempting");
        }
        Notice::Denied { holder, reason } => {
            tracing::info!(lease = %key, decision, holder, reason, policy, digest, "denied");
        }
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A reference to an object, for an Event.
pub fn reference<K: Resource>(object: &K, api_version: &str, kind: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(object.name_any()),
        namespace: object.namespace(),
        uid: object.uid(),
        ..ObjectReference::default()
    }
}

/// A reference to an object as it is now, for an Event of its own: the recorder counts Events about
/// the same reference as one, and keeps the first one's words.
pub fn reference_to_version<K: Resource>(object: &K, api_version: &str, kind: &str) -> ObjectReference {
    ObjectReference { resource_version: object.resource_version(), ..reference(object, api_version, kind) }
}
