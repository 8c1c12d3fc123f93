//! The connection to a Kubernetes API server: kube's client on one HTTP/2 connection, as client-go has it.
//!
//! kube's own connector speaks HTTP/1.1, where each watch that is begun costs a TLS handshake (its connection
//! cannot be used again once it is dropped), and leaves TCP_NODELAY off, which makes a small write wait 40 ms.
//! An acquire is one small write and one short watch, so both are most of what it takes.

// What is shipped does not end a process where it could say what is wrong.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt as _},
};
use rustls_pki_types::ServerName;
use tower::{BoxError, ServiceBuilder};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A watch may be silent for minutes. A peer that is gone without a word is found out by these: without them a
/// dead connection would be asked again and again until TCP gives up, which takes a quarter of an hour.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// How much of one answer may wait to be read: a megabyte keeps a list flowing on any network.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all answers together. A hold's watch may lie unread until the next renewal, and must not
/// hold up the calls beside it: there is room for a hundred full ones.
const CONNECTION_WINDOW: u32 = 128 << 20;

/// Makes a client. No connection is opened before the first call.
///
/// It differs from what kube makes of the same configuration in four ways: HTTP/2 where the server speaks it; small
/// writes are sent at once (TCP_NODELAY); a dead peer is noticed within 35 s; and nothing is tried again behind the
/// caller's back. Through a proxy it is kube's own client, without the first three.
///
/// All calls and watches share one connection, on which a kube-apiserver serves 1,000 at a time (its flag
/// `--http2-max-streams-per-connection`). A process that waits for several hundred leases at once makes one client
/// for every few hundred.
///
/// # Errors
/// When the configuration's certificates or credentials cannot be used.
pub fn client(mut config: Config) -> kube::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    if config.proxy_url.is_some() {
        return Ok(ClientBuilder::try_from(config)?.build());
    }
    let hyper = hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_ANSWER)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector(&config)?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper);
    Ok(Client::new(service, config.default_namespace))
}

fn connector(config: &Config) -> kube::Result<HttpsConnector<HttpConnector>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // For servers that speak HTTP/1.1 only.
    tcp.set_keepalive(Some(PING_EVERY));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|error| kube::Error::Service(error.into()))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_all_versions().wrap_connector(tcp))
}
