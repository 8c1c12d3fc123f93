//! Questions as they could be, and as they should not be but might.

use arbitrary::{Result, Unstructured};
use konductor_core::{
    Candidate, Cause, Ending, HISTORY_MAX, HoldView, LeaseFacts, Millis, PastHold, Preemption, Question, Time,
};

/// A day in 2026.
const NOW: i64 = 1_790_000_000_000;

/// Any question: mostly one that could be asked, with some numbers and texts at their ends.
pub(crate) fn question(u: &mut Unstructured<'_>) -> Result<Question> {
    let now = Time(if u.ratio(1, 16)? { u.arbitrary()? } else { NOW });
    // Some see more requests than are shown.
    let requests = if u.ratio(1, 64)? { u.int_in_range(500..=600)? } else { u.int_in_range(0..=6)? };
    let requests = (0..requests).map(|n| candidate(u, now, n)).collect::<Result<Vec<_>>>()?;
    let ttl = span(u)?;
    Ok(Question {
        now,
        cause: *u.choose(&[Cause::Request, Cause::Renewal, Cause::Due, Cause::Release])?,
        lease: LeaseFacts {
            name: text(u)?,
            namespace: text(u)?,
            uid: text(u)?,
            labels: labels(u)?,
            ttl: Some(ttl),
            problem: None,
            priority: number(u)?,
            renewable: u.arbitrary()?,
        },
        ttl,
        hold: if u.arbitrary()? { Some(hold(u, now)?) } else { None },
        waiting: requests.len().saturating_add(u.int_in_range(0..=3)?),
        requests,
        history: history(u, now)?,
        state: text(u)?,
    })
}

fn candidate(u: &mut Unstructured<'_>, now: Time, n: usize) -> Result<Candidate> {
    Ok(Candidate {
        uid: format!("uid-{n}"),
        holder: text(u)?,
        priority: number(u)?,
        ttl: span(u)?,
        arrived: near(u, now)?,
        labels: labels(u)?,
    })
}

fn hold(u: &mut Unstructured<'_>, now: Time) -> Result<HoldView> {
    let preempted = u.ratio(1, 4)?;
    Ok(HoldView {
        holder: text(u)?,
        priority: number(u)?,
        ttl: span(u)?,
        acquired: near(u, now)?,
        expires: near(u, now)?,
        renewals: u.arbitrary()?,
        token: u.arbitrary()?,
        renewal_requested: u.arbitrary()?,
        due: u.arbitrary()?,
        labels: labels(u)?,
        preemption: if preempted {
            Some(Preemption {
                by: text(u)?,
                request: "uid-0".to_owned(),
                deadline: near(u, now)?,
                force: u.arbitrary()?,
                reason: text(u)?,
            })
        } else {
            None
        },
    })
}

fn history(u: &mut Unstructured<'_>, now: Time) -> Result<Vec<PastHold>> {
    let endings = [Ending::Released, Ending::Expired, Ending::Preempted, Ending::ForceReleased, Ending::Superseded];
    // A lease that flaps is one whose holds were all preempted: by chance alone there would hardly be one.
    let flaps = u.ratio(1, 4)?;
    (0..u.int_in_range(0..=HISTORY_MAX)?)
        .map(|n| {
            Ok(PastHold {
                holder: text(u)?,
                request: format!("uid-past-{n}"),
                request_name: format!("past-{n}"),
                token: u.arbitrary()?,
                acquired: near(u, now)?,
                ended: near(u, now)?,
                how: if flaps { Ending::Preempted } else { *u.choose(&endings)? },
            })
        })
        .collect()
}

/// A moment: mostly near to now, before or after.
fn near(u: &mut Unstructured<'_>, now: Time) -> Result<Time> {
    Ok(if u.ratio(1, 16)? { Time(u.arbitrary()?) } else { now + Millis(u.int_in_range(-90_000..=90_000)?) })
}

/// A span as a lease may have it: the API refuses what is not above zero.
fn span(u: &mut Unstructured<'_>) -> Result<Millis> {
    Ok(Millis(if u.ratio(1, 16)? { u.int_in_range(1..=i64::MAX)? } else { u.int_in_range(1..=600_000)? }))
}

fn number(u: &mut Unstructured<'_>) -> Result<i32> {
    if u.ratio(1, 8)? { u.arbitrary() } else { u.int_in_range(-3..=3) }
}

fn labels(u: &mut Unstructured<'_>) -> Result<Vec<(String, String)>> {
    (0..u.int_in_range(0..=2)?).map(|_| Ok((text(u)?, text(u)?))).collect()
}

/// A text: an ordinary name, one that JSON or a terminal has to be careful with, or anything.
pub(crate) fn text(u: &mut Unstructured<'_>) -> Result<String> {
    const TEXTS: [&str; 12] = [
        "pod-a",
        "pod-b",
        "",
        "app.kubernetes.io/name",
        "\"quoted\" \\ \u{0}",
        "line\nline\r\u{2028}",
        "\u{1b}[2J\u{7}",
        "\u{202e}txet\u{feff}",
        "{{.}} ${x} %s",
        "zäh \u{1f512}",
        "\u{10ffff}\u{d7ff}",
        "null",
    ];
    match u.int_in_range(0u8..=9)? {
        0 => Ok(u.arbitrary::<&str>()?.to_owned()),
        1 => Ok(u.choose(&TEXTS)?.repeat(u.int_in_range(1..=300)?)),
        _ => Ok((*u.choose(&TEXTS)?).to_owned()),
    }
}
