//! A control plane for tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1;
use kube::{Api, Client, api::PostParams};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    Cli, History, Namespace, Port, Ports, Process, Server, Servers, Signal, Version, assets, etcd, guard, kubeconfig,
    manifests, wait,
};

/// How long a server may take to start: 2 s when nothing else runs.
const START_MOST: Duration = Duration::from_secs(60);
/// How much more etcd may keep before it is full.
const ETCD_ROOM: u64 = 2 << 20;
/// How long a server may take to stop when asked nicely.
const STOP_MOST: Duration = Duration::from_secs(20);

/// What a control plane is to have.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run kube-controller-manager too: garbage collection, namespaces, Jobs and CronJobs.
    pub controller_manager: bool,
    /// More flags for kube-apiserver.
    pub apiserver_flags: Vec<String>,
}

/// etcd and kube-apiserver of one's own, with RBAC on. Dropping it kills them and deletes their data.
pub struct ControlPlane {
    servers: Servers,
    // Declared after nothing and dropped in `Drop`: the order matters there.
    running: Mutex<Running>,
    admin: Client,
    _ports: [Port; 3],
    counter: AtomicU32,
    /// How large etcd's data may become, in bytes; 0 is etcd's own limit, 2 GiB.
    etcd_quota: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    etcd: Option<Process>,
    apiserver: Option<Process>,
    controller_manager: Option<Process>,
}

impl Running {
    fn of(&mut self, server: Server) -> &mut Option<Process> {
        match server {
            Server::Etcd => &mut self.etcd,
            Server::Apiserver => &mut self.apiserver,
            Server::ControllerManager => &mut self.controller_manager,
        }
    }
}

impl ControlPlane {
    /// Starts one and waits until it is ready: about 2 s.
    ///
    /// # Panics
    /// If it does not get ready.
    pub async fn start(options: Options) -> Self {
        Self::try_start(&options).await.unwrap_or_else(|problem| panic!("no control plane: {problem:#}"))
    }

    /// Starts one with our resources and roles installed.
    ///
    /// # Panics
    /// If it does not get ready.
    pub async fn installed() -> Self {
        let plane = Self::start(Options::default()).await;
        plane.install().await;
        plane
    }

    async fn try_start(options: &Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("plane-").tempdir_in(guard::directory()?)?.keep();
        let [etcd, peer, apiserver] = [Port::take()?, Port::take()?, Port::take()?];
        let ports = Ports { etcd: etcd.number(), peer: peer.number(), apiserver: apiserver.number() };
        let mut flags = vec![
            // The history of every object stays complete: `history` reads it.
            "--etcd-compaction-interval=0".to_owned(),
        ];
        flags.extend_from_slice(&options.apiserver_flags);
        let servers = Servers::prepare(assets()?, &directory, ports)?.with_apiserver_flags(&flags);
        let admin = kubeconfig::client(&servers.admin_kubeconfig()).await?;
        let plane = Self {
            servers,
            running: Mutex::default(),
            admin,
            _ports: [etcd, peer, apiserver],
            counter: AtomicU32::new(0),
            etcd_quota: AtomicU64::new(0),
        };
        // Side by side: kube-apiserver waits for etcd by itself.
        plane.spawn(Server::Etcd)?;
        plane.spawn(Server::Apiserver)?;
        plane.ready(Server::Etcd).await?;
        plane.ready(Server::Apiserver).await?;
        if options.controller_manager {
            plane.spawn(Server::ControllerManager)?;
        }
        Ok(plane)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, server: Server) -> Result<()> {
        let mut running = self.running();
        let slot = running.of(server);
        if slot.as_ref().is_some_and(|process| process.exit().is_none()) {
            bail!("{} runs already", server.name());
        }
        let mut command = self.servers.command(server);
        let quota = self.etcd_quota.load(Ordering::Relaxed);
        if server == Server::Etcd && quota > 0 {
            command.arg(format!("--quota-backend-bytes={quota}"));
        }
        *slot = Some(Process::start(server.name(), command, &self.servers.log(server), None)?);
        Ok(())
    }

