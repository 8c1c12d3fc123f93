//! An API server for tests that gives prepared answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use konductor_crds::{time::format_timestamp, v1::RequestRef};
use kube::{Client, client::Body};

use super::hold::{Hold, deadline};

/// A Status with this code.
pub(super) fn status(code: u16) -> String {
    format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"m","reason":"r","code":{code}}}"#)
}

/// The Lease `x` at this resourceVersion.
pub(super) fn lease(version: u32) -> String {
    format!(
        r#"{{"apiVersion":"konductor.io/v1","kind":"Lease","metadata":{{"name":"x","resourceVersion":"{version}"}},"spec":{{"ttl":"1m"}}}}"#
    )
}

/// The event of a watch that shows it.
pub(super) fn event(kind: &str, version: u32) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", lease(version))
}

/// A list of such Leases.
pub(super) fn list(items: &str, version: u32) -> String {
    format!(
        r#"{{"apiVersion":"konductor.io/v1","kind":"LeaseList","metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#
    )
}

/// A client of an API server that gives these answers, one a request, and refuses connections after them; and what it
/// was asked for, as `watch 7` or `list -`: from which resourceVersion.
pub(crate) fn client(answers: &[(u16, String)]) -> (Client, Arc<Mutex<Vec<String>>>) {
    let answers: Mutex<VecDeque<_>> = Mutex::new(answers.iter().cloned().collect());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let verb = if query.contains("watch=true") { "watch" } else { "list" };
        log.lock().expect("lock").push(format!("{verb} {}", version.unwrap_or("-")));
        let answer = answers.lock().expect("lock").pop_front();
        async move {
            let (code, body) = answer.ok_or_else(|| std::io::Error::other("connection refused"))?;
            let answer = http::Response::builder().status(code).body(Body::from(body.into_bytes()));
            Ok::<_, std::io::Error>(answer.expect("a response"))
        }
    });
    (Client::new(service, "default"), asked)
}

/// A hold of 30 s on the Lease `x` by the request `u`, with the token 7, that begins now.
pub(crate) fn hold(client: &super::Client) -> Hold {
    const LENGTH_MS: i64 = 30_000;
    Hold {
        lease: "x".to_owned(),
        namespace: "default".to_owned(),
        holder: "me".to_owned(),
        request: RequestRef { name: "r".to_owned(), uid: "u".to_owned(), renewals: 0, counted: None },
        token: 7,
        acquired: format_timestamp(0),
        expires: format_timestamp(LENGTH_MS),
        ttl_ms: LENGTH_MS,
        renewals: 0,
        deadline: deadline(client.now(), LENGTH_MS),
        counter: 0,
        watch: None,
    }
}

/// A client of an API server that gives these answers to writes, one each, and answers to nothing else; and what was
/// written: the path, and the object.
#[expect(clippy::type_complexity, reason = "said once, in a test")]
pub(super) fn writes(answers: &[(u16, String)]) -> (Client, Arc<Mutex<Vec<(String, serde_json::Value)>>>) {
    let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.iter().cloned().collect()));
    let written = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&written);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (answers, log) = (Arc::clone(&answers), Arc::clone(&log));
        async move {
            if request.method() == http::Method::GET {
                return std::future::pending().await;
            }
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.map_err(std::io::Error::other)?;
            log.lock().expect("lock").push((path, serde_json::from_slice(&body).unwrap_or_default()));
            let answer = answers.lock().expect("lock").pop_front();
            let (code, body) = answer.ok_or_else(|| std::io::Error::other("connection refused"))?;
            let answer = http::Response::builder().status(code).body(Body::from(body.into_bytes()));
            Ok::<_, std::io::Error>(answer.expect("a response"))
        }
    });
    (Client::new(service, "default"), written)
}
