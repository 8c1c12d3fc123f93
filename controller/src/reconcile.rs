//! The straight line: observe → decide → commit → report. Nothing else decides or commits.

use std::{sync::Arc, time::Duration};

use konductor_core::{RequestId, Settings, Snapshot, lay_over, orphans};
use kube::Client;
use tokio::time::Instant;
use tracing::{Instrument as _, error, info_span, warn};

use crate::{
    clock::Clock,
    commit::{self, CommitError, Outcome},
    decide::Decider,
    observe::{Key, Sight, World, observe},
    queue::Queue,
    report::{self, Answers, Events, Metrics},
};

/// How soon a reconcile is tried again whose write found that somebody else had written first, or
/// that the lease is gone. The watch normally brings the news much sooner.
const CONFLICT_RETRY: Duration = Duration::from_millis(500);

/// How soon a lease is looked at again whose policy has too many waiting for it, or is looked at just now. Shorter than
/// anybody notices, longer than looking takes.
const BUSY_RETRY: Duration = Duration::from_millis(25);

/// The first and the longest pause after failures in a row. A hold may be waiting to be given on, so
/// the longest is short; the API server's own priority and fairness protects it from us.
const FAILURE_RETRY_FIRST: Duration = Duration::from_millis(100);
const FAILURE_RETRY_MOST: Duration = Duration::from_secs(5);

/// How often the API server is asked within one reconcile what has become of a request. The answer
/// settles it; a second time is for a lease that changed hands meanwhile.
const CONFIRM_TRIES: usize = 3;

/// What a reconcile needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The cache.
    pub world: Arc<World>,
    /// Who decides.
    pub decider: Arc<Decider>,
    /// Who answers requests.
    pub answers: Arc<Answers>,
    /// Who writes Events.
    pub events: Events,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules' settings.
    pub settings: Settings,
    /// By how much the clocks of two replicas may differ.
    pub skew: Duration,
}

/// What is next for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens.
    Await,
    /// Look again after this long, if nothing happens before.
    After(Duration),
    /// Nothing was settled: look again after this long for what was to be done now.
    Again(Duration),
}

/// Reconciles one key: a name and nothing else, so that a missed event and a restart look the same.
///
/// # Errors
/// When the API server's answer is not known. Nothing is reported then; the next reconcile starts
/// from what is.
///
/// `asked` is when the news came, or the deadline, that it is for.
#[tracing::instrument(skip_all, fields(lease = %key))]
pub async fn reconcile(ctx: &Context, key: &Key, asked: Instant) -> Result<Next, CommitError> {
    let mut tries = 0;
    // Which requests the API server was asked about, and at which resourceVersion of the lease: while the
    // lease is what it was, nobody can have granted them since.
    let mut settled: (i64, Vec<RequestId>) = (0, Vec::new());
    let (observed, mut consulted) = loop {
        let mut observed = match observe(&ctx.world, key, &*ctx.clock, ctx.skew, ctx.settings) {
            Sight::Lease(observed) => observed,
            Sight::NoLease(mut requests) => {
                ctx.decider.forget(key);
                lay_over(&mut requests, &[], |request| ctx.answers.on_the_way(&request.id.uid, request.version));
                let plan = orphans(&requests, ctx.settings);
                // A request may overtake the news of its own lease: the two come by different watches.
                if !plan.answers.is_empty()
                    && tries < CONFIRM_TRIES
                    && let Some(lease) = commit::find_lease(&ctx.client, key).await?
                {
                    tries += 1;
                    ctx.world.apply_lease(lease);
                    continue;
                }
                ctx.answers.send(key, &plan.answers);
                ctx.answers.sweep(key, &plan.sweep);
                return Ok(plan.wake_in.map_or(Next::Await, |wake| Next::After(millis(wake))));
            }
            Sight::Unconfirmed(_) if tries >= CONFIRM_TRIES => return Ok(Next::Again(CONFLICT_RETRY)),
            Sight::Unconfirmed(request) => {
                tries += 1;
                confirm(ctx, key, &request).await?;
                continue;
            }
        };
        let Snapshot { requests, record, .. } = &mut observed.snapshot;
        lay_over(requests, &record.history, |request| ctx.answers.on_the_way(&request.id.uid, request.version));
        let Ok(mut consulted) = ctx.decider.decide(key, &observed).await else {
            return Ok(Next::Again(BUSY_RETRY));
        };
        let version = observed.snapshot.resource_version;
        if settled.0 != version {
            settled = (version, Vec::new());
        }
        let mut doubts = consulted.plan.granted().map(|granted| observed.in_doubt(granted)).unwrap_or_default();
        doubts.retain(|doubt| !settled.1.contains(doubt));
        if doubts.is_empty() {
            break (observed, consulted);
        }
        ctx.decider.record(&mut consulted, false);
        if tries >= CONFIRM_TRIES {
            return Ok(Next::Again(CONFLICT_RETRY));
        }
        tries += 1;
        for doubt in doubts {
            confirm(ctx, key, &doubt).await?;
            settled.1.push(doubt);
        }
    };
    // Where others than the lease names would grant, the one that it names must really not be there: the news of
    // an upload and of a request come by different watches.
    if consulted.plan.grants() {
        for map in &consulted.absent {
            if commit::policy_exists(&ctx.client, map).await? {
                ctx.decider.record(&mut consulted, false);
                // Its watch is behind, for as long as it is: each look costs the API server a list.
                return Ok(Next::Again(CONFLICT_RETRY));
            }
        }
    }
    let status = commit::next_status(&observed, &consulted);
    let outcome = commit::compare_and_swap(&ctx.client, &observed, status).instrument(info_span!("commit")).await;
    let became_so = matches!(outcome, Ok(Outcome::Unchanged | Outcome::Committed(_)));
    ctx.decider.record(&mut consulted, became_so);
    let outcome = outcome?;
    match &outcome {
        Outcome::Committed(lease) => ctx.world.wrote_lease((**lease).clone(), observed.reading),
        Outcome::Gone => drop(ctx.world.delete_lease(&observed.lease)),
        Outcome::Unchanged | Outcome::Conflict => {}
    }
    ctx.metrics.committed(&consulted.plan.notices, &outcome, asked.elapsed());
    report::publish(key, &observed, &consulted, &outcome, &ctx.answers, &ctx.events, &ctx.metrics);
    Ok(match outcome {
        Outcome::Conflict | Outcome::Gone => Next::Again(CONFLICT_RETRY),
        Outcome::Unchanged | Outcome::Committed(_) => {
            consulted.plan.wake_in.map_or(Next::Await, |wake| Next::After(millis(wake)))
        }
    })
}

