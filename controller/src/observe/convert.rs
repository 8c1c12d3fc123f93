//! From the API's types to the core's. The only place that reads them apart.

use konductor_core::{
    Answered, Ending, Hold, LeaseFacts, Millis, PastHold, Preemption, Record, Request, RequestId, State, Time,
};
use konductor_crds::{
    Lease, LeaseRequest, LeaseStatus,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase, RequestPhase, reasons::LEASE_NOT_FOUND},
};
use kube::ResourceExt as _;

/// A lease's identity and spec.
#[must_use]
pub fn facts(lease: &Lease) -> LeaseFacts {
    let ttl = lease.spec.ttl_ms();
    LeaseFacts {
        name: lease.name_any(),
        namespace: lease.namespace().unwrap_or_default(),
        uid: lease.uid().unwrap_or_default(),
        labels: lease.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        problem: ttl.as_ref().err().map(ToString::to_string),
        ttl: ttl.ok().map(Millis),
        priority: lease.spec.priority.unwrap_or(0),
        renewable: lease.spec.renewable.unwrap_or(true),
    }
}

/// A lease's status as the core's record.
///
/// The status may have been edited by a person, who is allowed to force a release by clearing phase
/// and holder. Whatever is not a complete hold is therefore read as an eviction of the request that
/// it still names, or as free; nothing that a person writes makes somebody a holder who was not granted.
/// `holder_of` finds the holder of a request by its uid.
pub fn record(status: Option<&LeaseStatus>, holder_of: impl Fn(&str) -> Option<String>) -> Record {
    let Some(status) = status else {
        return Record::default();
    };
    let history: Vec<PastHold> = status
        .history
        .iter()
        .take(konductor_core::snapshot::HISTORY_MAX)
        .map(|past| PastHold {
            holder: past.holder.clone(),
            request: past.request.clone(),
            request_name: past.request_name.clone(),
            token: past.token,
            acquired: time(Some(&past.acquired)).unwrap_or_default(),
            ended: time(Some(&past.ended)).unwrap_or_default(),
            how: ending(past.how),
        })
        .collect();
    Record {
        token: status.fencing_token.unwrap_or(0).max(0),
        state: state(status, &history, holder_of),
        history,
        policy_state: status.policy.as_ref().and_then(|p| p.state.clone()).unwrap_or_default(),
    }
}

fn state(status: &LeaseStatus, history: &[PastHold], holder_of: impl Fn(&str) -> Option<String>) -> State {
    let request = status.request.as_ref().filter(|r| !r.uid.is_empty());
    let holder = status.holder.as_deref().filter(|h| !h.is_empty());
    let Some(request) = request else {
        return match status.phase {
            Some(LeasePhase::Expired) => State::Expired(
                history.first().map_or_else(|| time(status.expires.as_ref()).unwrap_or_default(), |p| p.ended),
            ),
            Some(LeasePhase::Available | LeasePhase::Held) | None => State::Available,
        };
    };
    // The same request cannot hold again once its end is told: a status that still names it was edited.
    let acquired = time(status.acquired.as_ref());
    let expires = time(status.expires.as_ref());
    let hold = |holder: String| Hold {
        holder,
        request: RequestId { name: request.name.clone(), uid: request.uid.clone() },
        acquired: acquired.unwrap_or_default(),
        expires: expires.unwrap_or_default(),
        renewed: time(status.renewed.as_ref()).or(acquired).unwrap_or_default(),
        renewals: status.renewals.unwrap_or(0),
        acted_on: request.renewals,
        counted: request.counted.unwrap_or(request.renewals),
        preemption: status.preemption.as_ref().map(|p| Preemption {
            by: p.by.clone(),
            request: p.request.clone(),
            deadline: time(Some(&p.deadline)).unwrap_or_default(),
            force: p.force,
            reason: p.reason.clone().unwrap_or_default(),
        }),
    };
    match (status.phase, holder) {
        (Some(LeasePhase::Held), Some(holder)) if acquired.is_some() && expires.is_some() => {
            State::Held(hold(holder.to_owned()))
        }
        (_, holder) => {
            let holder = holder.map(str::to_owned).or_else(|| holder_of(&request.uid));
            State::Evicted(hold(holder.unwrap_or_else(|| request.name.clone())))
        }
    }
}

