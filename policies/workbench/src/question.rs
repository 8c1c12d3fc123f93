//! An input of the ABI read back as the question that the core asked: what the guard needs to check
//! an answer. The other direction is in the sandbox's own crate.

use konductor_core::{Candidate, Cause, Ending, HoldView, LeaseFacts, Millis, PastHold, Preemption, Question, Time};
use konductor_policy_abi::v1;

/// The question. Requests have no uid in the ABI; each gets its holder's name, which only one has.
pub(crate) fn question<P>(input: &v1::Input<'_, P>) -> Question {
    let lease = &input.lease;
    let labels = |labels: &v1::Labels<'_>| labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Question {
        now: Time(input.now),
        cause: match input.cause {
            v1::Cause::Request | v1::Cause::Other => Cause::Request,
            v1::Cause::Renewal => Cause::Renewal,
            v1::Cause::Due => Cause::Due,
            v1::Cause::Release => Cause::Release,
        },
        lease: LeaseFacts {
            name: lease.name.to_string(),
            namespace: lease.namespace.to_string(),
            uid: lease.uid.to_string(),
            labels: labels(&lease.labels),
            ttl: Some(Millis(lease.ttl_ms)),
            problem: None,
            priority: lease.priority,
            renewable: lease.renewable,
        },
        ttl: Millis(lease.ttl_ms),
        hold: input.hold.as_ref().map(|hold| HoldView {
            holder: hold.holder.to_string(),
            priority: hold.priority,
            ttl: Millis(hold.ttl_ms),
            acquired: Time(hold.acquired),
            expires: Time(hold.expires),
            renewals: hold.renewals,
            token: hold.token,
            renewal_requested: hold.renewal_requested,
            due: hold.due,
            labels: labels(&hold.labels),
            preemption: hold.preemption.as_ref().map(|preemption| Preemption {
                by: preemption.by.to_string(),
                request: preemption.by.to_string(),
                deadline: Time(preemption.deadline),
                force: preemption.force,
                reason: preemption.reason.to_string(),
            }),
        }),
        requests: input
            .requests
            .iter()
            .map(|request| Candidate {
                uid: request.holder.to_string(),
                holder: request.holder.to_string(),
                priority: request.priority,
                ttl: Millis(request.ttl_ms),
                arrived: Time(request.arrived),
                labels: labels(&request.labels),
            })
            .collect(),
        waiting: usize::try_from(input.waiting).unwrap_or(usize::MAX),
        history: input
            .history
            .iter()
            .map(|past| PastHold {
                holder: past.holder.to_string(),
                request: String::new(),
                request_name: String::new(),
                token: past.token,
                acquired: Time(past.acquired),
                ended: Time(past.ended),
                how: match past.how {
                    v1::Ending::Released | v1::Ending::Other => Ending::Released,
                    v1::Ending::Expired => Ending::Expired,
                    v1::Ending::Preempted => Ending::Preempted,
                    v1::Ending::ForceReleased => Ending::ForceReleased,
                    v1::Ending::Superseded => Ending::Superseded,
                },
            })
            .collect(),
        state: input.state.to_string(),
    }
}
