//! What was completed once: records in the annotations of a Lease, so that they outlive Pods, requests and holds.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use konductor_crds::{Lease, ONCE_ANNOTATION_PREFIX, time::format_timestamp};
use kube::api::{Patch, PatchParams};
use serde::{Deserialize, Serialize};

use super::{
    Client, FIELD_MANAGER,
    decide::{grant_to, how_lost},
    error::{Access, CallFailure, Error, Problem, Result},
    guard::Guard,
    names,
};

/// So many records a Lease may have: with the longest keys and holders they take less than half of the 256 KiB that
/// Kubernetes gives all annotations of an object. None is dropped to make room: what it was for would run again.
const RECORDS_MOST: usize = 200;
/// How often a change is tried again when the Lease changes under it. Its controller writes a few times a second at most.
const TRIES: usize = 10;

/// What was completed: the name of an annotation without its prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn annotation(&self) -> String {
        format!("{ONCE_ANNOTATION_PREFIX}{}", self.0)
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if names::is_label_value(text) {
            return Ok(Self(text.to_owned()));
        }
        Err("a key has 1 to 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"
            .to_owned())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record that something is completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Completed {
    /// What.
    pub key: Key,
    /// When, by the clock of who recorded it: for people, nothing is decided by it. Empty if a person wrote no record
    /// but only the annotation, which counts too.
    pub at: String,
    /// Who did it.
    pub holder: String,
    /// The fencing token of the hold under which it was done.
    pub token: i64,
}

/// The value of the annotation.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    at: String,
    holder: String,
    token: i64,
}

impl Completed {
    fn value(&self) -> String {
        let Self { at, holder, token, .. } = self;
        serde_json::json!({ "at": at, "holder": holder, "token": token }).to_string()
    }
}

/// What a Lease says was completed, by key.
#[must_use]
pub fn completed_in(lease: &Lease) -> Vec<Completed> {
    let annotations = lease.metadata.annotations.as_ref();
    let records = annotations.into_iter().flatten().filter_map(|(name, value)| {
        let key = Key::from_str(name.strip_prefix(ONCE_ANNOTATION_PREFIX)?).ok()?;
        // That it is there is what counts, whoever wrote it and how.
        let Record { at, holder, token } = serde_json::from_str(value).unwrap_or_default();
        Some(Completed { key, at, holder, token })
    });
    records.collect()
}

/// Whose completion is recorded.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) lease: String,
    pub(crate) holder: String,
    pub(crate) request: String,
    pub(crate) token: i64,
}

impl Guard {
    /// Records that `key` is completed, while the lease is held: the record is written only if the Lease still names
    /// this hold, by its request and token, in the very version that is changed.
    ///
    /// A process that dies between the work and this call leaves no record, and the work is done again: it has to bear
    /// that.
    ///
    /// # Errors
    /// [`Problem::Lost`] if the hold is over; nothing is recorded then.
    pub async fn complete(&self, key: &Key) -> Result<Completed> {
        self.client().record_completed(&self.by(), key).await
    }

    pub(crate) fn by(&self) -> By {
        By {
            lease: self.lease().to_owned(),
            holder: self.holder().to_owned(),
            request: self.request().uid.clone(),
            token: self.token(),
        }
    }
}

