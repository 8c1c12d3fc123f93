//! An API server's audit log: JSON lines of `audit.k8s.io/v1`.
//!
//! Needed are the writes to leases and leaserequests of konductor.io, with their subresources, at the level
//! RequestResponse, without `omitStages`: see [`POLICY`]. Only the stage ResponseComplete tells what was written;
//! RequestReceived tells of a write whose answer the API server did not live to log.
//!
//! An audit log has no beginning: what was there before is not known. It does not tell the resourceVersion of a
//! deletion, so that is taken to have happened as early as it can have.

use std::collections::{BTreeMap, HashMap};

use konductor_crds::{GROUP, time::parse_timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Change, History, Kind, Stored,
    recording::{event, stored},
};

/// The audit policy that is needed, and nothing more. A rule that stands before it in a larger one must not match.
pub const POLICY: &str = include_str!("audit-policy.yaml");

/// By how much the clocks of several API servers may differ, in milliseconds: machines that keep time differ by less.
const SKEW: i64 = 1_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Audited {
    level: String,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    object_ref: ObjectRef,
    response_status: Status,
    request_object: Option<Value>,
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

/// A deletion, whose place among the revisions is found when everything is read.
#[derive(Debug)]
struct Deletion {
    kind: Kind,
    namespace: String,
    name: String,
    uid: Option<String>,
    received: i64,
    seen: i64,
}

/// A state that was written under a name.
#[derive(Debug)]
struct Written {
    seen: i64,
    revision: i64,
    uid: String,
}

/// Puts an audit log together.
#[derive(Debug, Default)]
pub(crate) struct Log {
    history: History,
    /// When a write was done, and its revision.
    done: Vec<(i64, i64)>,
    deletions: Vec<Deletion>,
    /// Writes that have begun and not ended, by their id.
    open: HashMap<String, Deletion>,
    writes: usize,
}

impl Log {
    pub(crate) fn line(&mut self, value: Value) -> Result<(), String> {
        let group = value.pointer("/objectRef/apiGroup").and_then(Value::as_str);
        if group != Some(GROUP) {
            return Ok(());
        }
        let audited: Audited = serde_json::from_value(value).map_err(|error| format!("no audit event: {error}"))?;
        let kind = match audited.object_ref.resource.as_str() {
            "leases" => Kind::Lease,
            "leaserequests" => Kind::LeaseRequest,
            _ => return Ok(()),
        };
        if !["create", "update", "patch", "delete", "deletecollection"].contains(&&*audited.verb)
            || audited.request_uri.contains("dryRun=")
        {
            return Ok(());
        }
        let time = |text: &str| parse_timestamp(text).ok_or_else(|| format!("\"{text}\" is no time"));
        let (received, seen) = (time(&audited.request_received_timestamp)?, time(&audited.stage_timestamp)?);
        let ObjectRef { namespace, name, .. } = audited.object_ref.clone();
        let deletes = audited.verb.starts_with("delete");
        let deletion = Deletion { kind, namespace, name, uid: None, received, seen };
        match audited.stage.as_str() {
            "RequestReceived" if deletes => {
                self.open.insert(audited.audit_id, deletion);
                return Ok(());
            }
            "ResponseComplete" | "Panic" => {}
            _ => return Ok(()),
        }
        self.open.remove(&audited.audit_id);
        let code = audited.response_status.code;
        if code >= 500 || audited.stage == "Panic" {
            // It may have been done all the same.
            if deletes {
                self.deletions.push(deletion);
            }
            return Ok(());
        }
        if !(200..300).contains(&code) {
            return Ok(());
        }
        self.writes += 1;
        if audited.level != "RequestResponse" {
            return Err(format!(
                "the {} of a {kind:?} is logged at the level {}, without what was written; the audit policy has to say \
                 RequestResponse for it, and no rule before that one may match",
                audited.verb, audited.level
            ));
        }
        let Some(object) = audited.response_object else { return Ok(()) };
        if let Some(items) = object.get("items").and_then(Value::as_array) {
            for item in items {
                self.deletions.push(deletion_of(kind, item, received, seen));
            }
            return Ok(());
        }
        if object.get("kind").and_then(Value::as_str) == Some("Status") {
            let uid = object.pointer("/details/uid").and_then(Value::as_str).map(str::to_owned);
            self.deletions.push(Deletion { uid, ..deletion });
            return Ok(());
        }
        let deleting = object.pointer("/metadata/deletionTimestamp").is_some();
        let kept = object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
        if deletes && !(deleting && kept) {
            self.deletions.push(deletion_of(kind, &object, received, seen));
            return Ok(());
        }
        let revision = revision_of(&object).ok_or("its object has no resourceVersion that is a number")?;
        let change = if audited.verb == "create" { Change::Created } else { Change::Updated };
        let follows = audited.request_object.as_ref().and_then(revision_of).filter(|_| change == Change::Updated);
        let object = stored(kind, Some(object))?;
        self.done.push((seen, revision));
        self.history.events.push(event(revision, change, object, Some(seen), follows));
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.history.events.len() + self.deletions.len()
    }

    /// How many writes to our objects it has.
    pub(crate) fn writes(&self) -> usize {
        self.writes
    }

    pub(crate) fn finish(mut self) -> History {
        self.deletions.extend(self.open.into_values());
        self.done.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut self.done {
            highest = highest.max(*revision);
            *revision = highest;
        }
        // By uid, and by name in the order of revisions: what was written before a deletion came before it.
        let mut last: HashMap<String, (i64, Stored)> = HashMap::new();
        let mut named: BTreeMap<(Kind, String, String), Vec<Written>> = BTreeMap::new();
        for event in &self.history.events {
            let uid = match &event.object {
                Stored::Lease(lease) => lease.metadata.uid.clone(),
                Stored::Request(request) => request.metadata.uid.clone(),
            };
            let Some(uid) = uid else { continue };
            let place = (event.object.kind(), event.namespace.clone(), event.name.clone());
            let seen = event.seen.unwrap_or_default();
            named.entry(place).or_default().push(Written { seen, revision: event.revision, uid: uid.clone() });
            if last.get(&uid).is_none_or(|&(revision, _)| revision < event.revision) {
                last.insert(uid, (event.revision, event.object.clone()));
            }
        }
        for deletion in self.deletions {
            let place = (deletion.kind, deletion.namespace.clone(), deletion.name.clone());
            let uid = deletion.uid.or_else(|| {
                let states = named.get(&place)?;
                let before = states.iter().filter(|written| written.seen <= deletion.seen);
                before.max_by_key(|written| written.revision).map(|written| written.uid.clone())
            });
            // Of what was never seen, the end says nothing.
            let Some((own, object)) = uid.and_then(|uid| last.get(&uid)) else { continue };
            let before = self.done.partition_point(|&(seen, _)| seen < deletion.received - SKEW);
            let revision = before.checked_sub(1).map_or(0, |index| self.done[index].1).max(*own);
            self.history.events.push(event(revision, Change::Deleted, object.clone(), Some(deletion.seen), None));
        }
        self.history
    }
}

fn deletion_of(kind: Kind, object: &Value, received: i64, seen: i64) -> Deletion {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let uid = Some(text("/metadata/uid")).filter(|uid| !uid.is_empty());
    Deletion { kind, namespace: text("/metadata/namespace"), name: text("/metadata/name"), uid, received, seen }
}

fn revision_of(object: &Value) -> Option<i64> {
    object.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}
