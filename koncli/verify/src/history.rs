//! What was seen of Leases and LeaseRequests.

use std::collections::BTreeSet;

use konductor_crds::{Lease, LeaseRequest};
use serde::{Deserialize, Serialize};

/// What a write did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Created,
    /// It was there before.
    Updated,
    /// It is gone; the event shows what it was.
    Deleted,
}

/// Which of our two kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Leases.
    Lease,
    /// LeaseRequests.
    LeaseRequest,
}

/// One of our objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// A Lease.
    Lease(Box<Lease>),
    /// A LeaseRequest.
    Request(Box<LeaseRequest>),
}

impl Stored {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Lease(_) => Kind::Lease,
            Self::Request(_) => Kind::LeaseRequest,
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// etcd's revision, which is the resourceVersion of the object after the write. It orders all writes. An audit log
    /// does not tell it of a deletion: then it is the last one that the deletion must have come after.
    pub revision: i64,
    /// What it did.
    pub change: Change,
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The object.
    pub object: Stored,
    /// When it was seen, in milliseconds since the epoch, by the clock of whoever saw it.
    pub seen: Option<i64>,
    /// What is known of the state that it was made from.
    pub follows: Follows,
}

/// What is known of the state that a write was made from: if that is not the one that was seen last, a write between
/// the two was not seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Follows {
    /// Nothing.
    #[default]
    Unknown,
    /// Its resourceVersion.
    Revision(i64),
    /// Its fencing token is that of the state after it: the write did not speak of it.
    Token,
}

/// Everything of a kind that there was at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Which kind.
    pub of: Kind,
    /// The revision.
    pub revision: i64,
    /// When it was seen.
    pub seen: Option<i64>,
    /// Where it looked.
    pub scope: Scope,
    /// The objects.
    pub objects: Vec<Stored>,
}

/// What is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// In this namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only these leases, and the requests for them; all, if there are none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leases: BTreeSet<String>,
}

impl Scope {
    /// Whether something about this lease is recorded.
    #[must_use]
    pub fn has(&self, namespace: &str, lease: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
            && (self.leases.is_empty() || self.leases.contains(lease))
    }
}

/// After this revision, writes to a kind may not have been seen, until the next list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Which kind.
    pub of: Kind,
    /// The last revision before it.
    pub after: i64,
    /// How many lists of the history were made before it: one at the same revision may have come before or after.
    pub lists_before: usize,
}

/// What was seen, in any order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The writes.
    pub events: Vec<Event>,
    /// What was listed.
    pub lists: Vec<List>,
    /// Where something may be missing.
    pub gaps: Vec<Gap>,
    /// Whether it has every write from the first one on.
    pub complete: bool,
}

impl History {
    /// The states of one Lease, in the order in which they are here; a deletion shows the last state again.
    pub fn lease<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (i64, Change, &'a Lease)> {
        self.events.iter().filter(move |event| event.name == name).filter_map(|event| match &event.object {
            Stored::Lease(lease) => Some((event.revision, event.change, &**lease)),
            Stored::Request(_) => None,
        })
    }

    /// How many writes there were after a revision: what an idle controller must not make.
    #[must_use]
    pub fn writes_after(&self, revision: i64) -> usize {
        self.events.iter().filter(|event| event.revision > revision).count()
    }

    /// The revision of the last write.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.events.last().map_or(0, |event| event.revision)
    }

    /// Takes up another one: a further part of the same history.
    pub fn extend(&mut self, other: Self) {
        let lists = self.lists.len();
        self.events.extend(other.events);
        self.lists.extend(other.lists);
        self.gaps.extend(other.gaps.into_iter().map(|gap| Gap { lists_before: gap.lists_before + lists, ..gap }));
        self.complete = false;
    }
}