    async fn ready(&self, server: Server) -> Result<()> {
        let alive = || match self.running().of(server) {
            None => bail!("{} was not started", server.name()),
            Some(process) => match process.exit() {
                None => Ok(()),
                Some(exit) => {
                    process.tell(20);
                    bail!("{} ended with {}", server.name(), exit.code)
                }
            },
        };
        match server {
            Server::Etcd => self.servers.etcd_ready(START_MOST, alive).await,
            Server::Apiserver => self.servers.apiserver_ready(&self.admin, START_MOST, alive).await,
            Server::ControllerManager => alive(),
        }
    }

    /// Starts a server again, on the same port and with the same data, and waits until it is ready.
    ///
    /// # Panics
    /// If it runs already or does not get ready.
    pub async fn start_server(&self, server: Server) {
        let started = async {
            self.spawn(server)?;
            self.ready(server).await
        };
        started.await.unwrap_or_else(|problem| panic!("{problem:#}"));
    }

    /// Kills a server with SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_server(&self, server: Server) {
        let process = self.running().of(server).take();
        process.unwrap_or_else(|| panic!("{} does not run", server.name())).kill();
    }

    /// Asks a server to stop, and waits until it has.
    ///
    /// # Panics
    /// If it does not run, or does not stop within 20 s.
    pub async fn stop_server(&self, server: Server) {
        let process = self.running().of(server).take();
        let process = process.unwrap_or_else(|| panic!("{} does not run", server.name()));
        process.signal(Signal::TERM);
        if tokio::time::timeout(STOP_MOST, process.wait()).await.is_err() {
            process.tell(20);
            panic!("{} did not stop within {STOP_MOST:?} of SIGTERM", server.name());
        }
    }

    /// Sends a signal to a server, such as `STOP` to freeze it and `CONT` to let it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal_server(&self, server: Server, signal: Signal) {
        let mut running = self.running();
        let process = running.of(server).as_ref();
        process.unwrap_or_else(|| panic!("{} does not run", server.name())).signal(signal);
    }

    /// Kills kube-apiserver with SIGKILL.
    pub fn kill_apiserver(&self) {
        self.kill_server(Server::Apiserver);
    }

    /// Asks kube-apiserver to stop, and waits until it has.
    pub async fn stop_apiserver(&self) {
        self.stop_server(Server::Apiserver).await;
    }

    /// Starts kube-apiserver again.
    pub async fn start_apiserver(&self) {
        self.start_server(Server::Apiserver).await;
    }

    /// Kills etcd with SIGKILL.
    pub fn kill_etcd(&self) {
        self.kill_server(Server::Etcd);
    }

    /// Asks etcd to stop, and waits until it has.
    pub async fn stop_etcd(&self) {
        self.stop_server(Server::Etcd).await;
    }

    /// Starts etcd again.
    pub async fn start_etcd(&self) {
        self.start_server(Server::Etcd).await;
    }

    /// Lets etcd run full: it is started again with little room, which is then used up, until it refuses every write.
    ///
    /// # Panics
    /// If that does not come about.
    pub async fn fill_etcd(&self) {
        let url = self.servers.etcd_url();
        let filled = async {
            let size = etcd::size(&url).await?;
            self.etcd_quota.store(size + ETCD_ROOM, Ordering::Relaxed);
            self.kill_etcd();
            self.start_etcd().await;
            etcd::fill(&url).await
        };
        filled.await.unwrap_or_else(|problem| panic!("cannot fill etcd: {problem:#}"));
    }

    /// Lets etcd's disk run full: it cannot write another byte beyond the first of any file, and ends of that. The rest of
    /// what it was about to write is missing. A limit of the process, since a small disk would need a mount.
    ///
    /// # Panics
    /// If it goes on.
    pub async fn fill_disk(&self) {
        let pid = self.running().of(Server::Etcd).as_ref().map(Process::pid);
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let none = Rlimit { current: Some(1), maximum: None };
        let limited = pid.map(|pid| prlimit(Some(pid), Resource::Fsize, none));
        assert!(matches!(limited, Some(Ok(_))), "cannot limit the files of etcd: {limited:?}");
        let ended = wait::poll("etcd ends, since it cannot write", START_MOST, async || {
            let running = self.running().of(Server::Etcd).as_ref().is_some_and(|process| process.exit().is_none());
            Ok(if running { Err("it runs") } else { Ok(()) })
        });
        ended.await.unwrap_or_else(|problem| panic!("{problem:#}"));
    }

    /// Gives etcd room again. Nothing is compacted: [`Self::history`] needs all of it.
    ///
    /// # Panics
    /// If etcd goes on refusing.
    pub async fn relieve_etcd(&self) {
        self.etcd_quota.store(0, Ordering::Relaxed);
        self.kill_etcd();
        let relieved = async {
            self.spawn(Server::Etcd)?;
            let url = self.servers.etcd_url();
            // It calls itself unhealthy until it is told.
            wait::poll("etcd takes writes again", START_MOST, async || {
                Ok(etcd::disarm(&url).await.map_err(|problem| format!("{problem:#}")))
            })
            .await?;
            self.ready(Server::Etcd).await
        };
        relieved.await.unwrap_or_else(|problem| panic!("{problem:#}"));
    }

    /// Installs what `kubectl apply -k` would: `crds/` and `deploy/rbac/`, from the files of the repository, and waits
    /// until the resources are served.
    ///
    /// # Panics
    /// If the server refuses any of it.
    pub async fn install(&self) {
        manifests::install(&self.admin).await.unwrap_or_else(|problem| panic!("cannot install: {problem:#}"));
    }

    /// The version of Kubernetes.
    #[must_use]
    pub fn version(&self) -> Version {
        self.servers.version()
    }

    /// Its directory: data, logs, kubeconfigs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.servers.directory()
    }

    /// Its files and flags.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// A client that may do everything: for what a test arranges, never for what it tests.
    #[must_use]
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// The kubeconfig of the administrator.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.servers.admin_kubeconfig()
    }

    /// kubectl as the administrator: `plane.kubectl("get nodes")`; the words are split at spaces.
    #[must_use]
    pub fn kubectl(&self, words: &str) -> Cli {
        Cli::new(self, &self.servers.kubectl(), &self.admin_kubeconfig()).words(words)
    }

    /// Creates a namespace, or uses it if there is one.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn namespace(&self, name: &str) -> Namespace<'_> {
        let object: v1::Namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))
            .unwrap_or_else(|problem| panic!("{name}: {problem}"));
        match Api::all(self.admin.clone()).create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(problem) => panic!("cannot create the namespace {name}: {problem}"),
        }
        Namespace::new(self, name)
    }

    /// Everything that ever happened to the Leases and LeaseRequests of a namespace, from the first write on: read from
    /// etcd, so nothing is missed and nothing is merged, however often kube-apiserver was killed.
    ///
    /// # Panics
    /// If etcd does not run.
    pub async fn history(&self, namespace: &Namespace<'_>) -> History {
        etcd::history(&self.servers.etcd_url(), namespace.name())
            .await
            .unwrap_or_else(|problem| panic!("cannot read the history: {problem:#}"))
    }

    /// A number that this control plane has not given out before: for names.
    pub(crate) fn number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new file name in its directory.
    pub(crate) fn file(&self, sub: &str, name: &str) -> Result<PathBuf> {
        let directory = self.directory().join(sub);
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory.join(format!("{:03}-{name}", self.number())))
    }

    /// A command with nothing of the test's own environment that could lead to another cluster.
    pub(crate) fn command(&self, program: &Path, kubeconfig: &Path) -> Command {
        let mut command = Command::new(program);
        for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAME", "POD_NAMESPACE", "RUST_LOG"] {
            command.env_remove(name);
        }
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.current_dir(self.directory()).env("HOME", self.directory().join("home")).env("KUBECONFIG", kubeconfig);
        command
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let mut running = std::mem::take(&mut *self.running());
        if std::thread::panicking() {
            for server in [Server::Etcd, Server::Apiserver, Server::ControllerManager] {
                if let Some(process) = running.of(server) {
                    // What a server that runs has to say is long and rarely of use.
                    process.tell(if process.exit().is_some() { 30 } else { 5 });
                }
            }
        }
        // Clients before servers, so that none of them has time to complain.
        drop(running.controller_manager.take());
        drop(running.apiserver.take());
        drop(running.etcd.take());
        if !guard::kept() {
            let _ = std::fs::remove_dir_all(self.directory());
        } else {
            eprintln!("kept: {}", self.directory().display());
        }
    }
}
