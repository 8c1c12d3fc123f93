//! What `koncli lease record` writes: one JSON object a line.
//!
//! `RECORDING` is the first line: what is recorded, of which API server. `LIST` is followed by as many lines `LISTED` as
//! it says: everything that there was at a resourceVersion. `ADDED`, `MODIFIED` and `DELETED` are what a watch showed.
//! `GAP` says that writes may be missing until the next `LIST`, `END` why the recording is over: before these two a list
//! may have fewer lines than it says, and counts for nothing then. Every line has the time at which it was seen.

use konductor_crds::{
    Lease, LeaseRequest, LeaseSpec, LeaseStatus,
    time::{format_timestamp, parse_timestamp},
    v1::{LeaseRequestStatus, PolicySpec, PolicyStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Change, Event, Follows, Gap, History, Kind, List, Scope, Stored};

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum What {
    /// The first line.
    Recording,
    /// So many lines of what there was follow.
    List,
    /// One of them.
    Listed,
    /// A new object.
    Added,
    /// A changed object.
    Modified,
    /// An object that is gone.
    Deleted,
    /// Writes may be missing here.
    Gap,
    /// The last line.
    End,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When it was seen, RFC 3339 with milliseconds, by the recorder's clock.
    pub seen: String,
    /// What it is.
    #[serde(rename = "type")]
    pub what: What,
    /// The version of this format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The API server's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Lease or LeaseRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The resourceVersion of the list, of the object, or the last one before a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// How many lines of the list follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Why there is a gap, or an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The object, trimmed to what is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
}

impl Line {
    fn new(seen: i64, what: What) -> Self {
        Self {
            seen: format_timestamp(seen),
            what,
            version: None,
            server: None,
            scope: None,
            kind: None,
            resource_version: None,
            items: None,
            why: None,
            object: None,
        }
    }

    /// The first line.
    #[must_use]
    pub fn begin(seen: i64, server: &str, scope: Scope) -> Self {
        let (version, server, scope) = (Some(VERSION), Some(server.to_owned()), Some(scope));
        Self { version, server, scope, ..Self::new(seen, What::Recording) }
    }

    /// The head of a list.
    #[must_use]
    pub fn list(seen: i64, kind: Kind, version: &str, items: usize) -> Self {
        let resource_version = Some(version.to_owned());
        Self { kind: Some(kind), resource_version, items: Some(items), ..Self::new(seen, What::List) }
    }

    /// An object.
    #[must_use]
    pub fn object(seen: i64, what: What, object: &Stored) -> Self {
        let (version, trimmed) = match object {
            Stored::Lease(lease) => (&lease.metadata.resource_version, serde_json::to_value(lease_trimmed(lease))),
            Stored::Request(asks) => (&asks.metadata.resource_version, serde_json::to_value(request_trimmed(asks))),
        };
        Self {
            kind: Some(object.kind()),
            resource_version: version.clone(),
            object: trimmed.ok(),
            ..Self::new(seen, what)
        }
    }

    /// A gap.
    #[must_use]
    pub fn gap(seen: i64, kind: Kind, after: &str, why: &str) -> Self {
        let (resource_version, why) = (Some(after.to_owned()), Some(why.to_owned()));
        Self { kind: Some(kind), resource_version, why, ..Self::new(seen, What::Gap) }
    }

    /// The last line.
    #[must_use]
    pub fn end(seen: i64, why: &str) -> Self {
        Self { why: Some(why.to_owned()), ..Self::new(seen, What::End) }
    }
}

/// Of the metadata, who it is and when it came and went: no managedFields, no annotations.
macro_rules! metadata_trimmed {
    ($from:expr, $to:expr) => {
        $to.metadata.name.clone_from(&$from.metadata.name);
        $to.metadata.namespace.clone_from(&$from.metadata.namespace);
        $to.metadata.uid.clone_from(&$from.metadata.uid);
        $to.metadata.resource_version.clone_from(&$from.metadata.resource_version);
        $to.metadata.creation_timestamp.clone_from(&$from.metadata.creation_timestamp);
        $to.metadata.deletion_timestamp.clone_from(&$from.metadata.deletion_timestamp);
    };
}

fn lease_trimmed(lease: &Lease) -> Lease {
    let policy = lease.spec.policy.as_ref().and_then(|policy| policy.name.clone());
    let mut trimmed = Lease::new(
        "",
        LeaseSpec {
            ttl: lease.spec.ttl.clone(),
            priority: lease.spec.priority,
            policy: policy.map(|name| PolicySpec { name: Some(name), ..PolicySpec::default() }),
            ..LeaseSpec::default()
        },
    );
    metadata_trimmed!(lease, trimmed);
    trimmed.status = lease.status.as_ref().map(|status| LeaseStatus {
        policy: status.policy.as_ref().map(|p| PolicyStatus { name: p.name.clone(), ..PolicyStatus::default() }),
        conditions: Vec::new(),
        waiting: None,
        observed_generation: None,
        ..status.clone()
    });
    trimmed
}

fn request_trimmed(request: &LeaseRequest) -> LeaseRequest {
    let mut trimmed = LeaseRequest::new("", request.spec.clone());
    metadata_trimmed!(request, trimmed);
    trimmed.status = request.status.as_ref().map(|status| LeaseRequestStatus {
        phase: status.phase,
        reason: status.reason.clone(),
        fencing_token: status.fencing_token,
        sequence: status.sequence,
        ..LeaseRequestStatus::default()
    });
    trimmed
}

/// Puts the lines of a recording together.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    history: History,
    scope: Scope,
    /// A list of which some lines are still to come, and how many.
    list: Option<(List, usize)>,
    /// The last revision by kind.
    last: [i64; 2],
    begun: bool,
}

