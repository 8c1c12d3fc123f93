//! The statuses of requests: advice, written after the lease and off the way of the next decision.

use std::{
    collections::{HashMap, HashSet},
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
    sent: Mutex<Sent>,
    /// Rung when the last one has come back.
    settled: Notify,
    jobs: mpsc::UnboundedSender<Job>,
}

/// What was sent, by the uid of the request. An entry lasts for as long as the request is there: who decides from what was
/// seen before the watch has shown the answer must still find it.
#[derive(Debug, Default)]
struct Sent {
    answers: HashMap<String, SentAnswer>,
    /// How many of them no watch has shown yet.
    under_way: usize,
    /// Requests that are being deleted, or are and no watch has shown it.
    deleting: HashSet<String>,
}

#[derive(Debug)]
struct SentAnswer {
    answer: Answer,
    /// To which resourceVersion of the request.
    to: i64,
    /// Whether a watch has shown the request with it.
    shown: bool,
}

impl Sent {
    /// Whether this answer is to be sent: not while it is on its way, and again where it was shown and is not there any more.
    fn begins(&mut self, uid: &str, answer: &Answer, to: i64) -> bool {
        if self.answers.get(uid).is_some_and(|sent| sent.answer == *answer && (!sent.shown || sent.to >= to)) {
            return false;
        }
        self.end(uid);
        self.answers.insert(uid.to_owned(), SentAnswer { answer: answer.clone(), to, shown: false });
        self.under_way += 1;
        true
    }

    /// A watch has shown a request with this status.
    fn is_shown(&mut self, uid: &str, status: &LeaseRequestStatus) {
        let Some(sent) = self.answers.get_mut(uid).filter(|sent| !sent.shown) else { return };
        let said = word(&sent.answer);
        if status.phase == Some(phase(&sent.answer)) && status.reason.as_deref() == Some(said) {
            sent.shown = true;
            self.under_way -= 1;
        }
    }

    /// This answer was not written. Another one may have taken its place since, which still may be.
    fn fails(&mut self, uid: &str, answer: &Answer, to: i64) {
        if self.answers.get(uid).is_some_and(|sent| sent.answer == *answer && sent.to == to) {
            self.end(uid);
        }
    }

    fn end(&mut self, uid: &str) {
        if self.answers.remove(uid).is_some_and(|sent| !sent.shown) {
            self.under_way -= 1;
        }
    }

    fn forget(&mut self, uid: &str) {
        self.end(uid);
        self.deleting.remove(uid);
    }

