//! A guest's answer, through the decoder and the guard.

use arbitrary::{Result, Unstructured};
use konductor_core::{Decision, HoldAction, Millis, Question, check, guard};
use konductor_policy::Policy;
use konductor_policy_abi::{limits, v1};
use peak_alloc::PeakAlloc;

use crate::questions;

/// So much may be allocated for each byte of an answer. A denial of 15 bytes becomes one value in
/// each of three lists that double as they grow: about 20 for a byte.
const ALLOCATED_PER_BYTE: usize = 64;
/// And so much whatever the answer is: messages and the like.
const ALLOCATED_ANYWAY: usize = 64 * 1024;

pub(crate) fn run(bytes: &[u8]) -> String {
    let mut u = Unstructured::new(bytes);
    // Bytes that end too early have chosen nothing yet.
    let Ok((question, output)) = case(&mut u) else { return "too short".to_owned() };

    let counter = PeakAlloc;
    let before = counter.current_usage();
    counter.reset_peak_usage();
    let read = Policy::read(&output);
    let allocated = counter.peak_usage().saturating_sub(before);
    assert!(
        allocated <= ALLOCATED_ANYWAY + ALLOCATED_PER_BYTE * output.len(),
        "{allocated} bytes were allocated for an answer of {}",
        output.len()
    );

    let decision = match read {
        Ok(decision) => decision,
        Err(fault) => {
            let said = fault.to_string();
            assert!(said.len() < 1024 && is_plain(&said), "a message that is not fit to be shown: {said:?}");
            assert!(!fault.is_infrastructure(), "an answer is never the machine's doing: {said}");
            return fault.reason().to_owned();
        }
    };
    assert!(output.len() <= limits::OUTPUT_MAX, "an answer above the limit was read");
    survives_the_way(&decision);
    match check(&question, decision.clone()) {
        Err(refusal) => {
            let said = refusal.to_string();
            assert!(said.len() < 256 && is_plain(&said), "{said:?}");
            format!("refused {}", refusal.rule())
        }
        Ok(checked) => {
            is_legal(&question, checked.decision());
            let again = check(&question, checked.decision().clone()).expect("what was let pass is let pass again");
            assert_eq!(again.decision(), checked.decision(), "checking again has changed it");
            assert!(again.clamps().is_empty(), "what was cut is cut again: {:?}", again.clamps());
            if checked.clamps().is_empty() { "legal".to_owned() } else { "legal, cut".to_owned() }
        }
    }
}

fn case(u: &mut Unstructured<'_>) -> Result<(Question, Vec<u8>)> {
    // The answer first: where the bytes end too early, the rest of the question is plain.
    let output = match u.int_in_range(0u8..=15)? {
        0 => {
            let some = u.int_in_range(0..=u.len())?;
            u.bytes(some)?.to_vec()
        }
        1 => pieces(u)?.into_bytes(),
        2 => long(u)?,
        // An answer of the ABI's shape, and the same with some bytes changed.
        3..=6 => {
            let answer = answer(u)?;
            mutated(u, answer)?
        }
        _ => answer(u)?,
    };
    Ok((questions::question(u)?, output))
}

