//! /healthz, /readyz and /metrics.

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    observe::{Key, Synced, World},
    queue::Queue,
    report::{Answers, Format, Metrics},
};

/// What the endpoints tell of.
#[derive(Clone)]
pub struct Status {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The cache.
    pub world: Arc<World>,
    /// The work queue.
    pub queue: Arc<Queue<Key>>,
    /// Answers under way.
    pub answers: Arc<Answers>,
    /// Which lists have been seen.
    pub synced: watch::Receiver<Synced>,
    /// Whether every policy has been looked at.
    pub loaded: watch::Receiver<bool>,
}

/// Serves until `stop` is done, then finishes what it has begun.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    status: Status,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        // Alive as long as it answers: a dead watch or worker ends the process.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// Ready when the caches are complete. A standby is ready too: it could take over at once.
async fn ready(State(status): State<Status>) -> impl IntoResponse {
    let synced = *status.synced.borrow();
    let loaded = *status.loaded.borrow();
    if synced.all() && loaded {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {synced:?}, policies loaded: {loaded}\n"))
    }
}

async fn metrics(State(status): State<Status>, headers: HeaderMap) -> impl IntoResponse {
    let census = status.world.census(status.clock.read());
    status.metrics.census(&census, status.queue.depth(), status.answers.under_way());
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    match status.metrics.encode() {
        Ok(text) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, format.content_type())], format.text(text)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