impl Recording {
    pub(crate) fn line(&mut self, line: Line) -> Result<(), String> {
        // Where there was no room for the rest, or nobody to ask: a list that was cut off says nothing.
        let cut_off = line.what != What::Listed && self.list.take().is_some();
        if cut_off && !matches!(line.what, What::End | What::Gap) {
            return Err("the list before it has fewer lines LISTED than it says".to_owned());
        }
        let seen = parse_timestamp(&line.seen).ok_or_else(|| format!("seen is \"{}\", no time", line.seen))?;
        let version = || -> Result<i64, String> {
            let text = line.resource_version.as_deref().ok_or("it has no resourceVersion")?;
            text.parse().map_err(|_| format!("the resourceVersion \"{text}\" is not a number, so it orders nothing"))
        };
        let kind = || line.kind.ok_or_else(|| "it has no kind".to_owned());
        match line.what {
            What::Recording => {
                if line.version != Some(VERSION) {
                    let version = line.version.unwrap_or_default();
                    return Err(format!("version {version} of the format; this program reads version {VERSION}"));
                }
                if std::mem::replace(&mut self.begun, true) {
                    // Two recordings, one behind the other: nobody looked in between.
                    for (of, after) in [Kind::Lease, Kind::LeaseRequest].into_iter().zip(self.last) {
                        let lists_before = self.history.lists.len();
                        self.history.gaps.push(Gap { of, after, lists_before });
                    }
                }
                self.scope = line.scope.unwrap_or_default();
            }
            What::List => {
                let list = List {
                    of: kind()?,
                    revision: version()?,
                    seen: Some(seen),
                    scope: self.scope.clone(),
                    objects: Vec::new(),
                };
                self.seen_up_to(list.of, list.revision);
                match line.items.ok_or("it does not say how many items it has")? {
                    0 => self.history.lists.push(list),
                    items => self.list = Some((list, items)),
                }
            }
            What::Listed => {
                let Some((mut list, more)) = self.list.take() else {
                    return Err("LISTED without a LIST that has so many items".to_owned());
                };
                list.objects.push(stored(list.of, line.object)?);
                match more - 1 {
                    0 => self.history.lists.push(list),
                    more => self.list = Some((list, more)),
                }
            }
            What::Added | What::Modified | What::Deleted => {
                let (kind, revision) = (kind()?, version()?);
                let change = match line.what {
                    What::Added => Change::Created,
                    What::Deleted => Change::Deleted,
                    _ => Change::Updated,
                };
                let object = stored(kind, line.object)?;
                self.seen_up_to(kind, revision);
                self.history.events.push(event(revision, change, object, Some(seen), Follows::Unknown));
            }
            What::Gap => {
                let lists_before = self.history.lists.len();
                self.history.gaps.push(Gap { of: kind()?, after: version()?, lists_before });
            }
            What::End => {}
        }
        Ok(())
    }

    fn seen_up_to(&mut self, kind: Kind, revision: i64) {
        let last = match kind {
            Kind::Lease => &mut self.last[0],
            Kind::LeaseRequest => &mut self.last[1],
        };
        *last = revision.max(*last);
    }

    pub(crate) fn len(&self) -> usize {
        self.history.events.len()
            + self.list.as_ref().map_or(0, |(list, _)| list.objects.len())
            + self.history.lists.iter().map(|list| list.objects.len()).sum::<usize>()
    }

    /// A list that was cut off says nothing.
    pub(crate) fn finish(self) -> History {
        self.history
    }
}

/// Reads an object.
pub(crate) fn stored(kind: Kind, object: Option<Value>) -> Result<Stored, String> {
    let object = object.ok_or("it has no object")?;
    match kind {
        Kind::Lease => serde_json::from_value(object).map(|lease| Stored::Lease(Box::new(lease))),
        Kind::LeaseRequest => serde_json::from_value(object).map(|request| Stored::Request(Box::new(request))),
    }
    .map_err(|error| format!("its object is no {kind:?}: {error}"))
}

/// An event of an object that says itself what it is called.
pub(crate) fn event(revision: i64, change: Change, object: Stored, seen: Option<i64>, follows: Follows) -> Event {
    let metadata = match &object {
        Stored::Lease(lease) => &lease.metadata,
        Stored::Request(request) => &request.metadata,
    };
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    Event { revision, change, namespace, name, object, seen, follows }
}
