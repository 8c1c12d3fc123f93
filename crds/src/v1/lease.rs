//! The Lease resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// A Lease says: one holder at a time, for at most this long.
///
/// It is acquired, renewed and released through LeaseRequests, most easily with koncli:
/// "koncli lease acquire NAME --holder ME". Who gets it is decided by its policy.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "konductor.io",
    version = "v1",
    kind = "Lease",
    plural = "leases",
    singular = "lease",
    shortname = "kl",
    shortname = "klease",
    category = "konductor",
    namespaced,
    status = "LeaseStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A Lease says: one holder at a time, for at most this long. It is acquired, renewed and released through LeaseRequests, most easily with koncli: `koncli lease acquire NAME --holder ME`. Who gets it, who loses it and when is decided by its policy. Its annotations once.konductor.io/KEY say what was completed once (koncli lease run --once KEY); removing one makes it run again.",
    printcolumn = r#"{"name":"Holder","type":"string","jsonPath":".status.holder","description":"Who holds the lease."}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Available, Held or Expired."}"#,
    printcolumn = r#"{"name":"TTL","type":"string","jsonPath":".spec.ttl","description":"How long a grant lasts unless it is renewed."}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expires","description":"When the hold ends unless it is renewed."}"#,
    printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting","description":"How many requests are pending."}"#,
    printcolumn = r#"{"name":"Token","type":"integer","jsonPath":".status.fencingToken","description":"The fencing token of the newest grant."}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".status.policy.name","description":"The policy that decided last."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSpec {
    /// How long a grant lasts unless it is renewed, and the most that a request gets from the
    /// default policy: 30s, 10m, 2h, 1h30m, 500ms. Above zero, at most 366 days.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^([0-9]+(ms|s|m|h|d))+$')", "message": "ttl must be a duration such as 30s, 10m, 2h, 1h30m or 500ms"},
        {"rule": "!self.matches('^(0+(ms|s|m|h|d))+$')", "message": "ttl must be above zero"}
    ]))]
    pub ttl: String,

    /// The priority of a request that states none; higher wins. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// Whether a hold can be renewed (default: true). False: the default policy refuses renewals,
    /// so every hold ends at its ttl at the latest. It does not mean "only once, ever".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable: Option<bool>,

    /// Which policy decides, and how. Absent: the one that the namespace's annotation konductor.io/default-policy names,
    /// else the one that the controller's --default-policy names, without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySpec>,
}

/// Which policy decides about a Lease, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// The policy: the name of a ConfigMap labelled konductor.io/policy-module=true in this
    /// namespace, else in the controller's. Absent: what the namespace's annotation
    /// konductor.io/default-policy says, else what the controller's --default-policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Parameters, handed to the policy as they are and validated by the policy. The default policy
    /// knows preemption, gracePeriod, minHold, lockDelay and aging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub params: Option<serde_json::Map<String, serde_json::Value>>,

    /// A second policy that is asked too and only compared, never obeyed: the controller counts how
    /// often it would have decided differently, and logs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,

    /// What happens when the policy fails: Default, the built-in rules decide; Hold, nothing is
    /// granted, renewed or preempted until it works again. Either way a hold still ends at its expiry. Default:
    /// Default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// What happens to a Lease whose policy fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The built-in policy decides.
    #[default]
    Default,
    /// Nothing is granted, renewed or preempted until the policy works again.
    Hold,
}

/// What is so. Only the controller writes it; a person may clear phase and holder to force a release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// Available: free to be acquired. Held: one holder has it. Expired: the hold ran out with
    /// nobody waiting, and will be cleaned up to Available in a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LeasePhase>,

    /// Who holds the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,

    /// When the holder got it, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub acquired: Option<String>,

    /// When the hold ends unless it is renewed, RFC 3339 with milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires: Option<String>,

    /// When that expiry was set, by the same clock: at the grant or the last renewal. A holder counts
    /// the span between the two from before it asked, on its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub renewed: Option<String>,

    /// How many times this hold was renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewals: Option<i64>,

    /// The fencing token of the newest grant. It strictly rises with every grant, also across
    /// force release and across deleting and recreating the Lease. A resource that remembers the
    /// highest token it has seen can refuse a late writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<i64>,

    /// The LeaseRequest that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestRef>,

    /// How many requests are pending; refreshed with a transition, else every few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<i64>,

    /// A hand-over under way: the holder is asked to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption: Option<Preemption>,

    /// The last 8 holds, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastHold>,

    /// Which module decided last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,

    /// Ready: the spec is understood. Held: somebody holds the lease. PolicyReady: its policy works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The metadata.generation that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The phase of a Lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeasePhase {
    /// Free to be acquired.
    #[default]
    Available,
    /// One holder has it.
    Held,
    /// The hold ran out with nobody waiting; cleaned up to Available after a moment.
    Expired,
}

impl LeasePhase {
    /// The phase as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Held => "Held",
            Self::Expired => "Expired",
        }
    }
}

/// The LeaseRequest that holds a Lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestRef {
    /// metadata.name of the LeaseRequest.
    pub name: String,
    /// metadata.uid of the LeaseRequest: what a client compares with its own to know that it holds.
    pub uid: String,
    /// The value of the request's spec.renewals that was last acted on, granted or refused.
    #[serde(default)]
    pub renewals: i64,
    /// The value of the request's spec.renewals when `expires` was computed: by the grant or the last renewal. A holder
    /// counts its deadline from before it sent that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<i64>,
}

/// A hand-over under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preemption {
    /// The holder of the request in whose favour it is.
    pub by: String,
    /// The uid of that request.
    #[serde(default)]
    pub request: String,
    /// Until when the holder should have released, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    pub deadline: String,
    /// Whether the hold ends at the deadline even if the holder has not released.
    #[serde(default)]
    pub force: bool,
    /// Why, in the policy's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A hold that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastHold {
    /// Who held.
    pub holder: String,
    /// The uid of the LeaseRequest that held; it is never granted again.
    #[serde(default)]
    pub request: String,
    /// The name of that LeaseRequest.
    #[serde(default)]
    pub request_name: String,
    /// The fencing token of the hold.
    pub token: i64,
    /// When it began, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    pub acquired: String,
    /// When it ended, RFC 3339 with milliseconds.
    #[schemars(extend("format" = "date-time"))]
    pub ended: String,
    /// How it ended.
    pub how: HoldEnd,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HoldEnd {
    /// The holder gave it back, by deleting its request.
    Released,
    /// It ran out, at its expiry or at the controller's --max-hold.
    Expired,
    /// It was asked to make room for another request, and left, ran out or was forced out.
    Preempted,
    /// A person took it away.
    ForceReleased,
    /// The same holder made a new request, which took its place.
    Superseded,
}

impl HoldEnd {
    /// The ending as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "Released",
            Self::Expired => "Expired",
            Self::Preempted => "Preempted",
            Self::ForceReleased => "ForceReleased",
            Self::Superseded => "Superseded",
        }
    }
}

/// Which module decided last, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The policy's name.
    pub name: String,
    /// The sha256 of the module, sha256:…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why it decided so, in the policy's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy's own opaque memory, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}
