//! Comparing what a shadow policy would have done with what was done.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use konductor_core::{Decision, Grant, HoldAction, Question};

use crate::observe::Key;

/// How often one lease's differences are told as an Event. Each is counted in a metric; a person who
/// rehearses a policy wants examples, and the API server no flood.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// What of a decision counts when two are compared: what it does, not its words or its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    hold: HoldAction,
    grant: Option<Grant>,
    deny: Vec<usize>,
}

impl Proposal {
    /// What a decision does.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let mut deny: Vec<usize> = decision.deny.iter().map(|d| d.request).collect();
        deny.sort_unstable();
        Self { hold: decision.hold, grant: decision.grant, deny }
    }
}

/// A decision in words, with the names of holders, and its reason.
#[must_use]
pub fn words(question: &Question, decision: &Decision) -> String {
    let name = |index: usize| question.requests.get(index).map_or("?", |r| r.holder.as_str());
    let seconds = |span: konductor_core::Millis| konductor_crds::time::format_duration(span.0);
    let mut parts = Vec::new();
    match decision.hold {
        HoldAction::Keep => {}
        HoldAction::Renew { ttl } => parts.push(format!("renews for {}", seconds(ttl))),
        HoldAction::Expire => parts.push("expires the hold".to_owned()),
        HoldAction::Preempt { in_favour_of, grace, force } => {
            let how = if force { "by force " } else { "" };
            parts.push(format!("preempts {how}for {} within {}", name(in_favour_of), seconds(grace)));
        }
    }
    if let Some(grant) = decision.grant {
        parts.push(format!("grants {} for {}", name(grant.request), seconds(grant.ttl)));
    }
    if let Some(first) = decision.deny.first() {
        let more = decision.deny.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        parts.push(format!("denies {}{more}", name(first.request)));
    }
    let what = if parts.is_empty() { "changes nothing".to_owned() } else { parts.join(", ") };
    if decision.reason.is_empty() { what } else { format!("{what} ({})", decision.reason) }
}

/// When each lease's differences were told last.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<Key, Duration>>);

impl Told {
    /// Whether a difference is to be told now; if so, it counts as told.
    pub fn due(&self, key: &Key, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_sub(*at) < TELL_EVERY);
        let due = !told.contains_key(key);
        if due {
            told.insert(key.clone(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use konductor_core::{Candidate, Cause, Denial, LeaseFacts, Millis, Time};

    use super::*;

    #[test]
    fn a_decision_is_told_with_names() {
        let candidate = |holder: &str| Candidate {
            uid: holder.to_owned(),
            holder: holder.to_owned(),
            priority: 0,
            ttl: Millis(0),
            arrived: Time(0),
            labels: Vec::new(),
        };
        let question = Question {
            now: Time(0),
            cause: Cause::Request,
            lease: LeaseFacts::default(),
            ttl: Millis(0),
            hold: None,
            requests: ["a", "b", "c"].map(candidate).to_vec(),
            waiting: 3,
            history: Vec::new(),
            state: String::new(),
        };
        let deny = |request| Denial { request, reason: String::new() };
        for (decision, expected) in [
            (Decision::default(), "changes nothing"),
            (
                Decision {
                    hold: HoldAction::Expire,
                    grant: Some(Grant { request: 1, ttl: Millis(90_000) }),
                    reason: "newest".to_owned(),
                    ..Decision::default()
                },
                "expires the hold, grants b for 1m30s (newest)",
            ),
            (
                Decision {
                    hold: HoldAction::Preempt { in_favour_of: 2, grace: Millis(5_000), force: true },
                    deny: vec![deny(0), deny(1)],
                    ..Decision::default()
                },
                "preempts by force for c within 5s, denies a and 1 more",
            ),
        ] {
            assert_eq!(words(&question, &decision), expected);
        }
        let (one, other) = (vec![deny(0), deny(1)], vec![deny(1), deny(0)]);
        let proposal = |deny| Proposal::of(&Decision { deny, ..Decision::default() });
        assert_eq!(proposal(one), proposal(other), "the order of denials is no difference");
    }

    #[test]
    fn a_lease_is_told_of_now_and_then() {
        let told = Told::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        assert!(told.due(&a, Duration::ZERO));
        assert!(!told.due(&a, Duration::from_secs(29)));
        assert!(told.due(&b, Duration::from_secs(29)));
        assert!(told.due(&a, Duration::from_secs(30)));
    }
}
