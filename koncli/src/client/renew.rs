//! Renewing a hold: raise the request's counter, and see in the Lease what came of it.

use futures::StreamExt as _;
use konductor_crds::{Lease, LeaseRequest, v1::RequestRef};
use kube::api::{Patch, PatchParams};
use tokio::time::{Instant, timeout_at};

use super::{
    CONTROLLER_TIMEOUT, Client, FIELD_MANAGER,
    clock::Moment,
    decide::{Grant, Raising, Renewing, View, grant_to, not_raised, renewing},
    error::{Access, CallFailure, CallFailureKind, Error, LeaseSeen, Problem, Result},
    hold::Hold,
    is_held_by,
    watch::{From, Seen, Watch},
};

/// What a renewal brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The LeaseRequest that holds.
    pub request: RequestRef,
    /// The fencing token, which a renewal does not change.
    pub token: i64,
    /// When the hold began.
    pub acquired: String,
    /// When it ends now unless it is renewed again.
    pub expires: String,
    /// How often it was renewed.
    pub renewals: i64,
}

/// How often the counter is raised anew because somebody else was faster. Each time somebody has renewed the hold, so one
/// who never gets through loses nothing but its own deadline.
const RAISE_TRIES: u32 = 8;

/// What came of raising a request's counter.
pub(crate) enum Raised {
    /// It is raised, by this process. The request is now this.
    Done(Box<LeaseRequest>),
    /// It is not: the counter was another, and this is it.
    Stands(i64),
    /// It is not: the request is gone.
    Gone,
}

/// A hold that is to be renewed.
struct Task<'a> {
    doing: &'a str,
    request: &'a RequestRef,
    before: &'a Grant,
    watch: &'a mut Watch<Lease>,
}

impl Client {
    /// Renews the hold that `holder` has on a lease, whoever began it: for scripts.
    ///
    /// # Errors
    /// [`Problem::NotHolder`] if `holder` does not hold it, [`Problem::Denied`] if the policy
    /// refuses, [`Problem::Lost`] if the hold ended meanwhile.
    pub async fn renew(&self, lease: &str, holder: &str) -> Result<Renewed> {
        let doing = format!("renew lease \"{lease}\" in namespace \"{}\" as \"{holder}\"", self.namespace);
        let found = self.lease_for(lease, &doing).await?;
        let not_holder = || Error::new(&doing, Problem::NotHolder { lease: Box::new(LeaseSeen::of(&found)) });
        if !is_held_by(&found, holder) {
            return Err(not_holder());
        }
        let Some(request) = found.status.as_ref().and_then(|status| status.request.as_ref()) else {
            return Err(not_holder());
        };
        let Some(before) = grant_to(&request.uid, &found) else {
            return Err(not_holder());
        };
        let from = found.metadata.resource_version.clone().map_or(From::Now, From::After);
        let mut watch = self.watch_from(lease, from);
        let task = Task { doing: &doing, request, before: &before, watch: &mut watch };
        let (grant, _, _) = self.renew_request(task, before.acted_on + 1).await?;
        Ok(Renewed {
            request: RequestRef { renewals: grant.acted_on, counted: Some(grant.counted), ..request.clone() },
            token: grant.token,
            acquired: grant.acquired,
            expires: grant.expires,
            renewals: grant.renewals,
        })
    }

    /// Renews a hold of this process; its [deadline](Hold::deadline) moves with it.
    ///
    /// # Errors
    /// As [`Client::renew`]. After [`Problem::Lost`] the hold is over; after anything else it lasts
    /// until the deadline that it had.
    pub async fn renew_hold(&self, hold: &mut Hold) -> Result<()> {
        let doing =
            format!("renew lease \"{}\" in namespace \"{}\" as \"{}\"", hold.lease, self.namespace, hold.holder);
        let (request, before) = (hold.request.clone(), hold.grant());
        let counter = hold.next_counter();
        // Taken out: what a failed renewal has read of it is not read again, so it must not be kept then.
        let mut watch = hold.watch.take().unwrap_or_else(|| self.watch_lease(&hold.lease));
        let task = Task { doing: &doing, request: &request, before: &before, watch: &mut watch };
        let (grant, sent, counter) = self.renew_request(task, counter).await?;
        hold.renewed(grant, sent, counter);
        hold.watch = Some(watch);
        Ok(())
    }

