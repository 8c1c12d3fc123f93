//! What can go wrong, said so that a person knows what to do and a script knows what happened.

mod access;

use std::{fmt, time::Duration};

use konductor_crds::{Lease, v1::LeasePhase};

pub use access::Access;

/// The result of everything in this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A command of the client that did not succeed: what was attempted, why it failed, what to do, and
/// the cause as it was reported.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    doing: String,
    problem: Problem,
    notes: Vec<String>,
    cause: Option<Cause>,
}

impl Error {
    /// An error of `doing`, which completes the sentence "cannot …".
    #[must_use]
    pub fn new(doing: impl Into<String>, problem: Problem) -> Self {
        Self(Box::new(Inner { doing: doing.into(), problem, notes: Vec::new(), cause: None }))
    }

    /// The same, with what an API call reported.
    #[must_use]
    pub fn from_call(doing: impl Into<String>, failure: CallFailure) -> Self {
        let (problem, cause) = failure.explain();
        let refused = cause.as_ref().map(ToString::to_string).unwrap_or_default();
        let grants = match &problem {
            Problem::Forbidden { access } => access::grants(&refused, *access),
            _ => None,
        };
        let error = Self(Box::new(Inner { doing: doing.into(), problem, notes: Vec::new(), cause }));
        match grants {
            Some(command) => error.with_note(format!("who may grant it says: {command}")),
            None => error,
        }
    }

    /// Adds something that the reader should know beside the problem.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// The same, of a command that asks no cluster: what fails on this machine is a plain failure of it. Of the
    /// others that would mean "not acquired", so there it has the exit code of "no answer".
    #[must_use]
    pub(crate) fn without_cluster(mut self) -> Self {
        if let Problem::Local(why) = &mut self.0.problem {
            self.0.problem = Problem::Failed(std::mem::take(why));
        }
        self
    }

    /// What happened.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The exit code that a command ends with because of this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.0.problem.exit_code()
    }

    /// What to do about it, one step a line, and what else there is to know.
    #[must_use]
    pub fn help(&self) -> Vec<String> {
        let mut lines = self.0.problem.help();
        lines.extend(self.0.notes.iter().cloned());
        lines
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.0.doing, self.0.problem)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static))
    }
}

/// What happened. Every variant has one exit code, see [`Problem::exit_code`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// An argument is not understood.
    Invalid(String),
    /// Somebody else holds the lease, or it was not granted in time.
    NotAcquired {
        /// Why it was not granted.
        why: String,
        /// What is known of the lease.
        lease: Box<LeaseSeen>,
    },
    /// The holder that was named does not hold the lease.
    NotHolder {
        /// What is known of the lease.
        lease: Box<LeaseSeen>,
    },
    /// The lease was held and is not any more.
    Lost {
        /// How it was lost.
        how: String,
    },
    /// There is no lease of that name.
    NoSuchLease {
        /// The name that was asked for.
        name: String,
        /// The namespace that was looked in.
        namespace: String,
        /// Names of leases there that look like it.
        similar: Vec<String>,
    },
    /// There is no such object of another kind.
    NotFound(String),
    /// There is one already.
    AlreadyExists(String),
    /// The API server did not answer.
    Unreachable(String),
    /// It is not known where the API server is: no configuration, or one that cannot be used.
    NoCluster(String),
    /// The API server does not know the resources of konductor.io.
    NotInstalled,
    /// The API server works, but no controller acted.
    NoController {
        /// How long it was waited for.
        waited: Duration,
        /// What is left behind, and what will become of it.
        left: String,
    },
    /// The API server's access rules do not allow it.
    Forbidden {
        /// What is not allowed, as in RBAC.
        access: Access,
    },
    /// It is allowed in general, and not as it was asked for: a quota is exceeded, or an admission policy refuses it.
    NotAdmitted(String),
    /// The API server does not know who is asking.
    Unauthorized,
    /// The policy said no.
    Denied {
        /// Why, in the policy's or the controller's words.
        reason: String,
    },
    /// The API server refused it for a reason of its own.
    Refused(String),
    /// Something on this machine failed.
    Local(String),
    /// What was to be checked is not so: a test failed, a module is refused.
    Failed(String),
    /// The caller asked to stop.
    Stopped(Stop),
}

/// Why a caller wants to stop waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Why, for people: "interrupted".
    pub why: &'static str,
    /// The exit code that it should end with.
    pub exit_code: u8,
}

/// What a client saw of a lease that it does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Who holds it, if somebody does.
    pub holder: Option<String>,
    /// Until when, as the controller wrote it.
    pub expires: Option<String>,
}

