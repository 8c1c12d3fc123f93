//! Two decisions about the same question: in what they differ, and what each does in a sentence.
//!
//! The controller compares a shadow policy with the one that decides, the workbench a recorded decision
//! with another module's.

use konductor_core::{Decision, Grant, HoldAction, Question};
use serde::Serialize;

/// In what a decision differs from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Somebody else gets the lease.
    OtherWinner,
    /// Somebody gets the lease where nobody did.
    Grants,
    /// Nobody gets the lease where somebody did.
    GrantsNot,
    /// The holder is asked to leave where it was not.
    Preempts,
    /// The holder is not asked to leave where it was.
    PreemptsNot,
    /// The holder is asked to leave too, but for somebody else, or otherwise.
    PreemptsOtherwise,
    /// The hold is renewed where it was not.
    Renews,
    /// The hold is not renewed where it was.
    RenewsNot,
    /// The hold ends, or does not, without any of the above.
    HoldOtherwise,
    /// A grant or a renewal for another time.
    OtherTtl,
    /// Requests are denied that were not.
    Denies,
    /// Requests are not denied that were.
    DeniesNot,
    /// It fails, or is refused by the guard, where the other one was not.
    Fails,
    /// It does not fail where the other one did.
    FailsNot,
}

impl Kind {
    /// The kind in words, for a list of counts.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::OtherWinner => "somebody else gets the lease",
            Self::Grants => "somebody gets the lease where nobody did",
            Self::GrantsNot => "nobody gets the lease where somebody did",
            Self::Preempts => "an extra preemption",
            Self::PreemptsNot => "a preemption less",
            Self::PreemptsOtherwise => "a preemption for somebody else, or in another way",
            Self::Renews => "an extra renewal",
            Self::RenewsNot => "a renewal less",
            Self::HoldOtherwise => "the hold ends otherwise",
            Self::OtherTtl => "a grant or a renewal for another time",
            Self::Denies => "an extra denial",
            Self::DeniesNot => "a denial less",
            Self::Fails => "it fails or is vetoed",
            Self::FailsNot => "it no longer fails or is vetoed",
        }
    }
}

/// In what the second decision differs from the first one; `None` is one that could not be made.
///
/// What counts is what a decision does to the hold and the requests; words, state and wake-ups do not.
#[must_use]
pub fn differences(was: Option<&Decision>, would_be: Option<&Decision>) -> Vec<Kind> {
    let (was, would_be) = match (was, would_be) {
        (Some(was), Some(would_be)) => (was, would_be),
        (Some(_), None) => return vec![Kind::Fails],
        (None, Some(_)) => return vec![Kind::FailsNot],
        (None, None) => return Vec::new(),
    };
    let mut kinds = Vec::new();
    match (was.grant, would_be.grant) {
        (None, None) => {}
        (None, Some(_)) => kinds.push(Kind::Grants),
        (Some(_), None) => kinds.push(Kind::GrantsNot),
        (Some(Grant { request: a, .. }), Some(Grant { request: b, .. })) if a != b => kinds.push(Kind::OtherWinner),
        (Some(Grant { ttl: a, .. }), Some(Grant { ttl: b, .. })) if a != b => kinds.push(Kind::OtherTtl),
        (Some(_), Some(_)) => {}
    }
    match (was.hold, would_be.hold) {
        (a, b) if a == b => {}
        (HoldAction::Preempt { .. }, HoldAction::Preempt { .. }) => kinds.push(Kind::PreemptsOtherwise),
        (HoldAction::Renew { .. }, HoldAction::Renew { .. }) => kinds.push(Kind::OtherTtl),
        (a, b) => {
            let preempts = |action| matches!(action, HoldAction::Preempt { .. });
            let renews = |action| matches!(action, HoldAction::Renew { .. });
            for (is, kind) in [
                (preempts(b), Kind::Preempts),
                (preempts(a), Kind::PreemptsNot),
                (renews(b), Kind::Renews),
                (renews(a), Kind::RenewsNot),
                (!preempts(a) && !preempts(b) && !renews(a) && !renews(b), Kind::HoldOtherwise),
            ] {
                if is {
                    kinds.push(kind);
                }
            }
        }
    }
    let denies = |decision: &Decision, request: usize| decision.deny.iter().any(|denial| denial.request == request);
    if would_be.deny.iter().any(|denial| !denies(was, denial.request)) {
        kinds.push(Kind::Denies);
    }
    if was.deny.iter().any(|denial| !denies(would_be, denial.request)) {
        kinds.push(Kind::DeniesNot);
    }
    kinds
}

