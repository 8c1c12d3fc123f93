//! What an API server keeps and how it answers: objects, one counter of versions, and every change since the beginning.
//!
//! It behaves as kube-apiserver does where the controller and the client can tell the difference, and knows only the
//! kinds and verbs that they use. It has no clock and no chance of its own.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// leases.konductor.io
    Lease,
    /// leaserequests.konductor.io
    Request,
    /// ConfigMaps
    ConfigMap,
    /// Namespaces
    Namespace,
    /// Events of events.k8s.io
    Event,
}

impl Kind {
    /// The kind with this plural.
    #[must_use]
    pub fn of_plural(plural: &str) -> Option<Self> {
        Some(match plural {
            "leases" => Self::Lease,
            "leaserequests" => Self::Request,
            "configmaps" => Self::ConfigMap,
            "namespaces" => Self::Namespace,
            "events" => Self::Event,
            _ => return None,
        })
    }

    /// The plural, as it stands in a path.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Lease => "leases",
            Self::Request => "leaserequests",
            Self::ConfigMap => "configmaps",
            Self::Namespace => "namespaces",
            Self::Event => "events",
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Lease => ("konductor.io/v1", "Lease"),
            Self::Request => ("konductor.io/v1", "LeaseRequest"),
            Self::ConfigMap => ("v1", "ConfigMap"),
            Self::Namespace => ("v1", "Namespace"),
            Self::Event => ("events.k8s.io/v1", "Event"),
        }
    }

    /// What a watch says of a version when there is nothing else to say.
    #[must_use]
    pub fn bookmark(self, version: i64) -> Value {
        let (api_version, kind) = self.names();
        json!({ "apiVersion": api_version, "kind": kind, "metadata": { "resourceVersion": version.to_string() } })
    }

    /// Whether status is written apart from the rest.
    fn has_status(self) -> bool {
        matches!(self, Self::Lease | Self::Request)
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// A new object.
    Added,
    /// An object is another.
    Modified,
    /// An object is gone; the change shows its last state.
    Deleted,
}

impl Did {
    /// As a watch says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One write.
#[derive(Debug, Clone)]
pub struct Change {
    /// The version of everything after it.
    pub version: i64,
    /// Of which kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: Key,
    /// What it did.
    pub did: Did,
    /// The object after it.
    pub object: Arc<Value>,
    /// The same as text: written once, and delivered to each watch.
    pub text: Arc<str>,
}

/// Namespace and name.
pub type Key = (String, String);

/// An answer that is not a success: a `Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code of HTTP.
    pub code: u16,
    /// The body.
    pub body: Value,
}

impl Refusal {
    /// A failure with a reason in one word; `about` is the name in its details, if there is one.
    #[must_use]
    pub fn new(code: u16, reason: &str, kind: Option<Kind>, about: Option<&str>, message: &str) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        if let (Some(kind), Some(name)) = (kind, about) {
            body["details"] = json!({ "name": name, "kind": kind.plural(), "group": "konductor.io" });
        }
        Self { code, body }
    }

    fn not_found(kind: Kind, name: &str) -> Self {
        Self::new(404, "NotFound", Some(kind), Some(name), &format!("{} \"{name}\" not found", kind.plural()))
    }

    fn conflict(kind: Kind, name: &str, message: &str) -> Self {
        Self::new(409, "Conflict", Some(kind), Some(name), message)
    }

    fn invalid(kind: Kind, name: &str, message: &str) -> Self {
        Self::new(422, "Invalid", Some(kind), Some(name), message)
    }
}

/// Which rules of the API server are left out, to see that the simulation finds that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leniency {
    /// A write of a status need not name the version that it was computed from.
    pub any_version: bool,
}

/// Everything that is stored.
#[derive(Debug)]
pub struct Store {
    version: i64,
    objects: BTreeMap<(Kind, Key), Arc<Value>>,
    changes: Vec<Change>,
    compacted: i64,
    uids: u64,
    leniency: Leniency,
}

impl Store {
    /// A store with nothing in it, whose versions begin here.
    #[must_use]
    pub fn new(version: i64, leniency: Leniency) -> Self {
        Self { version, objects: BTreeMap::new(), changes: Vec::new(), compacted: version, uids: 0, leniency }
    }

