//! Renewing a hold: raise the request's counter, and see in the Lease what came of it.

use futures::StreamExt as _;
use konductor_crds::{Lease, LeaseRequest, v1::RequestRef};
use kube::api::{Patch, PatchParams};
use tokio::time::{Instant, timeout_at};

use super::{
    CONTROLLER_TIMEOUT, Client, FIELD_MANAGER,
    clock::Moment,
    decide::{Grant, Renewing, View, grant_to, renewing},
    error::{Access, CallFailure, Error, LeaseSeen, Problem, Result},
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

    /// Raises the counter to `counter`, or above what it turns out to be, and waits for the answer.
    async fn renew_request(&self, task: Task<'_>, counter: i64) -> Result<(Grant, Moment, i64)> {
        let Task { doing, request, before, watch } = task;
        let RequestRef { name, uid, .. } = request;
        let until = Instant::now() + CONTROLLER_TIMEOUT;
        let mut sent = self.clock.now();
        let mut asked = counter;
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
                    Ok(_) => raised = true,
                    Err(failure) if failure.is_object_missing() || failure.is_conflict() => {
                        let how = "its request was deleted".to_owned();
                        return Err(Error::new(doing, Problem::Lost { how }));
                    }
                    // The counter only rises, and somebody else has raised it further meanwhile.
                    Err(failure) if failure.status().is_some_and(kube::core::Status::is_invalid) && asked == counter => {
                        let found = self.call(Access::requests("get"), || self.requests.get(name)).await;
                        let current = found.map_err(|failure| Error::from_call(doing, failure))?.spec.renewals;
                        asked = current.max(asked) + 1;
                        sent = self.clock.now();
                        raising = Box::pin(self.raise(name, uid, asked));
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

    /// Raises the counter of a request, if it is still the one that is meant.
    pub(crate) async fn raise(&self, name: &str, uid: &str, counter: i64) -> Result<LeaseRequest, CallFailure> {
        // With a uid in its body a patch is refused where another request has taken the name.
        let patch = serde_json::json!({ "metadata": { "uid": uid }, "spec": { "renewals": counter } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        self.call(Access::requests("patch"), || self.requests.patch(name, &params, &patch)).await
    }
}
