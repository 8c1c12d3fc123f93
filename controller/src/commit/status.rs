//! From a plan to the status that is written.

use konductor_core::{Ending, Record, State, Time};
use konductor_crds::{
    LeaseStatus,
    time::format_timestamp,
    v1::{
        Condition, HoldEnd, LeasePhase, PastHold, PolicyStatus, Preemption, RequestRef,
        reasons::{HELD, INVALID_SPEC, LEASE_AVAILABLE, LEASE_EXPIRED, LEASE_HELD, LEASE_READY, POLICY_READY, READY},
    },
};

use crate::{decide::Consulted, observe::Observed};

/// The status that a lease should have after this reconcile.
#[must_use]
pub fn next_status(observed: &Observed, consulted: &Consulted) -> LeaseStatus {
    let plan = &consulted.plan;
    let record = &plan.next;
    let old = observed.lease.status.clone().unwrap_or_default();
    let mut status = LeaseStatus {
        phase: Some(phase(record)),
        fencing_token: (record.token > 0).then_some(record.token),
        waiting: Some(plan.waiting),
        history: record.history.iter().map(past).collect(),
        policy: Some(policy(observed, consulted, old.policy)),
        conditions: conditions(observed, consulted, record),
        observed_generation: observed.lease.metadata.generation,
        ..LeaseStatus::default()
    };
    match &record.state {
        State::Held(hold) => {
            status.holder = Some(hold.holder.clone());
            status.acquired = Some(format_timestamp(hold.acquired.0));
            status.expires = Some(format_timestamp(hold.expires.0));
            status.renewed = Some(format_timestamp(hold.renewed.0));
            status.renewals = Some(hold.renewals);
            status.request = Some(RequestRef {
                name: hold.request.name.clone(),
                uid: hold.request.uid.clone(),
                renewals: hold.acted_on,
                counted: Some(hold.counted),
            });
            status.preemption = hold.preemption.as_ref().map(|p| Preemption {
                by: p.by.clone(),
                request: p.request.clone(),
                deadline: format_timestamp(p.deadline.0),
                force: p.force,
                reason: Some(p.reason.clone()).filter(|r| !r.is_empty()),
            });
        }
        // When it ran out stays readable for as long as it shows Expired.
        State::Expired(at) => status.expires = Some(format_timestamp(at.0)),
        State::Available | State::Evicted(_) => {}
    }
    status
}

fn phase(record: &Record) -> LeasePhase {
    match record.state {
        State::Held(_) => LeasePhase::Held,
        State::Expired(_) => LeasePhase::Expired,
        State::Available | State::Evicted(_) => LeasePhase::Available,
    }
}

fn past(past: &konductor_core::PastHold) -> PastHold {
    PastHold {
        holder: past.holder.clone(),
        request: past.request.clone(),
        request_name: past.request_name.clone(),
        token: past.token,
        acquired: format_timestamp(past.acquired.0),
        ended: format_timestamp(past.ended.0),
        how: ending(past.how),
    }
}

/// An ending as the API writes it.
#[must_use]
pub fn ending(how: Ending) -> HoldEnd {
    match how {
        Ending::Released => HoldEnd::Released,
        Ending::Expired => HoldEnd::Expired,
        Ending::Preempted => HoldEnd::Preempted,
        Ending::ForceReleased => HoldEnd::ForceReleased,
        Ending::Superseded => HoldEnd::Superseded,
    }
}

/// Which module decided last. It is news only with a change of the record: a policy that is asked
/// and changes nothing must not cause a write.
fn policy(observed: &Observed, consulted: &Consulted, old: Option<PolicyStatus>) -> PolicyStatus {
    let plan = &consulted.plan;
    let changed = plan.next != observed.snapshot.record;
    let mut policy = match (&consulted.decider, old) {
        (Some((name, digest)), _) if changed => {
            PolicyStatus { name: name.clone(), digest: Some(digest.clone()), reason: plan.reason.clone(), state: None }
        }
        (_, Some(old)) => old,
        (_, None) => PolicyStatus { name: consulted.policy_name.clone(), ..PolicyStatus::default() },
    };
    policy.state = Some(plan.next.policy_state.clone()).filter(|s| !s.is_empty());
    policy
}

fn conditions(observed: &Observed, consulted: &Consulted, record: &Record) -> Vec<Condition> {
    let ready = match &observed.snapshot.lease.problem {
        None => (READY, true, LEASE_READY, "Requests are served.".to_owned()),
        Some(problem) => (READY, false, INVALID_SPEC, problem.clone()),
    };
    let held = match &record.state {
        State::Held(hold) => (HELD, true, LEASE_HELD, format!("Held by {}.", hold.holder)),
        State::Expired(_) => (HELD, false, LEASE_EXPIRED, "The last hold ran out with nobody waiting.".to_owned()),
        State::Available | State::Evicted(_) => (HELD, false, LEASE_AVAILABLE, "Nobody holds it.".to_owned()),
    };
    let health = &consulted.health;
    let policy = (POLICY_READY, health.ready, health.reason.as_str(), health.message.clone());
    [ready, held, policy]
        .into_iter()
        .map(|(type_, status, reason, message)| condition(observed, type_, status, reason, message))
        .collect()
}

fn condition(observed: &Observed, type_: &str, status: bool, reason: &str, message: String) -> Condition {
    let status = if status { "True" } else { "False" };
    let old = observed.conditions().iter().find(|c| c.type_ == type_ && c.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        // It moves only when the status flips.
        last_transition_time: old
            .and_then(|c| c.last_transition_time.clone())
            .or_else(|| Some(seconds(observed.snapshot.now))),
        observed_generation: observed.lease.metadata.generation,
    }
}

/// A time as conditions carry it: whole seconds.
fn seconds(time: Time) -> String {
    format_timestamp(time.0.div_euclid(1000) * 1000).replace(".000Z", "Z")
}
