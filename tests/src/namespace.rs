//! A namespace of a control plane, as the place where a test happens.

use std::time::Duration;

use futures::StreamExt as _;
use konductor_crds::{Lease, LeaseRequest, LeaseRequestSpec};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::{ControlPlane, User, eventually};

/// After so much silence a watch is opened anew: the server may have gone without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// A namespace. What it does itself, it does as the administrator: to arrange and to look, not to test.
pub struct Namespace<'p> {
    plane: &'p ControlPlane,
    name: String,
}

impl<'p> Namespace<'p> {
    pub(crate) fn new(plane: &'p ControlPlane, name: &str) -> Self {
        Self { plane, name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Leases.
    #[must_use]
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.plane.admin().clone(), &self.name)
    }

    /// Its LeaseRequests.
    #[must_use]
    pub fn requests(&self) -> Api<LeaseRequest> {
        Api::namespaced(self.plane.admin().clone(), &self.name)
    }

    /// A new service account of this namespace, with these ClusterRoles bound in it.
    pub async fn user(&self, roles: &[&str]) -> User<'p> {
        self.plane.user(&self.name, roles).await
    }

    /// Creates a Lease.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_lease(&self, name: &str, ttl: &str) -> Lease {
        self.create_lease_with(name, json!({"ttl": ttl})).await
    }

    /// Creates a Lease with a spec.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_lease_with(&self, name: &str, spec: serde_json::Value) -> Lease {
        let lease = serde_json::from_value(json!({
            "apiVersion": "konductor.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap_or_else(|problem| panic!("the test's own Lease {name} is odd: {problem}"));
        self.leases()
            .create(&PostParams::default(), &lease)
            .await
            .unwrap_or_else(|problem| panic!("cannot create the Lease {name}: {problem}"))
    }

    /// Changes the spec of a Lease by a merge patch.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn patch_lease(&self, name: &str, patch: serde_json::Value) -> Lease {
        self.leases()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or_else(|problem| panic!("cannot patch the Lease {name}: {problem}"))
    }

    /// Creates a LeaseRequest with a name that the server makes up.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn request(&self, lease: &str, holder: &str) -> LeaseRequest {
        self.request_with(LeaseRequestSpec {
            lease: lease.to_owned(),
            holder: holder.to_owned(),
            ..LeaseRequestSpec::default()
        })
        .await
    }

    /// Creates a LeaseRequest with a spec.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn request_with(&self, spec: LeaseRequestSpec) -> LeaseRequest {
        let mut request = LeaseRequest::new("", spec);
        request.metadata.name = None;
        request.metadata.generate_name = Some("request-".to_owned());
        self.requests()
            .create(&PostParams::default(), &request)
            .await
            .unwrap_or_else(|problem| panic!("cannot create a LeaseRequest: {problem}"))
    }

    /// Deletes a LeaseRequest: withdraws it, or releases what it holds.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn delete_request(&self, request: &LeaseRequest) {
        let name = request.metadata.name.as_deref().unwrap_or_default();
        self.requests()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap_or_else(|problem| panic!("cannot delete the LeaseRequest {name}: {problem}"));
    }

    /// A Lease as it is now.
    ///
    /// # Panics
    /// If there is none.
    pub async fn lease(&self, name: &str) -> Lease {
        self.leases().get(name).await.unwrap_or_else(|problem| panic!("no Lease {name}: {problem}"))
    }

    /// Waits until a Lease is `what`, as `is` decides: `team.lease_is("demo", "held by a", |l| l.holder() == Some("a"))`.
    /// No state from now on is missed, however short it is.
    ///
    /// # Panics
    /// If that does not happen in 30 seconds, with the status that it has then.
    pub async fn lease_is(&self, name: &str, what: &str, is: impl FnMut(&Lease) -> bool) -> Lease {
        self.lease_since(None, name, what, is).await
    }

    /// As [`Self::lease_is`], for a state that there was at any time after a resourceVersion, also another object's.
    ///
    /// # Panics
    /// As [`Self::lease_is`].
    pub async fn lease_since(
        &self,
        version: Option<String>,
        name: &str,
        what: &str,
        mut is: impl FnMut(&Lease) -> bool,
    ) -> Lease {
        let leases = self.leases();
        let only = WatchParams::default().fields(&format!("metadata.name={name}"));
        let (mut seen_to, mut state) = (version, "nothing".to_owned());
        eventually(&format!("the Lease {name} is {what}"), async || {
            let mut look = |lease: Lease| {
                state = serde_json::to_string_pretty(&lease.status).unwrap_or_default();
                is(&lease).then_some(lease)
            };
            let from = match seen_to.take() {
                Some(version) => version,
                None => {
                    let lease = leases.get(name).await.map_err(|problem| problem.to_string())?;
                    let version = lease.resource_version().unwrap_or_default();
                    if let Some(lease) = look(lease) {
                        return Ok(lease);
                    }
                    version
                }
            };
            let events = leases.watch(&only, &from).await.map_err(|problem| problem.to_string())?;
            let mut events = std::pin::pin!(events);
            seen_to = Some(from);
            // Silence is no news: where it was broken off is gone on from.
            while let Ok(Some(event)) = tokio::time::timeout(SILENCE, events.next()).await {
                match event {
                    Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                        seen_to = lease.resource_version();
                        if let Some(lease) = look(lease) {
                            return Ok(lease);
                        }
                    }
                    // A state of its own, which nobody waits for with this.
                    Ok(WatchEvent::Deleted(_) | WatchEvent::Bookmark(_)) => {}
                    // Too old, or the server is away: what there is now has to do.
                    Ok(WatchEvent::Error(_)) | Err(_) => {
                        seen_to = None;
                        break;
                    }
                }
            }
            Err(state.clone())
        })
        .await
    }

    /// Waits until a LeaseRequest is `what`.
    ///
    /// # Panics
    /// If that does not happen in 30 seconds, with the status that it has then.
    pub async fn request_is(
        &self,
        request: &LeaseRequest,
        what: &str,
        mut is: impl FnMut(&LeaseRequest) -> bool,
    ) -> LeaseRequest {
        let requests = self.requests();
        let name = request.metadata.name.as_deref().unwrap_or_default();
        eventually(&format!("the LeaseRequest {name} is {what}"), async || match requests.get(name).await {
            Ok(request) if is(&request) => Ok(request),
            Ok(request) => Err(serde_json::to_string_pretty(&request.status).unwrap_or_default()),
            Err(problem) => Err(problem.to_string()),
        })
        .await
    }

    /// Waits until a LeaseRequest does not exist any more.
    ///
    /// # Panics
    /// If it still does after 30 seconds.
    pub async fn request_is_gone(&self, request: &LeaseRequest) {
        let requests = self.requests();
        let name = request.metadata.name.as_deref().unwrap_or_default();
        eventually(&format!("the LeaseRequest {name} is gone"), async || match requests.get_opt(name).await {
            Ok(None) => Ok(()),
            Ok(Some(request)) => Err(serde_json::to_string_pretty(&request).unwrap_or_default()),
            Err(problem) => Err(problem.to_string()),
        })
        .await;
    }
}
