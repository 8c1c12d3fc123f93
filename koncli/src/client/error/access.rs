//! What is or is not allowed, in the words of RBAC, and how it is granted.

use std::fmt;

/// What was done to what: the words of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// `get`, `list`, `watch`, `create`, `patch` or `delete`.
    pub verb: &'static str,
    /// The resource with its group: `leases.konductor.io`.
    pub resource: &'static str,
}

impl Access {
    /// A verb on Leases.
    #[must_use]
    pub const fn leases(verb: &'static str) -> Self {
        Self { verb, resource: "leases.konductor.io" }
    }

    /// A verb on the status of Leases.
    #[must_use]
    pub const fn lease_status(verb: &'static str) -> Self {
        Self { verb, resource: "leases.konductor.io/status" }
    }

    /// A verb on LeaseRequests.
    #[must_use]
    pub const fn requests(verb: &'static str) -> Self {
        Self { verb, resource: "leaserequests.konductor.io" }
    }

    /// A verb on ConfigMaps.
    #[must_use]
    pub const fn config_maps(verb: &'static str) -> Self {
        Self { verb, resource: "configmaps" }
    }

    /// A verb on Events.
    #[must_use]
    pub const fn events(verb: &'static str) -> Self {
        Self { verb, resource: "events" }
    }

    /// The ClusterRole of `deploy/` that has it.
    pub(super) fn role(&self) -> &'static str {
        match self.resource {
            "configmaps" | "events" => "konductor-policy-author",
            "leases.konductor.io/status" => "konductor-lease-operator",
            _ => "konductor-lease-user",
        }
    }

    /// What else that role is for.
    pub(super) fn allows(&self) -> &'static str {
        match self.resource {
            "configmaps" | "events" => "to upload policies",
            "leases.konductor.io/status" => "to release by force",
            _ => "what acquire, renew and release need",
        }
    }

    /// Whether it is about leases or requests.
    pub(super) fn is_ours(&self) -> bool {
        self.resource.contains("konductor.io")
    }

    /// Whether somebody who only looks may do it.
    pub(super) fn only_looks(&self) -> bool {
        self.is_ours() && matches!(self.verb, "get" | "list" | "watch")
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

/// The command that grants what the API server has refused, to whom and where it was refused:
/// `User "ana" cannot list resource … in the namespace "team"`.
pub(super) fn grants(refusal: &str, access: Access) -> Option<String> {
    let everywhere = refusal.contains("at the cluster scope");
    // Only looking is done everywhere; who looks in one namespace may want more there.
    let role = if everywhere && access.only_looks() { "konductor-lease-viewer" } else { access.role() };
    let quoted = |before: &str| {
        let (_, rest) = refusal.split_once(before)?;
        rest.split_once('"').map(|(text, _)| text).filter(|text| is_plain(text))
    };
    let user = quoted("User \"")?;
    let who = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    };
    match quoted("in the namespace \"") {
        Some(namespace) => Some(format!("kubectl create rolebinding {role} --clusterrole={role} {who} -n {namespace}")),
        None if everywhere => Some(format!("kubectl create clusterrolebinding {role} --clusterrole={role} {who}")),
        None => None,
    }
}

/// Whether a shell takes a text as it is: a name is not to run anything when it is pasted.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:@/+=".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_it_is_granted() {
        let refusal = |user: &str, place: &str| {
            format!(
                "leases.konductor.io is forbidden: User \"{user}\" cannot list resource \"leases\" in API group \"konductor.io\" {place}"
            )
        };
        const READS: Access = Access::leases("list");
        for (refusal, access, expected) in [
            (
                refusal("system:serviceaccount:team:bot", "in the namespace \"team\""),
                READS,
                Some(
                    "rolebinding konductor-lease-user --clusterrole=konductor-lease-user --serviceaccount=team:bot -n team",
                ),
            ),
            (
                refusal("ana", "in the namespace \"team\""),
                Access::lease_status("patch"),
                Some("rolebinding konductor-lease-operator --clusterrole=konductor-lease-operator --user=ana -n team"),
            ),
            (
                refusal("ana@example.org", "at the cluster scope"),
                READS,
                Some(
                    "clusterrolebinding konductor-lease-viewer --clusterrole=konductor-lease-viewer --user=ana@example.org",
                ),
            ),
            (refusal("ana", ""), READS, None),
            (refusal("$(reboot)", "in the namespace \"team\""), READS, None),
            ("no".to_owned(), READS, None),
        ] {
            let expected = expected.map(|rest| format!("kubectl create {rest}"));
            assert_eq!(grants(&refusal, access), expected, "{refusal}");
        }
    }
}
