//! The cluster of a checkout.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use konductor_tests::{Port, Ports, Server, Servers, assets, binary, get, identity, kubeconfig, manifests, poll, repo};
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;

/// How long a server may take to start.
const START_MOST: Duration = Duration::from_secs(120);
const USER: &str = "developer";
const NAMESPACE: &str = "default";
/// What the user of `make up` may do in its namespace: what a developer may in a real one, all that leases offer, and
/// Kubernetes' own "edit" for Pods, Jobs and events.
const ROLES: [&str; 4] = ["konductor-lease-user", "konductor-lease-operator", "konductor-policy-author", "edit"];

/// The addresses, the same from one start to the next.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Addresses {
    ports: Ports,
    controller: u16,
}

/// What runs in `.konductor/`.
pub struct Cluster {
    directory: PathBuf,
    etcd: Daemon,
    apiserver: Daemon,
    controller_manager: Daemon,
    controller: Daemon,
    /// Nobody else changes it at the same time.
    _lock: File,
}

impl Cluster {
    /// Looks at `.konductor/` of this checkout.
    pub fn open() -> Result<Self> {
        let directory = repo::path(".konductor");
        // Beside what is deleted by `down`.
        let lock_path = repo::path("target/konductor-dev.lock");
        std::fs::create_dir_all(repo::path("target")).context("cannot make target/")?;
        let lock = File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
        if lock.try_lock().is_err() {
            eprintln!("another make up or make down is at work here; waiting for it");
            lock.lock().context("cannot lock")?;
        }
        Ok(Self {
            etcd: Daemon::new(&directory, Server::Etcd.name()),
            apiserver: Daemon::new(&directory, Server::Apiserver.name()),
            controller_manager: Daemon::new(&directory, Server::ControllerManager.name()),
            controller: Daemon::new(&directory, "konductor-controller"),
            directory,
            _lock: lock,
        })
    }

    /// From the last to start to the first.
    fn daemons(&self) -> [&Daemon; 4] {
        [&self.controller, &self.controller_manager, &self.apiserver, &self.etcd]
    }

    /// The kubeconfig of the user.
    pub fn user_kubeconfig(&self) -> PathBuf {
        self.directory.join("user.kubeconfig")
    }

    /// A directory with koncli and kubectl.
    pub fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    fn addresses_file(&self) -> PathBuf {
        self.directory.join("addresses.json")
    }

    fn addresses(&self) -> Option<Addresses> {
        serde_json::from_str(&std::fs::read_to_string(self.addresses_file()).ok()?).ok()
    }

    /// The addresses of before, or new ones if there were none or somebody else has taken one of them.
    fn choose_addresses(&self) -> Result<(Addresses, Vec<Port>)> {
        let running = self.daemons().iter().any(|daemon| daemon.pid().is_some());
        if let Some(known) = self.addresses() {
            let Ports { etcd, peer, apiserver } = known.ports;
            let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            if running || [etcd, peer, apiserver, known.controller].into_iter().all(free) {
                return Ok((known, Vec::new()));
            }
            println!("    another program uses one of the ports of last time: choosing new ones");
        }
        let taken: Vec<Port> = (0..4).map(|_| Port::take()).collect::<Result<_>>()?;
        let [etcd, peer, apiserver, controller] = taken.iter().map(Port::number).collect::<Vec<_>>()[..] else {
            bail!("four ports are four ports");
        };
        let addresses = Addresses { ports: Ports { etcd, peer, apiserver }, controller };
        std::fs::write(self.addresses_file(), serde_json::to_string(&addresses)?).context("cannot write addresses")?;
        Ok((addresses, taken))
    }