    /// The version of the last write.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Every write, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The oldest version that a watch may begin at.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Forgets, for watches, what was before this version.
    pub fn compact(&mut self, version: i64) {
        self.compacted = self.compacted.max(version.min(self.version));
    }

    /// The changes after a version.
    #[must_use]
    pub fn after(&self, version: i64) -> &[Change] {
        &self.changes[self.changes.partition_point(|change| change.version <= version)..]
    }

    /// The objects of a kind as they were at a version, by namespace and name.
    #[must_use]
    pub fn at(&self, kind: Kind, version: i64) -> BTreeMap<Key, Arc<Value>> {
        if version >= self.version {
            let all = self.objects.iter().filter(|((of, _), _)| *of == kind);
            return all.map(|((_, key), object)| (key.clone(), object.clone())).collect();
        }
        let mut all = BTreeMap::new();
        for change in self.changes.iter().take_while(|change| change.version <= version) {
            if change.kind == kind {
                match change.did {
                    Did::Added | Did::Modified => all.insert(change.key.clone(), change.object.clone()),
                    Did::Deleted => all.remove(&change.key),
                };
            }
        }
        all
    }

    /// An object as it is now.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, kind: Kind, key: &Key) -> Result<Arc<Value>, Refusal> {
        self.objects.get(&(kind, key.clone())).cloned().ok_or_else(|| Refusal::not_found(kind, &key.1))
    }

    /// Creates an object. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// 409.
    pub fn create(&mut self, kind: Kind, namespace: &str, mut object: Value, now: i64) -> Result<Arc<Value>, Refusal> {
        self.uids += 1;
        let uid = format!("uid-{:04}", self.uids);
        if object["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
            let stem = object["metadata"]["generateName"].as_str().unwrap_or_default();
            object["metadata"]["name"] = json!(format!("{stem}{:05}", self.uids));
        }
        let key = (namespace.to_owned(), object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        if self.objects.contains_key(&(kind, key.clone())) {
            let message = format!("{} \"{}\" already exists", kind.plural(), key.1);
            return Err(Refusal::new(409, "AlreadyExists", Some(kind), Some(&key.1), &message));
        }
        let (version, name) = kind.names();
        (object["apiVersion"], object["kind"]) = (json!(version), json!(name));
        if kind.has_status()
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        let meta = &mut object["metadata"];
        if !namespace.is_empty() {
            meta["namespace"] = json!(namespace);
        }
        (meta["uid"], meta["generation"]) = (json!(uid), json!(1));
        meta["creationTimestamp"] = json!(seconds(now));
        touched(meta, now);
        Ok(self.write(kind, key, Did::Added, object))
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// 404, or 409 where it is not the version or the object that is meant.
    pub fn replace_status(&mut self, kind: Kind, key: &Key, body: &Value) -> Result<Arc<Value>, Refusal> {
        let old = self.get(kind, key)?;
        self.is_meant(kind, key, &old, &body["metadata"], self.leniency.any_version)?;
        let mut new = (*old).clone();
        new["status"] = body["status"].clone();
        Ok(self.update(kind, key, &old, new))
    }

    /// Merges a patch into an object, or into its status alone; a list is a JSON patch of tests and replacements. `now` is
    /// in seconds since the epoch.
    ///
    /// # Errors
    /// 404, 409, or 422 for a change of what cannot be changed and for a test that fails.
    pub fn patch(
        &mut self,
        kind: Kind,
        key: &Key,
        patch: &Value,
        status: bool,
        now: i64,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.get(kind, key)?;
        self.is_meant(kind, key, &old, &patch["metadata"], status && self.leniency.any_version)?;
        let mut new = (*old).clone();
        if status {
            merge(&mut new["status"], &patch["status"]);
            return Ok(self.update(kind, key, &old, new));
        }
        for step in patch.as_array().into_iter().flatten() {
            let (op, path) = (step["op"].as_str().unwrap_or_default(), step["path"].as_str().unwrap_or_default());
            match (op, new.pointer_mut(path)) {
                ("test", Some(is)) if *is == step["value"] => {}
                ("replace", Some(is)) => is.clone_from(&step["value"]),
                _ => return Err(Refusal::invalid(kind, &key.1, &format!("the patch cannot be applied: {step}"))),
            }
        }
        for part in ["spec", "data", "series"] {
            if let Some(patch) = patch.get(part) {
                merge(&mut new[part], patch);
            }
        }
        for part in ["labels", "annotations"] {
            if let Some(patch) = patch["metadata"].get(part) {
                merge(&mut new["metadata"][part], patch);
            }
        }
        if kind == Kind::Request {
            let (was, is) = (&old["spec"], &new["spec"]);
            if is["renewals"].as_i64() < was["renewals"].as_i64() {
                return Err(Refusal::invalid(kind, &key.1, "spec: Invalid value: renewals can only be raised"));
            }
            if ["lease", "holder", "priority", "ttl", "timeout"].iter().any(|field| is[field] != was[field]) {
                return Err(Refusal::invalid(kind, &key.1, "spec: Invalid value: cannot be changed"));
            }
        }
        if new != *old {
            touched(&mut new["metadata"], now);
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        Ok(self.update(kind, key, &old, new))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// 404, or 409 where it is not the object that is meant.
    pub fn delete(&mut self, kind: Kind, key: &Key, options: &Value) -> Result<Value, Refusal> {
        let old = self.get(kind, key)?;
        self.is_meant(kind, key, &old, &options["preconditions"], false)?;
        self.objects.remove(&(kind, key.clone()));
        let uid = old["metadata"]["uid"].clone();
        self.write(kind, key.clone(), Did::Deleted, (*old).clone());
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "name": key.1, "kind": kind.plural(), "uid": uid },
        }))
    }

    /// Whether the object has the uid and the version that somebody expects, where they do.
    fn is_meant(
        &self,
        kind: Kind,
        key: &Key,
        object: &Value,
        expected: &Value,
        any_version: bool,
    ) -> Result<(), Refusal> {
        for (field, any) in [("uid", false), ("resourceVersion", any_version)] {
            let wanted = expected[field].as_str().unwrap_or_default();
            let is = object["metadata"][field].as_str().unwrap_or_default();
            if !any && !wanted.is_empty() && wanted != is {
                let message = format!("Precondition failed: {field} in precondition: {wanted}, in object: {is}");
                return Err(Refusal::conflict(kind, &key.1, &message));
            }
        }
        Ok(())
    }

    /// Stores another state of an object; one that says the same is no write.
    fn update(&mut self, kind: Kind, key: &Key, old: &Arc<Value>, new: Value) -> Arc<Value> {
        if new == **old { old.clone() } else { self.write(kind, key.clone(), Did::Modified, new) }
    }

    fn write(&mut self, kind: Kind, key: Key, did: Did, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        if did != Did::Deleted {
            self.objects.insert((kind, key.clone()), object.clone());
        }
        // Nobody watches Events, and they are most of the bytes.
        if kind != Kind::Event {
            let text = object.to_string().into();
            self.changes.push(Change { version: self.version, kind, key, did, object: object.clone(), text });
        }
        object
    }
}

