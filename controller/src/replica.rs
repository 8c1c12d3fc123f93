//! One replica at work: everything between the API server and the clock, put together.
//!
//! `run` gives it the world as it is (a connection, the machine's clocks); a simulation gives it another.

use std::{sync::Arc, time::Duration};

use konductor_core::{Millis, Settings};
use konductor_policy::Host;
use kube::Client;
use tokio::{sync::watch, task::JoinSet};
use tracing::info;

use crate::{
    clock::Clock,
    decide::{Calls, Decider},
    journal::Journal,
    observe::{Feeds, Key, Synced, World, watch_all, watch_pods},
    policies::Policies,
    queue::Queue,
    reconcile::{Context, Failures, work},
    report::{Answers, Events, Metrics},
};

/// What a replica is given.
pub struct Surroundings {
    /// The API server.
    pub client: Client,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Another number for each replica: its share of chance.
    pub seed: u64,
    /// The sandbox.
    pub host: Arc<Host>,
    /// On which thread it is called.
    pub calls: Calls,
    /// The namespace that the controller runs in.
    pub namespace: String,
    /// The name of this replica, for Events.
    pub identity: String,
    /// The policy of a lease that names none.
    pub default_policy: String,
    /// The rules' settings.
    pub settings: Settings,
    /// By how much the clocks of two replicas may differ.
    pub skew: Duration,
    /// How many leases are reconciled at the same time.
    pub workers: usize,
    /// Where decisions are written down, if anywhere.
    pub journal: Option<Journal>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A replica: it watches and tells, and [`Reconciling::run`] makes it decide.
pub struct Replica {
    /// What runs beside the reconciler. None of it ends by itself; dropping it ends all of it.
    pub tasks: JoinSet<&'static str>,
    /// The cache.
    pub world: Arc<World>,
    /// The keys to look at.
    pub queue: Arc<Queue<Key>>,
    /// The writer of answers.
    pub answers: Arc<Answers>,
    /// Which lists have been seen in full.
    pub synced: watch::Receiver<Synced>,
    /// Whether every module has been looked at.
    pub loaded: watch::Receiver<bool>,
    /// What reconciles.
    pub reconciling: Reconciling,
}

impl Replica {
    /// Puts a replica together and starts everything but the reconciler.
    #[must_use]
    pub fn start(surroundings: Surroundings) -> Self {
        let Surroundings {
            client,
            clock,
            seed,
            host,
            calls,
            namespace,
            identity,
            default_policy,
            settings,
            skew,
            workers,
            journal,
            metrics,
        } = surroundings;
        let world = Arc::new(World::default());
        let queue = Arc::new(Queue::default());
        // Until this replica leads.
        queue.pause();
        let policies = Arc::new(Policies::new(host, namespace, default_policy));
        let (answers, answer_jobs) = Answers::new();
        let (events, event_jobs) = Events::new(metrics.clone());
        let mut tasks: JoinSet<&'static str> = JoinSet::new();
        let feeds = Feeds {
            world: world.clone(),
            policies: policies.clone(),
            queue: queue.clone(),
            clock: clock.clone(),
            skew: Millis(i64::try_from(skew.as_millis()).unwrap_or(i64::MAX)),
            metrics: metrics.clone(),
            answers: answers.clone(),
            seed,
        };
        let synced = watch_all(&client, &feeds, &mut tasks);
        spawn(&mut tasks, "pods", watch_pods(client.clone(), feeds));
        let loaded = policies.loaded();
        spawn(&mut tasks, "answers", answer_jobs.run(client.clone(), answers.clone(), queue.clone(), metrics.clone()));
        spawn(&mut tasks, "events", event_jobs.run(client.clone(), identity, metrics.clone()));
        let looking =
            policies.clone().run(world.clone(), queue.clone(), events.clone(), metrics.clone(), synced.clone());
        spawn(&mut tasks, "policies", looking);
        let decider = Decider::new(policies, world.clone(), metrics.clone(), events.clone(), journal, workers);
        let ctx = Context {
            client,
            world: world.clone(),
            decider: Arc::new(decider.calling(calls)),
            answers: answers.clone(),
            events,
            metrics,
            clock,
            settings,
            skew,
        };
        let reconciling = Reconciling {
            ctx: Arc::new(ctx),
            queue: queue.clone(),
            workers,
            synced: synced.clone(),
            loaded: loaded.clone(),
        };
        Self { tasks, world, queue, answers, synced, loaded, reconciling }
    }
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// The workers, running while this replica leads and its caches are complete.
pub struct Reconciling {
    ctx: Arc<Context>,
    queue: Arc<Queue<Key>>,
    workers: usize,
    synced: watch::Receiver<Synced>,
    loaded: watch::Receiver<bool>,
}

impl Reconciling {
    /// Reconciles while this replica leads, until it is told to stop. What is in work then is finished.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, mut stopping: watch::Receiver<bool>) {
        let metrics = self.ctx.metrics.clone();
        // Before the lists are complete a holder's request might only not have been listed yet, and
        // before the policies are loaded another one would decide.
        let ready = async {
            let listed = self.synced.wait_for(|s| s.all()).await.is_ok();
            listed && self.loaded.wait_for(|l| *l).await.is_ok()
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|s| *s) => return,
            ready = ready => if !ready { return },
        }
        info!("caches complete");
        loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|s| *s) => return,
                led = leading.wait_for(|l| *l) => if led.is_err() { return },
            }
            metrics.leading(true);
            info!(workers = self.workers, "reconciling");
            // A new leader looks at everything once: it does not know what the last one left undone.
            self.queue.resume();
            self.ctx.world.keys().into_iter().for_each(|k| self.queue.push(k));
            let failures = Arc::new(Failures::default());
            let go = Arc::new(watch::Sender::new(true));
            let mut workers = JoinSet::new();
            for _ in 0..self.workers {
                workers.spawn(work(self.ctx.clone(), self.queue.clone(), failures.clone(), go.subscribe()));
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|s| *s) => {}
                _ = leading.wait_for(|l| !*l) => {}
            }
            // What is in work is finished; nothing new is begun.
            go.send_replace(false);
            while workers.join_next().await.is_some() {}
            self.queue.pause();
            metrics.leading(false);
            if *stopping.borrow() {
                return;
            }
        }
    }
}
