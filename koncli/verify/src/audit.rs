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
    Change, Follows, History, Kind, Stored,
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
        let follows = match &audited.request_object {
            Some(request) if change == Change::Updated => match revision_of(request) {
                Some(revision) => Follows::Revision(revision),
                // A JSON patch is an array, and is not looked into.
                None if audited.verb == "patch" && request.is_object() => {
                    request.pointer("/status/fencingToken").map_or(Follows::Token, |_| Follows::Unknown)
                }
                None => Follows::Unknown,
            },
            _ => Follows::Unknown,
        };
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
            self.history.events.push(event(
                revision,
                Change::Deleted,
                object.clone(),
                Some(deletion.seen),
                Follows::Unknown,
            ));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Options, Reader, Report, Rule, Unjudged, check};

    const TIME: &str = "2026-09-21T14:13:";

    /// An audit event at a second, of somebody who writes this object.
    fn event(second: i64, verb: &str, resource: &str, answer: serde_json::Value) -> serde_json::Value {
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
            "auditID": format!("{second}-{verb}-{resource}"), "stage": "ResponseComplete", "requestURI": "/apis",
            "verb": verb, "responseStatus": {"code": 200}, "responseObject": answer,
            "objectRef": {"resource": resource, "apiGroup": "konductor.io", "namespace": "team",
                "name": if resource == "leases" { "x" } else { "r" }},
            "requestReceivedTimestamp": format!("{TIME}{second:02}.000000Z"),
            "stageTimestamp": format!("{TIME}{second:02}.002000Z")})
    }

    fn request(revision: i64) -> serde_json::Value {
        json!({"apiVersion": "konductor.io/v1", "kind": "LeaseRequest", "spec": {"lease": "x", "holder": "a"},
            "metadata": {"name": "r", "namespace": "team", "uid": "u1", "resourceVersion": revision.to_string()}})
    }

    fn lease(revision: i64, status: serde_json::Value) -> serde_json::Value {
        json!({"apiVersion": "konductor.io/v1", "kind": "Lease", "spec": {"ttl": "10s"}, "status": status,
            "metadata": {"name": "x", "namespace": "team", "uid": "l1", "resourceVersion": revision.to_string()}})
    }

    fn held() -> serde_json::Value {
        json!({"phase": "Held", "holder": "a", "fencingToken": 7, "request": {"name": "r", "uid": "u1"},
            "acquired": format!("{TIME}22.000Z"), "expires": format!("{TIME}32.000Z")})
    }

    fn released() -> serde_json::Value {
        json!({"phase": "Available", "fencingToken": 7, "history": [{"holder": "a", "token": 7, "how": "Released",
            "acquired": format!("{TIME}22.000Z"), "ended": format!("{TIME}28.000Z")}]})
    }

    fn judged(log: &[serde_json::Value]) -> Report {
        let mut reader = Reader::new();
        for line in log {
            reader.line(&line.to_string(), true).expect("a line");
        }
        check(&reader.finish().expect("a log").1, &Options::default())
    }

    /// A life of a lease, with the end of its request as it is given.
    fn life(end: Option<serde_json::Value>) -> Report {
        let mut log = vec![
            event(20, "create", "leases", lease(100, json!(null))),
            event(21, "create", "leaserequests", request(101)),
            event(22, "update", "leases", lease(102, held())),
        ];
        log.extend(end);
        log.push(event(28, "update", "leases", lease(105, released())));
        judged(&log)
    }

    #[test]
    fn a_deletion_is_an_answer_without_an_object() {
        let gone = json!({"kind": "Status", "status": "Success", "details": {"name": "r", "uid": "u1"}});
        let report = life(Some(event(26, "delete", "leaserequests", gone.clone())));
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        assert_eq!((report.figures.grants, report.figures.endings["Released"]), (1, 1));
        assert!(!report.figures.unjudged.contains_key(&Unjudged::EndingsNotSeen));
        // Never, refused, only tried, or after the release.
        let forbidden = |mut event: serde_json::Value| {
            event["responseStatus"]["code"] = json!(403);
            event
        };
        let tried = |mut event: serde_json::Value| {
            event["requestURI"] = json!("/apis?dryRun=All");
            event
        };
        for end in [
            None,
            Some(forbidden(event(26, "delete", "leaserequests", gone.clone()))),
            Some(tried(event(26, "delete", "leaserequests", gone.clone()))),
            Some(event(40, "delete", "leaserequests", gone)),
        ] {
            let report = life(end.clone());
            assert!(report.violations.iter().any(|v| v.rule == Rule::FalseEnding), "{end:?}: {report:?}");
        }
    }

    #[test]
    fn a_deletion_whose_answer_was_not_logged_may_have_happened() {
        let mut begun = event(26, "delete", "leaserequests", json!(null));
        begun["stage"] = json!("RequestReceived");
        assert!(life(Some(begun)).violations.is_empty());
        let mut failed = event(26, "delete", "leaserequests", json!(null));
        failed["responseStatus"]["code"] = json!(504);
        assert!(life(Some(failed)).violations.is_empty());
    }

    #[test]
    fn a_write_that_is_made_from_one_that_is_not_there_shows_a_hole() {
        let mut log = vec![
            event(20, "create", "leases", lease(100, json!(null))),
            event(21, "create", "leaserequests", request(101)),
            event(22, "update", "leases", lease(102, held())),
        ];
        let mut next = held();
        (next["holder"], next["fencingToken"], next["request"]["uid"]) = (json!("b"), json!(9), json!("u2"));
        let mut hand_over = event(28, "update", "leases", lease(109, next));
        hand_over["requestObject"] = lease(102, json!(null));
        log.push(hand_over.clone());
        assert!(judged(&log).violations.iter().any(|violation| violation.rule == Rule::Overlap));
        hand_over["requestObject"] = lease(107, json!(null));
        log[3] = hand_over.clone();
        let report = judged(&log);
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        assert!(report.figures.unjudged.contains_key(&Unjudged::WritesMissed));
        // A label that somebody puts on it grants nothing; who patches the token may have.
        (hand_over["verb"], hand_over["requestObject"]) = (json!("patch"), json!({"metadata": {"labels": {}}}));
        log[3] = hand_over.clone();
        assert!(judged(&log).violations.is_empty());
        hand_over["requestObject"] = json!({"status": {"fencingToken": 9}});
        log[3] = hand_over;
        assert!(judged(&log).violations.iter().any(|violation| violation.rule == Rule::Overlap));
    }
}
