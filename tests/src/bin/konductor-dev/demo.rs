//! One acquire, wait, hand-over and release, by really running koncli.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use konductor_crds::LeaseRequest;
use konductor_tests::{kubeconfig, manifests, poll};
use kube::{Api, api::ListParams};

use crate::cluster::{Cluster, printed_leases};

const MOST: Duration = Duration::from_secs(30);

/// Applies the leases of the Lease API's page and shows one changing hands.
pub async fn show(cluster: &Cluster) -> Result<()> {
    println!("==> the leases of the Lease API's page, and one that changes hands");
    let client = kubeconfig::client(&cluster.user_kubeconfig()).await?;
    for lease in printed_leases()? {
        manifests::apply(&client, &lease).await?;
    }
    run(cluster, "kubectl", "get kl")?;
    run(cluster, "koncli", "lease acquire db-migration --holder pod-a --ttl=10m")?;

    let waiting = "lease acquire db-migration --holder pod-b --wait --timeout=5m";
    println!("\n$ koncli {waiting} &");
    let mut waiter = command(cluster, "koncli", waiting)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run koncli")?;
    let handed_over = hand_over(cluster, client, &mut waiter).await;
    if handed_over.is_err() {
        let _ = waiter.kill();
    }
    let output = waiter.wait_with_output().context("cannot read what koncli says")?;
    for line in [output.stdout, output.stderr]
        .iter()
        .flat_map(|text| String::from_utf8_lossy(text).lines().map(str::to_owned).collect::<Vec<_>>())
    {
        println!("    (pod-b, in the background) {line}");
    }
    handed_over?;
    run(cluster, "koncli", "lease status db-migration")?;
    run(cluster, "koncli", "lease release db-migration --holder pod-b")
}

async fn hand_over(cluster: &Cluster, client: kube::Client, waiter: &mut std::process::Child) -> Result<()> {
    let requests: Api<LeaseRequest> = Api::default_namespaced(client);
    poll("pod-b waits", MOST, async || {
        if let Some(status) = waiter.try_wait()? {
            bail!("pod-b did not wait: koncli ended with {status}");
        }
        let list = requests.list(&ListParams::default()).await?;
        let asked = list.items.iter().any(|request| request.spec.holder == "pod-b");
        Ok(if asked { Ok(()) } else { Err(format!("{} requests", list.items.len())) })
    })
    .await?;
    run(cluster, "koncli", "lease release db-migration --holder pod-a")?;
    poll("pod-b has it", MOST, async || {
        Ok(match waiter.try_wait()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("koncli of pod-b ended with {status}"),
            None => Err("pod-b still waits"),
        })
    })
    .await
}

fn command(cluster: &Cluster, tool: &str, words: &str) -> Command {
    let mut command = Command::new(cluster.bin().join(tool));
    command.args(words.split_whitespace()).env("KUBECONFIG", cluster.user_kubeconfig());
    for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAME", "POD_NAMESPACE"] {
        command.env_remove(name);
    }
    command
}

fn run(cluster: &Cluster, tool: &str, words: &str) -> Result<()> {
    println!("\n$ {tool} {words}");
    let status =
        command(cluster, tool, words).stdin(Stdio::null()).status().with_context(|| format!("cannot run {tool}"))?;
    if !status.success() {
        bail!("{tool} {words} ended with {status}");
    }
    Ok(())
}
