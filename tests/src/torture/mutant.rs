//! A controller that is broken on purpose: a torture that never fails shows nothing.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use konductor_crds::{
    Lease, LeaseRequest, LeaseStatus,
    time::format_timestamp,
    v1::{HoldEnd, LeasePhase, PastHold, RequestPhase, RequestRef},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use tokio::task::JoinHandle;

use crate::checker::Rule;

/// What it does wrong. It is one more replica, which writes with the rights of a controller, each time conditional on
/// what it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// It gives a lease that somebody holds to who waits for it.
    GrantsWhatIsHeld,
    /// As that, under the token that the hold has.
    KeepsTheToken,
    /// It ends a hold as expired that has just begun.
    EndsEarly,
}

/// Between two tries: shorter than a hold, longer than two writes.
const PAUSE: Duration = Duration::from_millis(150);
const TTL_MS: i64 = 2_000;

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GrantsWhatIsHeld, Self::KeepsTheToken, Self::EndsEarly];

    /// What the judge has to say of it.
    #[must_use]
    pub fn breaks(self) -> Rule {
        match self {
            Self::GrantsWhatIsHeld => Rule::Overlap,
            Self::KeepsTheToken => Rule::HoldChanges,
            Self::EndsEarly => Rule::EarlyExpiry,
        }
    }

    /// What it would write, if there is anything for it to do.
    fn writes(self, lease: &Lease, requests: &[LeaseRequest], now: i64) -> Option<LeaseStatus> {
        let mut status = lease.status.clone().filter(|status| status.phase == Some(LeasePhase::Held))?;
        let token = status.fencing_token?;
        if self == Self::EndsEarly {
            let request = status.request.take()?;
            let past = PastHold {
                holder: status.holder.take()?,
                request: request.uid,
                request_name: request.name,
                token,
                acquired: status.acquired.take()?,
                ended: format_timestamp(now),
                how: HoldEnd::Expired,
            };
            status.history.insert(0, past);
            status.history.truncate(8);
            (status.phase, status.expires, status.renewed) = (Some(LeasePhase::Available), None, None);
            return Some(status);
        }
        let next = requests.iter().find(|request| {
            let phase = request.status.as_ref().and_then(|status| status.phase);
            Some(request.spec.lease.as_str()) == lease.metadata.name.as_deref()
                && Some(&request.spec.holder) != status.holder.as_ref()
                && matches!(phase, None | Some(RequestPhase::Pending))
        })?;
        let version: i64 = lease.metadata.resource_version.as_ref()?.parse().ok()?;
        if self == Self::GrantsWhatIsHeld {
            status.fencing_token = Some(version.max(token + 1));
            status.acquired = Some(format_timestamp(now));
            status.renewals = Some(0);
        }
        status.holder = Some(next.spec.holder.clone());
        status.renewed = Some(format_timestamp(now));
        status.expires = Some(format_timestamp(now + TTL_MS));
        status.request = Some(RequestRef {
            name: next.metadata.name.clone()?,
            uid: next.metadata.uid.clone()?,
            renewals: next.spec.renewals,
            counted: Some(next.spec.renewals),
        });
        Some(status)
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|mutant| format!("{mutant:?}")).collect();
            format!("MUTANT is \"{name}\"; there are {}", all.join(", "))
        })
    }
}

/// One at work, until it is dropped.
#[derive(Debug)]
pub(super) struct Broken {
    done: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Broken {
    pub(super) fn start(mutant: Mutant, client: Client, namespace: String) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let task = tokio::spawn(async move {
            let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
            let requests: Api<LeaseRequest> = Api::namespaced(client, &namespace);
            loop {
                // What a fault makes impossible is tried again.
                if let (Ok(all), Ok(waiting)) =
                    (leases.list(&ListParams::default()).await, requests.list(&ListParams::default()).await)
                {
                    for lease in all.items {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                        let now = i64::try_from(now).unwrap_or(i64::MAX);
                        let Some(status) = mutant.writes(&lease, &waiting.items, now) else { continue };
                        let name = lease.metadata.name.clone().unwrap_or_default();
                        let changed = Lease { status: Some(status), ..lease };
                        if leases.replace_status(&name, &PostParams::default(), &changed).await.is_ok() {
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                crate::wait::pause(PAUSE).await;
            }
        });
        Self { done, task }
    }

    /// How often it has written.
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.task.abort();
    }
}
