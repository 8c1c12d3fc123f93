//! Condition types and every reason that a user can meet, one documented constant each.
//!
//! Scripts and alerts compare these strings: a reason is added, never renamed.

/// Condition: the spec is understood. Reasons: [`LEASE_READY`], [`INVALID_SPEC`].
pub const READY: &str = "Ready";
/// Condition: somebody holds the lease. Reasons: [`LEASE_HELD`], [`LEASE_AVAILABLE`], [`LEASE_EXPIRED`].
pub const HELD: &str = "Held";
/// Condition: the lease's policy works. Reasons: [`POLICY_ACTIVE`], [`POLICY_NOT_FOUND`],
/// [`POLICY_REJECTED`], [`POLICY_FAULT`], [`POLICY_VETOED`], [`INVALID_PARAMS`].
pub const POLICY_READY: &str = "PolicyReady";

/// Ready=True: requests are served.
pub const LEASE_READY: &str = "LeaseReady";
/// Ready=False: a field of the spec is not understood; nothing is granted until it is mended. A hold
/// that exists runs to its end.
pub const INVALID_SPEC: &str = "InvalidSpec";

/// Held=True: one holder has the lease.
pub const LEASE_HELD: &str = "LeaseHeld";
/// Held=False: the lease is free.
pub const LEASE_AVAILABLE: &str = "LeaseAvailable";
/// Held=False: the last hold ran out with nobody waiting.
pub const LEASE_EXPIRED: &str = "LeaseExpired";

/// PolicyReady=True: the named policy is loaded and answers.
pub const POLICY_ACTIVE: &str = "PolicyActive";
/// PolicyReady=False: there is no ConfigMap of that name with the label
/// konductor.io/policy-module=true, in the lease's namespace or the controller's.
pub const POLICY_NOT_FOUND: &str = "PolicyNotFound";
/// PolicyReady=False: the ConfigMap's module was refused before it ran: not WebAssembly, imports,
/// a missing export, a wrong type, too large.
pub const POLICY_REJECTED: &str = "PolicyRejected";
/// PolicyReady=False: the module failed while it decided: a trap, out of fuel or memory, an answer
/// that cannot be read.
pub const POLICY_FAULT: &str = "PolicyFault";
/// PolicyReady=False: the module answered with something that is never allowed, such as a grant
/// while the lease is held.
pub const POLICY_VETOED: &str = "PolicyVetoed";
/// PolicyReady=False: the policy refuses spec.policy.params.
pub const INVALID_PARAMS: &str = "InvalidParams";

/// Request Pending: it waits for its turn.
pub const WAITING: &str = "Waiting";
/// Request Pending: there is no Lease of that name in this namespace.
pub const LEASE_NOT_FOUND: &str = "LeaseNotFound";
/// Request Granted: it holds the lease.
pub const LEASE_GRANTED: &str = "LeaseGranted";
/// Request Denied: the policy said that it will never be granted.
pub const DENIED_BY_POLICY: &str = "DeniedByPolicy";
/// Request Denied: a field of its spec is not understood.
pub const INVALID_REQUEST: &str = "InvalidRequest";
/// Request Denied: as many as may wait for a lease do so already (the controller's --max-waiting).
pub const TOO_MANY_WAITING: &str = "TooManyWaiting";
/// Request Finished: it was not granted within its timeout.
pub const TIMED_OUT: &str = "TimedOut";
/// Request Finished: it held the lease and gave it back.
pub const RELEASED: &str = "Released";
/// Request Finished: its hold ran out.
pub const EXPIRED: &str = "Expired";
/// Request Finished: its hold was taken away in favour of another request.
pub const PREEMPTED: &str = "Preempted";
/// Request Finished: a person took its hold away.
pub const FORCE_RELEASED: &str = "ForceReleased";
/// Request Finished: it held a Lease that was deleted, or whose status was wiped.
pub const LEASE_DELETED: &str = "LeaseDeleted";
/// Request Finished: a newer request of the same holder took its place.
pub const SUPERSEDED: &str = "Superseded";

/// Event on a Lease: a request was granted.
pub const EVENT_GRANTED: &str = "LeaseGranted";
/// Event on a Lease: the holder gave it back.
pub const EVENT_RELEASED: &str = "LeaseReleased";
/// Event on a Lease: the hold ran out. A warning: the holder did not release in time.
pub const EVENT_EXPIRED: &str = "LeaseExpired";
/// Event on a Lease: the policy asks the holder to leave, or has taken the hold away.
pub const EVENT_PREEMPTED: &str = "LeasePreempted";
/// Event on a Lease: a person took the hold away.
pub const EVENT_FORCE_RELEASED: &str = "LeaseForceReleased";
/// Event on a Lease: a new request of the same holder took the old one's place.
pub const EVENT_SUPERSEDED: &str = "LeaseSuperseded";
/// Event on a Lease: a renewal was refused.
pub const EVENT_RENEWAL_REFUSED: &str = "RenewalRefused";
/// Event on a Lease: a request was denied.
pub const EVENT_DENIED: &str = "RequestDenied";
/// Event on a Lease: its policy failed, see the PolicyReady condition.
pub const EVENT_POLICY_FAILED: &str = "PolicyFailed";
/// Event on a Lease: spec.policy.shadow would have decided differently; the note has both decisions.
pub const EVENT_SHADOW_DIFFERS: &str = "ShadowDiffers";
/// Event on a policy ConfigMap: its module is in use.
pub const EVENT_POLICY_ACTIVATED: &str = "PolicyActivated";
/// Event on a policy ConfigMap: its module was refused; the last good one stays in use.
pub const EVENT_POLICY_REJECTED: &str = "PolicyRejected";