/// A time in whole seconds, as metadata has it.
fn seconds(now: i64) -> String {
    konductor_crds::time::format_timestamp(now * 1000).replace(".000Z", "Z")
}

/// Notes when the object was last written by a client: the controller reads that.
fn touched(meta: &mut Value, now: i64) {
    meta["managedFields"] = json!([{
        "manager": "client", "operation": "Update", "apiVersion": "konductor.io/v1", "time": seconds(now),
        "fieldsType": "FieldsV1", "fieldsV1": {},
    }]);
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("team".to_owned(), name.to_owned())
    }

    fn store() -> Store {
        let mut store = Store::new(100, Leniency::default());
        let lease = json!({ "metadata": { "name": "x" }, "spec": { "ttl": "5s" }, "status": { "phase": "Held" } });
        store.create(Kind::Lease, "team", lease, 7).expect("created");
        let request =
            json!({ "metadata": { "generateName": "r-" }, "spec": { "lease": "x", "holder": "a", "renewals": 1 } });
        store.create(Kind::Request, "team", request, 7).expect("created");
        store
    }

    fn code<T>(result: Result<T, Refusal>) -> (u16, String) {
        let refusal = result.err().expect("refused");
        (refusal.code, refusal.body["reason"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn it_answers_as_kube_apiserver_does() {
        let mut store = store();
        let lease = store.get(Kind::Lease, &key("x")).expect("there");
        assert_eq!(lease["status"], Value::Null, "a create does not set the status");
        assert_eq!(lease["metadata"]["resourceVersion"], "101");
        assert_eq!(lease["metadata"]["creationTimestamp"], "1970-01-01T00:00:07Z");
        assert_eq!(
            code(store.create(Kind::Lease, "team", json!({ "metadata": { "name": "x" } }), 7)),
            (409, "AlreadyExists".to_owned())
        );
        assert_eq!(code(store.get(Kind::Lease, &key("y"))), (404, "NotFound".to_owned()));

        let held = |version: &str| json!({ "metadata": { "resourceVersion": version }, "spec": { "ttl": "9s" }, "status": { "phase": "Held" } });
        assert_eq!(
            code(store.replace_status(Kind::Lease, &key("x"), &held("100"))),
            (409, "Conflict".to_owned()),
            "an old version"
        );
        let written = store.replace_status(Kind::Lease, &key("x"), &held("101")).expect("the right version");
        assert_eq!((&written["status"]["phase"], &written["spec"]["ttl"]), (&json!("Held"), &json!("5s")));
        let again = store.replace_status(Kind::Lease, &key("x"), &held("103")).expect("written");
        assert_eq!(again["metadata"]["resourceVersion"], "103", "what says the same is no write");

        let name = key("r-00002");
        let raise = |n: i64, uid: &str| json!({ "metadata": { "uid": uid }, "spec": { "renewals": n } });
        assert_eq!(code(store.patch(Kind::Request, &name, &raise(2, "other"), false, 8)), (409, "Conflict".to_owned()));
        assert_eq!(
            code(store.patch(Kind::Request, &name, &raise(0, "uid-0002"), false, 8)),
            (422, "Invalid".to_owned())
        );
        let raised = store.patch(Kind::Request, &name, &raise(2, "uid-0002"), false, 8).expect("raised");
        assert_eq!(
            (&raised["spec"]["renewals"], &raised["metadata"]["generation"], &raised["spec"]["holder"]),
            (&json!(2), &json!(2), &json!("a"))
        );
        let on = |from: i64, uid: &str| {
            json!([
                { "op": "test", "path": "/metadata/uid", "value": uid },
                { "op": "test", "path": "/spec/renewals", "value": from },
                { "op": "replace", "path": "/spec/renewals", "value": from + 1 },
            ])
        };
        for (from, uid) in [(1, "uid-0002"), (2, "other")] {
            assert_eq!(
                code(store.patch(Kind::Request, &name, &on(from, uid), false, 8)),
                (422, "Invalid".to_owned()),
                "a test fails"
            );
        }
        let raised = store.patch(Kind::Request, &name, &on(2, "uid-0002"), false, 8).expect("raised");
        assert_eq!((&raised["spec"]["renewals"], &raised["metadata"]["generation"]), (&json!(3), &json!(3)));
        let told = json!({ "status": { "phase": "Pending" }, "spec": { "renewals": 9 } });
        let told = store.patch(Kind::Request, &name, &told, true, 8).expect("told");
        assert_eq!(told["spec"]["renewals"], 3, "a status write leaves the spec alone");

        let other = json!({ "preconditions": { "uid": "other" } });
        assert_eq!(code(store.delete(Kind::Request, &name, &other)), (409, "Conflict".to_owned()));
        store.delete(Kind::Request, &name, &json!({ "preconditions": { "uid": "uid-0002" } })).expect("deleted");
        let last = store.changes().last().expect("changes");
        assert_eq!(
            (last.did, last.version, last.object["metadata"]["resourceVersion"].as_str()),
            (Did::Deleted, 107, Some("107"))
        );
    }

    #[test]
    fn the_past_can_be_seen() {
        let mut store = store();
        assert!(store.at(Kind::Request, 101).is_empty());
        store.delete(Kind::Request, &key("r-00002"), &Value::Null).expect("deleted");
        assert_eq!(store.at(Kind::Request, 102).len(), 1);
        assert!(store.at(Kind::Request, 103).is_empty() && store.at(Kind::Request, 999).is_empty());
        assert_eq!(store.after(102).len(), 1);
        store.compact(102);
        assert_eq!(store.compacted(), 102);
    }
}
