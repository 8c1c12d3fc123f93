//! One change, as a line for people and as JSON for scripts.

use konductor_crds::v1::HoldEnd;
use serde::Serialize;

use crate::{commands::problem::Problem, output::relative, text::plain};

/// What kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum What {
    /// None: it is so at the beginning.
    Current,
    /// There is a new lease.
    Created,
    /// The lease is gone.
    Deleted,
    /// It was free, and somebody has it.
    Granted,
    /// Somebody has it after somebody else.
    HandedOver,
    /// A hold is over, and nobody has it.
    Ended,
    /// Its holder is asked to give it back.
    AskedBack,
    /// Somebody new waits.
    Waiting,
    /// Somebody waits no more, and does not have it.
    Left,
    /// Somebody is refused.
    Denied,
    /// The lease does not work as it is meant to, or for other reasons than before.
    Problem,
    /// It does again.
    Mended,
}

/// A change. `-o json` writes it: scripts depend on it, a field is added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// When it became known here.
    pub(super) time: String,
    #[serde(rename = "change")]
    pub(super) what: What,
    pub(super) namespace: String,
    pub(super) lease: String,
    /// Who it is about: has the lease, had it, waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<String>,
    /// Who had it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// How the hold before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) how: Option<HoldEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<i64>,
    /// When the hold, or the time to give it back, ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<String>,
    /// The place in the line, from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<usize>,
    /// How many wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<usize>,
    /// In the policy's or the controller's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What is wrong with the lease by its conditions: at the beginning, and when that changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Problem>,
}

impl Change {
    pub(super) fn new(what: What, time: String, namespace: String, lease: String) -> Self {
        Self {
            time,
            what,
            namespace,
            lease,
            holder: None,
            from: None,
            how: None,
            token: None,
            expires: None,
            place: None,
            waiting: None,
            reason: None,
            problems: Vec::new(),
        }
    }

    /// The lease, with its namespace where there are several.
    pub(super) fn name(&self, namespaces: bool) -> String {
        if namespaces { format!("{}/{}", self.namespace, self.lease) } else { self.lease.clone() }
    }

    /// What has happened, without when and to which lease.
    pub(super) fn says(&self, now_ms: i64) -> String {
        let holder = self.holder.as_deref().unwrap_or("nobody");
        let from = self.from.as_deref().unwrap_or("nobody");
        let how = self.how.map_or("ended", HoldEnd::as_str);
        let token = self.token.map(|token| format!(", token {token}")).unwrap_or_default();
        let expires = self.expires.as_deref().map(|at| relative(at, now_ms));
        let ends = expires.as_deref().map(|when| format!(", expires {when}")).unwrap_or_default();
        let why = self.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let problems: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        let problems = problems.join("; ");
        let said = match self.what {
            What::Current => {
                let state = match &self.holder {
                    Some(holder) => format!("held by {holder}{token}{ends}"),
                    None => "free".to_owned(),
                };
                let line = self.waiting.filter(|&count| count > 0).map(|count| format!("; {count} in line"));
                let problem = if problems.is_empty() { String::new() } else { format!("; problem: {problems}") };
                format!("{state}{}{problem}", line.unwrap_or_default())
            }
            What::Created => "created".to_owned(),
            What::Deleted => "deleted".to_owned(),
            What::Granted => format!("granted to {holder}{token}{ends}"),
            What::HandedOver => format!("handed over from {from} ({how}) to {holder}{token}{ends}"),
            What::Ended => format!("free: {holder}'s hold has ended ({how}){token}"),
            What::AskedBack => {
                let until = expires.map(|when| format!(", at the latest {when}")).unwrap_or_default();
                format!("asked back from {from} for {holder}{until}{why}")
            }
            What::Waiting => {
                let place = match (self.place, self.waiting) {
                    (Some(place), Some(of)) => format!(", {place} of {of} in line"),
                    _ => String::new(),
                };
                format!("{holder} waits{place}{why}")
            }
            What::Left => format!("{holder} waits no more{why}"),
            What::Denied => format!("{holder} is denied{why}"),
            What::Problem => format!("problem: {problems}"),
            What::Mended => "no problem any more".to_owned(),
        };
        plain(&said)
    }
}
