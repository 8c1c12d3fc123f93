//! Why a lease is where it is: the policy itself is asked what it would do if something were otherwise.
//!
//! Nothing here knows the rules of any policy. Who is next is found by asking who would get the lease if its holder had
//! just released it; what a request lacks is found by asking again with other priorities. A question that is asked in
//! vain changes nothing.

use std::collections::BTreeSet;

use konductor_core::{Cause, Ending, HoldAction, PastHold, Question, Time, check};
use konductor_policy::Policy;
use konductor_policy_abi::v1;
use serde::Serialize;
use serde_json::Value;

use crate::{Mistake, question::question, words};

/// How many of those that wait are told in the order in which they would be served: what fits a screen.
pub const SERVED_MAX: usize = 10;
/// How many priorities of rivals are tried for a request: each try is a call into the sandbox. Between those of its rivals
/// nothing changes for most policies; for the others one of them is narrowed down, in at most 32 more.
const PRIORITIES_MAX: usize = 64;
/// The most past holds that a policy is shown.
const HISTORY_MAX: usize = 8;

/// What a policy says, and what it would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What it decides now: a line for each thing.
    pub now: Vec<String>,
    /// Who gets the lease, in this order, if each holder releases it at once and nobody else comes: the first is next. At
    /// most [`SERVED_MAX`].
    pub next: Vec<Served>,
    /// Who is never granted, and why.
    pub denied: Vec<Denied>,
    /// Why nobody is next, although somebody waits; the policy's own words, or how it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nobody: Option<String>,
    /// What the request that was asked about lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// Who would get the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// Who.
    pub holder: String,
    /// The policy's words.
    pub reason: String,
}

/// Who would be denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Denied {
    /// Who.
    pub holder: String,
    /// The policy's words.
    pub reason: String,
}

/// One request, and what would have to change for it to win.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Whose request.
    pub holder: String,
    /// Its priority.
    pub priority: i32,
    /// Its place among those that are served, from 1; absent if it is not among the first [`SERVED_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// Why it is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// The lowest priority that was found at which it would be next; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_with_priority: Option<i32>,
    /// The lowest priority that was found at which the holder would be asked to leave for it; absent if there is none, or
    /// if nobody holds the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preempts_with_priority: Option<i32>,
}

/// Asks a policy about a lease, and about one of its waiting requests. The input is what a host would send: JSON of the
/// ABI, of any length, with the requests in order of arrival.
///
/// # Errors
/// If it is no such input.
pub fn explain(policy: &Policy, input: &[u8], about: Option<usize>) -> Result<Explanation, Mistake> {
    let read: Result<v1::Object<v1::Input<'_, Value>>, _> = serde_json::from_slice(input);
    let v1::Object(input) = read.map_err(|error| Mistake::new("input", error.to_string()))?;
    let asker = Asker { policy, params: input.params.to_string() };
    let question = question(&input);
    let now = match asker.ask(&question) {
        Ok(decision) => words::decision(&question, &decision),
        Err(problem) => vec![problem],
    };
    let free = freed(&question);
    let (next, denied, nobody) = asker.line(&free);
    let about = about.filter(|&index| index < question.requests.len()).map(|index| {
        let request = &question.requests[index];
        About {
            holder: request.holder.clone(),
            priority: request.priority,
            place: next.iter().position(|served| served.holder == request.holder).map(|place| place + 1),
            denied: denied.iter().find(|denied| denied.holder == request.holder).map(|denied| denied.reason.clone()),
            next_with_priority: asker
                .lowest(&free, index, |decision| decision.grant.is_some_and(|grant| grant.request == index)),
            preempts_with_priority: question.hold.as_ref().and_then(|_| {
                asker.lowest(&question, index, |decision| {
                    matches!(decision.hold, HoldAction::Preempt { in_favour_of, .. } if in_favour_of == index)
                })
            }),
        }
    });
    Ok(Explanation { now, next, denied, nobody, about })
}

struct Asker<'p> {
    policy: &'p Policy,
    params: String,
}

