//! Giving a lease back, or taking it away by force.

use futures::StreamExt as _;
use konductor_crds::{
    Lease,
    v1::{HoldEnd, LeasePhase, RequestRef},
};
use kube::api::{Patch, PatchParams};
use tokio::time::{Instant, timeout_at};

use super::{
    CONTROLLER_TIMEOUT, Client, FIELD_MANAGER,
    decide::{View, force_recorded, holding_uid, released},
    error::{Access, Error, LeaseSeen, Problem, Result},
    hold::Hold,
    is_held_by,
    watch::{From, Seen, Watch},
};

/// What a release did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The hold with this fencing token is over.
    Released {
        /// The fencing token that it had.
        token: i64,
    },
    /// It had been released before.
    Already,
    /// The holder had only been waiting; so many requests were withdrawn.
    Withdrawn(usize),
}

/// What a release by force did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forced {
    /// Somebody was evicted.
    Evicted {
        /// Who.
        holder: String,
        /// The fencing token of the hold that was ended.
        token: i64,
    },
    /// Nobody held it.
    Free,
}

/// How often a release by force is tried again when the Lease changes under it.
const FORCE_TRIES: usize = 5;

impl Client {
    /// Releases the hold that `holder` has on a lease, whoever began it, and returns when the lease
    /// is free or handed on. Where the holder only waits, its requests are withdrawn.
    ///
    /// # Errors
    /// [`Problem::NotHolder`] if `holder` does not hold it and was not the last to release it.
    pub async fn release(&self, lease: &str, holder: &str) -> Result<Released> {
        let doing = format!("release lease \"{lease}\" in namespace \"{}\" as \"{holder}\"", self.namespace);
        let found = self.lease_for(lease, &doing).await?;
        let status = found.status.as_ref();
        let request = status.and_then(|status| status.request.as_ref()).filter(|_| is_held_by(&found, holder));
        if let Some(request) = request {
            let from = found.metadata.resource_version.clone().map_or(From::Now, From::After);
            let watch = self.watch_from(lease, from);
            let token = status.and_then(|status| status.fencing_token).unwrap_or_default();
            self.release_request(&doing, request, token, watch).await?;
            return Ok(Released::Released { token });
        }
        let withdrawn = self.withdraw_all(&found, holder, &doing).await?;
        if withdrawn > 0 {
            return Ok(Released::Withdrawn(withdrawn));
        }
        let newest = status.and_then(|status| status.history.first());
        let free = status.is_none_or(|status| status.phase != Some(LeasePhase::Held));
        if free && newest.is_some_and(|past| past.holder == holder && past.how == HoldEnd::Released) {
            return Ok(Released::Already);
        }
        Err(Error::new(doing, Problem::NotHolder { lease: Box::new(LeaseSeen::of(&found)) }))
    }

    /// Releases a hold of this process, and returns when the lease is free or handed on.
    ///
    /// # Errors
    /// If the API server or the controller does not answer; the hold then ends at its expiry.
    pub async fn release_hold(&self, hold: Hold) -> Result<()> {
        let doing =
            format!("release lease \"{}\" in namespace \"{}\" as \"{}\"", hold.lease, self.namespace, hold.holder);
        let watch = hold.watch.unwrap_or_else(|| self.watch_lease(&hold.lease));
        self.release_request(&doing, &hold.request, hold.token, watch).await
    }

    /// Deletes the request that holds with this token, and waits until the lease is not its any more.
    async fn release_request(
        &self,
        doing: &str,
        request: &RequestRef,
        token: i64,
        mut watch: Watch<Lease>,
    ) -> Result<()> {
        let RequestRef { name, uid, .. } = request;
        let mut deleting = Box::pin(self.delete_request(name, Some(uid)));
        let mut deleted = false;
        let until = Instant::now() + CONTROLLER_TIMEOUT;
        let mut over = false;
        // The watch connects while the request is deleted.
        while !(deleted && over) {
            tokio::select! {
                biased;
                done = &mut deleting, if !deleted => {
                    done.map_err(|failure| Error::from_call(doing, failure))?;
                    deleted = true;
                }
                seen = self.next_seen(&mut watch, until, doing, "the request is deleted, so the lease is freed as soon as one runs"), if !over => {
                    over = released(uid, token, view(&seen?));
                }
            }
        }
        Ok(())
    }

