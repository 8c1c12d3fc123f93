//! The servers of a control plane: their files and their flags. Who runs them is the business of [`crate::ControlPlane`]
//! for tests and of `konductor-dev` for `make up`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::Client;

use crate::{kubeconfig, pki, wait};

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Where everything is kept.
    Etcd,
    /// The API.
    Apiserver,
    /// Garbage collection, namespaces, Jobs and CronJobs.
    ControllerManager,
}

impl Server {
    /// The name of its binary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// The version of Kubernetes: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Asks a Kubernetes binary.
    ///
    /// # Errors
    /// If it does not say.
    pub fn of(binary: &Path) -> Result<Self> {
        let output = Command::new(binary)
            .arg("--version")
            .output()
            .with_context(|| format!("{} does not run", binary.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Self::parse(&said).with_context(|| format!("{} --version says {said:?}", binary.display()))
    }

    /// Reads `Kubernetes v1.20.2`.
    fn parse(said: &str) -> Option<Self> {
        let mut numbers = said.trim().rsplit('v').next()?.split('.');
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The TCP ports of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ports {
    /// etcd, for clients.
    pub etcd: u16,
    /// etcd, for other members, of which there are none.
    pub peer: u16,
    /// kube-apiserver.
    pub apiserver: u16,
}

/// The files and flags of one control plane in one directory.
#[derive(Debug, Clone)]
pub struct Servers {
    binaries: PathBuf,
    directory: PathBuf,
    version: Version,
    ports: Ports,
    more_apiserver_flags: Vec<String>,
}

const ADMIN: &str = "admin";

impl Servers {
    /// Describes a control plane in `directory` that runs the binaries of `binaries` on `ports`, and writes the files
    /// that are not there yet: keys, tokens, the administrator's kubeconfig.
    ///
    /// # Errors
    /// If the directory cannot be written, or a binary does not run.
    pub fn prepare(binaries: &Path, directory: &Path, ports: Ports) -> Result<Self> {
        let servers = Self {
            binaries: binaries.to_path_buf(),
            directory: directory.to_path_buf(),
            version: Version::of(&binaries.join(Server::Apiserver.name()))?,
            ports,
            more_apiserver_flags: Vec::new(),
        };
        for sub in ["pki", "logs", "users", "home"] {
            let sub = directory.join(sub);
            std::fs::create_dir_all(&sub).with_context(|| format!("cannot make {}", sub.display()))?;
        }
        if !servers.pki(pki::ACCOUNT_PUB).exists() {
            pki::make(&directory.join("pki"))?;
            // kube-apiserver's format: token, user, uid, groups.
            let token = random_token()?;
            pki::write_private(&servers.pki("tokens.csv"), &format!("{token},{ADMIN},{ADMIN},system:masters\n"))?;
        }
        let tokens = std::fs::read_to_string(servers.pki("tokens.csv")).context("cannot read tokens.csv")?;
        let token = tokens.split(',').next().unwrap_or_default();
        pki::write_private(&servers.admin_kubeconfig(), &servers.kubeconfig(ADMIN, token, "default")?)?;
        Ok(servers)
    }

    /// Adds flags to kube-apiserver's.
    #[must_use]
    pub fn with_apiserver_flags(mut self, flags: &[String]) -> Self {
        self.more_apiserver_flags.extend_from_slice(flags);
        self
    }

    /// The version of Kubernetes.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of kubectl.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.binaries.join("kubectl")
    }

    /// The kubeconfig of the administrator.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// The log of a server.
    #[must_use]
    pub fn log(&self, server: Server) -> PathBuf {
        self.directory.join("logs").join(format!("{}.log", server.name()))
    }

    /// The URL of etcd, which has no rights management: whoever reaches it may do everything.
    #[must_use]
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    /// The port of kube-apiserver.
    #[must_use]
    pub fn apiserver_port(&self) -> u16 {
        self.ports.apiserver
    }

    /// A kubeconfig for a token.
    ///
    /// # Errors
    /// If the certificate authority's file cannot be read.
    pub fn kubeconfig(&self, user: &str, token: &str, namespace: &str) -> Result<String> {
        let ca = std::fs::read_to_string(self.pki(pki::CA)).context("cannot read the certificate authority")?;
        Ok(kubeconfig::text(&format!("https://127.0.0.1:{}", self.ports.apiserver), &ca, user, token, namespace))
    }

    /// The private key that service accounts' tokens are signed with.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn account_key(&self) -> String {
        std::fs::read_to_string(self.pki(pki::ACCOUNT_KEY)).unwrap_or_else(|problem| panic!("no key: {problem}"))
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.directory.join("pki").join(name)
    }

    /// The command that runs a server.
    #[must_use]
    pub fn command(&self, server: Server) -> Command {
        let mut command = Command::new(self.binaries.join(server.name()));
        command.current_dir(&self.directory).env("HOME", self.directory.join("home")).args(match server {
            Server::Etcd => self.etcd(),
            Server::Apiserver => self.apiserver(),
            Server::ControllerManager => self.controller_manager(),
        });
        command
    }

    fn etcd(&self) -> Vec<String> {
        let client = self.etcd_url();
        let peer = format!("http://127.0.0.1:{}", self.ports.peer);
        vec![
            "--name=konductor".into(),
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=konductor={peer}"),
            // A killed process loses nothing without it, only a killed machine does.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ]
    }

    fn apiserver(&self) -> Vec<String> {
        let pki = |name| self.pki(name).display().to_string();
        let mut flags = vec![
            format!("--etcd-servers={}", self.etcd_url()),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={}", self.ports.apiserver),
            format!("--tls-cert-file={}", pki(pki::SERVING_CERT)),
            format!("--tls-private-key-file={}", pki(pki::SERVING_KEY)),
            format!("--token-auth-file={}", pki("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            // It insists on a token secret in every Pod, which no controller makes here.
            "--disable-admission-plugins=ServiceAccount".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki(pki::ACCOUNT_PUB)),
            format!("--service-account-signing-key-file={}", pki(pki::ACCOUNT_KEY)),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            // Nobody connects to the Service "kubernetes", and its endpoint could not be a loopback address.
            "--endpoint-reconciler-type=none".into(),
        ];
        if self.version < Version(1, 24) {
            flags.push("--insecure-port=0".into());
        }
        flags.extend_from_slice(&self.more_apiserver_flags);
        flags
    }

    fn controller_manager(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--kubeconfig={}", self.admin_kubeconfig().display()),
            format!("--service-account-private-key-file={}", self.pki(pki::ACCOUNT_KEY).display()),
            format!("--root-ca-file={}", self.pki(pki::CA).display()),
            "--leader-elect=false".into(),
            // It serves nothing that anybody asks for here.
            "--secure-port=0".into(),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
        ];
        if self.version < Version(1, 24) {
            flags.push("--port=0".into());
        }
        flags
    }

    /// Waits until etcd answers. `alive` fails when the process has ended.
    ///
    /// # Errors
    /// If it does not in `most`, or `alive` fails.
    pub async fn etcd_ready(&self, most: Duration, alive: impl Fn() -> Result<()>) -> Result<()> {
        let url = format!("{}/health", self.etcd_url());
        wait::poll("etcd is healthy", most, async || {
            alive()?;
            Ok(match crate::get(&url).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(format!("{error:#}")),
            })
        })
        .await
    }

    /// Waits until kube-apiserver says that it is ready and has its first namespace. `alive` fails when the process has
    /// ended.
    ///
    /// # Errors
    /// If it does not in `most`, or `alive` fails.
    pub async fn apiserver_ready(&self, client: &Client, most: Duration, alive: impl Fn() -> Result<()>) -> Result<()> {
        wait::poll("kube-apiserver is ready", most, async || {
            alive()?;
            // The server makes the namespace "default" after it has called itself ready: what writes there at once fails.
            for path in ["/readyz", "/api/v1/namespaces/default"] {
                let request = http::Request::get(path).body(Vec::new())?;
                if let Err(problem) = client.request_text(request).await {
                    return Ok(Err(format!("{path}: {problem}")));
                }
            }
            Ok(Ok(()))
        })
        .await
    }
}

/// A token that nobody can guess.
fn random_token() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(Version::parse("Kubernetes v1.20.2\n"), Some(Version(1, 20)));
        assert_eq!(Version::parse("Kubernetes v1.36.0-alpha.1\n"), Some(Version(1, 36)));
        assert_eq!(Version::parse("banana"), None);
        assert!(Version(1, 20) < Version(1, 24) && Version(1, 36) > Version(1, 24));
    }
}
