//! Signals that end a wait.

use tokio::signal::unix::{SignalKind, signal};

use crate::client::Stop;

/// Waits for the first signal that asks this process to end.
pub(super) async fn stop() -> Stop {
    tokio::select! {
        () = next(SignalKind::interrupt()) => Stop { why: "interrupted", exit_code: 130 },
        () = next(SignalKind::terminate()) => Stop { why: "terminated", exit_code: 143 },
        () = next(SignalKind::hangup()) => Stop { why: "hung up", exit_code: 129 },
    }
}

async fn next(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Then the signal ends the process as it always did, and the request lapses by itself.
        Err(_) => std::future::pending().await,
    }
}
