//! A kubelet for tests: runs the commands of Pods as local processes, with what a container would see of its cluster.
//!
//! There are no nodes, images or namespaces of processes: a Pod that waits for a node is run here and now. Its
//! `restartPolicy` is obeyed, its phase is reported, and when it is deleted its process group is killed.

use std::{
    collections::BTreeMap,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{ControlPlane, Exit, Process, User, binary};

/// Runs the Pods of a namespace until it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    node: Node,
    task: JoinHandle<()>,
}

/// What every Pod sees.
#[derive(Debug, Clone)]
struct Node {
    pods: Api<Pod>,
    /// Programs, and what the Pods write.
    directory: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubelet {
    /// Runs the Pods of a user's namespace in that user's name. On their PATH are koncli and `programs`: names and bash
    /// scripts that stand in for what is in the image.
    ///
    /// # Panics
    /// If koncli is not built, or the disk is full.
    #[must_use]
    pub fn start(plane: &ControlPlane, user: &User<'_>, programs: &[(&str, &str)]) -> Self {
        let directory = plane.directory().join("kubelet").join(user.namespace());
        let prepared = prepare(&directory.join("bin"), programs);
        prepared.unwrap_or_else(|problem| panic!("no kubelet: {problem:#}"));
        let node = Node {
            pods: Api::namespaced(plane.admin().clone(), user.namespace()),
            directory,
            kubeconfig: user.kubeconfig().to_path_buf(),
        };
        let task = tokio::spawn(watch(node.clone()));
        Self { node, task }
    }

    /// What the container of a Pod has written so far.
    #[must_use]
    pub fn log(&self, pod: &str) -> String {
        std::fs::read_to_string(self.node.log(pod)).unwrap_or_default()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn prepare(bin: &Path, programs: &[(&str, &str)]) -> Result<()> {
    std::fs::create_dir_all(bin)?;
    symlink(binary("koncli")?, bin.join("koncli"))?;
    for (name, script) in programs {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A Pod that runs; dropping it kills it.
struct Runs(JoinHandle<()>);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(node: Node) {
    let mut running: BTreeMap<String, Runs> = BTreeMap::new();
    let mut events = watcher(node.pods.clone(), watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let node = node.clone();
                running.entry(uid).or_insert_with(|| Runs(tokio::spawn(async move { node.runs(pod).await })));
            }
            Ok(watcher::Event::Delete(pod)) => {
                running.remove(&pod.metadata.uid.unwrap_or_default());
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(problem) => eprintln!("kubelet: {problem}"),
        }
    }
}

impl Node {
    fn log(&self, pod: &str) -> PathBuf {
        self.directory.join(format!("{pod}.log"))
    }

    async fn runs(&self, pod: Pod) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        if let Err(problem) = self.try_run(&name, &pod).await {
            eprintln!("kubelet: {name}: {problem:#}");
        }
    }

    async fn try_run(&self, name: &str, pod: &Pod) -> Result<()> {
        let spec = pod.spec.as_ref().context("no spec")?;
        let [container] = &spec.containers[..] else { anyhow::bail!("not exactly one container") };
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        self.report(name, container, "Running", json!({"running": {}})).await?;
        loop {
            let exit = self.run(name, container)?.wait().await;
            let again = match policy {
                "Never" => false,
                "OnFailure" => exit.code != 0,
                _ => true,
            };
            if !again {
                let phase = if exit.code == 0 { "Succeeded" } else { "Failed" };
                let Exit { code, .. } = exit;
                return self.report(name, container, phase, json!({"terminated": {"exitCode": code}})).await;
            }
        }
    }

    fn run(&self, name: &str, container: &Container) -> Result<Process> {
        let words = container.command.iter().chain(&container.args).flatten();
        let words: Vec<&String> = words.collect();
        let (program, arguments) = words.split_first().context("images cannot be run here: no command")?;
        let mut path = self.directory.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .current_dir(&self.directory)
            .env("PATH", path)
            .env("HOME", &self.directory)
            .env("HOSTNAME", name)
            // As every container has them; how to connect is in the kubeconfig.
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", "443")
            .env("KUBECONFIG", &self.kubeconfig);
        for variable in container.env.iter().flatten() {
            command.env(&variable.name, variable.value.as_deref().unwrap_or_default());
        }
        Process::start(name, command, &self.log(name), None)
    }

    async fn report(&self, name: &str, container: &Container, phase: &str, state: serde_json::Value) -> Result<()> {
        let status = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": container.name, "image": container.image, "imageID": "", "restartCount": 0,
            "ready": phase == "Running", "state": state,
        }]}});
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

/// The Pods of a Job, by the name of the Job.
///
/// # Errors
/// If they cannot be listed.
pub async fn pods_of_job(client: &Client, namespace: &str, job: &str) -> kube::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_job = kube::api::ListParams::default().labels(&format!("job-name={job}"));
    Ok(pods.list(&of_job).await?.items)
}
