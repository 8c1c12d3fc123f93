//! A namespace of a control plane, as the place where a test happens.

use konductor_crds::{Lease, LeaseRequest, LeaseRequestSpec};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{ControlPlane, User, eventually};

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
    ///
    /// # Panics
    /// If that does not happen in 30 seconds, with the status that it has then.
    pub async fn lease_is(&self, name: &str, what: &str, mut is: impl FnMut(&Lease) -> bool) -> Lease {
        let leases = self.leases();
        eventually(&format!("the Lease {name} is {what}"), async || match leases.get(name).await {
            Ok(lease) if is(&lease) => Ok(lease),
            Ok(lease) => Err(serde_json::to_string_pretty(&lease.status).unwrap_or_default()),
            Err(problem) => Err(problem.to_string()),
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
