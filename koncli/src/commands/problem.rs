//! What is wrong with a lease by its own conditions, for every command that shows leases.

use konductor_crds::{
    Lease,
    v1::reasons::{POLICY_READY, READY},
};
use serde::Serialize;

use crate::text::plain;

/// A condition that says that a lease does not work as it is meant to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// Ready or `PolicyReady`; it is False.
    pub(super) condition: &'static str,
    /// In one word, such as `InvalidSpec`.
    pub(super) reason: String,
    /// In a sentence.
    pub(super) message: String,
}

/// What is wrong with a lease, what is worst first. Held is no problem whatever it says.
pub(super) fn problems(lease: &Lease) -> Vec<Problem> {
    let conditions = lease.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    [READY, POLICY_READY]
        .into_iter()
        .filter_map(|type_| {
            let found = conditions.iter().find(|found| found.type_ == type_ && found.status == "False")?;
            let reason = found.reason.clone().filter(|reason| !reason.is_empty());
            Some(Problem {
                condition: type_,
                // A condition needs no reason; what is marked needs a word.
                reason: reason.unwrap_or_else(|| format!("{type_}=False")),
                message: found.message.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Their reasons, as one word.
pub(super) fn reasons_of(problems: &[Problem]) -> String {
    plain(&problems.iter().map(|problem| problem.reason.as_str()).collect::<Vec<_>>().join(","))
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = if self.message.is_empty() { "" } else { ": " };
        f.write_str(&plain(&format!("{}{why}{}", self.reason, self.message)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use konductor_crds::{
        LeaseSpec,
        v1::{Condition, LeasePhase},
    };

    use super::*;

    /// A free lease with conditions.
    pub(in crate::commands) fn lease(name: &str, conditions: &[[&str; 4]]) -> Lease {
        let mut lease = Lease::new(name, LeaseSpec { ttl: "10m".to_owned(), ..LeaseSpec::default() });
        lease.status.get_or_insert_default().phase = Some(LeasePhase::Available);
        with(lease, conditions)
    }

    /// The same lease with these conditions: type, status, reason, message.
    pub(in crate::commands) fn with(mut lease: Lease, conditions: &[[&str; 4]]) -> Lease {
        lease.status.get_or_insert_default().conditions = conditions
            .iter()
            .map(|&[type_, status, reason, message]| Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                ..Condition::default()
            })
            .collect();
        lease
    }

    #[test]
    fn only_what_stands_in_the_way_is_a_problem() {
        let fine = [["Held", "False", "LeaseAvailable", ""], ["Ready", "True", "LeaseReady", ""]];
        assert!(problems(&lease("x", &fine)).is_empty());
        let bad = lease(
            "x",
            &[
                ["PolicyReady", "False", "PolicyNotFound", "no p"],
                ["Ready", "False", "InvalidSpec", "spec.ttl\nis bad"],
            ],
        );
        let found = problems(&bad);
        assert_eq!(reasons_of(&found), "InvalidSpec,PolicyNotFound");
        assert_eq!(found[0].to_string(), "InvalidSpec: spec.ttl is bad");
        assert_eq!(reasons_of(&problems(&lease("x", &[["Ready", "False", "", ""]]))), "Ready=False");
    }
}