impl Asker<'_> {
    /// A decision that a host would obey, or why there is none.
    fn ask(&self, question: &Question) -> Result<konductor_core::Decision, String> {
        let decided = self
            .policy
            .decide(question, &self.params)
            .map_err(|fault| format!("the policy fails, {}: {fault}", fault.reason()))?;
        let checked = check(question, decided.decision)
            .map_err(|refusal| format!("the host refuses the policy's answer, {}: {refusal}", refusal.rule()))?;
        Ok(checked.decision().clone())
    }

    /// Serves who waits for a free lease, one after the other.
    fn line(&self, free: &Question) -> (Vec<Served>, Vec<Denied>, Option<String>) {
        let (mut next, mut denied) = (Vec::new(), Vec::new());
        let mut question = free.clone();
        while next.len() < SERVED_MAX && !question.requests.is_empty() {
            let decision = match self.ask(&question) {
                Ok(decision) => decision,
                Err(problem) => return (next, denied, Some(problem)),
            };
            let mut gone = BTreeSet::new();
            for denial in &decision.deny {
                if let Some(request) = question.requests.get(denial.request).filter(|_| gone.insert(denial.request)) {
                    denied.push(Denied { holder: request.holder.clone(), reason: denial.reason.clone() });
                }
            }
            let granted =
                decision.grant.and_then(|grant| question.requests.get(grant.request).map(|r| (grant.request, r)));
            if let Some((index, request)) = granted {
                gone.insert(index);
                let past = (request.holder.clone(), question.now);
                next.push(Served { holder: request.holder.clone(), reason: decision.reason.clone() });
                release(&mut question, past.0, past.1);
            } else if gone.is_empty() {
                let why = match decision.reason.as_str() {
                    "" => "the policy grants it to nobody, and does not say why".to_owned(),
                    reason => reason.to_owned(),
                };
                return (next, denied, Some(why));
            }
            if let Some(state) = decision.state {
                question.state = state;
            }
            let mut index = 0;
            question.requests.retain(|_| {
                index += 1;
                !gone.contains(&(index - 1))
            });
            question.waiting = question.requests.len();
        }
        (next, denied, None)
    }

    /// The lowest priority of a request, at least its own, at which the decision is as wanted.
    fn lowest(
        &self,
        question: &Question,
        index: usize,
        wanted: impl Fn(&konductor_core::Decision) -> bool,
    ) -> Option<i32> {
        let own = question.requests.get(index)?.priority;
        let rivals = question.requests.iter().map(|request| request.priority);
        let rivals = rivals.chain(question.hold.as_ref().map(|hold| hold.priority));
        lowest(own, rivals, |priority| {
            let mut question = question.clone();
            question.requests[index].priority = priority;
            self.ask(&question).is_ok_and(|decision| wanted(&decision))
        })
    }
}

/// The lowest priority, at least the own, that does. What is returned was asked for and does; what is one lower does not,
/// or is lower than the own.
///
/// Tried are the priorities where a comparison with a rival turns, [`PRIORITIES_MAX`] at most. A policy may compare with
/// a number of its own instead: it turns somewhere between the first that does and the last before it that does not, and
/// is found by halving, in 32 more questions at most. A policy that serves a priority and not a higher one may serve one
/// that is lower than what is found.
fn lowest(own: i32, rivals: impl Iterator<Item = i32>, mut does: impl FnMut(i32) -> bool) -> Option<i32> {
    // Where a comparison with a rival turns: as high as it, and above it.
    let mut tried: BTreeSet<i32> = rivals.flat_map(|rival| [rival, rival.saturating_add(1)]).collect();
    tried.insert(i32::MAX);
    tried.retain(|&priority| priority > own);
    if does(own) {
        return Some(own);
    }
    let above = tried.iter().copied().take(PRIORITIES_MAX - 2).chain(tried.last().copied());
    let mut too_low = own;
    let mut enough = above.into_iter().find(|&priority| {
        let found = does(priority);
        if !found {
            too_low = priority;
        }
        found
    })?;
    // Wider than an i32: the two may be as far apart as any two are.
    while i64::from(enough) - i64::from(too_low) > 1 {
        let middle = too_low.midpoint(enough);
        if does(middle) {
            enough = middle;
        } else {
            too_low = middle;
        }
    }
    Some(enough)
}

/// The lease as its holder has just released it.
fn freed(question: &Question) -> Question {
    let mut free = question.clone();
    if let Some(hold) = free.hold.take() {
        free.cause = Cause::Release;
        release(&mut free, hold.holder, hold.acquired);
        if let Some(past) = free.history.first_mut() {
            past.token = hold.token;
        }
    } else {
        free.cause = Cause::Request;
    }
    free
}

