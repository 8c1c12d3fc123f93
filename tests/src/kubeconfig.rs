//! Kubeconfig files, and clients made from them.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// The text of a kubeconfig: one server, verified by a certificate authority, and a token.
#[must_use]
pub fn text(server: &str, ca_pem: &str, user: &str, token: &str, namespace: &str) -> String {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    // JSON is YAML, and needs no care about quoting.
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "konductor",
        "clusters": [{"name": "konductor", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "konductor", "context": {"cluster": "konductor", "user": user, "namespace": namespace}}],
    });
    serde_yaml::to_string(&config).unwrap_or_else(|_| config.to_string())
}

/// A client as a kubeconfig file says.
///
/// # Errors
/// If the file says nothing that a client can be made from.
pub async fn client(path: &Path) -> Result<Client> {
    let shown = path.display();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("cannot read {shown}"))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("{shown} is not usable"))?;
    // Everything is on loopback.
    config.proxy_url = None;
    konductor_connect::client(config).with_context(|| format!("cannot make a client from {shown}"))
}
