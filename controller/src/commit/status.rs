//! From a plan to the status that is written.

use konductor_core::{Ending, Record, State, Time, plan::WAITING_WRITE_INTERVAL};
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
    let generation = observed.lease.metadata.generation;
    let old = observed.conditions().iter().find(|c| c.type_ == type_ && c.status == status);
    // Other words for the same are written every few seconds at most: two replicas that each know their own, such as when
    // a module is tried again, would write against each other as fast as they can.
    let same = old.filter(|c| c.reason.as_deref() == Some(reason) && c.observed_generation == generation);
    let soon = observed.snapshot.since_write < WAITING_WRITE_INTERVAL;
    let message = same.filter(|_| soon).and_then(|c| c.message.clone()).unwrap_or(message);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        // It moves only when the status flips.
        last_transition_time: old
            .and_then(|c| c.last_transition_time.clone())
            .or_else(|| Some(seconds(observed.snapshot.now))),
        observed_generation: generation,
    }
}

/// A time as conditions carry it: whole seconds.
fn seconds(time: Time) -> String {
    format_timestamp(time.0.div_euclid(1000) * 1000).replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use konductor_core::{
        HISTORY_MAX, Hold, Plan, Preemption as HandOver, RequestId, Settings, transition::Transition,
    };
    use konductor_crds::{Lease, LeaseSpec};

    use super::*;
    use crate::{
        clock::SystemClock,
        decide::Health,
        observe::{Key, Sight, World, observe, record},
    };

    /// A lease with this status, seen at 5250 ms.
    fn observed(status: Option<LeaseStatus>) -> Observed {
        let mut lease = Lease::new("l", LeaseSpec { ttl: "30s".to_owned(), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("ns".to_owned());
        lease.metadata.uid = Some("lease-uid".to_owned());
        lease.metadata.resource_version = Some("100".to_owned());
        lease.metadata.generation = Some(3);
        let world = World::default();
        world.apply_lease(lease.clone());
        let sight = observe(&world, &Key::new("ns", "l"), &SystemClock, Duration::ZERO, Settings::default());
        let Sight::Lease(mut observed) = sight else { panic!("the lease is there") };
        lease.status = status;
        observed.snapshot.record = record(lease.status.as_ref(), |_| None);
        observed.snapshot.now = Time(5_250);
        observed.lease = std::sync::Arc::new(lease);
        *observed
    }

    /// A plan that leads to this record; "p" has decided it.
    fn consulted(next: Record) -> Consulted {
        let plan = Plan {
            next,
            transition: Transition::Stay,
            waiting: 4,
            answers: Vec::new(),
            sweep: Vec::new(),
            notices: Vec::new(),
            wake_in: None,
            reason: Some("because".to_owned()),
        };
        Consulted {
            plan,
            decider: Some(("p".to_owned(), "sha256:1".to_owned())),
            policy_name: "p".to_owned(),
            health: Health { ready: true, reason: "Ready".to_owned(), message: "It works.".to_owned() },
            absent: Vec::new(),
            records: Vec::new(),
        }
    }

    fn hold() -> Hold {
        Hold {
            holder: "a".to_owned(),
            request: RequestId { name: "r".to_owned(), uid: "u".to_owned() },
            acquired: Time(1_001),
            expires: Time(31_002),
            renewed: Time(2_003),
            renewals: 2,
            acted_on: 6,
            counted: 5,
            preemption: Some(HandOver {
                by: "b".to_owned(),
                request: "u2".to_owned(),
                deadline: Time(9_004),
                force: true,
                reason: "more urgent".to_owned(),
            }),
        }
    }

    fn held() -> Record {
        let endings = [Ending::Released, Ending::Expired, Ending::Preempted, Ending::ForceReleased, Ending::Superseded];
        let past = |(n, how): (i64, Ending)| konductor_core::PastHold {
            holder: format!("holder-{n}"),
            request: format!("uid-{n}"),
            request_name: format!("name-{n}"),
            token: n,
            acquired: Time(n * 10),
            ended: Time(n * 10 + 5),
            how,
        };
        assert!(endings.len() <= HISTORY_MAX);
        Record {
            token: 7,
            state: State::Held(hold()),
            history: (1..).zip(endings).map(past).collect(),
            policy_state: "seen".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_again_as_the_same_record() {
        let plain = Hold { preemption: None, ..hold() };
        for next in [
            Record::default(),
            Record { token: 1, ..Record::default() },
            held(),
            Record { state: State::Held(plain), ..held() },
            Record { state: State::Available, ..held() },
            Record { state: State::Expired(Time(4_000)), token: 1, ..Record::default() },
        ] {
            let status = next_status(&observed(None), &consulted(next.clone()));
            assert_eq!(record(Some(&status), |_| None), next);
            assert_eq!((status.waiting, status.observed_generation), (Some(4), Some(3)));
        }
    }

    #[test]
    fn what_is_not_there_is_not_written() {
        let fresh = next_status(&observed(None), &consulted(Record::default()));
        assert_eq!(fresh.phase, Some(LeasePhase::Available));
        assert_eq!((fresh.fencing_token, fresh.holder, fresh.request), (None, None, None), "nobody has held it");
        assert_eq!(fresh.policy.expect("a policy").state, None, "the policy remembers nothing");
        let expired = Record { state: State::Expired(Time(4_000)), ..Record::default() };
        let expired = next_status(&observed(None), &consulted(expired));
        assert_eq!((expired.phase, expired.expires), (Some(LeasePhase::Expired), Some(format_timestamp(4_000))));
        let mut silent = hold();
        silent.preemption.as_mut().expect("a hand-over").reason.clear();
        let silent = next_status(&observed(None), &consulted(Record { state: State::Held(silent), ..held() }));
        assert_eq!(silent.preemption.expect("a hand-over").reason, None);
    }

    #[test]
    fn who_decided_is_told_with_what_it_changed_and_not_otherwise() {
        let changed = next_status(&observed(None), &consulted(held()));
        let told = PolicyStatus {
            name: "p".to_owned(),
            digest: Some("sha256:1".to_owned()),
            reason: Some("because".to_owned()),
            state: Some("seen".to_owned()),
        };
        assert_eq!(changed.policy, Some(told.clone()));

        // Another policy, that changes nothing: telling it would be a write for each question.
        let mut other = consulted(held());
        other.decider = Some(("q".to_owned(), "sha256:2".to_owned()));
        let unchanged = next_status(&observed(Some(changed.clone())), &other);
        assert_eq!(unchanged.policy, Some(told.clone()));
        // Nobody could decide, and the hold is over all the same.
        let mut nobody = consulted(Record { state: State::Available, ..held() });
        nobody.decider = None;
        assert_eq!(next_status(&observed(Some(changed)), &nobody).policy, Some(told));
        // A lease that nobody has decided about yet says which policy it means.
        let mut first = consulted(Record::default());
        (first.decider, first.policy_name) = (None, "meant".to_owned());
        let named = PolicyStatus { name: "meant".to_owned(), ..PolicyStatus::default() };
        assert_eq!(next_status(&observed(None), &first).policy, Some(named));
    }

    #[test]
    fn a_condition_moves_only_when_its_status_flips() {
        let words = |status: &LeaseStatus| -> Vec<(String, String, String, String)> {
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            let told = |c: &Condition| {
                assert_eq!(c.observed_generation, Some(3));
                (c.type_.clone(), c.status.clone(), word(&c.reason), word(&c.last_transition_time))
            };
            status.conditions.iter().map(told).collect()
        };
        let said = |type_: &str, status: &str, reason: &str, since: &str| {
            (type_.to_owned(), status.to_owned(), reason.to_owned(), since.to_owned())
        };
        const NOW: &str = "1970-01-01T00:00:05Z";
        const LATER: &str = "1970-01-01T00:01:00Z";
        let first = next_status(&observed(None), &consulted(held()));
        assert_eq!(
            words(&first),
            [
                said("Ready", "True", LEASE_READY, NOW),
                said("Held", "True", LEASE_HELD, NOW),
                said("PolicyReady", "True", "Ready", NOW)
            ]
        );
        assert_eq!(first.conditions[1].message.as_deref(), Some("Held by a."));

        let mut later = observed(Some(first));
        later.snapshot.now = Time(60_999);
        later.snapshot.lease.problem = Some("ttl: zero".to_owned());
        let second = next_status(&later, &consulted(Record { state: State::Available, ..held() }));
        assert_eq!(
            words(&second),
            [
                said("Ready", "False", INVALID_SPEC, LATER),
                said("Held", "False", LEASE_AVAILABLE, LATER),
                said("PolicyReady", "True", "Ready", NOW)
            ]
        );
        assert_eq!(second.conditions[0].message.as_deref(), Some("ttl: zero"));

        // The same in other words: not sooner than they can be read.
        let worded = |since_write: i64, generation: i64| {
            let mut seen = observed(Some(second.clone()));
            seen.snapshot.since_write = konductor_core::Millis(since_write);
            seen.snapshot.lease.problem = Some("ttl: none".to_owned());
            let mut lease = (*seen.lease).clone();
            lease.metadata.generation = Some(generation);
            seen.lease = std::sync::Arc::new(lease);
            let status = next_status(&seen, &consulted(Record { state: State::Available, ..held() }));
            status.conditions[0].message.clone().unwrap_or_default()
        };
        assert_eq!(worded(2_999, 3), "ttl: zero");
        assert_eq!(worded(3_000, 3), "ttl: none");
        assert_eq!(worded(0, 4), "ttl: none", "the spec is another one");

        // False as before, for another reason.
        let mut still = observed(Some(second));
        still.snapshot.lease.problem = Some("ttl: zero".to_owned());
        let third = next_status(&still, &consulted(Record { state: State::Expired(Time(4_000)), ..held() }));
        assert_eq!(words(&third)[1], said("Held", "False", LEASE_EXPIRED, LATER));

        // True as another condition is all the time, and only now.
        let mut mended = observed(Some(third));
        mended.snapshot.now = Time(120_000);
        let fourth = next_status(&mended, &consulted(Record { state: State::Available, ..held() }));
        assert_eq!(words(&fourth)[0], said("Ready", "True", LEASE_READY, "1970-01-01T00:02:00Z"));
        assert_eq!(words(&fourth)[2], said("PolicyReady", "True", "Ready", NOW));
    }
}