/// Any answer of the ABI's shape. That it is legal happens often enough.
fn answer(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let hold = match u.int_in_range(0u8..=6)? {
        0..=2 => None,
        3 => Some(v1::HoldAction::Keep),
        4 => Some(v1::HoldAction::Renew { ttl_ms: span(u)? }),
        5 => Some(v1::HoldAction::Expire),
        _ => Some(v1::HoldAction::Preempt { r#for: index(u)?, grace_ms: span(u)?, force: u.arbitrary()? }),
    };
    let grant = if u.arbitrary()? { Some(v1::Grant { request: index(u)?, ttl_ms: span(u)? }) } else { None };
    let deny = (0..u.int_in_range(0..=3)?)
        .map(|_| Ok(v1::Denial { request: index(u)?, reason: questions::text(u)?.into() }))
        .collect::<Result<_>>()?;
    let state = match u.int_in_range(0u8..=15)? {
        0 => Some("s".repeat(u.int_in_range(limits::STATE_MAX - 1..=limits::STATE_MAX + 1)?).into()),
        1..=4 => Some(questions::text(u)?.into()),
        _ => None,
    };
    let output = v1::Output {
        hold,
        grant,
        deny,
        wake_in_ms: if u.arbitrary()? { Some(span(u)?) } else { None },
        state,
        reason: questions::text(u)?.into(),
    };
    Ok(serde_json::to_vec(&output).expect("an answer of the ABI is JSON"))
}

/// The index of a request: mostly one of the first, which are there.
fn index(u: &mut Unstructured<'_>) -> Result<u32> {
    if u.ratio(1, 8)? { u.arbitrary() } else { u.int_in_range(0..=3) }
}

fn span(u: &mut Unstructured<'_>) -> Result<i64> {
    if u.ratio(1, 4)? { u.arbitrary() } else { u.int_in_range(0..=600_000) }
}

/// Changes, inserts and takes away some bytes.
fn mutated(u: &mut Unstructured<'_>, mut answer: Vec<u8>) -> Result<Vec<u8>> {
    const BYTES: &[u8] = b"{}[]\":,0-9.eE\\u\0\xff\xc3 tfn";
    for _ in 0..u.int_in_range(1..=4)? {
        let at = u.int_in_range(0..=answer.len().saturating_sub(1))?;
        let byte = if u.arbitrary()? { *u.choose(BYTES)? } else { u.arbitrary()? };
        match u.int_in_range(0u8..=3)? {
            0 if at < answer.len() => answer[at] = byte,
            1 => answer.insert(at, byte),
            2 => answer.truncate(at),
            3 => {
                // A piece twice: a duplicate member, or brackets that do not match.
                let end = u.int_in_range(at..=answer.len())?;
                let piece = answer[at..end].to_vec();
                answer.splice(at..at, piece);
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// Pieces of JSON one after the other, as a generator that has lost its way writes them.
fn pieces(u: &mut Unstructured<'_>) -> Result<String> {
    const PIECES: [&str; 35] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "-1",
        "1e400",
        "1.5",
        "18446744073709551615",
        "\"\\u0000\"",
        "\"\\ud83d\"",
        "\\u0000",
        "\\ud83d",
        "\u{202e}",
        "ü",
        "\u{1b}[2J",
        "\"hold\":",
        "\"grant\":",
        "\"deny\":",
        "\"wakeInMs\":",
        "\"state\":",
        "\"reason\":",
        "{\"action\":\"keep\"}",
        "{\"action\":\"renew\",\"ttlMs\":1}",
        "{\"action\":\"preempt\",\"for\":0,\"graceMs\":1}",
        "{\"request\":0,\"ttlMs\":1}",
        "[{\"request\":0,\"reason\":\"x\"}]",
        "\"x\"",
        "7",
        " ",
        "\n",
    ];
    (0..u.int_in_range(0..=40)?).map(|_| u.choose(&PIECES).copied()).collect()
}

/// Much of the same, up to and beyond the limit.
fn long(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (before, piece, after) = *u.choose(&[
        ("", "[", ""),
        ("", "{\"a\":", ""),
        ("{\"deny\":[{\"request\":0}", ",{\"request\":0}", "]}"),
        ("{\"reason\":\"", "x", "\"}"),
        ("{\"reason\":\"", "\\u202e", "\"}"),
        ("{\"wakeInMs\":1", "0", "}"),
        ("{\"hold\":{\"action\":\"keep\"", ",\"x\":1", "}}"),
        ("{", " ", "}"),
    ])?;
    let times = u.int_in_range(0..=2 * limits::OUTPUT_MAX / piece.len())?;
    Ok([before, &piece.repeat(times), after].concat().into_bytes())
}

/// What was read, written again, is read the same.
fn survives_the_way(decision: &Decision) {
    let index = |index: usize| u32::try_from(index).expect("an index of the ABI");
    let output = v1::Output {
        hold: match decision.hold {
            HoldAction::Keep => None,
            HoldAction::Renew { ttl } => Some(v1::HoldAction::Renew { ttl_ms: ttl.0 }),
            HoldAction::Expire => Some(v1::HoldAction::Expire),
            HoldAction::Preempt { in_favour_of, grace, force } => {
                Some(v1::HoldAction::Preempt { r#for: index(in_favour_of), grace_ms: grace.0, force })
            }
        },
        grant: decision.grant.map(|grant| v1::Grant { request: index(grant.request), ttl_ms: grant.ttl.0 }),
        deny: decision
            .deny
            .iter()
            .map(|denial| v1::Denial { request: index(denial.request), reason: denial.reason.as_str().into() })
            .collect(),
        wake_in_ms: decision.wake_in.map(|wake| wake.0),
        state: decision.state.as_deref().map(Into::into),
        reason: decision.reason.as_str().into(),
    };
    let written = serde_json::to_vec(&output).expect("an answer of the ABI is JSON");
    // Written anew it may have grown: escapes that the guest did not need.
    if written.len() <= limits::OUTPUT_MAX {
        assert_eq!(Policy::read(&written).as_ref(), Ok(decision), "written and read again it is another");
    }
}

/// The table in `guard.rs`, said once more and in another way.
fn is_legal(question: &Question, decision: &Decision) {
    let shown = question.requests.len();
    let denied: Vec<usize> = decision.deny.iter().map(|denial| denial.request).collect();
    assert!(denied.iter().all(|&request| request < shown), "denies a stranger");
    let ends_now = decision.hold == HoldAction::Expire;
    let positive = |ttl: Millis| assert!(ttl > Millis::ZERO && ttl <= guard::TTL_MAX, "a ttl of {ttl:?}");
    if let Some(grant) = decision.grant {
        assert!(grant.request < shown && !denied.contains(&grant.request), "grants to a stranger, or to one it denies");
        assert!(question.hold.is_none() || ends_now, "grants while held");
        positive(grant.ttl);
    }
    match decision.hold {
        HoldAction::Keep => {}
        HoldAction::Expire => assert!(question.hold.as_ref().is_some_and(|h| h.due), "expires what is not due"),
        HoldAction::Renew { ttl } => {
            let asked = question.hold.as_ref().is_some_and(|h| h.due || h.renewal_requested);
            assert!(asked, "renews unasked");
            positive(ttl);
        }
        HoldAction::Preempt { in_favour_of, grace, .. } => {
            assert!(question.hold.is_some() && in_favour_of < shown && !denied.contains(&in_favour_of));
            assert!(grace >= Millis::ZERO && grace <= guard::GRACE_MAX, "a grace of {grace:?}");
        }
    }
    assert!(decision.wake_in.is_none_or(|wake| wake >= guard::WAKE_MIN && wake <= guard::WAKE_MAX));
    assert!(decision.state.as_ref().is_none_or(|state| state.len() <= guard::STATE_MAX));
    let reasons = decision.deny.iter().map(|denial| &denial.reason).chain([&decision.reason]);
    for reason in reasons {
        assert!(reason.len() <= guard::REASON_MAX && is_plain(reason), "{reason:?}");
    }
}

/// One line, and nothing that a terminal obeys.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}'))
}
