//! /healthz, /readyz and /metrics.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{
    clock::Clock,
    observe::{Key, LastCensus, Synced, World},
    queue::Queue,
    report::{Answers, Format, Metrics},
};

/// What a client may take. None of them is known to us: a network policy is not everywhere.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How many connections there are at once; more wait in the listener's backlog. A kubelet and some scrapers have a
    /// handful; each connection costs a file and some kilobytes, of which the watches need theirs too.
    connections: usize,
    /// For how long a client may send a header, or nothing. A probe gives up after 5 s itself.
    header: Duration,
    /// For how long a connection is used. Who does not read its answers, or sends headers for ever, keeps no place; a
    /// scraper connects anew.
    life: Duration,
    /// How long an answer under way may take when a connection's life or the controller's ends.
    last: Duration,
}

const LIMITS: Limits = Limits {
    connections: 128,
    header: Duration::from_secs(5),
    life: Duration::from_secs(60),
    last: Duration::from_secs(1),
};

/// The pause after a connection could not be accepted, mostly because there are too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What the endpoints tell of.
#[derive(Clone)]
pub struct Status {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The cache.
    pub world: Arc<World>,
    /// What was counted in it.
    pub last: Arc<LastCensus>,
    /// The work queue.
    pub queue: Arc<Queue<Key>>,
    /// Answers under way.
    pub answers: Arc<Answers>,
    /// Which lists have been seen.
    pub synced: watch::Receiver<Synced>,
    /// Whether every policy has been looked at.
    pub loaded: watch::Receiver<bool>,
}

/// Serves until `stop` is done, then for a moment more what it has begun to answer.
pub async fn serve(listener: TcpListener, status: Status, stop: impl Future<Output = ()>) {
    let app = Router::new()
        // Alive as long as it answers: a dead watch or worker ends the process.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status);
    serve_within(LIMITS, listener, app, stop).await;
}

async fn serve_within(limits: Limits, listener: TcpListener, app: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let (over, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // The place first: what has none is not accepted, and costs no file.
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, place))
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = accepted => match accepted {
                Ok((stream, place)) => {
                    let (app, stopping) = (app.clone(), stopping.clone());
                    connections.spawn(async move {
                        answer(limits, stream, app, stopping).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot accept a connection; trying again");
                    tokio::select! {
                        () = &mut stop => break,
                        () = tokio::time::sleep(ACCEPT_AGAIN) => {}
                    }
                }
            }
        }
    }
    drop(listener);
    over.send_replace(true);
    // Each ends within `limits.last`.
    while connections.join_next().await.is_some() {}
}

/// Answers on one connection, for as long as it may last.
async fn answer(limits: Limits, stream: TcpStream, app: Router, mut stopping: watch::Receiver<bool>) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.header);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = stopping.wait_for(|over| *over) => None,
        () = tokio::time::sleep(limits.life) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // What is half said by then is not worth waiting for.
            tokio::time::timeout(limits.last, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(error, "a connection has failed");
    }
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
    let census = status.last.of(&status.world, status.clock.read());
    status.metrics.census(&census, status.queue.depth(), status.answers.under_way());
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    match status.metrics.encode() {
        Ok(text) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, format.content_type())], format.text(text)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    /// Longer than any test takes: what should not matter in it.
    const NEVER: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(50);
    const UNLIMITED: Limits = Limits { connections: 128, header: NEVER, life: NEVER, last: NEVER };
    /// What fails a test that would hang.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn server(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/endless", get(|| async { "x".repeat(64 << 20) }));
        let serving = serve_within(limits, listener, app, async { drop(stopped.await) });
        (address, stop, tokio::spawn(serving))
    }

    async fn sent(address: SocketAddr, what: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(what.as_bytes()).await.expect("sent");
        stream
    }

    /// What a client reads to the end of its connection.
    async fn read(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        let all = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        drop(all.expect("the connection has ended"));
        String::from_utf8(bytes).expect("text")
    }

    const HALF: &str = "GET / HTTP/1.1\r\nHost: h";
    const WHOLE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn half_a_header_keeps_its_place_for_a_while_only() {
        let (address, _stop, _serving) = server(Limits { connections: 1, header: SHORT, ..UNLIMITED }).await;
        let half = sent(address, HALF).await;
        let silent = sent(address, "").await;
        let whole = sent(address, WHOLE).await;
        assert!(read(whole).await.ends_with("hello"), "there was room for one");
        // They had come before it and had the place before it, so they are closed by now.
        for gone in [half, silent] {
            assert!(!read(gone).await.contains("hello"));
        }
    }

    #[tokio::test]
    async fn who_does_not_read_its_answer_keeps_its_place_for_a_while_only() {
        let (address, _stop, _serving) = server(Limits { connections: 1, life: SHORT, last: SHORT, ..UNLIMITED }).await;
        let deaf = sent(address, &WHOLE.replace("/ ", "/endless ")).await;
        let whole = sent(address, WHOLE).await;
        assert!(read(whole).await.ends_with("hello"));
        assert!(read(deaf).await.len() < 64 << 20, "the rest was not sent");
    }

    #[tokio::test]
    async fn the_end_waits_for_nobody_for_long() {
        let (address, stop, serving) = server(Limits { last: SHORT, ..UNLIMITED }).await;
        let (half, deaf) = (sent(address, HALF).await, sent(address, &WHOLE.replace("/ ", "/endless ")).await);
        assert!(read(sent(address, WHOLE).await).await.ends_with("hello"), "it serves");
        stop.send(()).expect("it serves");
        tokio::time::timeout(PATIENCE, serving).await.expect("it ends").expect("without a panic");
        drop((half, deaf));
    }
}
