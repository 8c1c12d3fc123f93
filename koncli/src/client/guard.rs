//! A hold that looks after itself: it is renewed in the background, and says when it is asked back or lost.

use std::{future::Future, sync::Arc, time::Duration};

use konductor_crds::v1::RequestRef;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    Acquire, Client, WITHDRAW_TIMEOUT,
    clock::{Clock, Moment, sleep_until},
    error::{Error, Problem, Result},
    hold::Hold,
    keeper::Keeper,
};

/// How a guarded hold stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Until when it may be relied on unless it is renewed, on the client's clock.
    pub deadline: Moment,
    /// How long it lasts from its last renewal, or its grant: shorter than before where the lease's ttl was made shorter.
    pub ttl: Duration,
    /// The deadline, as the controller wrote it: for people.
    pub expires: String,
    /// How often it was renewed.
    pub renewals: i64,
    /// Somebody is to have the lease instead: finish, and release it.
    pub asked_back: Option<AskedBack>,
    /// Why the last renewal did not succeed, if it did not. It is tried again.
    pub trouble: Option<String>,
    /// It is over, and how. That is final.
    pub lost: Option<String>,
}

impl Standing {
    /// Until when it may be relied on, whatever becomes of the line to the API server: a hand-over by force that was seen
    /// ends it as its deadline does.
    #[must_use]
    pub fn relied_on_until(&self) -> Moment {
        match &self.asked_back {
            Some(asked) if asked.force => self.deadline.min(asked.until),
            _ => self.deadline,
        }
    }
}

/// A hand-over that the controller asks for (`status.preemption`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedBack {
    /// Who is to have the lease.
    pub by: String,
    /// Until when it should be released, on the client's clock: never later than the hold's own deadline.
    pub until: Moment,
    /// Whether the hold ends then even if it is not released.
    pub force: bool,
    /// Why, in the policy's words.
    pub reason: Option<String>,
}

/// A hold that is renewed in the background.
///
/// ```no_run
/// # async fn example(client: koncli::client::Client) -> koncli::client::Result<()> {
/// use koncli::client::Acquire;
///
/// let guard = client.acquire_guarded(&Acquire::new("service-leader", "pod-a")).await?;
/// let outcome = guard
///     .while_held(async {
///         // … work; hand guard.token() to what the lease protects …
///     })
///     .await;
/// guard.release().await?;
/// outcome
/// # }
/// ```
///
/// A deadline that passes is noticed although the process was paused, but only after it has run again:
/// before each step that must not be done by two, ask [`is_held`](Guard::is_held) or, better, hand the
/// [token](Guard::token) to the resource. Renewing needs the runtime: work that blocks for longer than a third of
/// the ttl belongs into `spawn_blocking`.
///
/// **Dropping it releases nothing.** It only stops to renew, and the hold ends at its expiry: whoever is dropped by a
/// panic or a cancelled future may have left work behind. [`release`](Guard::release) is what gives the lease back.
#[derive(Debug)]
pub struct Guard {
    client: Client,
    lease: String,
    holder: String,
    request: RequestRef,
    token: i64,
    acquired: String,
    ttl: Duration,
    standing: watch::Receiver<Standing>,
    stop: Option<oneshot::Sender<()>>,
    keeper: Option<JoinHandle<Hold>>,
}

impl Client {
    /// Acquires a lease as [`Client::acquire`] does, and renews it from then on.
    ///
    /// # Errors
    /// As [`Client::acquire`].
    pub async fn acquire_guarded(&self, want: &Acquire) -> Result<Guard> {
        Ok(self.guard(self.acquire(want).await?))
    }

