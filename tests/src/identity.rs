//! Who acts: service accounts with the roles that `deploy/` ships, never the administrator.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::RoleBinding,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::{Cli, ControlPlane, Servers, binary, kubeconfig, pki};

/// A service account, as a person or a script: its client, and the tools run in its name.
pub struct User<'p> {
    plane: &'p ControlPlane,
    name: String,
    namespace: String,
    kubeconfig: PathBuf,
    client: Client,
}

impl<'p> User<'p> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that it is in, which is also the one its kubeconfig names.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Its client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// koncli in its name: `alice.koncli("lease acquire demo --holder a")`; the words are split at spaces.
    ///
    /// # Panics
    /// If koncli is not built.
    #[must_use]
    pub fn koncli(&self, words: &str) -> Cli {
        let path = binary("koncli").unwrap_or_else(|problem| panic!("{problem:#}"));
        Cli::new(self.plane, &path, &self.kubeconfig).words(words)
    }

    /// kubectl in its name.
    #[must_use]
    pub fn kubectl(&self, words: &str) -> Cli {
        Cli::new(self.plane, &self.plane.servers().kubectl(), &self.kubeconfig).words(words)
    }

    /// A bash script in its name, as in a Pod called `pod`: HOSTNAME is that name, koncli and kubectl are on PATH, and
    /// [`Cli::stand_in`] adds more.
    ///
    /// # Panics
    /// If koncli is not built.
    #[must_use]
    pub fn script(&self, pod: &str, text: &str) -> Cli {
        let koncli = binary("koncli").unwrap_or_else(|problem| panic!("{problem:#}"));
        Cli::new(self.plane, Path::new("bash"), &self.kubeconfig)
            .tool("koncli", &koncli)
            .tool("kubectl", &self.plane.servers().kubectl())
            .env("HOSTNAME", pod)
            .arg("-c")
            .arg(text)
    }
}

impl ControlPlane {
    /// koncli as the administrator.
    ///
    /// # Panics
    /// If koncli is not built.
    #[must_use]
    pub fn koncli(&self, words: &str) -> Cli {
        let path = binary("koncli").unwrap_or_else(|problem| panic!("{problem:#}"));
        Cli::new(self, &path, &self.admin_kubeconfig()).words(words)
    }

    /// A bash script as the administrator, with koncli on PATH.
    ///
    /// # Panics
    /// If koncli is not built.
    #[must_use]
    pub fn admin_script(&self, text: &str) -> Cli {
        let path = binary("koncli").unwrap_or_else(|problem| panic!("{problem:#}"));
        Cli::new(self, Path::new("bash"), &self.admin_kubeconfig()).tool("koncli", &path).arg("-c").arg(text)
    }

    /// A kubeconfig for a service account that exists, with a token that kube-apiserver has issued for it.
    ///
    /// # Panics
    /// If there is no such service account.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let path = self.servers().directory().join("users").join(format!("{namespace}.{name}.kubeconfig"));
        write_kubeconfig(self.admin(), self.servers(), namespace, name, &path)
            .await
            .unwrap_or_else(|problem| panic!("no kubeconfig for {namespace}/{name}: {problem:#}"));
        path
    }

    /// A new service account of a namespace, with these ClusterRoles bound in this namespace.
    ///
    /// # Panics
    /// If one of them cannot be made.
    pub async fn user(&self, namespace: &str, roles: &[&str]) -> User<'_> {
        let name = format!("user-{}", self.number());
        let user = async {
            make_user(self.admin(), namespace, &name, roles).await?;
            let kubeconfig = self.kubeconfig_for_service_account(namespace, &name).await;
            let client = kubeconfig::client(&kubeconfig).await?;
            Ok::<_, anyhow::Error>(User {
                plane: self,
                name: name.clone(),
                namespace: namespace.to_owned(),
                kubeconfig,
                client,
            })
        };
        user.await.unwrap_or_else(|problem| panic!("cannot make a user of {namespace}: {problem:#}"))
    }
}

/// Makes a service account, if there is none, and binds ClusterRoles to it in its namespace.
///
/// # Errors
/// If the server refuses, or a role does not exist.
pub async fn make_user(client: &Client, namespace: &str, name: &str, roles: &[&str]) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    tolerate_existing(accounts.create(&PostParams::default(), &account).await)?;
    let known: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(client.clone());
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    for role in roles {
        // A binding to a role that does not exist is accepted, and gives nothing.
        known.get(role).await.with_context(|| format!("there is no ClusterRole {role}"))?;
        let binding = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }))?;
        tolerate_existing(bindings.create(&PostParams::default(), &binding).await)?;
    }
    Ok(())
}

fn tolerate_existing<T>(outcome: kube::Result<T>) -> kube::Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(problem) => Err(problem),
    }
}

/// Writes a kubeconfig for a service account, with a token by TokenRequest that is valid for a year.
///
/// # Errors
/// If there is no such service account.
pub async fn write_kubeconfig(
    client: &Client,
    servers: &Servers,
    namespace: &str,
    name: &str,
    path: &Path,
) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(366 * 24 * 3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let issued = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    let token = issued.status.context("a token request is answered with a token")?.token;
    pki::write_private(path, &servers.kubeconfig(name, &token, namespace)?)
}
