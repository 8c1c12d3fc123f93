//! What a judgement says.

use std::{collections::BTreeMap, fmt};

use konductor_crds::{time::format_timestamp, v1::HoldEnd};
use serde::Serialize;

use crate::Holding;

/// One hold, from its grant to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The Lease.
    pub lease: String,
    /// The last state of the hold.
    pub holding: Holding,
    /// The revision of the grant, or of the first look at it.
    pub granted: i64,
    /// Whether the grant itself was seen.
    pub grant_seen: bool,
    /// The revision of the first write after which it did not hold any more.
    pub over: Option<i64>,
    /// How it ended, if that was told.
    pub how: Option<HoldEnd>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A hold without one of its parts, or a holder without a hold.
    IncompleteHold,
    /// A fencing token that went back or was forgotten, or a grant whose token is not above all before.
    TokenDoesNotRise,
    /// Holder, request or beginning changed within a hold, or its expiry or renewals went back.
    HoldChanges,
    /// A hold that began before the last one was over.
    Overlap,
    /// A hold that ended as Expired before its expiry.
    EarlyExpiry,
    /// A grant to a request that is not there, is somebody else's, or was given up.
    GrantWithoutRequest,
    /// A request that was granted more than once.
    GrantedTwice,
    /// An ending that is not so: Released with the request still there, Superseded by another holder, or a record of a
    /// hold that never was.
    FalseEnding,
    /// A record of an ended hold that was changed afterwards.
    HistoryRewritten,
    /// A request that was served before an equal one that had come earlier.
    Overtaking,
}

impl Rule {
    /// Its name, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IncompleteHold => "incomplete-hold",
            Self::TokenDoesNotRise => "token-does-not-rise",
            Self::HoldChanges => "hold-changes",
            Self::Overlap => "overlap",
            Self::EarlyExpiry => "early-expiry",
            Self::GrantWithoutRequest => "grant-without-request",
            Self::GrantedTwice => "granted-twice",
            Self::FalseEnding => "false-ending",
            Self::HistoryRewritten => "history-rewritten",
            Self::Overtaking => "overtaking",
        }
    }
}

/// One of the two events that contradict each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The revision of the write.
    pub revision: i64,
    /// When it was seen, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// What it says.
    pub says: String,
}

impl Evidence {
    pub(crate) fn new(revision: i64, seen: Option<i64>, says: String) -> Self {
        Self { revision, seen: seen.map(format_timestamp), says }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen {
            Some(seen) => write!(f, "revision {}, {seen}: {}", self.revision, self.says),
            None => write!(f, "revision {}: {}", self.revision, self.says),
        }
    }
}

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which rule it breaks.
    pub rule: Rule,
    /// The revision of the write.
    pub revision: i64,
    /// The namespace of the Lease; empty where the history has none.
    pub namespace: String,
    /// The Lease.
    pub lease: String,
    /// What is wrong.
    pub what: String,
    /// What was seen before and contradicts it, if it is not wrong by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Evidence>,
    /// The event that breaks the rule.
    pub event: Evidence,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}, lease {}: {}", self.revision, self.lease, self.what)?;
        if let Some(before) = &self.before {
            write!(f, "\n  before: {before}")?;
        }
        write!(f, "\n  then:   {}", self.event)
    }
}

/// Everything that must never happen and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}

impl std::error::Error for Violations {}

/// What could not be judged, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unjudged {
    /// A hold that was there before it was looked: its grant was not seen.
    GrantsNotSeen,
    /// A grant to a request of which too little was seen to say whether it was there.
    RequestsNotSeen,
    /// A grant to a request that was deleted, with no times that say how long before.
    GrantsAtDeletion,
    /// The end of a hold whose request's fate was not seen.
    EndingsNotSeen,
    /// A grant by a policy with an order of its own, or by one that is not named.
    OrdersOfPolicies,
    /// A state of a lease that writes which were not seen have led to.
    WritesMissed,
}

impl Unjudged {
    /// What it means, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GrantsNotSeen => "holds whose grant was not seen",
            Self::RequestsNotSeen => "grants whose request was not seen",
            Self::GrantsAtDeletion => "grants to a request that was being deleted, without times",
            Self::EndingsNotSeen => "endings whose request was not seen to the end",
            Self::OrdersOfPolicies => "grants in the order of another policy",
            Self::WritesMissed => "states of a lease after writes that were not seen",
        }
    }
}

/// How much there was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Writes, and objects that were listed.
    pub events: usize,
    /// Leases.
    pub leases: usize,
    /// LeaseRequests.
    pub requests: usize,
    /// Holds.
    pub holds: usize,
    /// Grants that were seen.
    pub grants: usize,
    /// How holds ended.
    pub endings: BTreeMap<&'static str, usize>,
    /// Gaps.
    pub gaps: usize,
    /// What could not be judged, and how often.
    pub unjudged: BTreeMap<Unjudged, usize>,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every hold, in the order of their grants.
    pub holds: Vec<Hold>,
    /// Everything that must never happen and did, in the order of revisions.
    pub violations: Vec<Violation>,
    /// How much there was.
    pub figures: Figures,
}

impl Report {
    /// The holds, if everything is allowed.
    ///
    /// # Errors
    /// Everything that is not allowed.
    pub fn allowed(self) -> Result<Vec<Hold>, Violations> {
        if self.violations.is_empty() { Ok(self.holds) } else { Err(Violations(self.violations)) }
    }
}