    /// The next state of a Lease, `None` when it is not there.
    async fn next_seen(
        &self,
        watch: &mut Watch<Lease>,
        until: Instant,
        doing: &str,
        left: &str,
    ) -> Result<Option<Lease>> {
        let mut trouble = None;
        loop {
            match timeout_at(until, watch.next()).await {
                Ok(Some(Ok(Seen::Present(lease)))) => return Ok(Some(lease)),
                Ok(Some(Ok(Seen::Gone))) => return Ok(None),
                Ok(Some(Ok(Seen::Trouble(why)))) => trouble = Some(why),
                Ok(Some(Err(failure))) => return Err(Error::from_call(doing, failure)),
                Ok(None) | Err(_) => {
                    let problem = match trouble {
                        Some(why) => Problem::Unreachable(why),
                        None => Problem::NoController { waited: CONTROLLER_TIMEOUT, left: left.to_owned() },
                    };
                    return Err(Error::new(doing, problem));
                }
            }
        }
    }

    /// Withdraws every request of `holder` that waits for `lease`, also those that were made by hand.
    async fn withdraw_all(&self, lease: &Lease, holder: &str, doing: &str) -> Result<usize> {
        let mut waiting = self.waiting_for(lease, doing).await?;
        waiting.retain(|request| request.spec.holder == holder);
        for request in &waiting {
            let name = request.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.delete_request(name, request.metadata.uid.as_deref()).await;
            deleted.map_err(|failure| Error::from_call(doing, failure))?;
        }
        Ok(waiting.len())
    }

    /// Takes the lease from whoever holds it, and returns when the controller has recorded it. The
    /// holder is not asked: what it protects must refuse its fencing token, or it must be dead.
    ///
    /// # Errors
    /// If the lease does not exist, or changing its status is forbidden.
    pub async fn force_release(&self, lease: &str) -> Result<Forced> {
        let doing = format!("release lease \"{lease}\" in namespace \"{}\" by force", self.namespace);
        for attempt in 1.. {
            let found = self.lease_for(lease, &doing).await?;
            let (Some(status), Some(uid)) = (found.status.as_ref(), holding_uid(&found)) else {
                return Ok(Forced::Free);
            };
            let token = status.fencing_token.unwrap_or_default();
            let version = found.metadata.resource_version.clone().unwrap_or_default();
            let patch = Patch::Merge(serde_json::json!({
                "metadata": { "resourceVersion": version },
                "status": { "phase": LeasePhase::Available.as_str(), "holder": "" },
            }));
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let patched =
                self.call(Access::lease_status("patch"), || self.leases.patch_status(lease, &params, &patch)).await;
            match patched {
                Ok(_) => {}
                // It changed meanwhile, perhaps to another holder: look again before evicting.
                Err(failure) if failure.is_conflict() && attempt < FORCE_TRIES => continue,
                Err(failure) => return Err(Error::from_call(doing, failure)),
            }
            let mut watch = self.watch_from(lease, From::After(version));
            let until = Instant::now() + CONTROLLER_TIMEOUT;
            let left = "the status is cleared, and is acted on as soon as one runs";
            while !force_recorded(uid, token, view(&self.next_seen(&mut watch, until, &doing, left).await?)) {}
            return Ok(Forced::Evicted { holder: status.holder.clone().unwrap_or_default(), token });
        }
        Ok(Forced::Free)
    }
}

fn view(seen: &Option<Lease>) -> View<'_, Lease> {
    seen.as_ref().map_or(View::Gone, View::Present)
}
