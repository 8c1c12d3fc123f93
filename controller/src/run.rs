//! The composition root: builds everything, and owns the end of everything.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use konductor_policy::{Cache, CompileLimits, Compiler, CompilerProgram, Host, HostOptions};
use kube::Config;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinError,
};
use tracing::{info, warn};

use crate::{
    args::Args,
    clock::{Clock, SystemClock},
    decide::Calls,
    http::{self, Status},
    journal::Journal,
    leader,
    replica::{Replica, Surroundings},
    report::Metrics,
};

/// How long a shutdown waits for the statuses of requests. They are advice.
const ANSWERS_MOST: Duration = Duration::from_secs(3);

/// How long a shutdown may take: below the 30 seconds after which Kubernetes kills.
const SHUTDOWN_MOST: Duration = Duration::from_secs(20);

/// Runs the controller until it is told to stop.
///
/// # Errors
/// When it cannot start, or when a part ends that should not.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Every field by name: a flag that nobody uses does not compile.
    let settings = args.settings();
    let Args {
        namespace,
        identity,
        leader_elect,
        leader_election_duration,
        listen,
        default_policy,
        policy_cache_dir,
        policy_cache_key_file,
        policy_compile_time,
        max_clock_skew,
        max_hold: _,
        expired_retention: _,
        finished_retention: _,
        max_waiting: _,
        workers,
        decision_journal,
        decision_journal_size,
        print_journal: _,
        #[cfg(feature = "otlp")]
            otlp_endpoint: _,
        log_format: _,
        log: _,
    } = args;
    let identity = if identity.is_empty() { own_name() } else { identity };

    let config = Config::infer().await.context("cannot find a Kubernetes cluster: set KUBECONFIG, or run in a Pod")?;
    info!(version = env!("CARGO_PKG_VERSION"), server = %config.cluster_url, identity, namespace, "starting");
    let client = konductor_connect::client(config).context("cannot make a Kubernetes client")?;
    let cache = policy_cache_dir.map(|dir| open_cache(&dir, policy_cache_key_file.as_deref())).transpose()?;
    let compile = CompileLimits { time: policy_compile_time, ..CompileLimits::default() };
    let compiler =
        CompilerProgram::own(compile).context("cannot find this program itself, to compile policies with")?;
    let options = HostOptions { compiler: Compiler::Child(compiler), cache, ..HostOptions::default() };
    let host = Arc::new(Host::with_options(options).context("cannot start the policy host")?);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("cannot tell the address that we listen on")?;
    info!(%address, "serving /healthz, /readyz and /metrics");

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new());
    #[expect(clippy::cast_precision_loss, reason = "a start time in seconds needs no more than 52 bits")]
    metrics.started(clock.read().now().0 as f64 / 1e3);
    let journal = match &decision_journal {
        None => None,
        Some(directory) => {
            let journal = Journal::open(directory, decision_journal_size << 20, metrics.clone());
            Some(journal.with_context(|| format!("cannot keep a journal in {}", directory.display()))?)
        }
    };
    // None of its tasks may end before the process does.
    let Replica { mut tasks, world, queue, answers, synced, loaded, reconciling } = Replica::start(Surroundings {
        client: client.clone(),
        clock: clock.clone(),
        seed: RandomState::new().hash_one(std::process::id()),
        host,
        calls: Calls::Apart,
        namespace: namespace.clone(),
        identity: identity.clone(),
        default_policy,
        settings,
        skew: max_clock_skew,
        workers,
        journal,
        metrics: metrics.clone(),
    });

    let (stop, stopping) = watch::channel(false);
    let (leading, is_leader) = watch::channel(!leader_elect);
    let (election_stop, http_stop) = (stopping.clone(), stopping.clone());
    let mut election = tokio::spawn(async move {
        match leader_elect {
            true => leader::elect(client, namespace, identity, leader_election_duration, leading, election_stop).await,
            // It leads from the beginning, and until then: nobody could tell any more after a drop.
            false => {
                stopped(election_stop).await;
                drop(leading);
            }
        }
    });
    let status =
        Status { clock, metrics, world, last: Arc::default(), queue, answers: answers.clone(), synced, loaded };
    let mut server = tokio::spawn(http::serve(listener, status, stopped(http_stop)));

    let mut reconciler = tokio::spawn(reconciling.run(is_leader, stopping));

    let ended = tokio::select! {
        signal = terminated() => signal.map(|name| info!(signal = name, "stopping")),
        Some(ended) = tasks.join_next() => match ended {
            Ok(name) => Err(anyhow::anyhow!("the {name} task has ended")),
            Err(panic) => Err(anyhow::Error::new(panic).context("a task has panicked")),
        },
        ended = &mut reconciler => Err(too_soon("reconciler", ended)),
        ended = &mut election => Err(too_soon("leader election", ended)),
        ended = &mut server => Err(too_soon("HTTP server", ended)),
    };
    stop.send_replace(true);
    let goodbye = async {
        if !reconciler.is_finished() {
            let _ = reconciler.await;
        }
        // What has been committed is told before we go; what is not told by then, the next leader tells.
        let _ = tokio::time::timeout(ANSWERS_MOST, answers.settled()).await;
        for part in [election, server] {
            if !part.is_finished() {
                let _ = part.await;
            }
        }
    };
    let grace = if ended.is_ok() { SHUTDOWN_MOST } else { Duration::from_secs(1) };
    if tokio::time::timeout(grace, goodbye).await.is_err() && ended.is_ok() {
        bail!("the shutdown took longer than {}s", grace.as_secs());
    }
    info!("stopped");
    ended
}

/// Why the process ends: one of its parts has ended, which none does by itself.
fn too_soon(part: &str, ended: Result<(), JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow::anyhow!("the {part} has ended"),
        Err(panic) => anyhow::Error::new(panic).context(format!("the {part} has panicked")),
    }
}

fn open_cache(directory: &Path, key_file: Option<&Path>) -> anyhow::Result<Cache> {
    let opened = Cache::open(directory, key_file);
    let (cache, warnings) =
        opened.context("check --policy-cache-dir and --policy-cache-key-file, or leave them out")?;
    for problem in warnings {
        warn!(problem, "the policy cache");
    }
    Ok(cache)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|s| *s).await;
}

async fn terminated() -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

/// A name for a replica that was given none: the host's and the process's.
fn own_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}", std::process::id())
}
