//! The core's question becomes the ABI's JSON.

use std::borrow::Cow;

use konductor_core::{Candidate, Cause, Ending, Question};
use konductor_policy_abi::{
    limits::{INPUT_MAX, REQUESTS_MAX},
    v1,
};
use serde_json::value::RawValue;

use crate::{fault::Fault, limits::Bytes, text};

/// An input as bytes, and which of the question's requests are in it.
pub(crate) struct Encoded {
    pub(crate) json: Vec<u8>,
    /// The question's index of each request that is shown; `None` when all are.
    shown: Option<Vec<usize>>,
}

impl Encoded {
    /// The question's index of the request that the guest calls `index`. For one that was not shown,
    /// an index that the question does not have either.
    pub(crate) fn index(&self, index: u32) -> usize {
        let index = index as usize;
        match &self.shown {
            None => index,
            Some(shown) => shown.get(index).copied().unwrap_or(usize::MAX),
        }
    }
}

/// Params as they were given, once they are known to be a JSON object. No text means none.
pub(crate) fn params(json: &str) -> Result<&RawValue, Fault> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    let raw: &RawValue = serde_json::from_str(json)
        .map_err(|error| Fault::ParamsNotJson { problem: text::cleaned(error.to_string(), 256) })?;
    if raw.get().starts_with('{') {
        Ok(raw)
    } else {
        Err(Fault::ParamsNotJson { problem: "it is another kind of value".to_owned() })
    }
}

/// Writes the input.
///
/// If it would be longer than the ABI allows, requests are left out until it fits, the lowest
/// priority first and among equals the last that came: those that have the least chance to be
/// chosen. Nothing else is left out, labels least of all: a policy that decides by a label must not
/// take one that was cut off for one that is not there. The requests that are left out still wait,
/// and `waiting` still counts them.
pub(crate) fn encode(question: &Question, params: &RawValue) -> Result<Encoded, Fault> {
    // The core shows no more than this many; a caller that does is treated the same way.
    if question.requests.len() <= REQUESTS_MAX {
        let json = write(&input(question, params, question.requests.iter().map(request).collect()))?;
        if json.len() <= INPUT_MAX {
            return Ok(Encoded { json, shown: None });
        }
    }
    let bare = write(&input(question, params, Vec::new()))?.len();
    if bare > INPUT_MAX {
        return Err(Fault::InputTooLarge { bytes: Bytes(bare), limit: Bytes(INPUT_MAX) });
    }
    let shown = fitting(&question.requests, INPUT_MAX - bare)?;
    let requests = shown.iter().map(|&i| request(&question.requests[i])).collect();
    let json = write(&input(question, params, requests))?;
    Ok(Encoded { json, shown: Some(shown) })
}

/// The first requests by priority, then arrival, that fit into so many bytes, in order of arrival.
fn fitting(requests: &[Candidate], room: usize) -> Result<Vec<usize>, Fault> {
    let mut ranked: Vec<usize> = (0..requests.len()).collect();
    // Stable: equal priorities stay in order of arrival.
    ranked.sort_by_key(|&i| std::cmp::Reverse(requests[i].priority));
    let mut left = room;
    let mut shown = Vec::new();
    for i in ranked {
        if shown.len() == REQUESTS_MAX {
            break;
        }
        // And a comma.
        let size = write(&request(&requests[i]))?.len() + 1;
        if let Some(rest) = left.checked_sub(size) {
            left = rest;
            shown.push(i);
        }
    }
    shown.sort_unstable();
    Ok(shown)
}

fn write<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    let mut json = Vec::with_capacity(4096);
    serde_json::to_writer(&mut json, value)
        // Numbers, text and JSON that was JSON already can always be written.
        .map_err(|error| Fault::Sandbox { problem: text::cleaned(error.to_string(), 256) })?;
    Ok(json)
}

fn input<'a>(
    question: &'a Question,
    params: &'a RawValue,
    requests: Vec<v1::Request<'a>>,
) -> v1::Input<'a, &'a RawValue> {
    v1::Input {
        now: question.now.0,
        cause: match question.cause {
            Cause::Request => v1::Cause::Request,
            Cause::Renewal => v1::Cause::Renewal,
            Cause::Due => v1::Cause::Due,
            Cause::Release => v1::Cause::Release,
        },
        lease: v1::Lease {
            name: text(&question.lease.name),
            namespace: text(&question.lease.namespace),
            uid: text(&question.lease.uid),
            ttl_ms: question.ttl.0,
            priority: question.lease.priority,
            renewable: question.lease.renewable,
            labels: labels(&question.lease.labels),
        },
        params,
        hold: question.hold.as_ref().map(|hold| v1::Hold {
            holder: text(&hold.holder),
            priority: hold.priority,
            ttl_ms: hold.ttl.0,
            acquired: hold.acquired.0,
            expires: hold.expires.0,
            renewals: hold.renewals,
            token: hold.token,
            renewal_requested: hold.renewal_requested,
            due: hold.due,
            labels: labels(&hold.labels),
            preemption: hold.preemption.as_ref().map(|preemption| v1::Preemption {
                by: text(&preemption.by),
                deadline: preemption.deadline.0,
                force: preemption.force,
                reason: text(&preemption.reason),
            }),
        }),
        requests,
        waiting: question.waiting as u64,
        history: question
            .history
            .iter()
            .map(|past| v1::Past {
                holder: text(&past.holder),
                token: past.token,
                acquired: past.acquired.0,
                ended: past.ended.0,
                how: match past.how {
                    Ending::Released => v1::Ending::Released,
                    Ending::Expired => v1::Ending::Expired,
                    Ending::Preempted => v1::Ending::Preempted,
                    Ending::ForceReleased => v1::Ending::ForceReleased,
                    Ending::Superseded => v1::Ending::Superseded,
                },
            })
            .collect(),
        state: text(&question.state),
    }
}

fn request(candidate: &Candidate) -> v1::Request<'_> {
    v1::Request {
        holder: text(&candidate.holder),
        priority: candidate.priority,
        ttl_ms: candidate.ttl.0,
        arrived: candidate.arrived.0,
        labels: labels(&candidate.labels),
    }
}

fn text(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

fn labels(labels: &[(String, String)]) -> v1::Labels<'_> {
    v1::Labels(labels.iter().map(|(key, value)| (text(key), text(value))).collect())
}
