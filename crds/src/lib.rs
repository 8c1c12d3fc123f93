//! The `konductor.io/v1` API: types, documented constants, and nothing that acts.
//!
//! Kubernetes users depend on everything in this crate: a field is added, never renamed or removed.
//! The YAML beside this crate (`crds/*.yaml`) is generated from these types by `crdgen`;
//! a test fails when the two drift.
//!
//! Reading is lenient on purpose. A watch that meets one object it cannot parse stops for all of
//! them, so text that a person may have written (`ttl`, timestamps) stays text here and is parsed,
//! with a clear error, by [`time`].

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod time;
pub mod v1;

pub use v1::{Lease, LeaseRequest, LeaseRequestSpec, LeaseRequestStatus, LeaseSpec, LeaseStatus};

/// The API group of every resource of this project.
pub const GROUP: &str = "konductor.io";
/// The API version of every resource of this project.
pub const VERSION: &str = "v1";

/// The label, with the value `"true"`, that makes a ConfigMap a policy module.
pub const POLICY_MODULE_LABEL: &str = "konductor.io/policy-module";
/// The key of a policy ConfigMap's `binaryData` that holds the WebAssembly module.
pub const POLICY_MODULE_KEY: &str = "policy.wasm";
/// The key of a policy ConfigMap's `binaryData` that holds the gzip-compressed WebAssembly module.
pub const POLICY_MODULE_GZIP_KEY: &str = "policy.wasm.gz";
/// The annotation of a Namespace that says which policy a Lease means that names none.
pub const DEFAULT_POLICY_ANNOTATION: &str = "konductor.io/default-policy";
/// The annotation of a LeaseRequest that says who made it, for clusters that have `deploy/admission` applied.
pub const CREATOR_ANNOTATION: &str = "konductor.io/creator";
/// The annotations of a Lease that say what was completed once: this prefix and a key. The value is JSON for people:
/// `{"at": …, "holder": …, "token": …}`. Users of the lease write it, not the controller.
pub const ONCE_ANNOTATION_PREFIX: &str = "once.konductor.io/";
/// The name of the built-in policy.
pub const DEFAULT_POLICY: &str = "default";

/// The committed YAML of every resource definition: file name and resource, in the order to install.
#[must_use]
pub fn definitions()
-> [(&'static str, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition); 2] {
    use kube::CustomResourceExt as _;
    [("lease.yaml", reflowed(Lease::crd())), ("leaserequest.yaml", reflowed(LeaseRequest::crd()))]
}

/// Makes one line of each paragraph of a description: docstrings are wrapped for the editor,
/// `kubectl explain` wraps for the terminal.
fn reflowed(
    mut definition: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
    fn reflow(schema: &mut JSONSchemaProps) {
        if let Some(text) = &mut schema.description {
            *text = text.split("\n\n").map(|p| p.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
        }
        schema.properties.iter_mut().flat_map(std::collections::BTreeMap::values_mut).for_each(reflow);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            reflow(items);
        }
    }
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            reflow(schema);
        }
    }
    definition
}

/// The text of a definition as it is committed.
///
/// # Errors
/// If it cannot be written as YAML, which no definition of ours can cause.
pub fn to_yaml(
    definition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Result<String, serde_yaml::Error> {
    let body = serde_yaml::to_string(definition)?;
    Ok(format!("# GENERATED from crds/src/v1 by `make generate`. Do not edit.\n{body}"))
}
