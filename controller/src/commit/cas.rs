//! The write of a Lease's status, conditional on the resourceVersion that it was decided from.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use konductor_core::RequestId;
use konductor_crds::{Lease, LeaseRequest, LeaseStatus, POLICY_MODULE_LABEL};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    core::{PartialObjectMeta, Status, response::reason},
};

use crate::observe::{Key, Observed, PodRef, ended};

/// The name under which our writes stand in managedFields.
pub const FIELD_MANAGER: &str = "konductor-controller";

/// The longest that one API call may take. A hold is at stake for its ttl, and the queue has other
/// leases; what is not answered by then is tried again from a fresh snapshot.
pub const API_TIMEOUT: Duration = Duration::from_secs(10);

/// What can happen to a plan. Losing the race is an ordinary ending.
#[derive(Debug)]
pub enum Outcome {
    /// The status says already what it should.
    Unchanged,
    /// It was written.
    Committed(Box<Lease>),
    /// Somebody else has written first; the watch will bring what.
    Conflict,
    /// The lease is gone.
    Gone,
}

impl Outcome {
    /// The outcome in one word, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Committed(_) => "committed",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
        }
    }
}

/// Why a write did not come to an end that we know of. It may have happened.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The API server refused or could not be reached.
    #[error("cannot write the status of lease {key}")]
    Api {
        /// Which lease.
        key: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// No answer in time.
    #[error("no answer within {}s to the write of the status of lease {key}", API_TIMEOUT.as_secs())]
    Timeout {
        /// Which lease.
        key: String,
    },
    /// The API server was asked whether something is there, and did not say.
    #[error("cannot find out whether {what} of lease {key} exists")]
    Confirm {
        /// Which lease.
        key: String,
        /// What was asked for.
        what: String,
        /// The cause.
        #[source]
        source: Option<kube::Error>,
    },
}

/// Writes the status if it differs from what was observed.
///
/// # Errors
/// When the outcome is not known. The caller tries again from a fresh snapshot.
pub async fn compare_and_swap(
    client: &Client,
    observed: &Observed,
    status: LeaseStatus,
) -> Result<Outcome, CommitError> {
    if observed.lease.status.as_ref() == Some(&status) {
        return Ok(Outcome::Unchanged);
    }
    let mut lease = (*observed.lease).clone();
    let namespace = lease.namespace().unwrap_or_default();
    let name = lease.name_any();
    lease.status = Some(status);
    // The server keeps these itself, and they are most of the object.
    lease.metadata.managed_fields = None;
    let api = Api::<Lease>::namespaced(client.clone(), &namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let key = || Key::new(&namespace, &name).to_string();
    match tokio::time::timeout(API_TIMEOUT, api.replace_status(&name, &params, &lease)).await {
        Err(_) => Err(CommitError::Timeout { key: key() }),
        Ok(Ok(written)) => Ok(Outcome::Committed(Box::new(written))),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(Outcome::Conflict),
        Ok(Err(kube::Error::Api(status))) if is_gone(&status, &name) => Ok(Outcome::Gone),
        Ok(Err(source)) => Err(CommitError::Api { key: key(), source }),
    }
}

/// Asks the API server whether a request that is not here really is gone. `None`: it is, or another one has
/// its name.
///
/// # Errors
/// When the API server does not say.
pub async fn confirm(client: &Client, key: &Key, request: &RequestId) -> Result<Option<LeaseRequest>, CommitError> {
    if !can_be_a_name(&request.name) {
        return Ok(None);
    }
    let found: Option<LeaseRequest> = find(client, key, &request.name, "a request").await?;
    Ok(found.filter(|r| r.uid().as_deref() == Some(request.uid.as_str())))
}

/// Asks the API server whether a lease is there that no watch has shown yet. One that is being
/// deleted counts as gone.
///
/// # Errors
/// When the API server does not say.
pub async fn find_lease(client: &Client, key: &Key) -> Result<Option<Lease>, CommitError> {
    if !can_be_a_name(&key.name) {
        return Ok(None);
    }
    let found: Option<Lease> = find(client, key, &key.name, "the object").await?;
    Ok(found.filter(|l| l.metadata.deletion_timestamp.is_none()))
}

/// Whether the API server could have an object of this name. A request may name anything, and so may
/// a status that a person has edited. What cannot be a name is the name of nothing, and is not asked
/// for: in a path, `..` would mean something else.
fn can_be_a_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    name.len() <= 253 && ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(inside)
}

