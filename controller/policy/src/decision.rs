//! An answer's bytes become a decision. Nothing else reads what a guest wrote.
//!
//! This is the door through which a hostile guest's data comes in, so it never panics, and what
//! comes out is typed, bounded and clean. Whether a decision is *legal* is not asked here: that is
//! the guard's business, in the core.

use konductor_core::{Decision, Denial, Grant, HoldAction, Millis};
use konductor_policy_abi::{
    limits::{OUTPUT_MAX, REASON_MAX},
    v1,
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{
    fault::{Fault, Step},
    limits::Bytes,
    text,
};

/// A decision, and whether a text in it was cut or cleaned.
pub(crate) struct Decoded {
    pub(crate) decision: Decision,
    pub(crate) texts_cut: bool,
}

/// Reads the answer of `konductor_decide`. `index` gives the question's index of a request for the guest's.
pub(crate) fn decode(bytes: &[u8], index: impl Fn(u32) -> usize) -> Result<Decoded, Fault> {
    let output: v1::Output<'static> = parse(bytes, Step::Decide)?;
    let mut texts_cut = false;
    let mut reason = |text: std::borrow::Cow<'_, str>| {
        let mut text = text.into_owned();
        texts_cut |= text::clean(&mut text, REASON_MAX);
        text
    };
    let decision = Decision {
        hold: match output.hold {
            None | Some(v1::HoldAction::Keep) => HoldAction::Keep,
            Some(v1::HoldAction::Renew { ttl_ms }) => HoldAction::Renew { ttl: millis("hold.ttlMs", ttl_ms)? },
            Some(v1::HoldAction::Expire) => HoldAction::Expire,
            Some(v1::HoldAction::Preempt { r#for, grace_ms, force }) => {
                HoldAction::Preempt { in_favour_of: index(r#for), grace: millis("hold.graceMs", grace_ms)?, force }
            }
        },
        grant: match output.grant {
            None => None,
            Some(grant) => Some(Grant { request: index(grant.request), ttl: millis("grant.ttlMs", grant.ttl_ms)? }),
        },
        deny: output
            .deny
            .into_iter()
            .map(|denial| Denial { request: index(denial.request), reason: reason(denial.reason) })
            .collect(),
        wake_in: output.wake_in_ms.map(|ms| millis("wakeInMs", ms)).transpose()?,
        state: output.state.map(std::borrow::Cow::into_owned),
        reason: reason(output.reason),
    };
    Ok(Decoded { decision, texts_cut })
}

/// Reads any answer of a guest.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], step: Step) -> Result<T, Fault> {
    if bytes.is_empty() {
        return Err(Fault::OutputEmpty { step });
    }
    if bytes.len() > OUTPUT_MAX {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        return Err(Fault::OutputTooLarge { step, len, limit: Bytes(OUTPUT_MAX) });
    }
    let json = std::str::from_utf8(bytes).map_err(|error| Fault::OutputNotUtf8 { step, at: error.valid_up_to() })?;
    // The parser bounds its own recursion, and its work by the length of the text.
    serde_json::from_str(json).map(|v1::Object(value)| value).map_err(|error| {
        // The message may quote the guest.
        let problem = text::cleaned(error.to_string(), REASON_MAX);
        match error.classify() {
            Category::Data => Fault::OutputSchema { step, problem },
            Category::Syntax | Category::Eof | Category::Io => Fault::OutputNotJson { step, problem },
        }
    })
}

/// A span of time that a policy gave. Below zero is no span; how long is too long, the guard knows.
fn millis(member: &str, ms: i64) -> Result<Millis, Fault> {
    if ms < 0 {
        return Err(Fault::OutputSchema { step: Step::Decide, problem: format!("{member} is {ms}, below zero") });
    }
    Ok(Millis(ms))
}
