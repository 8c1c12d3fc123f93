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
/// Nobody waits for long for something that is only good to have.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the Pod that this process runs in, without asking the API server where that can be avoided.
///
/// An owner in another namespace or another cluster would be worse than none: the garbage collector
/// deletes what belongs to an owner that it cannot find. So it counts only where it is known to be
/// right. Not finding one is never an error.
pub async fn find_owner(connection: &Connection, variable: impl Fn(&str) -> Option<String>) -> Owner {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let (Some(name), Some(uid)) = (set("POD_NAME"), set("POD_UID")) {
        return match set("POD_NAMESPACE") {
            Some(namespace) if namespace != connection.namespace => {
                Owner::none(format!("the Pod is in namespace {namespace}, the lease is not"))
            }
            _ => Owner::pod(&name, &uid, "from POD_NAME and POD_UID"),
        };
    }
    if set("KUBERNETES_SERVICE_HOST").is_none() {
        return Owner::none("not in a Pod");
    }
    if connection.in_cluster {
        // A bound token names its Pod. The API server that accepts it has checked that it is true.
        if let Some(claim) = std::fs::read_to_string(TOKEN_FILE).ok().and_then(|token| pod_claim(&token)) {
            return if claim.namespace == connection.namespace {
                Owner::pod(&claim.name, &claim.uid, "from the service account token")
            } else {
                Owner::none(format!("the Pod is in namespace {}, the lease is not", claim.namespace))
            };
        }
    }
    let Some(name) = set("HOSTNAME") else {
        return Owner::none("in a Pod, and HOSTNAME is not set");
    };
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    match tokio::time::timeout(LOOK_TIMEOUT, pods.get_metadata(&name)).await {
        Ok(Ok(pod)) => match pod.metadata.uid {
            Some(uid) => Owner::pod(&name, &uid, "from the Pod named as HOSTNAME"),
            None => Owner::none(format!("pod {name} has no uid")),
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

    fn connection(namespace: &str) -> Connection {
        let service = tower::service_fn(|_request: hyper_request::Request| async {
            Err::<hyper_request::Response, _>(std::io::Error::other("no API server in this test"))
        });
        Connection {
            client: kube::Client::new(service, namespace),
            namespace_from: String::new(),
            namespace: namespace.to_owned(),
            server: "http://test".to_owned(),
            in_cluster: false,
        }
    }

    mod hyper_request {
        pub(super) type Request = http::Request<kube::client::Body>;
        pub(super) type Response = http::Response<kube::client::Body>;
    }

    #[tokio::test]
    async fn an_owner_is_named_only_where_it_is_known_to_be_right() {
        for (variables, owner, why) in [
            (&[][..], None, "not in a Pod"),
            (&[("POD_NAME", "p"), ("POD_UID", "u")], Some("u"), "POD_UID"),
            (&[("POD_NAME", "p"), ("POD_UID", "u"), ("POD_NAMESPACE", "prod")], Some("u"), "POD_UID"),
            (&[("POD_NAME", "p"), ("POD_UID", "u"), ("POD_NAMESPACE", "other")], None, "in namespace other"),
            (&[("POD_NAME", "p")], None, "not in a Pod"),
            (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], None, "HOSTNAME is not set"),
            (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "p")], None, "get pods/p: "),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let found = find_owner(&connection("prod"), variable).await;
            assert_eq!(found.reference.map(|reference| reference.uid).as_deref(), owner, "{variables:?}");
            assert!(found.why.contains(why), "{variables:?}: {}", found.why);
        }
    }

    #[test]
    fn a_token_names_its_pod() {
        // {"kubernetes.io":{"namespace":"prod","pod":{"name":"p","uid":"u"}}}
        let payload = "eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InByb2QiLCJwb2QiOnsibmFtZSI6InAiLCJ1aWQiOiJ1In19fQ";
        let claim = PodClaim { namespace: "prod".into(), name: "p".into(), uid: "u".into() };
        assert_eq!(pod_claim(&format!("x.{payload}.y\n")), Some(claim));
        for token in ["", "x", "x.!.y", "x.e30.y"] {
            assert_eq!(pod_claim(token), None, "{token}");
        }
    }
}