fn release(question: &mut Question, holder: String, acquired: Time) {
    let token = question.history.first().map_or(0, |past| past.token) + 1;
    let now = question.now;
    let (request, how) = (String::new(), Ending::Released);
    let past = PastHold { holder, request_name: request.clone(), request, token, acquired, ended: now, how };
    question.history.insert(0, past);
    question.history.truncate(HISTORY_MAX);
    question.cause = Cause::Release;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, fixture};

    fn ask(text: &str, about: Option<usize>) -> Explanation {
        let host = Host::new().expect("a sandbox");
        let input = fixture::input(text).expect(text).json();
        explain(&host.builtin(), &input, about).expect("an input")
    }

    fn holders(explanation: &Explanation) -> Vec<&str> {
        explanation.next.iter().map(|served| served.holder.as_str()).collect()
    }

    const QUEUE: &str =
        "{hold: {holder: a, priority: 5}, requests: [{holder: b}, {holder: c, priority: 9}, {holder: d}]}";

    #[test]
    fn the_line_is_what_the_policy_would_serve() {
        let found = ask(QUEUE, None);
        assert_eq!(holders(&found), ["c", "b", "d"]);
        assert!(!found.next[0].reason.is_empty() && found.nobody.is_none() && found.about.is_none());
        assert!(found.now[0].starts_with("hold: "), "{:?}", found.now);
        let free = ask("{requests: [{holder: b}, {holder: c}]}", None);
        assert_eq!(holders(&free), ["b", "c"]);
        assert_eq!(ask("{}", Some(0)).about, None);
    }

    #[test]
    fn what_a_request_lacks_is_the_lowest_priority_that_wins() {
        let about = |index| ask(QUEUE, Some(index)).about.expect("about it");
        let (b, c, d) = (about(0), about(1), about(2));
        // In front of c it needs one more than 9: c came later, so as much is enough for b.
        assert_eq!((b.place, b.next_with_priority), (Some(2), Some(9)));
        assert_eq!((c.place, c.next_with_priority, c.priority), (Some(1), Some(9), 9));
        assert_eq!((d.place, d.next_with_priority), (Some(3), Some(10)));
    }

    #[test]
    fn a_priority_that_no_rival_has_is_found_by_asking_not_often() {
        let rivals = [-5, 0, 9, 1_000_000];
        for own in [i32::MIN, -7, 0, 2] {
            for least in [i32::MIN, -6, 0, 3, 9, 10, 500, 1_000_001, i32::MAX - 1, i32::MAX] {
                let mut asked = Vec::new();
                let found = lowest(own, rivals.into_iter(), |priority| {
                    asked.push(priority);
                    priority >= least
                });
                assert_eq!(found, Some(own.max(least)), "from {own}, served from {least}");
                assert!(
                    asked.len() <= PRIORITIES_MAX + 32 && asked.iter().all(|&priority| priority >= own),
                    "{asked:?}"
                );
            }
        }
        assert_eq!(lowest(0, rivals.into_iter(), |_| false), None);
        let mut count = 0;
        let many = lowest(i32::MIN, (0..1_000).map(|rival| rival * 2), |priority| {
            count += 1;
            priority > i32::MAX - 3
        });
        assert!(many == Some(i32::MAX - 2) && count <= PRIORITIES_MAX + 32, "{many:?}, {count}");
        // Whom a policy serves within bounds only: what is found does, and one less does not.
        let within = lowest(0, rivals.into_iter(), |priority| (4..=9).contains(&priority));
        assert_eq!(within, Some(4));
    }

    #[test]
    fn a_preemption_is_only_promised_where_the_policy_makes_it() {
        let preempts = |params: &str, index| {
            let text = format!(
                "{{params: {params}, hold: {{holder: a, priority: 5}}, requests: [{{holder: b}}, {{holder: c, priority: 9}}]}}"
            );
            ask(&text, Some(index)).about.expect("about it").preempts_with_priority
        };
        assert_eq!(preempts("{}", 0), None);
        assert_eq!(preempts("{preemption: LowerPriority}", 1), Some(9));
        assert_eq!(preempts("{preemption: LowerPriority}", 0), Some(9));
    }
}