/// A request's spec and status. Order of arrival, age and how long it has been over are the
/// observer's to add.
#[must_use]
pub fn request_facts(request: &LeaseRequest) -> Request {
    let spec = &request.spec;
    Request {
        id: RequestId { name: request.name_any(), uid: request.uid().unwrap_or_default() },
        holder: spec.holder.clone(),
        priority: spec.priority,
        ttl: spec.ttl_ms().ok().flatten().map(Millis),
        renewals: spec.renewals,
        timeout: spec.timeout_ms().ok().flatten().map(Millis),
        untouched: Millis::ZERO,
        version: super::world::version(request),
        arrived: Time(request.creation_timestamp().map_or(0, |t| t.0.as_millisecond())),
        sequence: 0,
        labels: request.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        invalid: spec.validate().err().map(|e| e.to_string()),
        answered: request.status.as_ref().and_then(|status| {
            Some(match status.phase? {
                RequestPhase::Pending if status.reason.as_deref() == Some(LEASE_NOT_FOUND) => Answered::NoLease,
                RequestPhase::Pending => Answered::Pending,
                RequestPhase::Granted => Answered::Granted(status.fencing_token.unwrap_or(0)),
                RequestPhase::Denied => Answered::Denied,
                RequestPhase::Finished => Answered::Finished,
            })
        }),
        known_for: Millis::ZERO,
        over_for: Millis::ZERO,
        abandoned: false,
    }
}

fn time(text: Option<&String>) -> Option<Time> {
    text.and_then(|t| parse_timestamp(t)).map(Time)
}

fn ending(how: HoldEnd) -> Ending {
    match how {
        HoldEnd::Released => Ending::Released,
        HoldEnd::Expired => Ending::Expired,
        HoldEnd::Preempted => Ending::Preempted,
        HoldEnd::ForceReleased => Ending::ForceReleased,
        HoldEnd::Superseded => Ending::Superseded,
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::v1::RequestRef;

    use super::*;

    fn held() -> LeaseStatus {
        LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("a".to_owned()),
            acquired: Some("2024-01-15T10:30:00.000Z".to_owned()),
            expires: Some("2024-01-15T10:40:00.000Z".to_owned()),
            request: Some(RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 2, counted: None }),
            fencing_token: Some(7),
            ..LeaseStatus::default()
        }
    }

    fn read(status: &LeaseStatus) -> State {
        record(Some(status), |uid| (uid == "u").then(|| "a".to_owned())).state
    }

    #[test]
    fn an_edited_status_never_makes_a_holder() {
        let mut patched = held();
        patched.phase = Some(LeasePhase::Available);
        patched.holder = Some(String::new());
        assert!(matches!(read(&patched), State::Evicted(h) if h.holder == "a"), "the seeds' force release");

        for edit in [
            (|s: &mut LeaseStatus| s.holder = None) as fn(&mut LeaseStatus),
            |s| s.phase = Some(LeasePhase::Expired),
            |s| s.phase = None,
            |s| s.expires = Some("soon".to_owned()),
            |s| s.acquired = None,
        ] {
            let mut status = held();
            edit(&mut status);
            assert!(matches!(read(&status), State::Evicted(_)), "{status:?}");
        }
        let mut invented = held();
        invented.request = None;
        assert_eq!(read(&invented), State::Available, "a holder without a request was never granted");
    }

    #[test]
    fn a_complete_hold_is_read_back() {
        let State::Held(hold) = read(&held()) else { panic!("not held") };
        assert_eq!((hold.holder.as_str(), hold.acted_on), ("a", 2));
        assert_eq!(hold.expires - hold.acquired, Millis(600_000));
        assert_eq!(record(None, |_| None), Record::default());
    }
}