    /// Starts what does not run, and installs.
    pub async fn up(&mut self) -> Result<()> {
        let all_run = self.daemons().iter().all(|daemon| daemon.pid().is_some());
        if all_run && !self.controller.is_outdated() && self.status().await && self.is_installed().await {
            println!("It is running already.");
            return Ok(());
        }
        let binaries = step("the binaries of a control plane", async { assets() }).await?;
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        let (addresses, _kept) = self.choose_addresses()?;
        let servers = Servers::prepare(binaries, &self.directory, addresses.ports)?;
        let admin = kubeconfig::client(&servers.admin_kubeconfig()).await?;

        step("etcd", async {
            start_server(&self.etcd, &servers, Server::Etcd)?;
            servers.etcd_ready(START_MOST, || self.etcd.must_run()).await
        })
        .await?;
        step("kube-apiserver", async {
            start_server(&self.apiserver, &servers, Server::Apiserver)?;
            servers.apiserver_ready(&admin, START_MOST, || self.apiserver.must_run()).await
        })
        .await?;
        step("kube-controller-manager", async {
            start_server(&self.controller_manager, &servers, Server::ControllerManager)
        })
        .await?;
        step("the resources and roles of crds/ and deploy/rbac/", manifests::install(&admin)).await?;
        step("a user with a kubeconfig", self.make_user(&admin, &servers)).await?;
        step("the controller", self.start_controller(&admin, &servers, addresses.controller)).await?;
        self.link_tools(&servers)
    }

    async fn make_user(&self, admin: &Client, servers: &Servers) -> Result<()> {
        identity::make_user(admin, NAMESPACE, USER, &ROLES).await?;
        identity::write_kubeconfig(admin, servers, NAMESPACE, USER, &self.user_kubeconfig()).await
    }

