//! Plain HTTP on loopback: probes, metrics, and etcd's gateway.

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Gets an `http://` URL.
///
/// # Errors
/// If nobody answers.
pub async fn get(url: &str) -> Result<Answer> {
    send(http::Request::get(url).body(String::new())?).await
}

/// Posts JSON to an `http://` URL.
pub(crate) async fn post(url: &str, json: &serde_json::Value) -> Result<Answer> {
    send(http::Request::post(url).body(json.to_string())?).await
}

/// Posts JSON and reads an answer of one JSON document per line until `enough` says so.
pub(crate) async fn post_and_follow(
    url: &str,
    json: &serde_json::Value,
    mut enough: impl FnMut(serde_json::Value) -> Result<bool>,
) -> Result<()> {
    let request = http::Request::post(url).body(json.to_string())?;
    let response = client().request(request).await.with_context(|| format!("no answer from {url}"))?;
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("the answer of {url} broke off"))?;
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if enough(serde_json::from_slice(&line).with_context(|| format!("{url} answered with something odd"))?)? {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the answer of {url} ended early")
}

async fn send(request: http::Request<String>) -> Result<Answer> {
    let url = request.uri().clone();
    let response = client().request(request).await.with_context(|| format!("no answer from {url}"))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.with_context(|| format!("the answer of {url} broke off"))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
}

fn client() -> Client<hyper_util::client::legacy::connect::HttpConnector, String> {
    Client::builder(TokioExecutor::new()).build_http()
}
