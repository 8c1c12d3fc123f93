//! The LeaseRequest resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A LeaseRequest is a claim on a Lease. Deleting it withdraws the claim, or releases the Lease.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "konductor.io",
    version = "v1",
    kind = "LeaseRequest",
    plural = "leaserequests",
    singular = "leaserequest",
    shortname = "klr",
    category = "konductor",
    namespaced,
    status = "LeaseRequestStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.lease",
    selectable = ".spec.holder",
    doc = "A LeaseRequest is a claim of one holder on one Lease of the same namespace. Deleting it withdraws the claim, or releases the Lease if it holds it. Raising spec.renewals asks for a renewal. Whether it holds is said by the Lease: phase Held with this request's uid in status.request.",
    printcolumn = r#"{"name":"Lease","type":"string","jsonPath":".spec.lease","description":"The Lease that is claimed."}"#,
    printcolumn = r#"{"name":"Holder","type":"string","jsonPath":".spec.holder","description":"Who claims it."}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Pending, Granted, Denied or Finished."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","description":"Why, in one word."}"#,
    printcolumn = r#"{"name":"Token","type":"integer","jsonPath":".status.fencingToken","description":"The fencing token of the grant."}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1,"description":"Why, in a sentence."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.lease == oldSelf.lease", "message": "lease cannot be changed: delete this request and create another"},
    {"rule": "self.holder == oldSelf.holder", "message": "holder cannot be changed: delete this request and create another"},
    {"rule": "has(self.priority) == has(oldSelf.priority) && (!has(self.priority) || self.priority == oldSelf.priority)", "message": "priority cannot be changed: delete this request and create another"},
    {"rule": "has(self.ttl) == has(oldSelf.ttl) && (!has(self.ttl) || self.ttl == oldSelf.ttl)", "message": "ttl cannot be changed: delete this request and create another"},
    {"rule": "has(self.timeout) == has(oldSelf.timeout) && (!has(self.timeout) || self.timeout == oldSelf.timeout)", "message": "timeout cannot be changed: delete this request and create another"},
    {"rule": "self.renewals >= oldSelf.renewals", "message": "renewals can only be raised"}
]))]
pub struct LeaseRequestSpec {
    /// The name of the Lease, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub lease: String,

    /// Who claims it: 1 to 253 printable ASCII characters without spaces. Make it unique, for
    /// instance the Pod's name: a new request of the same holder takes the place of its old one.
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[!-~]{1,253}$')", "message": "holder must be 1 to 253 printable ASCII characters without spaces"}
    ]))]
    pub holder: String,

    /// The priority of this claim; higher wins. Absent: the Lease's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// How long the grant should last. Absent: the Lease's ttl, which is also the most that the
    /// default policy gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^([0-9]+(ms|s|m|h|d))+$') && !self.matches('^(0+(ms|s|m|h|d))+$')", "message": "ttl must be a duration above zero, such as 30s, 10m, 2h, 1h30m or 500ms"}
    ]))]
    pub ttl: Option<String>,

    /// How long this claim stays valid while it is pending and nobody touches it by raising
    /// renewals. 0s: now or never. Absent: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [
        {"rule": "self == '0' || self.matches('^([0-9]+(ms|s|m|h|d))+$')", "message": "timeout must be a duration such as 0s, 30s or 5m"}
    ]))]
    pub timeout: Option<String>,

    /// A counter. Raise it to renew a hold, or to say that a pending claim still waits.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub renewals: i64,
}

/// What came of the claim. It is advice, written after the Lease: the Lease's status is the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRequestStatus {
    /// Pending: it waits. Granted: it holds the Lease. Denied: it will never be granted.
    /// Finished: its hold or its wait is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RequestPhase>,
    /// Why, in one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The fencing token of the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<i64>,
    /// When the grant ended or ends as it was first given, RFC 3339; renewals move only the Lease's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires: Option<String>,
    /// The resourceVersion at which the controller first saw this request: its place among the
    /// requests of the same second, which a restart of the controller must not lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
}

/// The phase of a LeaseRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestPhase {
    /// It waits.
    Pending,
    /// It holds the Lease.
    Granted,
    /// It will never be granted.
    Denied,
    /// Its hold or its wait is over.
    Finished,
}

impl RequestPhase {
    /// The phase as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Granted => "Granted",
            Self::Denied => "Denied",
            Self::Finished => "Finished",
        }
    }
}