/// Asks the API server whether a labelled ConfigMap is there that no watch has shown yet.
///
/// # Errors
/// When the API server does not say.
pub async fn policy_exists(client: &Client, map: &Key) -> Result<bool, CommitError> {
    if !can_be_a_name(&map.name) {
        return Ok(false);
    }
    // A list, because the role allows to read labelled ConfigMaps by their label and in no other way.
    let api = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), &map.namespace);
    let this = ListParams::default()
        .labels(&format!("{POLICY_MODULE_LABEL}=true"))
        .fields(&format!("metadata.name={}", map.name))
        .limit(1);
    let failed = |source| CommitError::Confirm { key: map.to_string(), what: "a policy".to_owned(), source };
    match tokio::time::timeout(API_TIMEOUT, api.list_metadata(&this)).await.map_err(|_| failed(None))? {
        Ok(found) => Ok(!found.items.is_empty()),
        Err(source) => Err(failed(Some(source))),
    }
}

/// Asks the API server whether a Pod is gone, or another one has its name, or it has ended.
///
/// # Errors
/// When the API server does not say.
pub async fn pod_is_over(client: &Client, namespace: &str, pod: &PodRef) -> Result<bool, CommitError> {
    if !can_be_a_name(&pod.name) {
        return Ok(true);
    }
    let found: Option<Pod> = find(client, &Key::new(namespace, &pod.name), &pod.name, "a Pod").await?;
    Ok(found.is_none_or(|found| found.uid().as_deref() != Some(pod.uid.as_str()) || ended(&found).is_some()))
}

async fn find<K>(client: &Client, key: &Key, name: &str, what: &str) -> Result<Option<K>, CommitError>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &key.namespace);
    let failed = |source| CommitError::Confirm { key: key.to_string(), what: what.to_owned(), source };
    match tokio::time::timeout(API_TIMEOUT, api.get(name)).await.map_err(|_| failed(None))? {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if is_gone(&status, name) => Ok(None),
        Err(source) => Err(failed(Some(source))),
    }
}

/// Whether an answer proves that there is no such object. An API server that has just started says 404
/// also of a kind that it does not serve yet: such an answer names no object, and proves nothing.
fn is_gone(status: &Status, name: &str) -> bool {
    status.reason == reason::NOT_FOUND && status.details.as_ref().is_some_and(|details| details.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_names_the_object_proves_that_it_is_gone() {
        let answer = |reason: &str, named: Option<&str>| {
            let mut status = Status::failure("why", reason).with_code(404);
            let details = named.map(|name| serde_json::json!({ "name": name, "kind": "leaserequests" }));
            status.details = details.map(|details| serde_json::from_value(details).expect("details"));
            is_gone(&status, "r")
        };
        assert!(answer("NotFound", Some("r")));
        // What API servers say that do not serve the kind yet, and a proxy.
        assert!(!answer("NotFound", None), "the server could not find the requested resource");
        assert!(!answer("NotFound", Some("")));
        assert!(!answer("Failed to parse error data", None), "404 page not found");
        assert!(!answer("NotFound", Some("another")));
    }

    #[test]
    fn a_path_is_not_a_name() {
        for name in ["a", "db-migration", "a.b", "0", &"x".repeat(253)] {
            assert!(can_be_a_name(name), "{name}");
        }
        for name in ["", ".", "..", "../leases/a", "a/b", "-a", "a-", "A", "a b", "%2e", "a?b", "🦀", &"x".repeat(254)]
        {
            assert!(!can_be_a_name(name), "{name}");
        }
    }
}