impl LeaseSeen {
    /// What can be seen of a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        let Some(status) = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held)) else {
            return Self::default();
        };
        Self { holder: status.holder.clone().filter(|holder| !holder.is_empty()), expires: status.expires.clone() }
    }
}

impl fmt::Display for LeaseSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.holder, &self.expires) {
            (None, _) => write!(f, "nobody holds it"),
            (Some(holder), None) => write!(f, "{holder} holds it"),
            (Some(holder), Some(expires)) => write!(f, "{holder} holds it until {expires}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what)
            | Self::NotFound(what)
            | Self::AlreadyExists(what)
            | Self::NoCluster(what)
            | Self::Local(what)
            | Self::Failed(what) => f.write_str(what),
            Self::NotAcquired { why, lease } if lease.holder.is_none() => f.write_str(why),
            Self::NotAcquired { why, lease } => write!(f, "{why}, {lease}"),
            Self::NotHolder { lease } => write!(f, "not the holder, {lease}"),
            Self::Lost { how } => write!(f, "the lease is lost: {how}"),
            Self::NoSuchLease { name, namespace, .. } => {
                write!(f, "there is no lease \"{name}\" in namespace \"{namespace}\"")
            }
            Self::Unreachable(server) => write!(f, "the API server did not answer: {server}"),
            Self::NotInstalled => f.write_str(
                "Konductor Lease is not installed in this cluster: the API server does not know konductor.io/v1",
            ),
            Self::NoController { waited, left } => {
                write!(f, "no controller answered within {} s; {left}", waited.as_secs())
            }
            Self::Forbidden { access } => write!(f, "not allowed to {access}"),
            Self::NotAdmitted(why) => write!(f, "the cluster does not admit it: {why}"),
            Self::Unauthorized => f.write_str("the API server does not accept these credentials"),
            Self::Denied { reason } => write!(f, "denied by policy: {reason}"),
            Self::Refused(why) => write!(f, "the API server refused it: {why}"),
            Self::Stopped(stop) => f.write_str(stop.why),
        }
    }
}

impl Problem {
    /// 1 not acquired (held, or timed out), or another plain failure · 2 usage · 3 not the holder, or lost ·
    /// 4 no such lease · 5 API server or controller unreachable · 6 forbidden · 7 denied by policy.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAcquired { .. } | Self::AlreadyExists(_) | Self::Failed(_) => 1,
            Self::Invalid(_) => 2,
            Self::NotHolder { .. } | Self::Lost { .. } => 3,
            Self::NoSuchLease { .. } | Self::NotFound(_) => 4,
            Self::Unreachable(_)
            | Self::NoCluster(_)
            | Self::NotInstalled
            | Self::NoController { .. }
            | Self::Refused(_)
            | Self::Local(_) => 5,
            Self::Forbidden { .. } | Self::NotAdmitted(_) | Self::Unauthorized => 6,
            Self::Denied { .. } => 7,
            Self::Stopped(stop) => stop.exit_code,
        }
    }

    fn help(&self) -> Vec<String> {
        let lines: &[&str] = match self {
            Self::NoSuchLease { name, namespace, similar } => {
                let mut lines = vec![format!(
                    "if it is to be there: koncli lease create {name} -n {namespace} --ttl 10m (acquire and run make it with --create --ttl 10m)"
                )];
                if let Some(similar) = crate::text::similar_leases(similar) {
                    lines.insert(0, similar);
                }
                return lines;
            }
            Self::Forbidden { access } => {
                let enough = if access.only_looks() { "; konductor-lease-viewer is enough to look" } else { "" };
                return vec![format!(
                    "ask for the ClusterRole {} in this namespace (it allows {}{enough}), or for a role with the verb \"{}\" on \"{}\"",
                    access.role(),
                    access.allows(),
                    access.verb,
                    access.resource
                )];
            }
            Self::NotInstalled => &[
                "install it: kubectl apply -k deploy (see deploy/README.md; before Kubernetes 1.30 with --validate=false), or ask the cluster's administrator",
                "if it is installed elsewhere, name that cluster with --context or --kubeconfig",
            ],
            Self::NoController { .. } => &[
                "check that the controller runs: kubectl get pods -A -l app.kubernetes.io/name=konductor-lease",
                "and what it says: kubectl logs -n konductor-system -l app.kubernetes.io/name=konductor-lease --tail=50",
            ],
            Self::Unreachable(_) => &[
                "check the cluster with: kubectl version; and which one is meant: --context, --kubeconfig, $KUBECONFIG",
            ],
            Self::NoCluster(_) => {
                &["name a kubeconfig with --kubeconfig or $KUBECONFIG, and a context of it with --context"]
            }
            Self::NotAdmitted(why) if why.contains("exceeded quota") => &[
                "wait until others are done, delete LeaseRequests that nobody needs, or ask for a larger ResourceQuota",
            ],
            Self::Unauthorized => &["log in again, or check the user of this kubeconfig context"],
            Self::Lost { .. } => &["stop what the lease protects; acquire it again to go on, with a new fencing token"],
            Self::NotAcquired { .. }
            | Self::NotHolder { .. }
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::Failed(_)
            | Self::NotAdmitted(_)
            | Self::Denied { .. }
            | Self::Refused(_)
            | Self::Local(_)
            | Self::Stopped(_) => &[],
        };
        lines.iter().map(|&line| line.to_owned()).collect()
    }
}

