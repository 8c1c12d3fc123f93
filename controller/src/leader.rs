//! Which replica reconciles: leader election on a `coordination.k8s.io` Lease.
//!
//! It only saves work. Every write is conditional on what it was decided from, so two leaders at
//! once cannot grant twice; see DESIGN's second rule of the protocol.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tracing::{info, warn};

/// The name of the `coordination.k8s.io` Lease.
pub const NAME: &str = "konductor-controller";

/// The pause before the election is joined again after it has failed.
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
                warn!(error = crate::report::chain(&error), "cannot join the leader election; trying again");
                tokio::select! {
                    () = tokio::time::sleep(REJOIN) => continue,
                    _ = stop.changed() => continue,
                }
            }
        };
        let (mut state, task) = manager.watch().await;
        loop {
            let now = *state.borrow_and_update();
            if leading.send_if_modified(|was| std::mem::replace(was, now) != now) {
                info!(identity, leading = now, "leader election");
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() { break },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        // Nothing more is reconciled before the election is left: the next leader then starts alone.
        leading.send_replace(false);
        drop(state);
        match task.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(error = crate::report::chain(&error), "the leader election has failed"),
            Err(panic) => warn!(%panic, "the leader election has panicked"),
        }
    }
}
