//! What the requests are told: their statuses, how many of them wait, and which are swept.

use crate::{
    decision::Verdict,
    plan::WAITING_WRITE_INTERVAL,
    situation::Situation,
    snapshot::{Answered, Ending, Record, Request, RequestId, Snapshot},
    time::{Millis, Time},
    transition::Transition,
};

/// A request's status as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAnswer {
    /// The request.
    pub request: RequestId,
    /// The resourceVersion at which it was seen. An answer to what has changed since must not be
    /// written: it could undo a newer one.
    pub version: i64,
    /// Its place in the order of arrival, see [`Request::sequence`]. It goes with every answer: also of a
    /// request that never waited, another replica must know whether it came before or after the next.
    pub sequence: i64,
    /// What its status should say.
    pub answer: Answer,
}

impl RequestAnswer {
    /// This answer to this request.
    #[must_use]
    pub fn new(request: &Request, answer: Answer) -> Self {
        Self { request: request.id.clone(), version: request.version, sequence: request.sequence, answer }
    }
}

/// What the status of a request should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It waits.
    Pending,
    /// It holds.
    Granted {
        /// Its fencing token.
        token: i64,
        /// Until when, as first granted.
        expires: Time,
    },
    /// The policy will never grant it.
    Denied {
        /// The policy's words.
        reason: String,
    },
    /// Its spec is not understood.
    Invalid {
        /// What is wrong with it.
        problem: String,
    },
    /// Too many wait already.
    Crowded {
        /// How many may.
        most: usize,
    },
    /// It held and lost the lease.
    Over(Ending),
    /// It was granted once, but the lease's record knows nothing of it any more: the lease was
    /// deleted, perhaps made anew. It is never granted again.
    Lost,
    /// It waits for a lease that does not exist.
    NoLease,
    /// A newer request of the same holder took its place in the line.
    Superseded,
    /// It was not granted in time.
    TimedOut {
        /// Why not, as far as it is known.
        why: String,
    },
}

impl Answer {
    /// What a request's status says once this is written.
    #[must_use]
    pub fn said(&self) -> Answered {
        match self {
            Self::Pending => Answered::Pending,
            Self::NoLease => Answered::NoLease,
            Self::Granted { token, .. } => Answered::Granted(*token),
            Self::Denied { .. } | Self::Invalid { .. } | Self::Crowded { .. } => Answered::Denied,
            Self::Over(_) | Self::Lost | Self::Superseded | Self::TimedOut { .. } => Answered::Finished,
        }
    }
}

/// The requests whose status does not say what it should.
pub(crate) fn answers(
    snapshot: &Snapshot,
    situation: &Situation,
    verdict: &Verdict,
    next: &Record,
    denied: &[(&Request, &str)],
) -> Vec<RequestAnswer> {
    let mut answers = Vec::new();
    for (i, request) in snapshot.requests.iter().enumerate() {
        // A grant that our view of the lease is too old to know of: somebody else has written since. Its token is then at
        // least the resourceVersion of that view, and that of a Lease which is no more is below: see `next_token`.
        let ahead = matches!(request.answered, Some(Answered::Granted(token))
            if token > next.token && token >= snapshot.resource_version);
        let answer = wanted_answer(snapshot, situation, verdict, next, denied, i);
        // Nobody reads what one is told that is about to be deleted.
        if !ahead && !request.abandoned && !is_told(&answer, request.answered) {
            answers.push(RequestAnswer::new(request, answer));
        }
    }
    answers
}

/// Whether a request's status says this already.
pub(crate) fn is_told(answer: &Answer, said: Option<Answered>) -> bool {
    let Some(said) = said else { return false };
    match answer {
        Answer::Pending => said == Answered::Pending || said.is_over(),
        Answer::NoLease => said == Answered::NoLease || said.is_over(),
        Answer::Granted { token, .. } => said == Answered::Granted(*token),
        Answer::Denied { .. }
        | Answer::Invalid { .. }
        | Answer::Crowded { .. }
        | Answer::Over(_)
        | Answer::Lost
        | Answer::Superseded
        | Answer::TimedOut { .. } => said.is_over(),
    }
}

