//! The statuses of requests: advice, written after the lease and off the way of the next decision.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use konductor_core::{Answer, Answered, Ending, RequestAnswer, RequestId};
use konductor_crds::{
    LeaseRequest, LeaseRequestStatus,
    time::format_timestamp,
    v1::{
        RequestPhase,
        reasons::{
            DENIED_BY_POLICY, EXPIRED, FORCE_RELEASED, INVALID_REQUEST, LEASE_DELETED, LEASE_GRANTED, LEASE_NOT_FOUND,
            PREEMPTED, RELEASED, SUPERSEDED, TIMED_OUT, TOO_MANY_WAITING, WAITING,
        },
    },
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tracing::{debug, info, warn};

use super::Metrics;
use crate::{
    commit::{API_TIMEOUT, FIELD_MANAGER},
    observe::Key,
    queue::Queue,
};

/// How many answers are written at the same time: enough to hide their latency, few enough that the
/// leases' own writes come first.
const AT_ONCE: usize = 8;

/// How soon a lease is looked at again whose answer could not be written. The look itself finds out
/// again what is to be said.
const RETRY: Duration = Duration::from_secs(1);

/// The writer of answers.
pub struct Answers {
    /// What was sent and has not come back by watch yet, by uid, and to which resourceVersion: it is not sent twice.
    sent: Mutex<HashMap<String, (Answer, i64)>>,
    /// Rung when the last one has come back.
    settled: Notify,
    jobs: mpsc::UnboundedSender<Job>,
}

/// One thing to do to a request.
struct Job {
    key: Key,
    request: RequestId,
    version: i64,
    what: What,
}

enum What {
    Answer { answer: Answer, sequence: i64 },
    Delete,
}

impl Answers {
    /// The writer and the work that it hands on. The queue of jobs needs no limit of its own: `sent`
    /// lets in one for each request, and requests are objects of the API server.
    #[must_use]
    pub fn new() -> (Arc<Self>, AnswerJobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { sent: Mutex::default(), settled: Notify::new(), jobs }), AnswerJobs(receiver))
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<String, (Answer, i64)>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes these answers, soon.
    pub fn send(&self, key: &Key, answers: &[RequestAnswer]) {
        for RequestAnswer { request, version, sequence, answer } in answers {
            let same = self.sent().get(&request.uid).is_some_and(|(sent, _)| sent == answer);
            if !same {
                self.sent().insert(request.uid.clone(), (answer.clone(), *version));
                self.push(key, request, *version, What::Answer { answer: answer.clone(), sequence: *sequence });
            }
        }
    }

    /// What a request is being told and no watch has shown yet. It counts as told: a request that
    /// hears that it was too late is not granted a moment later. What is sent to a state that was seen to be over, since
    /// the request is now at `version`, is refused, and what that state says counts.
    #[must_use]
    pub fn on_the_way(&self, uid: &str, version: i64) -> Option<Answered> {
        self.sent().get(uid).filter(|(_, sent_to)| *sent_to >= version).map(|(answer, _)| answer.said())
    }

    /// Deletes these requests, soon.
    pub fn sweep(&self, key: &Key, requests: &[RequestId]) {
        for request in requests {
            self.push(key, request, 0, What::Delete);
        }
    }

    fn push(&self, key: &Key, request: &RequestId, version: i64, what: What) {
        // The receiver lives as long as the controller; when it is gone there is nothing left to tell.
        let _ = self.jobs.send(Job { key: key.clone(), request: request.clone(), version, what });
    }

    /// A watch has shown a request: if its status is what was sent last, that is done with.
    pub fn seen(&self, request: &LeaseRequest) {
        let Some(uid) = request.uid() else { return };
        let sent = self.sent();
        if let Some((answer, _)) = sent.get(&uid)
            && request.status.as_ref().is_some_and(|s| s.phase == Some(phase(answer)))
        {
            drop(sent);
            self.done(&uid);
        }
    }

    /// A request is gone.
    pub fn forget(&self, request: &LeaseRequest) {
        if let Some(uid) = request.uid() {
            self.done(&uid);
        }
    }

    fn done(&self, uid: &str) {
        let mut sent = self.sent();
        sent.remove(uid);
        if sent.is_empty() {
            self.settled.notify_waiters();
        }
    }

    /// Waits until everything that was sent has come back.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.under_way() == 0 {
                return;
            }
            settled.await;
        }
    }

    /// How many answers are on their way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.sent().len()
    }
}

/// The receiving end of [`Answers`].
pub struct AnswerJobs(mpsc::UnboundedReceiver<Job>);

impl AnswerJobs {
    /// Writes answers until the task is dropped.
    pub async fn run(self, client: Client, answers: Arc<Answers>, queue: Arc<Queue<Key>>, metrics: Arc<Metrics>) {
        let jobs = futures::stream::unfold(self.0, |mut jobs| async { jobs.recv().await.map(|job| (job, jobs)) });
        jobs.for_each_concurrent(AT_ONCE, |job| {
            let (client, answers, queue, metrics) = (client.clone(), answers.clone(), queue.clone(), metrics.clone());
            async move {
                let done = tokio::time::timeout(API_TIMEOUT, write(&client, &job)).await;
                let problem = match done {
                    Ok(Ok(())) => {
                        tell(&job, &metrics);
                        return;
                    }
                    Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
                        // Gone, or changed since it was seen. The watch tells what there is now, and this
                        // is for when it already has.
                        debug!(lease = %job.key, request = job.request.name, code = status.code, "request has changed");
                        answers.done(&job.request.uid);
                        queue.push_after(job.key, RETRY);
                        return;
                    }
                    Ok(Err(error)) => super::chain(&error),
                    Err(_) => "no answer in time".to_owned(),
                };
                metrics.api_error("answer");
                warn!(lease = %job.key, request = job.request.name, problem, "cannot write the status of a request; trying again");
                answers.done(&job.request.uid);
                queue.push_after(job.key, RETRY);
            }
        })
        .await;
    }
}