impl Client {
    /// What was completed under a lease, by key.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn completed(&self, lease: &str) -> Result<Vec<Completed>> {
        self.get(lease).await.map(|lease| completed_in(&lease))
    }

    /// The record that `key` was completed under a lease, if there is one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn completion(&self, lease: &str, key: &Key) -> Result<Option<Completed>> {
        Ok(self.completed(lease).await?.into_iter().find(|completed| completed.key == *key))
    }

    pub(crate) async fn record_completed(&self, by: &By, key: &Key) -> Result<Completed> {
        let By { lease, holder, request, token } = by;
        let doing = format!("record \"{key}\" as completed in lease \"{lease}\" in namespace \"{}\"", self.namespace);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = format_timestamp(i64::try_from(at).unwrap_or(i64::MAX));
        let completed = Completed { key: key.clone(), at, holder: holder.clone(), token: *token };
        for _ in 0..TRIES {
            let found = self.lease_for(lease, &doing).await?;
            let records = completed_in(&found);
            // By this hold: an answer of ours was lost. By another: it is done, whoever did it.
            if let Some(record) = records.iter().find(|record| record.key == *key) {
                return Ok(record.clone());
            }
            if grant_to(request, &found).is_none_or(|grant| grant.token != *token) {
                return Err(Error::new(doing, Problem::Lost { how: how_lost(request, &found) }));
            }
            if records.len() >= RECORDS_MOST {
                return Err(Error::new(doing, too_many(lease, &records)));
            }
            let change = BTreeMap::from([(key.annotation(), serde_json::Value::from(completed.value()))]);
            match self.annotate(&found, change).await {
                Ok(()) => return Ok(completed),
                Err(failure) if failure.is_conflict() => {}
                Err(failure) => return Err(Error::from_call(doing, failure)),
            }
        }
        Err(Error::new(doing, Problem::Refused("the lease changed each time before it could be written".to_owned())))
    }

    /// Forgets that these keys, or all, were completed under a lease: what they stand for runs again. Returns what was
    /// forgotten.
    ///
    /// # Errors
    /// [`Problem::NotFound`] if one of the keys is not recorded; then nothing is forgotten.
    pub async fn clear_completed(&self, lease: &str, keys: Option<&[Key]>) -> Result<Vec<Completed>> {
        let doing = format!("clear what is completed in lease \"{lease}\" in namespace \"{}\"", self.namespace);
        for _ in 0..TRIES {
            let found = self.lease_for(lease, &doing).await?;
            let mut records = completed_in(&found);
            if let Some(keys) = keys {
                if let Some(unknown) = keys.iter().find(|key| !records.iter().any(|record| record.key == **key)) {
                    let recorded: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
                    let recorded = if recorded.is_empty() { "nothing".to_owned() } else { recorded.join(", ") };
                    let what = format!("\"{unknown}\" is not recorded as completed; recorded is: {recorded}");
                    return Err(Error::new(doing, Problem::NotFound(what)));
                }
                records.retain(|record| keys.contains(&record.key));
            }
            if records.is_empty() {
                return Ok(records);
            }
            let change = records.iter().map(|record| (record.key.annotation(), serde_json::Value::Null)).collect();
            match self.annotate(&found, change).await {
                Ok(()) => return Ok(records),
                Err(failure) if failure.is_conflict() => {}
                Err(failure) => return Err(Error::from_call(doing, failure)),
            }
        }
        Err(Error::new(doing, Problem::Refused("the lease changed each time before it could be written".to_owned())))
    }

    /// Changes annotations of a Lease, if it is still as it was seen.
    async fn annotate(&self, seen: &Lease, change: BTreeMap<String, serde_json::Value>) -> Result<(), CallFailure> {
        let metadata = &seen.metadata;
        let patch = Patch::Merge(serde_json::json!({
            "metadata": { "uid": metadata.uid, "resourceVersion": metadata.resource_version, "annotations": change },
        }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let name = metadata.name.as_deref().unwrap_or_default();
        self.call(Access::leases("patch"), || self.leases.patch(name, &params, &patch)).await.map(|_| ())
    }
}

/// What is wrong with one more record, if anything: asked before the work, so that it is not done and cannot be recorded.
pub(crate) fn no_room(lease: &Lease) -> Option<Problem> {
    let records = completed_in(lease);
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    (records.len() >= RECORDS_MOST).then(|| too_many(name, &records))
}

fn too_many(lease: &str, records: &[Completed]) -> Problem {
    let oldest = records.iter().min_by(|a, b| a.at.cmp(&b.at)).map_or("KEY", |record| record.key.as_str());
    Problem::Refused(format!(
        "it has {} records already, the most that it may have; clear what is not needed any more: koncli lease once clear {lease} {oldest}",
        records.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_an_annotation_can_be_called() {
        for key in ["v1", "2026-11-21", "schema_v1.2", "a", &"x".repeat(63)] {
            assert_eq!(Key::from_str(key).map(|key| key.to_string()).as_deref(), Ok(key));
        }
        for key in ["", "-a", "a.", "a/b", "a b", "ä", &"x".repeat(64)] {
            Key::from_str(key).expect_err(key);
        }
    }

    #[test]
    fn records_are_read_back_and_a_bare_annotation_counts() {
        let completed = Completed {
            key: Key::from_str("v1").expect("a key"),
            at: "2026-01-01T00:00:00.000Z".into(),
            holder: "pod \"a\"".into(),
            token: 7,
        };
        let mut lease = Lease::default();
        assert_eq!(completed_in(&lease), []);
        lease.metadata.annotations = Some(BTreeMap::from([
            (completed.key.annotation(), completed.value()),
            ("once.konductor.io/by-hand".to_owned(), "yes".to_owned()),
            ("konductor.io/v2".to_owned(), completed.value()),
        ]));
        let [by_hand, ours] = &completed_in(&lease)[..] else { panic!("two records") };
        assert_eq!(ours, &completed);
        assert_eq!((by_hand.key.as_str(), by_hand.at.as_str(), by_hand.token), ("by-hand", "", 0));
    }

    #[test]
    fn there_is_no_room_for_more_than_fit_and_the_message_names_the_oldest() {
        let record = |n: usize| {
            let key = Key::from_str(&format!("v{n:03}")).expect("a key");
            let at = format!("2026-01-01T00:00:00.{:03}Z", (n + 998) % 1000);
            Completed { key, at, holder: "h".into(), token: 1 }
        };
        let lease = |count: usize| {
            let records = (0..count).map(record).map(|record| (record.key.annotation(), record.value()));
            let mut lease = Lease::default();
            lease.metadata.name = Some("db".to_owned());
            lease.metadata.annotations = Some(records.collect());
            lease
        };
        assert_eq!(no_room(&lease(RECORDS_MOST - 1)), None);
        let problem = no_room(&lease(RECORDS_MOST)).expect("full").to_string();
        assert!(problem.contains("koncli lease once clear db v002"), "{problem}");
    }
}