/// How a call to the API server failed.
#[derive(Debug)]
pub struct CallFailure {
    /// What was called.
    pub access: Access,
    /// What came back.
    pub kind: CallFailureKind,
}

/// See [`CallFailure`].
#[derive(Debug)]
pub enum CallFailureKind {
    /// An answer that says no, or none at all.
    Kube(kube::Error),
    /// No answer for this long.
    Silent(Duration),
}

impl CallFailure {
    /// The answer, if the API server gave one.
    #[must_use]
    pub fn status(&self) -> Option<&kube::core::Status> {
        match &self.kind {
            CallFailureKind::Kube(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    /// The named object is not there (and it is not the resource type or the namespace that is missing).
    #[must_use]
    pub fn is_object_missing(&self) -> bool {
        self.status().is_some_and(|status| missing(status) == Some(Missing::Object))
    }

    /// Another object has that name, or the object has changed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// Trying again may help: no answer, or an answer that says so.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        is_transient(match &self.kind {
            CallFailureKind::Kube(error) => error,
            CallFailureKind::Silent(_) => return true,
        })
    }

    /// Not allowed, or not known who asks.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(&self.kind, CallFailureKind::Kube(error) if is_refusal(error))
    }

    /// The API server may have done it although it did not say so.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self.status() {
            None => true,
            Some(status) => status.code >= 500,
        }
    }

    fn explain(self) -> (Problem, Option<Cause>) {
        let error = match self.kind {
            CallFailureKind::Silent(waited) => {
                return (Problem::Unreachable(format!("{} took more than {} s", self.access, waited.as_secs())), None);
            }
            CallFailureKind::Kube(error) => error,
        };
        let problem = match &error {
            kube::Error::Api(status) => match (missing(status), status.code) {
                (Some(Missing::Namespace(name)), _) => Problem::NotFound(format!("there is no namespace \"{name}\"")),
                (Some(Missing::Object), _) => Problem::NotFound(status.message.clone()),
                (Some(Missing::Resource), _) if self.access.is_ours() => Problem::NotInstalled,
                (_, 401) => Problem::Unauthorized,
                (_, 403) if is_admission(&status.message) => Problem::NotAdmitted(status.message.clone()),
                (_, 403) => Problem::Forbidden { access: self.access },
                (_, 400 | 422) => Problem::Invalid(status.message.clone()),
                (_, 409) if status.is_already_exists() => Problem::AlreadyExists(status.message.clone()),
                (_, 429 | 503 | 504) => Problem::Unreachable("it is overloaded or starting".to_owned()),
                _ => Problem::Refused(status.message.clone()),
            },
            kube::Error::Auth(_) => Problem::Unauthorized,
            kube::Error::SerdeError(_) => Problem::Refused("its answer is not understood".to_owned()),
            kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
                Problem::Local("the request cannot be built".to_owned())
            }
            other => Problem::Unreachable(root(other)),
        };
        // The message is the problem already in these; a cause would say it twice.
        let said = matches!(
            problem,
            Problem::Invalid(_)
                | Problem::NotAdmitted(_)
                | Problem::AlreadyExists(_)
                | Problem::NotFound(_)
                | Problem::Refused(_)
                | Problem::Unreachable(_)
        ) && matches!(error, kube::Error::Api(ref status) if status.code != 429 && status.code < 503);
        let cause: Option<Cause> = match error {
            _ if said => None,
            kube::Error::Api(status) => Some(status.message.clone().into()),
            // The innermost cause is the problem already; what is around it says nothing more.
            _ if matches!(problem, Problem::Unreachable(_)) => None,
            other => Some(Box::new(other)),
        };
        (problem, cause)
    }
}

/// Whether a 403 comes from admission, and no role would help. RBAC says who cannot do what to which resource.
fn is_admission(message: &str) -> bool {
    message.contains("exceeded quota")
        || message.contains("ValidatingAdmissionPolicy")
        || message.contains("admission webhook")
}