/// What a decision does, with the names of holders, and its reason. Of denials the first one is named:
/// there may be hundreds.
///
/// `span` writes a duration in milliseconds: how it is written is the business of the Kubernetes API.
#[must_use]
pub fn sentence(question: &Question, decision: &Decision, span: fn(i64) -> String) -> String {
    let name = |index: usize| question.requests.get(index).map_or("?", |r| r.holder.as_str());
    let mut parts = Vec::new();
    match decision.hold {
        HoldAction::Keep => {}
        HoldAction::Renew { ttl } => parts.push(format!("renews for {}", span(ttl.0))),
        HoldAction::Expire => parts.push("expires the hold".to_owned()),
        HoldAction::Preempt { in_favour_of, grace, force } => {
            let how = if force { "by force " } else { "" };
            parts.push(format!("preempts {how}for {} within {}", name(in_favour_of), span(grace.0)));
        }
    }
    if let Some(grant) = decision.grant {
        parts.push(format!("grants {} for {}", name(grant.request), span(grant.ttl.0)));
    }
    if let Some(first) = decision.deny.first() {
        let more = decision.deny.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        parts.push(format!("denies {}{more}", name(first.request)));
    }
    let what = if parts.is_empty() { "changes nothing".to_owned() } else { parts.join(", ") };
    if decision.reason.is_empty() { what } else { format!("{what} ({})", decision.reason) }
}

#[cfg(test)]
mod tests {
    use konductor_core::{Candidate, Denial, Millis};

    use super::*;

    #[test]
    fn a_decision_is_told_with_names() {
        let candidate =
            |holder: &str| Candidate { uid: holder.to_owned(), holder: holder.to_owned(), ..Candidate::default() };
        let question =
            Question { requests: ["a", "b", "c"].map(candidate).to_vec(), waiting: 3, ..Question::default() };
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
                "expires the hold, grants b for 90000 ms (newest)",
            ),
            (
                Decision {
                    hold: HoldAction::Preempt { in_favour_of: 2, grace: Millis(5_000), force: true },
                    deny: vec![deny(0), deny(1)],
                    ..Decision::default()
                },
                "preempts by force for c within 5000 ms, denies a and 1 more",
            ),
        ] {
            assert_eq!(sentence(&question, &decision, |ms| format!("{ms} ms")), expected);
        }
    }

    #[test]
    fn what_two_decisions_differ_in_is_named() {
        let deny = |all: &[usize]| Decision {
            deny: all.iter().map(|&request| Denial { request, reason: String::new() }).collect(),
            ..Decision::default()
        };
        let grant = |request, ttl| Decision { grant: Some(Grant { request, ttl: Millis(ttl) }), ..Decision::default() };
        let hold = |hold| Decision { hold, ..Decision::default() };
        let renew = |ttl| hold(HoldAction::Renew { ttl: Millis(ttl) });
        let preempt = |in_favour_of| hold(HoldAction::Preempt { in_favour_of, grace: Millis(5), force: false });
        let (nothing, expire) = (Decision::default(), hold(HoldAction::Expire));
        let spoken = Decision {
            reason: "why".to_owned(),
            state: Some("s".to_owned()),
            wake_in: Some(Millis(5)),
            ..Decision::default()
        };
        for (was, would_be, there, back) in [
            (&nothing, &spoken, &[][..], &[][..]),
            (&deny(&[0, 1]), &deny(&[1, 0]), &[], &[]),
            (&deny(&[0]), &deny(&[0, 1]), &[Kind::Denies], &[Kind::DeniesNot]),
            (&nothing, &grant(0, 5), &[Kind::Grants], &[Kind::GrantsNot]),
            (&grant(0, 5), &grant(1, 5), &[Kind::OtherWinner], &[Kind::OtherWinner]),
            (&grant(0, 5), &grant(0, 6), &[Kind::OtherTtl], &[Kind::OtherTtl]),
            (&nothing, &renew(5), &[Kind::Renews], &[Kind::RenewsNot]),
            (&renew(5), &renew(6), &[Kind::OtherTtl], &[Kind::OtherTtl]),
            (&renew(5), &preempt(0), &[Kind::Preempts, Kind::RenewsNot], &[Kind::PreemptsNot, Kind::Renews]),
            (&preempt(0), &preempt(1), &[Kind::PreemptsOtherwise], &[Kind::PreemptsOtherwise]),
            (&nothing, &expire, &[Kind::HoldOtherwise], &[Kind::HoldOtherwise]),
        ] {
            assert_eq!(differences(Some(was), Some(would_be)), there, "{was:?} and {would_be:?}");
            assert_eq!(differences(Some(would_be), Some(was)), back, "{would_be:?} and {was:?}");
        }
        assert_eq!(differences(Some(&nothing), None), [Kind::Fails]);
        assert_eq!(differences(None, Some(&nothing)), [Kind::FailsNot]);
        assert_eq!(differences(None, None), []);
    }
}
