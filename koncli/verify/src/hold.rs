//! A hold as the status of a Lease shows it.

use konductor_crds::{Lease, time::parse_timestamp, v1::LeasePhase};

/// A hold as the status of a Lease shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub holder: String,
    /// The fencing token.
    pub token: i64,
    /// Since when, in milliseconds since the epoch.
    pub acquired: i64,
    /// Until when, in milliseconds since the epoch.
    pub expires: i64,
    /// The uid of the LeaseRequest.
    pub request: String,
    /// How often it was renewed.
    pub renewals: i64,
}

/// The hold, if it is complete; `None` if the phase is not `Held`.
///
/// # Errors
/// The missing parts.
pub fn holding(lease: &Lease) -> Result<Option<Holding>, String> {
    let Some(status) = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held)) else {
        return Ok(None);
    };
    let mut missing = Vec::new();
    let mut need = |name: &str, here: bool| {
        if !here {
            missing.push(name.to_owned());
        }
    };
    let time = |text: &Option<String>| text.as_deref().and_then(parse_timestamp);
    let (acquired, expires) = (time(&status.acquired), time(&status.expires));
    // A holder of "" is nobody: the documented patch to force a release writes that.
    let holder = status.holder.as_deref().filter(|holder| !holder.is_empty());
    need("holder", holder.is_some());
    need("fencingToken", status.fencing_token.is_some_and(|token| token > 0));
    need("acquired", acquired.is_some());
    need("expires", expires.is_some());
    need("request.uid", status.request.as_ref().is_some_and(|request| !request.uid.is_empty()));
    need("request.name", status.request.as_ref().is_some_and(|request| !request.name.is_empty()));
    if !missing.is_empty() {
        return Err(format!("Held, but without {}", missing.join(", ")));
    }
    Ok(Some(Holding {
        holder: holder.unwrap_or_default().to_owned(),
        token: status.fencing_token.unwrap_or_default(),
        acquired: acquired.unwrap_or_default(),
        expires: expires.unwrap_or_default(),
        request: status.request.as_ref().map(|request| request.uid.clone()).unwrap_or_default(),
        renewals: status.renewals.unwrap_or_default(),
    }))
}