/// The innermost cause of an error: "Connection refused" and not "client error (Connect)".
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Not allowed, or not known who asks.
pub(crate) fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
}

/// Trying again may help.
pub(crate) fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 410 | 429) || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Object,
    Namespace(String),
    Resource,
}

/// A 404 has three meanings: the object, its namespace or its type is not there.
fn missing(status: &kube::core::Status) -> Option<Missing> {
    if status.code != 404 {
        return None;
    }
    let details = status.details.as_ref();
    match details {
        Some(details) if details.kind == "namespaces" => Some(Missing::Namespace(details.name.clone())),
        Some(details) if !details.name.is_empty() => Some(Missing::Object),
        _ => Some(Missing::Resource),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, reason: &str, message: &str, details: Option<(&str, &str)>) -> CallFailure {
        let mut status = Status::failure(message, reason).with_code(code);
        let details = details.map(|(kind, name)| serde_json::json!({ "kind": kind, "name": name }));
        status.details = details.map(|details| serde_json::from_value(details).expect("details"));
        CallFailure {
            access: Access::requests("create"),
            kind: CallFailureKind::Kube(kube::Error::Api(status.boxed())),
        }
    }

    #[test]
    fn every_answer_of_the_api_server_has_its_exit_code_and_words() {
        for (failure, code, words) in [
            (api(403, "Forbidden", "user x cannot", None), 6, "not allowed to create leaserequests.konductor.io"),
            (api(401, "Unauthorized", "Unauthorized", None), 6, "does not accept these credentials"),
            (
                api(403, "Forbidden", "leaserequests \"r\" is forbidden: exceeded quota: q", None),
                6,
                "does not admit it: leaserequests \"r\" is forbidden: exceeded quota",
            ),
            (
                api(403, "Forbidden", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", None),
                6,
                "does not admit it: ValidatingAdmissionPolicy 'p'",
            ),
            (api(404, "NotFound", "the server could not find the requested resource", None), 5, "not installed"),
            (api(404, "Failed to parse error data", "404 page not found", None), 5, "not installed"),
            (api(404, "NotFound", "leases \"x\" not found", Some(("leases", "x"))), 4, "leases \"x\" not found"),
            (api(404, "NotFound", "namespaces \"x\" not found", Some(("namespaces", "x"))), 4, "no namespace \"x\""),
            (api(422, "Invalid", "spec.ttl: bad", None), 2, "spec.ttl: bad"),
            (api(409, "AlreadyExists", "exists", None), 1, "exists"),
            (api(429, "TooManyRequests", "slow down", None), 5, "overloaded"),
            (api(500, "InternalError", "etcd", None), 5, "etcd"),
            (
                CallFailure { access: Access::leases("get"), kind: CallFailureKind::Silent(Duration::from_secs(10)) },
                5,
                "get leases.konductor.io took more than 10 s",
            ),
        ] {
            let error = Error::from_call("acquire lease \"x\"", failure);
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.to_string().starts_with("cannot acquire lease \"x\": "), "{error}");
        }
    }

    #[test]
    fn forbidden_names_the_role_and_the_verb() {
        let error = Error::from_call("acquire", api(403, "Forbidden", "User \"x\" cannot create resource", None));
        let help = error.help().join("\n");
        assert!(
            help.contains("konductor-lease-user") && help.contains("\"create\" on \"leaserequests.konductor.io\""),
            "{help}"
        );
        assert!(std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("User \"x\"")));
        for (access, role) in [
            (Access::leases("create"), "konductor-lease-user"),
            (Access::leases("list"), "konductor-lease-viewer is enough to look"),
            (Access::lease_status("patch"), "konductor-lease-operator"),
            (Access::config_maps("create"), "konductor-policy-author"),
        ] {
            let help = Problem::Forbidden { access }.help().join("\n");
            assert!(help.contains(role), "{help}");
        }
    }

    #[test]
    fn a_missing_lease_says_how_to_create_it_and_what_is_near() {
        let problem = Problem::NoSuchLease {
            name: "db-migratoin".into(),
            namespace: "prod".into(),
            similar: vec!["db-migration".into()],
        };
        let error = Error::new("acquire", problem);
        let help = error.help().join("\n");
        assert!(
            help.contains("koncli lease create db-migratoin -n prod --ttl 10m") && help.contains("--create"),
            "{help}"
        );
        assert!(help.contains("similar name there: db-migration"), "{help}");
        assert_eq!(error.exit_code(), 4);
    }
}
