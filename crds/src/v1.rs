//! `konductor.io/v1`.

mod condition;
mod lease;
mod lease_request;
pub mod reasons;
mod validation;

pub use condition::Condition;
pub use lease::{
    HoldEnd, Lease, LeasePhase, LeaseSpec, LeaseStatus, OnFailure, PastHold, PolicySpec, PolicyStatus, Preemption,
    RequestRef,
};
pub use lease_request::{LeaseRequest, LeaseRequestSpec, LeaseRequestStatus, RequestPhase};
pub use validation::{HOLDER_MAX, InvalidField, validate_holder};
