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
    use std::sync::{Arc, Mutex};

    use konductor_core::Settings;
    use konductor_crds::{LeaseRequestSpec, LeaseSpec};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        clock::SystemClock,
        observe::{Sight, World, observe},
    };

    /// An API server that gives this answer to everything, and what it was asked: method, path and query, body.
    type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

    fn api(code: u16, answer: &impl serde::Serialize) -> (Client, Asked) {
        let (asked, body) = (Asked::default(), serde_json::to_vec(answer).expect("JSON"));
        let log = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (log, body) = (log.clone(), body.clone());
            async move {
                let (parts, sent) = request.into_parts();
                let sent = sent.collect_bytes().await.expect("a body");
                log.lock().expect("lock").push((format!("{} {}", parts.method, parts.uri), sent.to_vec()));
                let body = kube::client::Body::from(body);
                Ok::<_, std::io::Error>(http::Response::builder().status(code).body(body).expect("a response"))
            }
        });
        (Client::new(service, "ns"), asked)
    }

    /// An API server that never answers.
    fn silent() -> Client {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        Client::new(service, "ns")
    }

    fn count(asked: &Asked) -> usize {
        asked.lock().expect("lock").len()
    }

    fn refusal(code: u16, reason: &str, named: &str) -> Value {
        json!({ "status": "Failure", "reason": reason, "code": code, "details": { "name": named } })
    }

    /// A lease as it was seen.
    fn observed() -> Observed {
        let mut lease = Lease::new("l", LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("ns".to_owned());
        lease.metadata.uid = Some("lease-uid".to_owned());
        lease.metadata.resource_version = Some("100".to_owned());
        lease.metadata.managed_fields = Some(vec![Default::default()]);
        lease.status = Some(LeaseStatus::default());
        let world = World::default();
        world.apply_lease(lease);
        match observe(&world, &Key::new("ns", "l"), &SystemClock, Duration::ZERO, Settings::default()) {
            Sight::Lease(observed) => *observed,
            _ => panic!("the lease is there"),
        }
    }

    fn changed() -> LeaseStatus {
        LeaseStatus { fencing_token: Some(1), ..LeaseStatus::default() }
    }

    #[tokio::test]
    async fn a_status_is_written_only_when_it_differs_and_only_on_what_it_was_decided_from() {
        let (client, asked) = api(200, &*observed().lease);
        let same = compare_and_swap(&client, &observed(), LeaseStatus::default()).await;
        assert!(matches!(same, Ok(Outcome::Unchanged)), "{same:?}");
        assert_eq!(count(&asked), 0, "nothing to write");

        let written = compare_and_swap(&client, &observed(), changed()).await;
        assert!(matches!(&written, Ok(Outcome::Committed(lease)) if lease.name_any() == "l"), "{written:?}");
        let asked = asked.lock().expect("lock").clone();
        let [(call, body)] = &asked[..] else { panic!("one call: {asked:?}") };
        assert!(call.starts_with("PUT /apis/konductor.io/v1/namespaces/ns/leases/l/status"), "{call}");
        let body: Lease = serde_json::from_slice(body).expect("a Lease");
        assert_eq!(body.metadata.resource_version.as_deref(), Some("100"), "without it, it is no comparison");
        assert_eq!(body.metadata.uid.as_deref(), Some("lease-uid"), "another lease of the name is another one");
        assert_eq!(body.status, Some(changed()));
        assert_eq!(body.metadata.managed_fields, None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_two_refusals_say_what_became_of_a_write() {
        let ending = async |code: u16, answer: Value| {
            compare_and_swap(&api(code, &answer).0, &observed(), changed()).await.map(|outcome| outcome.name())
        };
        assert_eq!(ending(409, refusal(409, "Conflict", "l")).await.ok(), Some("conflict"));
        assert_eq!(ending(404, refusal(404, "NotFound", "l")).await.ok(), Some("gone"));
        // It may have been written, or be written yet.
        for (code, answer) in [
            (404, refusal(404, "NotFound", "")),
            (403, refusal(403, "Forbidden", "l")),
            (500, refusal(500, "InternalError", "l")),
            (504, refusal(504, "Timeout", "l")),
        ] {
            let unknown = ending(code, answer).await;
            assert!(matches!(&unknown, Err(CommitError::Api { key, .. }) if key == "ns/l"), "{code}: {unknown:?}");
        }
        let unknown = compare_and_swap(&silent(), &observed(), changed()).await;
        assert!(matches!(&unknown, Err(CommitError::Timeout { key }) if key == "ns/l"), "{unknown:?}");
    }

    #[test]
    fn an_outcome_has_a_name_of_its_own() {
        let lease = Box::new((*observed().lease).clone());
        let all = [Outcome::Unchanged, Outcome::Committed(lease), Outcome::Conflict, Outcome::Gone];
        assert_eq!(all.map(|outcome| outcome.name()), ["unchanged", "committed", "conflict", "gone"]);
    }

    fn request(uid: &str) -> LeaseRequest {
        let mut request = LeaseRequest::new("r", LeaseRequestSpec { lease: "l".to_owned(), ..Default::default() });
        request.metadata.uid = Some(uid.to_owned());
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_there_when_the_very_same_one_is() {
        let key = Key::new("ns", "l");
        let named = |name: &str| RequestId { name: name.to_owned(), uid: "u".to_owned() };
        let (client, asked) = api(200, &request("u"));
        let found = confirm(&client, &key, &named("r")).await.expect("an answer");
        assert_eq!(found.and_then(|r| r.uid()).as_deref(), Some("u"));
        assert_eq!(asked.lock().expect("lock")[0].0, "GET /apis/konductor.io/v1/namespaces/ns/leaserequests/r");
        assert!(confirm(&client, &key, &named("../r")).await.expect("an answer").is_none(), "nothing has this name");
        assert_eq!(count(&asked), 1, "nor is it asked for");

        assert!(confirm(&api(200, &request("v")).0, &key, &named("r")).await.expect("an answer").is_none(), "another");
        let gone = api(404, &refusal(404, "NotFound", "r")).0;
        assert!(confirm(&gone, &key, &named("r")).await.expect("an answer").is_none());
        for unsure in [api(404, &refusal(404, "NotFound", "")).0, api(500, &refusal(500, "Oops", "r")).0, silent()] {
            let failed = confirm(&unsure, &key, &named("r")).await.expect_err("it is not known");
            assert_eq!(failed.to_string(), "cannot find out whether a request of lease ns/l exists");
        }
    }

    #[tokio::test]
    async fn a_lease_that_is_being_deleted_is_gone() {
        let key = Key::new("ns", "l");
        let mut lease = (*observed().lease).clone();
        let (client, asked) = api(200, &lease);
        assert!(find_lease(&client, &key).await.expect("an answer").is_some());
        assert!(
            find_lease(&client, &Key::new("ns", "..")).await.expect("an answer").is_none(),
            "no lease is called so"
        );
        assert_eq!(count(&asked), 1);
        lease.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
        assert!(lease.metadata.deletion_timestamp.is_some());
        assert!(find_lease(&api(200, &lease).0, &key).await.expect("an answer").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_is_there_when_the_api_server_lists_it() {
        let map = Key::new("ns", "fair");
        let list = |items: Value| json!({ "metadata": {}, "items": items });
        let (client, asked) = api(200, &list(json!([{ "metadata": { "name": "fair" } }])));
        assert!(policy_exists(&client, &map).await.expect("an answer"));
        assert!(!policy_exists(&client, &Key::new("ns", "../fair")).await.expect("an answer"), "no map is called so");
        assert_eq!(count(&asked), 1);
        assert!(!policy_exists(&api(200, &list(json!([]))).0, &map).await.expect("an answer"));
        for unsure in [api(403, &refusal(403, "Forbidden", "")).0, silent()] {
            let failed = policy_exists(&unsure, &map).await.expect_err("it is not known");
            assert_eq!(failed.to_string(), "cannot find out whether a policy of lease ns/fair exists");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_over_when_it_has_ended_or_is_no_more_and_not_when_nobody_says() {
        let pod =
            |uid: &str, phase: &str| json!({ "metadata": { "name": "p", "uid": uid }, "status": { "phase": phase } });
        let bound = |name: &str| PodRef { name: name.to_owned(), uid: "u".to_owned() };
        let over = async |client: Client| pod_is_over(&client, "ns", &bound("p")).await.ok();
        let (client, asked) = api(200, &pod("u", "Running"));
        assert_eq!(over(client.clone()).await, Some(false));
        assert_eq!(pod_is_over(&client, "ns", &bound("a/b")).await.ok(), Some(true), "no Pod is called so");
        assert_eq!(count(&asked), 1);
        assert_eq!(over(api(200, &pod("u", "Succeeded")).0).await, Some(true));
        assert_eq!(over(api(200, &pod("v", "Running")).0).await, Some(true), "another Pod of the name");
        assert_eq!(over(api(404, &refusal(404, "NotFound", "p")).0).await, Some(true));
        assert_eq!(over(api(404, &refusal(404, "NotFound", "")).0).await, None, "an API server that has just started");
        assert_eq!(over(silent()).await, None);
    }

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
