//! Requests that name a lease that does not exist.

use crate::{
    answers::{Answer, RequestAnswer, is_told},
    snapshot::{Answered, Request, RequestId, Settings},
    time::Millis,
};

/// What is to be done about requests without a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan does nothing by itself"]
pub struct OrphanPlan {
    /// The requests whose status should change, and to what.
    pub answers: Vec<RequestAnswer>,
    /// Requests that are abandoned, or have been over for long enough, to be deleted.
    pub sweep: Vec<RequestId>,
    /// How long until it is worth looking again, if nothing happens before.
    pub wake_in: Option<Millis>,
}

/// Plans for requests whose lease does not exist: they wait for it for as long as they are valid,
/// and one that has held it is over.
pub fn orphans(requests: &[Request], settings: Settings) -> OrphanPlan {
    let mut plan = OrphanPlan { answers: Vec::new(), sweep: Vec::new(), wake_in: None };
    for request in requests {
        let over = request.answered.is_some_and(Answered::is_over);
        if request.abandoned || over && request.over_for >= settings.finished_retention {
            plan.sweep.push(request.id.clone());
            continue;
        }
        let answer = wanted(request);
        let wake = if over {
            Some(settings.finished_retention - request.over_for)
        } else {
            request.timeout.map(|timeout| timeout - request.untouched)
        };
        if !is_told(&answer, request.answered) {
            plan.answers.push(RequestAnswer::new(request, answer));
        }
        plan.wake_in = plan.wake_in.into_iter().chain(wake.filter(|w| *w > Millis::ZERO)).min();
    }
    plan
}

fn wanted(request: &Request) -> Answer {
    if let Some(Answered::Granted(_)) = request.answered {
        return Answer::Lost;
    }
    if let Some(problem) = &request.invalid {
        return Answer::Invalid { problem: problem.clone() };
    }
    if request.timeout.is_some_and(|timeout| request.untouched >= timeout) {
        return Answer::TimedOut { why: "there is no Lease of that name in this namespace".to_owned() };
    }
    Answer::NoLease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: &str, answered: Option<Answered>) -> Request {
        let id = RequestId { name: uid.to_owned(), uid: uid.to_owned() };
        Request { id, holder: "a".to_owned(), sequence: 5, answered, ..Request::default() }
    }

    fn answer_to(request: Request) -> Option<Answer> {
        orphans(&[request], Settings::default()).answers.pop().map(|a| a.answer)
    }

    #[test]
    fn a_request_that_has_held_is_never_left_waiting() {
        assert_eq!(answer_to(request("u", Some(Answered::Granted(7)))), Some(Answer::Lost));
        assert_eq!(answer_to(request("u", Some(Answered::Finished))), None, "said already");
    }

    #[test]
    fn others_wait_for_as_long_as_they_are_valid() {
        assert_eq!(answer_to(request("u", None)), Some(Answer::NoLease));
        assert_eq!(answer_to(request("u", Some(Answered::NoLease))), None, "said already");
        let timeout = |untouched| Request {
            timeout: Some(Millis(30_000)),
            untouched: Millis(untouched),
            ..request("u", Some(Answered::NoLease))
        };
        let plan = orphans(&[timeout(10_000)], Settings::default());
        assert_eq!((plan.answers.len(), plan.wake_in), (0, Some(Millis(20_000))));
        assert!(matches!(answer_to(timeout(30_000)), Some(Answer::TimedOut { .. })));
        let lapsed = orphans(&[timeout(30_000)], Settings::default());
        assert_eq!(lapsed.wake_in, None, "the answer is news by itself");
        let never = Request { timeout: Some(Millis::ZERO), ..request("u", None) };
        assert!(matches!(answer_to(never), Some(Answer::TimedOut { .. })));
        let invalid = Request { invalid: Some("no".to_owned()), ..request("u", None) };
        assert!(matches!(answer_to(invalid), Some(Answer::Invalid { .. })));
    }

    #[test]
    fn what_is_over_is_swept_after_its_retention() {
        let settings = Settings::default();
        let over = |ms| Request { over_for: Millis(ms), ..request("u", Some(Answered::Denied)) };
        let soon = orphans(&[over(0)], settings);
        assert_eq!((soon.sweep.len(), soon.wake_in), (0, Some(settings.finished_retention)));
        let later = orphans(&[over(1_000)], settings);
        assert_eq!(later.wake_in, Some(settings.finished_retention - Millis(1_000)));
        let late = orphans(&[over(settings.finished_retention.0)], settings);
        assert_eq!((late.sweep.len(), late.wake_in), (1, None));
        let abandoned = Request { abandoned: true, ..request("u", None) };
        let at_once = orphans(&[abandoned], settings);
        assert_eq!((at_once.sweep.len(), at_once.answers.len()), (1, 0));
    }
}