/// An answer was written. What happened to a lease was told with its write; that a request was given up, or not even
/// listened to, is told here.
fn tell(job: &Job, metrics: &Metrics) {
    let What::Answer { answer, .. } = &job.what else { return };
    let reason = word(answer);
    metrics.answered(reason);
    match answer {
        Answer::Invalid { .. } | Answer::Crowded { .. } | Answer::TimedOut { .. } | Answer::Lost => {
            info!(lease = %job.key, request = job.request.name, uid = job.request.uid, reason, "answered");
        }
        _ => debug!(lease = %job.key, request = job.request.name, uid = job.request.uid, reason, "answered"),
    }
}

async fn write(client: &Client, job: &Job) -> kube::Result<()> {
    let api = Api::<LeaseRequest>::namespaced(client.clone(), &job.key.namespace);
    match &job.what {
        What::Answer { answer, sequence } => {
            // Only on the object as it was seen: an answer to what has changed since could undo a newer one.
            let seen = json!({ "uid": job.request.uid, "resourceVersion": job.version.to_string() });
            let patch = json!({ "metadata": seen, "status": status(answer, *sequence) });
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            api.patch_status(&job.request.name, &params, &Patch::Merge(patch)).await.map(drop)
        }
        What::Delete => {
            let only_this = Preconditions { uid: Some(job.request.uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
            api.delete(&job.request.name, &params).await.map(drop)
        }
    }
}

fn phase(answer: &Answer) -> RequestPhase {
    match answer.said() {
        Answered::Pending | Answered::NoLease => RequestPhase::Pending,
        Answered::Granted(_) => RequestPhase::Granted,
        Answered::Denied => RequestPhase::Denied,
        Answered::Finished => RequestPhase::Finished,
    }
}

/// All that [`word`] can say.
pub(super) const WORDS: [&str; 13] = [
    WAITING,
    LEASE_NOT_FOUND,
    LEASE_DELETED,
    LEASE_GRANTED,
    DENIED_BY_POLICY,
    INVALID_REQUEST,
    TOO_MANY_WAITING,
    RELEASED,
    EXPIRED,
    PREEMPTED,
    FORCE_RELEASED,
    SUPERSEDED,
    TIMED_OUT,
];

/// The answer in one word: the status' reason, and the label of a metric.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Pending => WAITING,
        Answer::NoLease => LEASE_NOT_FOUND,
        Answer::Lost => LEASE_DELETED,
        Answer::Granted { .. } => LEASE_GRANTED,
        Answer::Denied { .. } => DENIED_BY_POLICY,
        Answer::Invalid { .. } => INVALID_REQUEST,
        Answer::Crowded { .. } => TOO_MANY_WAITING,
        Answer::Over(Ending::Released) => RELEASED,
        Answer::Over(Ending::Expired) => EXPIRED,
        Answer::Over(Ending::Preempted) => PREEMPTED,
        Answer::Over(Ending::ForceReleased) => FORCE_RELEASED,
        Answer::Over(Ending::Superseded) | Answer::Superseded => SUPERSEDED,
        Answer::TimedOut { .. } => TIMED_OUT,
    }
}

/// The status that says this answer.
fn status(answer: &Answer, sequence: i64) -> LeaseRequestStatus {
    let reason = word(answer);
    let message = match answer {
        Answer::Pending => "It waits for its turn.".to_owned(),
        Answer::NoLease => "There is no Lease of that name in this namespace; it waits for one.".to_owned(),
        Answer::Lost => "The Lease knows nothing of its hold any more: it was deleted, or its status was.".to_owned(),
        Answer::Granted { .. } => "It holds the lease.".to_owned(),
        Answer::Denied { reason } if reason.is_empty() => "The policy gave no reason.".to_owned(),
        Answer::Denied { reason } => reason.clone(),
        Answer::Invalid { problem } => problem.clone(),
        Answer::Crowded { most } => format!("{most} requests wait for the lease already; ask again later"),
        Answer::Over(Ending::Released) => "It gave the lease back.".to_owned(),
        Answer::Over(Ending::Expired) => "Its hold ran out.".to_owned(),
        Answer::Over(Ending::Preempted) => "Its hold was handed over to another request.".to_owned(),
        Answer::Over(Ending::ForceReleased) => "A person took its hold away.".to_owned(),
        Answer::Over(Ending::Superseded) | Answer::Superseded => {
            "A newer request of the same holder took its place.".to_owned()
        }
        Answer::TimedOut { why } => why.clone(),
    };
    let mut status = LeaseRequestStatus {
        phase: Some(phase(answer)),
        reason: Some(reason.to_owned()),
        message: Some(message),
        sequence: Some(sequence),
        ..LeaseRequestStatus::default()
    };
    if let Answer::Granted { token, expires } = answer {
        status.fencing_token = Some(*token);
        status.expires = Some(format_timestamp(expires.0));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known_from_the_start() {
        // By the source: nothing else can list what a match says.
        let source = include_str!("answers.rs");
        let function = source.split("fn word(").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("it is here");
        let said: Vec<&str> = function
            .lines()
            .filter_map(|line| line.split(" => ").nth(1))
            .map(|word| word.trim_end_matches(','))
            .collect();
        let list = source.split("const WORDS").nth(1).and_then(|rest| rest.split("];").next()).expect("it is here");
        assert_eq!(said.len(), WORDS.len());
        for word in said {
            assert!(list.contains(&format!("    {word},")), "{word} is not in WORDS");
        }
    }
}