fn wanted_answer(
    snapshot: &Snapshot,
    situation: &Situation,
    verdict: &Verdict,
    next: &Record,
    denied: &[(&Request, &str)],
    index: usize,
) -> Answer {
    let request = &snapshot.requests[index];
    let uid = &request.id.uid;
    if let Some(hold) = next.hold().filter(|h| h.request.uid == *uid) {
        return Answer::Granted { token: next.token, expires: hold.expires };
    }
    if let Some(ended) = next.history.iter().find(|p| p.request == *uid) {
        return Answer::Over(ended.how);
    }
    if let Some(Answered::Granted(_)) = request.answered {
        return Answer::Lost;
    }
    if let Some(problem) = &request.invalid {
        return Answer::Invalid { problem: problem.clone() };
    }
    if let Some((_, reason)) = denied.iter().find(|(r, _)| r.id.uid == *uid) {
        return Answer::Denied { reason: (*reason).to_owned() };
    }
    if situation.superseded.contains(&index) {
        return Answer::Superseded;
    }
    if situation.crowded.contains(&index) {
        return Answer::Crowded { most: snapshot.settings.waiting_max };
    }
    let now_or_never = request.timeout == Some(Millis::ZERO) && situation.candidates.contains(&index);
    if situation.lapsed.contains(&index) || (now_or_never && !situation.superseding) {
        return Answer::TimedOut { why: why_not(snapshot, verdict, next) };
    }
    Answer::Pending
}

/// Why a request was not granted, for its holder to read.
fn why_not(snapshot: &Snapshot, verdict: &Verdict, next: &Record) -> String {
    if let Some(problem) = &snapshot.lease.problem {
        return format!("the Lease's spec is invalid: {problem}");
    }
    if let Some(hold) = next.hold() {
        return format!("the lease is held by {}", hold.holder);
    }
    match verdict {
        Verdict::Unavailable(why) => format!("the lease's policy cannot decide: {why}"),
        Verdict::Decided(checked) if !checked.decision().reason.is_empty() => {
            format!("the policy did not grant it: {}", checked.decision().reason)
        }
        Verdict::Decided(_) => "the policy did not grant it".to_owned(),
        Verdict::NotAsked => "it was not granted in time".to_owned(),
    }
}

/// The number of waiting requests that the status should say, and when to look again if it is not
/// worth a write of its own yet.
pub(crate) fn waiting(
    snapshot: &Snapshot,
    situation: &Situation,
    next: &Record,
    change: &Transition,
    answers: &[RequestAnswer],
) -> (i64, Option<Millis>) {
    let gone = answers
        .iter()
        .filter(|a| {
            matches!(a.answer, Answer::Granted { .. } | Answer::Denied { .. } | Answer::TimedOut { .. })
                && situation.candidates.iter().any(|&i| snapshot.requests[i].id.uid == a.request.uid)
        })
        .count();
    let count = i64::try_from(situation.waiting.saturating_sub(gone)).unwrap_or(i64::MAX);
    let writes_anyway = *change != Transition::Stay || *next != snapshot.record;
    if writes_anyway || count == snapshot.waiting_told || snapshot.since_write >= WAITING_WRITE_INTERVAL {
        (count, None)
    } else {
        (snapshot.waiting_told, Some(WAITING_WRITE_INTERVAL - snapshot.since_write))
    }
}

/// Requests that are abandoned, or have been over for long enough. The one that holds is not over,
/// whatever its status says.
pub(crate) fn sweep(snapshot: &Snapshot, next: &Record) -> Vec<RequestId> {
    let holding = next.hold().map(|h| h.request.uid.as_str());
    snapshot
        .requests
        .iter()
        .filter(|r| {
            let over = r.answered.is_some_and(Answered::is_over) && holding != Some(r.id.uid.as_str());
            r.abandoned || over && r.over_for >= snapshot.settings.finished_retention
        })
        .map(|r| r.id.clone())
        .collect()
}
