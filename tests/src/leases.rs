//! Short words for what tests ask of a Lease and of a LeaseRequest.

use konductor_crds::{
    Lease, LeaseRequest,
    v1::{HoldEnd, LeasePhase, RequestPhase},
};

pub use konductor_verify::Holding;

/// What tests ask of a Lease.
pub trait LeaseExt {
    /// The phase; a Lease that nobody has looked at is `Available`.
    fn phase(&self) -> LeasePhase;
    /// Who holds it.
    fn holder(&self) -> Option<&str>;
    /// The newest fencing token.
    fn token(&self) -> Option<i64>;
    /// The hold, if it is complete; an error that names what is missing; `None` if the phase is not `Held`.
    ///
    /// # Errors
    /// The missing parts.
    fn holding(&self) -> Result<Option<Holding>, String>;
    /// How many wait.
    fn waiting(&self) -> i64;
    /// How the hold with this token ended, if it has and is still in the history.
    fn ending_of(&self, token: i64) -> Option<HoldEnd>;
    /// A condition as `True`, `False` or `Unknown` and its reason.
    fn condition(&self, name: &str) -> Option<(&str, &str)>;
}

impl LeaseExt for Lease {
    fn phase(&self) -> LeasePhase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
    }

    fn holder(&self) -> Option<&str> {
        // A holder of "" is nobody: the seeds' patch to force a release writes that.
        self.status.as_ref()?.holder.as_deref().filter(|holder| !holder.is_empty())
    }

    fn token(&self) -> Option<i64> {
        self.status.as_ref()?.fencing_token
    }

    fn holding(&self) -> Result<Option<Holding>, String> {
        konductor_verify::holding(self)
    }

    fn waiting(&self) -> i64 {
        self.status.as_ref().and_then(|status| status.waiting).unwrap_or_default()
    }

    fn ending_of(&self, token: i64) -> Option<HoldEnd> {
        self.status.as_ref()?.history.iter().find(|past| past.token == token).map(|past| past.how)
    }

    fn condition(&self, name: &str) -> Option<(&str, &str)> {
        let condition = self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == name)?;
        Some((&condition.status, condition.reason.as_deref().unwrap_or_default()))
    }
}

/// What tests ask of a LeaseRequest.
pub trait RequestExt {
    /// The phase, if it was answered yet.
    fn phase(&self) -> Option<RequestPhase>;
    /// The reason of the phase.
    fn reason(&self) -> &str;
}

impl RequestExt for LeaseRequest {
    fn phase(&self) -> Option<RequestPhase> {
        self.status.as_ref()?.phase
    }

    fn reason(&self) -> &str {
        self.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default()
    }
}
