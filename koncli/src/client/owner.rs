//! The Pod that this process runs in, as the owner of its requests: a deleted Pod can hold or wait for nothing.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Api;

use super::connect::Connection;

/// What was found out about the owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// The owner, if there is one.
    pub reference: Option<OwnerReference>,
    /// How it was found, or why there is none.
    pub why: String,
}

impl Owner {
    fn none(why: impl Into<String>) -> Self {
        Self { reference: None, why: why.into() }
    }

    fn pod(name: &str, uid: &str, why: &str) -> Self {
        let reference = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        Self { reference: Some(reference), why: why.to_owned() }
    }
}

const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Nobody waits for long for something that is only good to have.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the Pod that this process runs in, without asking the API server where that can be avoided.
///
/// An owner in another namespace or another cluster would be worse than none: the garbage collector
/// deletes what belongs to an owner that it cannot find. So it counts only where it is known to be
/// right. Not finding one is never an error.
pub async fn find_owner(connection: &Connection, variable: impl Fn(&str) -> Option<String>) -> Owner {
    find(connection, variable, |path| std::fs::read_to_string(path).ok()).await
}

/// The same, with the environment and the files as arguments.
async fn find(
    connection: &Connection,
    variable: impl Fn(&str) -> Option<String>,
    file: impl Fn(&str) -> Option<String>,
) -> Owner {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    // Every container has it. Variables alone may be copied from a Pod's.
    if set("KUBERNETES_SERVICE_HOST").is_none() {
        return Owner::none("not in a Pod");
    }
    let own = set("POD_NAMESPACE").or_else(|| file(NAMESPACE_FILE).map(|text| text.trim().to_owned()));
    if let Some(own) = own.as_ref().filter(|own| **own != connection.namespace) {
        return Owner::none(format!("the Pod is in namespace {own}, the lease is not"));
    }
    let (named, uid) = (set("POD_NAME"), set("POD_UID"));
    if connection.in_cluster {
        // A bound token names its Pod. The API server that accepts it has checked that it is true.
        if let Some(claim) = file(TOKEN_FILE).and_then(|token| pod_claim(&token)) {
            return if claim.namespace == connection.namespace {
                Owner::pod(&claim.name, &claim.uid, "from the service account token")
            } else {
                Owner::none(format!("the Pod is in namespace {}, the lease is not", claim.namespace))
            };
        }
        if let (Some(name), Some(uid), Some(_)) = (&named, &uid, &own) {
            return Owner::pod(name, uid, "from POD_NAME and POD_UID");
        }
    }
    // A kubeconfig may lead to another cluster: there, the API server has to know the Pod.
    let (name, variable) = match (named, set("HOSTNAME")) {
        (Some(name), _) => (name, "POD_NAME"),
        (None, Some(name)) => (name, "HOSTNAME"),
        (None, None) => return Owner::none("in a Pod, and HOSTNAME is not set"),
    };
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    match tokio::time::timeout(LOOK_TIMEOUT, pods.get_metadata(&name)).await {
        Ok(Ok(pod)) => match (pod.metadata.uid, uid) {
            (None, _) => Owner::none(format!("pod {name} has no uid")),
            (Some(found), Some(uid)) if found != uid => {
                Owner::none(format!("pod {name} of that API server has the uid {found}, and POD_UID is {uid}"))
            }
            (Some(found), _) => Owner::pod(&name, &found, &format!("from the Pod named as {variable}")),
        },
        Ok(Err(error)) => Owner::none(format!("get pods/{name}: {error}")),
        Err(_) => Owner::none(format!("get pods/{name} took more than {} s", LOOK_TIMEOUT.as_secs())),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct PodClaim {
    namespace: String,
    name: String,
    uid: String,
}

/// The Pod that a service account token is bound to. The signature is the API server's to check.
fn pod_claim(token: &str) -> Option<PodClaim> {
    let payload = base64url(token.trim().split('.').nth(1)?)?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let kubernetes = claims.get("kubernetes.io")?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Some(PodClaim {
        namespace: text(kubernetes.get("namespace")?)?,
        name: text(kubernetes.get("pod")?.get("name")?)?,
        uid: text(kubernetes.get("pod")?.get("uid")?)?,
    })
}

/// Decodes base64 in its URL alphabet, without padding, as in a token.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::scripted;

    /// A way to an API server that knows the Pod `p` with the uid `u`.
    fn connection(in_cluster: bool) -> Connection {
        let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let pod =
                r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"p","uid":"u"}}"#;
            let (code, body) = match request.uri().path() {
                "/api/v1/namespaces/prod/pods/p" => (200, pod.to_owned()),
                _ => (404, scripted::status(404)),
            };
            let answer = http::Response::builder().status(code).body(kube::client::Body::from(body.into_bytes()));
            answer.map_err(std::io::Error::other)
        });
        Connection {
            client: kube::Client::new(service, "prod"),
            namespace_from: String::new(),
            namespace: "prod".to_owned(),
            server: "http://test".to_owned(),
            in_cluster,
        }
    }

    /// {"kubernetes.io":{"namespace":"prod","pod":{"name":"p","uid":"u"}}}
    const PAYLOAD: &str = "eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InByb2QiLCJwb2QiOnsibmFtZSI6InAiLCJ1aWQiOiJ1In19fQ";

    #[tokio::test]
    async fn an_owner_is_named_only_where_it_is_known_to_be_right() {
        let token = format!("x.{PAYLOAD}.y");
        let in_pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let (name, uid, host) = (("POD_NAME", "p"), ("POD_UID", "u"), ("HOSTNAME", "p"));
        let (here, elsewhere) = (("POD_NAMESPACE", "prod"), ("POD_NAMESPACE", "other"));
        let (file_here, file_elsewhere) = ((NAMESPACE_FILE, "prod\n"), (NAMESPACE_FILE, "other"));
        // By its service account or not, the variables, the files, and what is found.
        for (in_cluster, variables, files, owner, why) in [
            (false, &[][..], &[][..], None, "not in a Pod"),
            (false, &[name, uid, here], &[], None, "not in a Pod"),
            (false, &[in_pod], &[], None, "HOSTNAME is not set"),
            (false, &[in_pod, name, uid, elsewhere], &[], None, "in namespace other"),
            (true, &[in_pod, name, uid, elsewhere], &[], None, "in namespace other"),
            (true, &[in_pod, name, uid], &[file_elsewhere], None, "in namespace other"),
            (true, &[in_pod, ("POD_NAME", "q"), ("POD_UID", "v"), here], &[], Some("v"), "from POD_NAME and POD_UID"),
            (
                true,
                &[in_pod, ("POD_NAME", "q"), ("POD_UID", "v")],
                &[file_here],
                Some("v"),
                "from POD_NAME and POD_UID",
            ),
            // Its namespace is not known, so the API server has to know it, and does not.
            (true, &[in_pod, ("POD_NAME", "q"), ("POD_UID", "v")], &[], None, "get pods/q: "),
            (true, &[in_pod], &[(TOKEN_FILE, token.as_str())], Some("u"), "from the service account token"),
            // A kubeconfig may lead to another cluster, where there is no such Pod, or another one of that name.
            (false, &[in_pod, ("POD_NAME", "q"), ("POD_UID", "v"), here], &[], None, "get pods/q: "),
            (false, &[in_pod, name, ("POD_UID", "v"), here], &[], None, "has the uid u, and POD_UID is v"),
            (false, &[in_pod, name, uid], &[], Some("u"), "the Pod named as POD_NAME"),
            (false, &[in_pod, name, uid, here], &[], Some("u"), "the Pod named as POD_NAME"),
            (false, &[in_pod, host], &[], Some("u"), "the Pod named as HOSTNAME"),
            (false, &[in_pod, host], &[file_elsewhere], None, "in namespace other"),
            (false, &[in_pod, ("HOSTNAME", "q")], &[(TOKEN_FILE, token.as_str())], None, "get pods/q: "),
        ] {
            let of = |all: &[(&str, &str)], name: &str| {
                all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let found = find(&connection(in_cluster), |name| of(variables, name), |path| of(files, path)).await;
            let case = format!("{in_cluster} {variables:?} {files:?}: {}", found.why);
            assert_eq!(found.reference.map(|reference| reference.uid).as_deref(), owner, "{case}");
            assert!(found.why.contains(why), "{case}");
        }
    }

    #[test]
    fn a_token_names_its_pod() {
        let claim = PodClaim { namespace: "prod".into(), name: "p".into(), uid: "u".into() };
        assert_eq!(pod_claim(&format!("x.{PAYLOAD}.y\n")), Some(claim));
        for token in ["", "x", "x.!.y", "x.e30.y"] {
            assert_eq!(pod_claim(token), None, "{token}");
        }
    }
}
