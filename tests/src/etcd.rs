//! What really happened: the history of our objects as etcd keeps it.
//!
//! A client that watches misses what happens while it is away, and a server's watch cache may merge. etcd has every
//! revision of every key in one order, which is what a checker needs. Custom resources are stored as JSON.

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use konductor_crds::{Lease, LeaseRequest};
use serde_json::{Value, json};

use crate::web;

pub use konductor_verify::{Change, Event, Follows, History, Stored};

const FROM: &str = "/registry/konductor.io/";
const TO: &str = "/registry/konductor.io0";
/// Inside of the range that is read, outside of every prefix that kube-apiserver watches.
const MARKER: &str = "/registry/konductor.io/~end";

/// How large etcd's data is, in bytes.
pub(crate) async fn size(etcd: &str) -> Result<u64> {
    let answer = web::post(&format!("{etcd}/v3/maintenance/status"), &json!({})).await?;
    let status: Value = serde_json::from_str(&answer.body).with_context(|| format!("etcd says {}", answer.body))?;
    let size = number(status.get("dbSize")).with_context(|| format!("etcd says {}", answer.body))?;
    Ok(size.unsigned_abs())
}

/// Writes until there is no room, outside of everything that is watched.
pub(crate) async fn fill(etcd: &str) -> Result<()> {
    let (key, value) = (BASE64.encode("/ballast"), BASE64.encode(vec![b'x'; 256 * 1024]));
    // More than there is room for, many times: each of them is a revision of its own.
    for _ in 0..256 {
        let put = web::post(&format!("{etcd}/v3/kv/put"), &json!({"key": key, "value": value})).await?;
        if put.body.contains("space exceeded") {
            return Ok(());
        }
    }
    bail!("etcd takes everything")
}

/// Tells etcd that it has room again: an alarm stands until it is put down, member by member.
pub(crate) async fn disarm(etcd: &str) -> Result<()> {
    let url = format!("{etcd}/v3/maintenance/alarm");
    let answer = web::post(&url, &json!({})).await?;
    let alarms: Value = serde_json::from_str(&answer.body).with_context(|| format!("etcd says {}", answer.body))?;
    for alarm in alarms.get("alarms").and_then(Value::as_array).into_iter().flatten() {
        let request = json!({"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"]});
        web::post(&url, &request).await?;
    }
    let put = web::post(&format!("{etcd}/v3/kv/put"), &json!({"key": BASE64.encode("/ballast")})).await?;
    if put.status == 200 { Ok(()) } else { bail!("etcd goes on refusing: {} {}", answer.body, put.body) }
}

/// Reads everything up to now.
pub(crate) async fn history(etcd: &str, namespace: &str) -> Result<History> {
    let put = web::post(&format!("{etcd}/v3/kv/put"), &json!({"key": BASE64.encode(MARKER)})).await?;
    let answer: Value = serde_json::from_str(&put.body).with_context(|| format!("etcd says {}", put.body))?;
    let end = number(answer.pointer("/header/revision")).with_context(|| format!("etcd says {}", put.body))?;
    let watch = json!({"create_request": {
        "key": BASE64.encode(FROM), "range_end": BASE64.encode(TO), "start_revision": "1", "prev_kv": true,
    }});
    let mut events = Vec::new();
    web::post_and_follow(&format!("{etcd}/v3/watch"), &watch, |line| {
        let result = line.get("result").with_context(|| format!("etcd says {line}"))?;
        if result.get("canceled").is_some_and(|canceled| canceled == true) {
            bail!("etcd has no complete history any more: {line}");
        }
        for event in result.get("events").and_then(Value::as_array).into_iter().flatten() {
            if number(event.pointer("/kv/mod_revision")) == Some(end) {
                return Ok(true);
            }
            events.extend(read(event, namespace).with_context(|| format!("cannot read {event}"))?);
        }
        Ok(false)
    })
    .await?;
    Ok(History { events, complete: true, ..History::default() })
}

/// etcd's JSON writes 64-bit numbers as strings and leaves zeros out.
fn number(value: Option<&Value>) -> Option<i64> {
    value?.as_str()?.parse().ok()
}

fn read(event: &Value, namespace: &str) -> Result<Option<Event>> {
    let text = |pointer: &str| -> Result<Vec<u8>> {
        let text = event.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"))?;
        Ok(BASE64.decode(text)?)
    };
    let key = String::from_utf8(text("/kv/key")?)?;
    let path: Vec<&str> = key.trim_start_matches(FROM).split('/').collect();
    let [kind @ ("leases" | "leaserequests"), of, name] = path[..] else { return Ok(None) };
    if of != namespace {
        return Ok(None);
    }
    let revision = number(event.pointer("/kv/mod_revision")).context("no revision")?;
    let deleted = event.get("type").is_some_and(|kind| kind == "DELETE");
    let value = text(if deleted { "/prev_kv/value" } else { "/kv/value" })?;
    let change = match number(event.pointer("/kv/create_revision")) {
        _ if deleted => Change::Deleted,
        Some(created) if created == revision => Change::Created,
        _ => Change::Updated,
    };
    let object = if kind == "leases" {
        let mut lease: Lease = serde_json::from_slice(&value)?;
        lease.metadata.resource_version = Some(revision.to_string());
        Stored::Lease(Box::new(lease))
    } else {
        let mut request: LeaseRequest = serde_json::from_slice(&value)?;
        request.metadata.resource_version = Some(revision.to_string());
        Stored::Request(Box::new(request))
    };
    let (namespace, name) = (of.to_owned(), name.to_owned());
    Ok(Some(Event { revision, change, namespace, name, object, seen: None, follows: Follows::Unknown }))
}
