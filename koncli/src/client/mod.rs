//! The client library: acquire a lease, know how long it may be relied on, renew it, release it.
//!
//! ```no_run
//! # async fn example() -> koncli::client::Result<()> {
//! use koncli::client::{Acquire, Client, ConnectOptions, connect};
//!
//! let connection = connect(&ConnectOptions::default()).await?;
//! let client = Client::new(connection.client, &connection.namespace);
//! let mut hold = client.acquire(&Acquire::new("db-migration", "pod-a")).await?;
//! // … work, and hand hold.token to what the lease protects …
//! client.renew_hold(&mut hold).await?;
//! client.release_hold(hold).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is promised (DESIGN.md section 3): a [`Hold`] exists only if the Lease itself was seen to
//! name this client's own request, and its [deadline](Hold::deadline) lies before the moment at which
//! the controller may grant the lease to anybody else, whatever the clocks of either show.

mod acquire;
mod attempt;
mod clock;
mod connect;
mod creator;
mod decide;
mod error;
mod follow;
mod guard;
mod hold;
mod keeper;
mod missing;
mod names;
mod once;
mod owner;
mod release;
mod renew;
#[cfg(test)]
pub(crate) mod scripted;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use konductor_crds::{
    Lease, LeaseRequest,
    v1::{LeasePhase, RequestPhase},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Preconditions},
};

pub use acquire::{Acquire, Progress, Wait};
pub use clock::{Clock, Moment, SystemClock, sleep_until};
pub use connect::{ConnectOptions, Connection, connect};
pub use error::{Access, CallFailure, CallFailureKind, Error, LeaseSeen, Problem, Result, Stop};
pub(crate) use follow::{Followed, follow};
pub use guard::{AskedBack, Guard, Standing};
pub use hold::Hold;
pub use names::{Randomness, SystemRandomness, object_name_problem};
pub(crate) use once::{By, no_room};
pub use once::{Completed, Key, completed_in};
pub use owner::{Owner, find_owner};
pub use release::{Forced, Released};
pub use renew::Renewed;

/// The label of a LeaseRequest that names its lease, where the name can be a label.
pub const LEASE_LABEL: &str = "konductor.io/lease";

/// Who writes, as it stands in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "koncli";