    /// Renews a hold from now on. Must be called within a tokio runtime.
    #[must_use]
    pub fn guard(&self, hold: Hold) -> Guard {
        let (tell, standing) = watch::channel(Standing {
            deadline: hold.deadline(),
            ttl: hold.ttl(),
            expires: hold.expires.clone(),
            renewals: hold.renewals,
            asked_back: None,
            trouble: None,
            lost: None,
        });
        let (stop, stopped) = oneshot::channel();
        Guard {
            client: self.clone(),
            lease: hold.lease.clone(),
            holder: hold.holder.clone(),
            request: hold.request.clone(),
            token: hold.token,
            acquired: hold.acquired.clone(),
            ttl: hold.ttl(),
            standing,
            stop: Some(stop),
            keeper: Some(tokio::spawn(Keeper::new(self.clone(), hold, tell).run(stopped))),
        }
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Guard {
    /// The lease that is held.
    #[must_use]
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The LeaseRequest that holds it.
    #[must_use]
    pub fn request(&self) -> &RequestRef {
        &self.request
    }

    /// The fencing token: hand it to whatever the lease protects. It does not change with a renewal.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.token
    }

    /// When it was granted, as the controller wrote it.
    #[must_use]
    pub fn acquired(&self) -> &str {
        &self.acquired
    }

    /// How long it lasted from its grant, unless renewed.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether it may be relied on at this moment, by the clock: right also where this process has just been paused.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let standing = self.standing.borrow();
        standing.lost.is_none() && standing.relied_on_until() > self.client.now()
    }

    /// Waits until it stands otherwise than at the last call; the first call waits for the first change. Waits for
    /// ever once it is lost.
    pub async fn changed(&mut self) -> Standing {
        if self.standing.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.standing.borrow_and_update().clone()
    }

    /// Waits until it may not be relied on any more, and says why.
    pub async fn lost(&self) -> String {
        let mut standing = self.standing.clone();
        loop {
            let (lost, until) = {
                let standing = standing.borrow_and_update();
                (standing.lost.clone(), standing.relied_on_until())
            };
            if let Some(how) = lost {
                return how;
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    return "nobody renews it any more".to_owned();
                },
                // The keeper says so too, unless the runtime has not let it run.
                () = sleep_until(&*self.client.clock, until) => if standing.borrow().relied_on_until() == until {
                    return "it was not renewed or released in time".to_owned();
                },
            }
        }
    }

    /// Waits until somebody else is to have the lease. Waits for ever where that does not happen.
    pub async fn asked_back(&self) -> AskedBack {
        let mut standing = self.standing.clone();
        match standing.wait_for(|standing| standing.asked_back.is_some()).await.ok().and_then(|s| s.asked_back.clone())
        {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }

    /// Does `work` for as long as the hold lasts: its future is dropped when the hold is lost. It is not dropped when
    /// the lease is asked back; see [`asked_back`](Guard::asked_back).
    ///
    /// # Errors
    /// [`Problem::Lost`] if the hold was lost first.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            how = self.lost() => Err(self.lost_error(how)),
            done = work => Ok(done),
        }
    }

    /// Stops to renew, and releases the lease: returns when it is free or handed on. Call it when everything that
    /// relied on the hold has ended.
    ///
    /// # Errors
    /// [`Problem::Lost`] if there was nothing left to release; otherwise if the API server or the controller does
    /// not answer, and then the hold ends at its expiry.
    pub async fn release(mut self) -> Result<()> {
        drop(self.stop.take());
        let hold = match self.keeper.take() {
            Some(keeper) => keeper.await.map_err(|error| {
                Error::new(format!("release lease \"{}\"", self.lease), Problem::Local(error.to_string()))
            })?,
            // Taken only here, and this takes the guard.
            None => return Ok(()),
        };
        if let Some(how) = self.standing().lost {
            // What it left behind is its own request, by its uid: nothing of the next holder.
            let tidy = self.client.delete_request(&hold.request.name, Some(&hold.request.uid));
            let _ = tokio::time::timeout(WITHDRAW_TIMEOUT, tidy).await;
            return Err(self.lost_error(how));
        }
        self.client.release_hold(hold).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn lost_error(&self, how: String) -> Error {
        let doing =
            format!("keep lease \"{}\" in namespace \"{}\" as \"{}\"", self.lease, self.client.namespace, self.holder);
        Error::new(doing, Problem::Lost { how })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}
