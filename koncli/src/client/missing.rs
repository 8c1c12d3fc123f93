//! A lease that is not there: what it may have been meant to be, and where it may be.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as NodeLease;
use konductor_crds::Lease;
use kube::{Api, api::ListParams};

use super::{
    Client,
    error::{Error, Problem},
};

/// Names to suggest are a courtesy: one attempt, and no error if it fails.
const COURTESY: Duration = Duration::from_secs(2);
/// More than this nobody looks through for a name that is like another.
const NAMES_MOST: u32 = 500;
/// In so many other namespaces a lease of that name is mentioned.
const ELSEWHERE_MOST: u32 = 5;

impl Client {
    /// The error for a lease that is missing, with names that it may have been meant to be, and with what else has
    /// this name.
    pub(super) async fn no_such_lease(&self, lease: &str, doing: &str) -> Error {
        let names = async {
            let params = ListParams::default().limit(NAMES_MOST);
            let listing = self.leases.list_metadata(&params);
            let listed = tokio::time::timeout(COURTESY, listing).await.ok()?.ok()?;
            Some(listed.items.into_iter().filter_map(|item| item.metadata.name).collect::<Vec<_>>())
        };
        let elsewhere = async {
            // Who may look everywhere has often forgotten the namespace.
            let everywhere: Api<Lease> = Api::all(self.kube.clone());
            let params = ListParams::default().fields(&format!("metadata.name={lease}")).limit(ELSEWHERE_MOST);
            let listed = tokio::time::timeout(COURTESY, everywhere.list_metadata(&params)).await.ok()?.ok()?;
            Some(listed.items.into_iter().filter_map(|item| item.metadata.namespace).collect::<Vec<_>>())
        };
        let other = async {
            let others: Api<NodeLease> = Api::namespaced(self.kube.clone(), &self.namespace);
            tokio::time::timeout(COURTESY, others.get_metadata_opt(lease)).await.ok()?.ok()?
        };
        let (names, elsewhere, other) = tokio::join!(names, elsewhere, other);
        let problem = Problem::NoSuchLease {
            name: lease.to_owned(),
            namespace: self.namespace.clone(),
            similar: crate::text::similar(lease, names.unwrap_or_default()),
        };
        let mut error = Error::new(doing, problem);
        for namespace in elsewhere.unwrap_or_default() {
            error = error.with_note(format!("there is one of this name in namespace \"{namespace}\": -n {namespace}"));
        }
        if other.is_some() {
            error = error.with_note(
                "what \"kubectl get lease\" shows under this name is Kubernetes' own coordination.k8s.io Lease; \
                 for leases of Konductor say: kubectl get kl",
            );
        }
        error
    }
}