    async fn start_controller(&self, admin: &Client, servers: &Servers, port: u16) -> Result<()> {
        if self.controller.is_outdated() {
            println!("    its binary is newer than what runs: starting the new one");
            self.controller.stop(Duration::from_secs(25));
        }
        if self.controller.pid().is_none() {
            let kubeconfig = self.directory.join("controller.kubeconfig");
            let (namespace, name) = ("konductor-system", "konductor-controller");
            identity::write_kubeconfig(admin, servers, namespace, name, &kubeconfig).await?;
            let mut command = Command::new(binary("konductor-controller")?);
            command
                .arg(format!("--listen=127.0.0.1:{port}"))
                .arg("--namespace=konductor-system")
                // There is one, and it should act at once after a restart.
                .arg("--leader-elect=false")
                .env("KUBECONFIG", &kubeconfig)
                .current_dir(&self.directory);
            for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAME", "POD_NAMESPACE"] {
                command.env_remove(name);
            }
            self.controller.start(&command)?;
        }
        poll("the controller is ready", START_MOST, async || {
            self.controller.must_run()?;
            Ok(match get(&format!("http://127.0.0.1:{port}/readyz")).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(problem) => Err(format!("{problem:#}")),
            })
        })
        .await
    }

    fn link_tools(&self, servers: &Servers) -> Result<()> {
        std::fs::create_dir_all(self.bin()).context("cannot make .konductor/bin")?;
        for (name, program) in [("koncli", binary("koncli")?), ("kubectl", servers.kubectl())] {
            let link = self.bin().join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(program, &link).with_context(|| format!("cannot link {name}"))?;
        }
        Ok(())
    }

    /// Stops everything and deletes everything.
    pub fn down(&mut self) -> Result<ExitCode> {
        for daemon in self.daemons() {
            match daemon.pid() {
                Some(pid) => {
                    println!("==> stopping {} ({pid})", daemon.name());
                    // What is deleted anyway need not be written to the end; the controller gives its leadership back.
                    daemon.stop(Duration::from_secs(5));
                }
                None => println!("==> {} does not run", daemon.name()),
            }
        }
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)
                .with_context(|| format!("cannot delete {}", self.directory.display()))?;
            println!("==> .konductor/ is deleted");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Says what runs. Returns whether everything does and answers.
    pub async fn status(&self) -> bool {
        let mut well = true;
        let addresses = self.addresses();
        for daemon in self.daemons().into_iter().rev() {
            let url = addresses.and_then(|addresses| match daemon.name() {
                "etcd" => Some(format!("http://127.0.0.1:{}/health", addresses.ports.etcd)),
                "konductor-controller" => Some(format!("http://127.0.0.1:{}/readyz", addresses.controller)),
                _ => None,
            });
            let state = match (daemon.pid(), url) {
                (None, _) => Err("does not run".to_owned()),
                (Some(pid), None) => Ok(pid),
                (Some(pid), Some(url)) => match get(&url).await {
                    Ok(answer) if answer.status == 200 => Ok(pid),
                    Ok(answer) => Err(format!("runs ({pid}) and is not ready: {}", answer.body.trim())),
                    Err(problem) => Err(format!("runs ({pid}) and does not answer: {problem:#}")),
                },
            };
            let state = match (daemon.name(), state) {
                ("kube-apiserver", Ok(pid)) => self.apiserver_answers().await.map(|()| pid),
                (_, state) => state,
            };
            well &= state.is_ok();
            let shown = state.map_or_else(|problem| problem, |pid| format!("runs ({pid})"));
            println!("    {:<24} {shown}", daemon.name());
        }
        well
    }

    async fn apiserver_answers(&self) -> Result<(), String> {
        let answer = async {
            let admin = kubeconfig::client(&self.directory.join("admin.kubeconfig")).await?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok::<_, anyhow::Error>(admin.request_text(request).await?)
        };
        answer.await.map(drop).map_err(|problem| {
            // It lists all its parts, and marks those that fail.
            let said = format!("{problem:#}");
            let failing = said.lines().find(|line| line.starts_with("[-]")).or(said.lines().next());
            format!("runs and is not ready: {}", failing.unwrap_or_default())
        })
    }

    /// Whether our resources are there: somebody may have tried how to uninstall them.
    async fn is_installed(&self) -> bool {
        let asked = async {
            let admin = kubeconfig::client(&self.directory.join("admin.kubeconfig")).await?;
            for resource in ["leases", "leaserequests"] {
                let path = format!("/apis/konductor.io/v1/{resource}?limit=1");
                admin.request_text(http::Request::get(path).body(Vec::new())?).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        asked.await.is_ok()
    }

    /// A file that is there once the demonstration has been shown: it would be in the way of somebody's own leases.
    pub fn shown(&self) -> PathBuf {
        self.directory.join("shown")
    }

    /// What a person types next.
    pub fn say_what_next(&self) {
        let shown = |path: PathBuf| match path.strip_prefix(repo::root()) {
            Ok(inside) => format!("{}/{}", repo::root().display(), inside.display()),
            Err(_) => path.display().to_string(),
        };
        println!(
            "
Next, in this shell:

  export KUBECONFIG={user}
  export PATH={bin}:$PATH

  koncli lease list
  koncli lease acquire singleton-job --holder $HOSTNAME --ttl=10m
  koncli lease status singleton-job
  koncli lease release singleton-job --holder $HOSTNAME
  kubectl get kl
  kubectl describe kl singleton-job

As administrator:  kubectl --kubeconfig {admin} get nodes,namespaces
Logs:              {logs}
Stop and clean:    make down",
            user = shown(self.user_kubeconfig()),
            bin = shown(self.bin()),
            admin = shown(self.directory.join("admin.kubeconfig")),
            logs = shown(self.directory.join("logs")),
        );
    }
}

fn start_server(daemon: &Daemon, servers: &Servers, server: Server) -> Result<()> {
    if daemon.pid().is_some() { Ok(()) } else { daemon.start(&servers.command(server)) }
}

/// Says what is being done, and how long it took.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    println!("==> {what}");
    let _ = std::io::stdout().flush();
    let done = work.await.with_context(|| format!("{what} failed"))?;
    if started.elapsed() > Duration::from_millis(500) {
        println!("    ready after {:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(done)
}

/// The leases of the Lease API's page that the demonstration uses.
pub fn printed_leases() -> Result<Vec<manifests::Manifest>> {
    let page = repo::text("tests/fixtures/lease-api.md");
    let mut leases = Vec::new();
    for block in manifests::fenced(&page, "yaml") {
        for manifest in manifests::objects(&block, Path::new("tests/fixtures/lease-api.md"))? {
            if manifest.object["kind"] == "Lease" {
                leases.push(manifest);
            }
        }
    }
    Ok(leases)
}
