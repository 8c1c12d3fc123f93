//! Which replica reconciles: leader election on a `coordination.k8s.io` Lease.
//!
//! It only saves work. Every write is conditional on what it was decided from, so two leaders at
//! once cannot grant twice; see DESIGN's second rule of the protocol.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Config, Event},
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{commit::API_TIMEOUT, report::chain};

/// The name of the `coordination.k8s.io` Lease.
pub const NAME: &str = "konductor-controller";

/// The pause before the election is tried again after it has failed.
const REJOIN: Duration = Duration::from_secs(1);

/// Takes part in the election until `stop` says so, then steps down, so that the next leader need
/// not wait for ours to run out.
pub async fn elect(
    client: Client,
    namespace: String,
    identity: String,
    duration: Duration,
    leading: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let seconds = duration.as_secs();
    // The leader renews when a third of the time is left.
    let grace = (seconds / 3).max(1);
    // The manager only looks again when what it has read has run out. So who stands by watches as well, and begins
    // anew when the leader has stepped down.
    let api: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let only = Config::default().fields(&format!("metadata.name={NAME}"));
    let mut vacancies = std::pin::pin!(watcher::watcher(api, only).default_backoff().filter_map(vacancy));
    while !*stop.borrow() {
        let manager = LeaseManagerBuilder::new(client.clone(), NAME)
            .with_namespace(&namespace)
            .with_identity(&identity)
            .with_duration(seconds)
            .with_grace(grace)
            .build()
            .await;
        let manager = match manager {
            Ok(manager) => manager,
            Err(error) => {
                warn!(error = chain(&error), "cannot join the leader election; trying again");
                tokio::select! {
                    () = tokio::time::sleep(REJOIN) => continue,
                    _ = stop.changed() => continue,
                }
            }
        };
        let tell = |now: bool| {
            if leading.send_if_modified(|was| std::mem::replace(was, now) != now) {
                info!(identity, leading = now, "leader election");
            }
        };
        take_part(&manager, &mut vacancies, tell, &mut stop).await;
    }
}

/// Takes part with one manager, until `stop` says so or it is better to begin anew.
async fn take_part(
    manager: &LeaseManager,
    vacancies: &mut (impl Stream<Item = ()> + Unpin),
    tell: impl Fn(bool),
    stop: &mut watch::Receiver<bool>,
) {
    let next = |pause: Duration| async move {
        tokio::time::sleep(pause).await;
        manager.changed().await
    };
    let mut leads = false;
    // Not begun anew with each event: what it has written it has to read again.
    let mut changed = Box::pin(next(Duration::ZERO));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            result = &mut changed => {
                let mut pause = Duration::ZERO;
                match result {
                    Ok(now) => {
                        leads = now;
                        tell(leads);
                    }
                    Err(error) => {
                        warn!(error = chain(&error), "the leader election has failed; trying again");
                        pause = REJOIN;
                    }
                }
                changed = Box::pin(next(pause));
            }
            // The leader watches too, so that nothing old waits to be read when it leads no more.
            Some(()) = vacancies.next() => if !leads {
                debug!("nobody leads");
                return;
            },
        }
    }
    drop(changed);
    // This only says that it is over: a reconcile in work may end after the office is free. That is harmless, since
    // its write is conditional like every other.
    tell(false);
    match tokio::time::timeout(API_TIMEOUT, manager.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(error = chain(&error), "cannot step down; the next leader waits until our time is over")
        }
        Err(_) => warn!(
            timeout_s = API_TIMEOUT.as_secs(),
            "no answer to stepping down; the next leader waits until our time is over"
        ),
    }
}

/// Whether nobody leads, by an event of the election's Lease.
async fn vacancy(event: watcher::Result<Event<Lease>>) -> Option<()> {
    match event {
        Ok(Event::Apply(lease) | Event::InitApply(lease)) => {
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            holder.is_empty().then_some(())
        }
        Ok(_) => None,
        Err(error) => {
            // The election works without it, only later.
            debug!(error = chain(&error), "cannot watch who leads; trying again");
            None
        }
    }
}