    /// Raises the counter to `counter`, or by one from what it turns out to be, and waits for the answer.
    async fn renew_request(&self, task: Task<'_>, counter: i64) -> Result<(Grant, Moment, i64)> {
        let Task { doing, request, before, watch } = task;
        let RequestRef { name, uid, .. } = request;
        let until = Instant::now() + CONTROLLER_TIMEOUT;
        let mut sent = self.clock.now();
        let mut asked = counter;
        let mut tries = 1;
        let mut seen: Option<Option<Lease>> = None;
        let mut raised = false;
        let mut trouble = None;
        let mut raising = Box::pin(self.raise(name, uid, counter));
        loop {
            let view = match &seen {
                None => View::Unknown,
                Some(None) => View::Gone,
                Some(Some(lease)) => View::Present(lease),
            };
            match renewing(uid, before, asked, view) {
                Renewing::Renewed(grant) if raised => return Ok((grant, sent, asked)),
                Renewing::Refused(reason) if raised => return Err(Error::new(doing, Problem::Denied { reason })),
                Renewing::Lost(how) => return Err(Error::new(doing, Problem::Lost { how })),
                // An acknowledgement of a counter that was not sent yet is somebody else's renewal.
                Renewing::Renewed(_) | Renewing::Refused(_) | Renewing::Wait => {}
            }
            tokio::select! {
                biased;
                done = &mut raising, if !raised => match done {
                    Ok(Raised::Done(_)) => raised = true,
                    Ok(Raised::Gone) => {
                        let how = "its request was deleted".to_owned();
                        return Err(Error::new(doing, Problem::Lost { how }));
                    }
                    Ok(Raised::Stands(is)) if tries < RAISE_TRIES => {
                        tries += 1;
                        asked = is + 1;
                        sent = self.clock.now();
                        raising = Box::pin(self.raise(name, uid, asked));
                    }
                    Ok(Raised::Stands(is)) => {
                        let why = format!(
                            "others have raised the counter of its request {name} {RAISE_TRIES} times meanwhile, to {is}; let one process renew a hold"
                        );
                        return Err(Error::new(doing, Problem::Failed(why)));
                    }
                    Err(failure) => return Err(Error::from_call(doing, failure)),
                },
                event = timeout_at(until, watch.next()) => match event {
                    Ok(Some(Ok(Seen::Present(lease)))) => {
                        trouble = None;
                        seen = Some(Some(lease));
                    }
                    Ok(Some(Ok(Seen::Gone))) => seen = Some(None),
                    Ok(Some(Ok(Seen::Trouble(why)))) => trouble = Some(why),
                    Ok(Some(Err(failure))) => return Err(Error::from_call(doing, failure)),
                    Ok(None) | Err(_) => {
                        let problem = match trouble {
                            Some(why) => Problem::Unreachable(why),
                            None => Problem::NoController {
                                waited: CONTROLLER_TIMEOUT,
                                left: format!("the hold lasts until {}", before.expires),
                            },
                        };
                        return Err(Error::new(doing, problem));
                    }
                },
            }
        }
    }

    /// Raises the counter of a request from `counter - 1` to `counter`, if it is still the request that is meant, and
    /// still has that counter. So one value is sent with success once: what the controller computes at it is computed after
    /// this was sent, also where another process renews the same hold.
    pub(crate) async fn raise(&self, name: &str, uid: &str, counter: i64) -> Result<Raised, CallFailure> {
        let access = Access::requests("patch");
        let patch = serde_json::json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "test", "path": "/spec/renewals", "value": counter - 1 },
            { "op": "replace", "path": "/spec/renewals", "value": counter },
        ]);
        let unwritable = |error| CallFailure { access, kind: CallFailureKind::Kube(kube::Error::SerdeError(error)) };
        let patch = Patch::<()>::Json(serde_json::from_value(patch).map_err(unwritable)?);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let mut again = true;
        loop {
            let failure = match self.call(access, || self.requests.patch(name, &params, &patch)).await {
                Ok(request) => return Ok(Raised::Done(Box::new(request))),
                Err(failure) if failure.is_object_missing() || failure.is_conflict() => return Ok(Raised::Gone),
                // How every API server answers where a test of a patch fails.
                Err(failure) if failure.status().is_some_and(kube::core::Status::is_invalid) => failure,
                Err(failure) => return Err(failure),
            };
            let found = match self.call(Access::requests("get"), || self.requests.get(name)).await {
                Ok(found) => found,
                Err(missing) if missing.is_object_missing() => return Ok(Raised::Gone),
                Err(failure) => return Err(failure),
            };
            match not_raised(uid, counter, &found) {
                Raising::Gone => return Ok(Raised::Gone),
                // Refused twice for another reason: it is that.
                Raising::Again if std::mem::replace(&mut again, false) => {}
                Raising::Again => return Err(failure),
                Raising::Stands(is) => return Ok(Raised::Stands(is)),
            }
        }
    }
}