/// Asks the API server what has become of a request, and brings the cache up to that.
async fn confirm(ctx: &Context, key: &Key, request: &RequestId) -> Result<(), CommitError> {
    match commit::confirm(&ctx.client, key, request).await? {
        // Our watch of requests is behind; this is what it will bring.
        Some(found) => ctx.world.request_found(found, ctx.clock.read(), skew_millis(ctx.skew)),
        None => ctx.world.confirm_deleted(key, request),
    }
    Ok(())
}

fn millis(span: konductor_core::Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}

fn skew_millis(skew: Duration) -> konductor_core::Millis {
    konductor_core::Millis(i64::try_from(skew.as_millis()).unwrap_or(i64::MAX))
}

/// Takes keys from the queue and reconciles them, one after the other, until `go` is false.
pub async fn work(
    ctx: Arc<Context>,
    queue: Arc<Queue<Key>>,
    failures: Arc<Failures>,
    mut go: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let key = tokio::select! {
            biased;
            _ = go.wait_for(|go| !*go) => return,
            key = queue.pop() => key,
        };
        let started = std::time::Instant::now();
        let asked = queue.asked_since(&key).unwrap_or_else(Instant::now);
        // A panic must not take the key with it: it would stay marked as running for ever.
        let (task_ctx, task_key) = (ctx.clone(), key.clone());
        let ended = tokio::spawn(async move { reconcile(&task_ctx, &task_key, asked).await }).await;
        ctx.metrics.reconciled(started.elapsed());
        match ended {
            Ok(Ok(next)) => {
                failures.forget(&key);
                match next {
                    Next::Await => {}
                    Next::After(wake) => queue.push_after(key.clone(), wake),
                    Next::Again(pause) => queue.retry_after(key.clone(), pause),
                }
            }
            Ok(Err(failure)) => {
                ctx.metrics.outcome("error");
                ctx.metrics.api_error("commit");
                let pause = failures.pause(&key);
                warn!(lease = %key, error = report::chain(&failure), retry_ms = pause.as_millis(), "cannot reconcile");
                queue.retry_after(key.clone(), pause);
            }
            Err(panic) => {
                ctx.metrics.outcome("panic");
                let pause = failures.pause(&key);
                error!(lease = %key, %panic, "the reconcile panicked; this is a defect");
                queue.retry_after(key.clone(), pause);
            }
        }
        queue.done(&key);
    }
}

/// How often each key has failed in a row.
#[derive(Debug, Default)]
pub struct Failures(std::sync::Mutex<std::collections::HashMap<Key, u32>>);

impl Failures {
    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Counts a failure and says how long to wait: doubled each time, up to the most.
    fn pause(&self, key: &Key) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(key.clone()).or_insert(0);
        let pause = FAILURE_RETRY_FIRST.saturating_mul(1_u32 << (*count).min(16));
        *count += 1;
        pause.min(FAILURE_RETRY_MOST)
    }
}

#[cfg(test)]
pub(crate) mod tests;