/// How many LeaseRequests of a namespace are read to find those of one lease, before their labels have to do: some
/// hundred KiB.
const REQUESTS_READ_WHOLE: u32 = 500;
/// How long one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a controller may take to answer before it counts as absent.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the attempt to withdraw a request may take: somebody waits for the command to end.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the leases of one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    leases: Api<Lease>,
    requests: Api<LeaseRequest>,
    namespace: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    owner: Option<OwnerReference>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("namespace", &self.namespace).field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the leases of `namespace`.
    #[must_use]
    pub fn new(kube: kube::Client, namespace: &str) -> Self {
        Self {
            leases: Api::namespaced(kube.clone(), namespace),
            requests: Api::namespaced(kube.clone(), namespace),
            kube,
            namespace: namespace.to_owned(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandomness),
            owner: None,
        }
    }

    /// The same, counting deadlines on another clock: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same, with chance from another source: for tests.
    #[must_use]
    pub fn with_randomness(mut self, random: Arc<dyn Randomness>) -> Self {
        self.random = random;
        self
    }

    /// The same, with an owner for every request that it makes: when the owner is deleted, so are its
    /// claims. See [`find_owner`].
    #[must_use]
    pub fn with_owner(mut self, owner: Option<OwnerReference>) -> Self {
        self.owner = owner;
        self
    }

    /// The namespace of the leases.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes client underneath.
    #[must_use]
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    /// The clock that deadlines are counted on.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Reads a Lease.
    ///
    /// # Errors
    /// [`Problem::NoSuchLease`] if there is none, with the names of leases that look like it.
    pub async fn get(&self, lease: &str) -> Result<Lease> {
        self.lease_for(lease, &format!("read lease \"{lease}\" in namespace \"{}\"", self.namespace)).await
    }

    /// Reads a Lease for something that is being done.
    async fn lease_for(&self, lease: &str, doing: &str) -> Result<Lease> {
        match self.call(Access::leases("get"), || self.leases.get(lease)).await {
            Ok(found) => Ok(found),
            Err(failure) if failure.is_object_missing() => Err(self.no_such_lease(lease, doing).await),
            Err(failure) => Err(Error::from_call(doing, failure)),
        }
    }

    /// The requests that wait for a lease, in the order in which the default policy would serve
    /// them: by priority, then as they arrived.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn queue(&self, lease: &Lease) -> Result<Vec<LeaseRequest>> {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        let doing = format!("list the requests for lease \"{name}\" in namespace \"{}\"", self.namespace);
        let mut waiting = self.waiting_for(lease, &doing).await?;
        in_line(lease, &mut waiting);
        Ok(waiting)
    }

    /// The requests that wait for a lease, for something that is being done.
    async fn waiting_for(&self, lease: &Lease, doing: &str) -> Result<Vec<LeaseRequest>> {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        // Requests that were made by hand need not have the label, so all are looked through where there are not many.
        let few = ListParams::default().limit(REQUESTS_READ_WHOLE);
        let listed = self.call(Access::requests("list"), || self.requests.list(&few)).await;
        let listed = listed.map_err(|failure| Error::from_call(doing, failure))?;
        let mut waiting = listed.items;
        waiting.retain(|request| request.spec.lease == name);
        if listed.metadata.continue_.is_some_and(|more| !more.is_empty()) {
            waiting = self.requests_for(name, doing, true).await?;
            let known = lease.status.as_ref().and_then(|status| status.waiting).unwrap_or_default();
            if usize::try_from(known).is_ok_and(|known| known > waiting.len()) {
                waiting = self.requests_for(name, doing, false).await?;
            }
        }
        waiting.retain(is_pending);
        Ok(waiting)
    }

    async fn requests_for(&self, lease: &str, doing: &str, labelled: bool) -> Result<Vec<LeaseRequest>> {
        let params = match names::is_label_value(lease) && labelled {
            true => ListParams::default().labels(&format!("{LEASE_LABEL}={lease}")),
            false => ListParams::default(),
        };
        let listed = self.call(Access::requests("list"), || self.requests.list(&params)).await;
        let mut found = listed.map_err(|failure| Error::from_call(doing, failure))?.items;
        found.retain(|request| request.spec.lease == lease);
        Ok(found)
    }

    /// A watch of a Lease that begins with what it is now.
    fn watch_lease(&self, lease: &str) -> watch::Watch<Lease> {
        self.watch_from(lease, watch::From::Now)
    }

    /// A watch of a Lease from some point on.
    fn watch_from(&self, lease: &str, from: watch::From) -> watch::Watch<Lease> {
        watch::object(self.leases.clone(), lease, from, Access::leases, self.random.clone())
    }

    /// As the function [`call`], with this client's chance.
    async fn call<T, F>(&self, access: Access, attempt: impl FnMut() -> F) -> Result<T, CallFailure>
    where
        F: Future<Output = kube::Result<T>>,
    {
        call_again(&*self.random, access, attempt).await
    }

    /// Deletes a request, if it is still the one that is meant. Deleting one that is gone already succeeds.
    async fn delete_request(&self, name: &str, uid: Option<&str>) -> Result<(), CallFailure> {
        let params = DeleteParams {
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.call(Access::requests("delete"), || self.requests.delete(name, &params)).await {
            Ok(_) => Ok(()),
            // Gone, or another request of that name: ours is not there either way.
            Err(failure) if failure.is_object_missing() || failure.is_conflict() => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// Puts the requests that wait for a lease in the order in which the default policy would serve them.
pub(crate) fn in_line<R: std::borrow::Borrow<LeaseRequest>>(lease: &Lease, waiting: &mut [R]) {
    let default_priority = lease.spec.priority.unwrap_or_default();
    waiting.sort_by_cached_key(|request| {
        let request = request.borrow();
        let arrived = request.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
        let sequence = request.status.as_ref().and_then(|status| status.sequence).unwrap_or(i64::MAX);
        let priority = request.spec.priority.unwrap_or(default_priority);
        (std::cmp::Reverse(priority), arrived, sequence, request.metadata.name.clone())
    });
}

/// Whether a request waits, or will as soon as a controller sees it.
pub(crate) fn is_pending(request: &LeaseRequest) -> bool {
    let phase = request.status.as_ref().and_then(|status| status.phase);
    matches!(phase, None | Some(RequestPhase::Pending)) && request.metadata.deletion_timestamp.is_none()
}

/// Whether a Lease says that `holder` has it.
pub(crate) fn is_held_by(lease: &Lease, holder: &str) -> bool {
    lease
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Some(LeasePhase::Held) && status.holder.as_deref() == Some(holder))
}

/// Calls the API server, for a limited time, and again when it says that it is busy.
pub async fn call<T, F>(access: Access, attempt: impl FnMut() -> F) -> Result<T, CallFailure>
where
    F: Future<Output = kube::Result<T>>,
{
    call_again(&SystemRandomness, access, attempt).await
}

async fn call_again<T, F>(
    random: &dyn Randomness,
    access: Access,
    mut attempt: impl FnMut() -> F,
) -> Result<T, CallFailure>
where
    F: Future<Output = kube::Result<T>>,
{
    const BUSY_FIRST: Duration = Duration::from_millis(50);
    let started = tokio::time::Instant::now();
    let mut delay = BUSY_FIRST;
    loop {
        let left = CALL_TIMEOUT.saturating_sub(started.elapsed());
        let error = match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => return Err(CallFailure { access, kind: CallFailureKind::Silent(CALL_TIMEOUT) }),
        };
        let busy = matches!(&error, kube::Error::Api(status) if matches!(status.code, 429 | 503));
        if !busy || started.elapsed() + delay >= CALL_TIMEOUT {
            return Err(CallFailure { access, kind: CallFailureKind::Kube(error) });
        }
        tokio::time::sleep(delay.mul_f64(names::jitter(random))).await;
        delay = delay.saturating_mul(2);
    }
}