    /// Only these requests are there.
    fn keep(&mut self, there: &HashSet<String>) {
        let gone: Vec<String> = self.answers.keys().filter(|uid| !there.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.end(uid));
        self.deleting.retain(|uid| there.contains(uid));
    }
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
    /// The writer and the work that it hands on. The queue of jobs needs no limit of its own: what is sent or deleted
    /// already is not let in again, and requests are objects of the API server.
    #[must_use]
    pub fn new() -> (Arc<Self>, AnswerJobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { sent: Mutex::default(), settled: Notify::new(), jobs }), AnswerJobs(receiver))
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes these answers, soon.
    pub fn send(&self, key: &Key, answers: &[RequestAnswer]) {
        for RequestAnswer { request, version, sequence, answer } in answers {
            if self.sent().begins(&request.uid, answer, *version) {
                self.push(key, request, *version, What::Answer { answer: answer.clone(), sequence: *sequence });
            }
        }
    }

    /// What a request at this resourceVersion is being told, or was told since. It counts as told: a request that
    /// hears that it was too late is not granted a moment later. What is sent to a state that was seen to be over, since
    /// the request is now at `version`, is refused, and what that state says counts.
    #[must_use]
    pub fn on_the_way(&self, uid: &str, version: i64) -> Option<Answered> {
        self.sent().answers.get(uid).filter(|sent| sent.to >= version).map(|sent| sent.answer.said())
    }

    /// Deletes these requests, soon.
    pub fn sweep(&self, key: &Key, requests: &[RequestId]) {
        for request in requests {
            if self.sent().deleting.insert(request.uid.clone()) {
                self.push(key, request, 0, What::Delete);
            }
        }
    }

    fn push(&self, key: &Key, request: &RequestId, version: i64, what: What) {
        // The receiver lives as long as the controller; when it is gone there is nothing left to tell.
        let _ = self.jobs.send(Job { key: key.clone(), request: request.clone(), version, what });
    }

    /// A watch has shown a request: if its status is what was sent last, that has come back.
    pub fn seen(&self, request: &LeaseRequest) {
        if let (Some(uid), Some(status)) = (request.uid(), &request.status) {
            self.changes(|sent| sent.is_shown(&uid, status));
        }
    }

    /// A request is gone.
    pub fn forget(&self, request: &LeaseRequest) {
        if let Some(uid) = request.uid() {
            self.changes(|sent| sent.forget(&uid));
        }
    }

    /// Only the requests with these uids are there: a list has shown it.
    pub fn forget_others(&self, there: &HashSet<String>) {
        self.changes(|sent| sent.keep(there));
    }

    /// A job has come to nothing.
    fn failed(&self, job: &Job) {
        let uid = &job.request.uid;
        self.changes(|sent| match &job.what {
            What::Answer { answer, .. } => sent.fails(uid, answer, job.version),
            What::Delete => drop(sent.deleting.remove(uid)),
        });
    }

    fn changes(&self, change: impl FnOnce(&mut Sent)) {
        let mut sent = self.sent();
        change(&mut sent);
        if sent.under_way == 0 {
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
        self.sent().under_way
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
                        answers.failed(&job);
                        queue.push_after(job.key, RETRY);
                        return;
                    }
                    Ok(Err(error)) => super::chain(&error),
                    Err(_) => "no answer in time".to_owned(),
                };
                metrics.api_error("answer");
                warn!(lease = %job.key, request = job.request.name, problem, "cannot write the status of a request; trying again");
                answers.failed(&job);
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

    fn id(uid: &str) -> RequestId {
        RequestId { name: uid.to_owned(), uid: uid.to_owned() }
    }

    fn told(uid: &str, version: i64, answer: &Answer) -> RequestAnswer {
        RequestAnswer { request: id(uid), version, sequence: 1, answer: answer.clone() }
    }

    fn too_late() -> Answer {
        Answer::TimedOut { why: "it was too late".to_owned() }
    }

    /// A request as a watch shows it, with what it was told.
    fn request(uid: &str, answer: &Answer) -> LeaseRequest {
        let mut request = LeaseRequest::new(uid, konductor_crds::LeaseRequestSpec::default());
        request.metadata.uid = Some(uid.to_owned());
        request.status = Some(status(answer, 1));
        request
    }

    fn jobs(jobs: &mut AnswerJobs) -> usize {
        std::iter::from_fn(|| jobs.0.try_recv().ok()).count()
    }

    // Who decides may have seen the request before the watch brought the answer, and asks after.
    #[test]
    fn what_was_told_counts_for_who_has_seen_the_request_before() {
        let (answers, mut rest) = Answers::new();
        let key = Key::new("ns", "l");
        answers.send(&key, &[told("u", 5, &too_late())]);
        assert_eq!((answers.under_way(), jobs(&mut rest)), (1, 1));
        assert_eq!(answers.on_the_way("u", 5), Some(Answered::Finished));
        answers.seen(&request("u", &too_late()));
        assert_eq!(answers.under_way(), 0, "it has come back");
        assert_eq!(answers.on_the_way("u", 5), Some(Answered::Finished), "of what was seen before it is still true");
        assert_eq!(answers.on_the_way("u", 6), None, "and what has been seen since says it itself");
        answers.send(&key, &[told("u", 5, &too_late())]);
        assert_eq!(jobs(&mut rest), 0, "it is told");
        answers.send(&key, &[told("u", 7, &too_late())]);
        assert_eq!(jobs(&mut rest), 1, "somebody has taken it away");
        answers.forget(&request("u", &too_late()));
        assert_eq!((answers.under_way(), answers.on_the_way("u", 5)), (0, None), "it is gone");
    }

    #[test]
    fn an_answer_ends_by_itself_and_not_with_another() {
        let (answers, mut rest) = Answers::new();
        let key = Key::new("ns", "l");
        answers.send(&key, &[told("u", 5, &Answer::Pending)]);
        answers.send(&key, &[told("u", 5, &too_late())]);
        let first = rest.0.try_recv().expect("a job");
        answers.failed(&first);
        assert_eq!(answers.on_the_way("u", 5), Some(Answered::Finished), "the second is still on its way");
        // It says Pending too, and for another reason.
        answers.send(&key, &[told("v", 5, &Answer::Pending)]);
        answers.seen(&request("v", &Answer::NoLease));
        assert_eq!(answers.under_way(), 2);
        let second = rest.0.try_recv().expect("a job");
        answers.failed(&second);
        assert_eq!((answers.under_way(), answers.on_the_way("u", 5)), (1, None));
    }

    #[test]
    fn a_request_is_deleted_once_until_that_fails() {
        let (answers, mut rest) = Answers::new();
        let key = Key::new("ns", "l");
        answers.sweep(&key, &[id("u"), id("v")]);
        answers.sweep(&key, &[id("u"), id("v")]);
        assert_eq!(jobs(&mut rest), 2, "each reconcile says it again");
        let failed = Job { key: key.clone(), request: id("u"), version: 0, what: What::Delete };
        answers.failed(&failed);
        answers.sweep(&key, &[id("u"), id("v")]);
        assert_eq!(jobs(&mut rest), 1);
    }

    // A watch that was interrupted does not tell of each request that is gone.
    #[test]
    fn what_a_list_does_not_have_is_forgotten() {
        let (answers, mut rest) = Answers::new();
        let key = Key::new("ns", "l");
        answers.send(&key, &[told("u", 5, &Answer::Pending), told("v", 5, &Answer::Pending)]);
        answers.sweep(&key, &[id("w")]);
        jobs(&mut rest);
        answers.forget_others(&HashSet::from(["v".to_owned()]));
        assert_eq!((answers.under_way(), answers.on_the_way("u", 5)), (1, None));
        assert!(answers.on_the_way("v", 5).is_some());
        answers.sweep(&key, &[id("w")]);
        assert_eq!(jobs(&mut rest), 1);
    }

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
