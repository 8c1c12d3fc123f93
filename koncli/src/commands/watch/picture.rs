//! From what is known to what is seen: rows and columns of text, nothing that draws.

use konductor_crds::{
    Lease, LeaseRequest,
    time::{format_timestamp, parse_timestamp},
    v1::{LeasePhase, reasons::READY},
};

use super::{
    change::What,
    scene::{Scene, said},
};
use crate::{
    commands::problem::problems,
    text::{fit, plain, span, width},
};

/// Of the line of those who wait, so many are shown below their lease, where there is room.
const LINE_SHOWN: usize = 5;
/// A column is not made narrower than this: nothing could be told from what is left.
const NARROWEST: usize = 6;
/// The bar of the time left.
const BAR: usize = 8;
/// With fewer columns there is no bar.
const BAR_FROM: usize = 90;
/// With fewer rows there are only leases.
const ROOMY: usize = 10;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Head,
    Faint,
    Good,
    Warning,
    Bad,
}

/// Pieces of text that follow each other on one row.
pub(super) type Row = Vec<(Style, String)>;

/// What is looked at, and through what.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) now_ms: i64,
    /// Which leases: `namespace prod`.
    pub(super) place: String,
    /// Whether leases of several namespaces are shown.
    pub(super) namespaces: bool,
    /// How many rows of leases are above the window.
    pub(super) scroll: usize,
}

/// At most as many rows as the frame has, each at most as wide.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) rows: Vec<Row>,
    /// The furthest that it makes sense to scroll.
    pub(super) scroll_most: usize,
    /// How many rows of leases are seen at once.
    pub(super) page: usize,
}

pub(super) fn picture(scene: &Scene, frame: &Frame) -> Picture {
    let roomy = frame.rows >= ROOMY;
    let mut rows = vec![title(scene, frame)];
    if let Some(why) = scene.trouble() {
        rows.push(vec![(Style::Bad, plain(&format!("the API server cannot be followed, this may be old: {why}")))]);
    }
    let latest = latest(scene, frame, if roomy { frame.rows / 3 } else { 0 });
    let footer = usize::from(roomy);
    let space = frame.rows.saturating_sub(rows.len() + latest.len() + footer);
    // Below the head of the table.
    let page = space.saturating_sub(1);
    let (mut head, mut body) = leases(scene, frame, Some(page));
    if body.len() > page {
        (head, body) = leases(scene, frame, None);
    }
    rows.push(head);
    let scroll_most = body.len().saturating_sub(page);
    let from = frame.scroll.min(scroll_most);
    let hidden = body.len().saturating_sub(from + page);
    let seen: Vec<Row> = body.into_iter().skip(from).take(page).collect();
    let rest = page - seen.len().min(page);
    rows.extend(seen);
    if roomy {
        rows.extend(std::iter::repeat_n(Row::new(), rest));
    }
    rows.extend(latest);
    if roomy {
        let more = if hidden > 0 { format!("   {hidden} more below") } else { String::new() };
        rows.push(vec![(Style::Faint, format!("q quit   up/down scroll{more}"))]);
    }
    rows.truncate(frame.rows);
    Picture { rows: rows.into_iter().map(|row| fitted(row, frame.columns)).collect(), scroll_most, page }
}

fn title(scene: &Scene, frame: &Frame) -> Row {
    let (mut all, mut held, mut waiting) = (0, 0, 0);
    for lease in scene.leases() {
        all += 1;
        held += usize::from(is_held(lease));
        waiting += scene.count(lease);
    }
    let at = format_timestamp(frame.now_ms);
    // Without the date and the milliseconds: 12:00:05.
    let clock = at.get(11..19).unwrap_or(&at);
    vec![
        (Style::Head, format!("Leases in {}", frame.place)),
        (Style::Plain, format!("   {all} in all, {held} held, {waiting} in line   ")),
        (Style::Faint, format!("{clock} UTC")),
    ]
}

/// The last changes, newest first, with a heading; at most so many rows.
fn latest(scene: &Scene, frame: &Frame, most: usize) -> Vec<Row> {
    if scene.latest().is_empty() || most < 3 {
        return Vec::new();
    }
    let heading = vec![(Style::Head, "Latest".to_owned())];
    let changes = scene.latest().iter().take(most - 2).map(|change| {
        let style = match change.what {
            What::Granted | What::HandedOver | What::Mended => Style::Good,
            What::AskedBack => Style::Warning,
            What::Denied | What::Problem => Style::Bad,
            What::Ended if change.how != Some(konductor_crds::v1::HoldEnd::Released) => Style::Warning,
            _ => Style::Plain,
        };
        let ago = parse_timestamp(&change.time).map(|at| span(frame.now_ms - at)).unwrap_or_default();
        vec![
            (Style::Faint, format!("{ago:>6} ago  ")),
            (Style::Plain, format!("{}  ", change.name(frame.namespaces))),
            (style, change.says(frame.now_ms)),
        ]
    });
    [Row::new(), heading].into_iter().chain(changes).collect()
}

/// The head of the table and its rows: with those who wait as long as there is `room` for everything, or without them.
fn leases(scene: &Scene, frame: &Frame, room: Option<usize>) -> (Row, Vec<Row>) {
    let bar = frame.columns >= BAR_FROM;
    let mut cells: Vec<[(Style, String); 6]> = Vec::new();
    let faint = |text: &str| (Style::Faint, text.to_owned());
    cells.push(["LEASE", "HOLDER", "LEFT", "TOKEN", "LINE", "NEXT"].map(faint));
    // What stands below a lease is no table.
    let mut below: Vec<Vec<Row>> = vec![Vec::new()];
    let mut count_rows = 0;
    for lease in scene.leases() {
        let status = lease.status.clone().unwrap_or_default();
        let held = is_held(lease);
        let line = scene.line(lease);
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        let name = match lease.metadata.namespace.as_deref().filter(|_| frame.namespaces) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        let holder = status.holder.clone().filter(|holder| held && !holder.is_empty());
        let holder = match (holder, status.phase) {
            (Some(holder), _) if status.preemption.is_some() => (Style::Warning, format!("{holder} (asked back)")),
            (Some(holder), _) => (Style::Plain, holder),
            (None, None) => (Style::Bad, "(no controller yet)".to_owned()),
            (None, Some(_)) => (Style::Faint, "-".to_owned()),
        };
        let count = scene.count(lease);
        let next = match line.as_deref() {
            Some([first, ..]) => first.spec.holder.clone(),
            _ => String::new(),
        };
        cells.push([
            (Style::Plain, name),
            holder,
            time_left(lease, frame.now_ms, bar),
            (Style::Faint, status.fencing_token.map(|token| token.to_string()).unwrap_or_default()),
            (if count == 0 { Style::Faint } else { Style::Plain }, count.to_string()),
            (Style::Plain, next),
        ]);
        let mut rows: Vec<Row> = problems(lease)
            .into_iter()
            .map(|problem| {
                let of = if problem.condition == READY { "spec" } else { "policy" };
                let why = if problem.message.is_empty() { problem.reason } else { problem.message };
                vec![(Style::Bad, plain(&format!("    {of}: {why}")))]
            })
            .collect();
        if room.is_some() {
            rows.extend(line_of(lease, &line.unwrap_or_default(), frame.now_ms));
        }
        below.push(rows);
        count_rows += 1 + below.last().map_or(0, Vec::len);
        if room.is_some_and(|room| count_rows > room) {
            break;
        }
    }
    for name in scene.missing() {
        cells.push([
            (Style::Plain, name.to_owned()),
            (Style::Bad, "(no such lease)".to_owned()),
            faint(""),
            faint(""),
            faint(""),
            faint(""),
        ]);
        below.push(Vec::new());
    }
    let widths = widths(&cells, frame.columns);
    let mut rows = cells.into_iter().zip(below).flat_map(|(cells, below)| {
        let row = cells.into_iter().zip(widths).map(|((style, text), columns)| {
            let text = fit(&plain(&text), columns);
            let pad = columns - width(&text).min(columns);
            (style, format!("{text}{}  ", " ".repeat(pad)))
        });
        std::iter::once(row.collect::<Row>()).chain(below)
    });
    let head = rows.next().unwrap_or_default();
    (head, rows.collect())
}

/// Those who wait, one a row.
fn line_of(lease: &Lease, line: &[&LeaseRequest], now_ms: i64) -> Vec<Row> {
    let shown = line.iter().take(LINE_SHOWN).enumerate().map(|(before, request)| {
        let arrived = request.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
        let since = arrived.map(|at| format!(", for {}", span(now_ms - at))).unwrap_or_default();
        let priority = request.spec.priority.or(lease.spec.priority).unwrap_or_default();
        let why = said(request).unwrap_or_default();
        vec![
            (Style::Plain, plain(&format!("    {}. {}", before + 1, request.spec.holder))),
            (Style::Faint, plain(&format!("  priority {priority}{since}  {why}"))),
        ]
    });
    let more = line.len().saturating_sub(LINE_SHOWN);
    let more = (more > 0).then(|| vec![(Style::Faint, format!("    and {more} more"))]);
    shown.chain(more).collect()
}

fn is_held(lease: &Lease) -> bool {
    lease.status.as_ref().is_some_and(|status| status.phase == Some(LeasePhase::Held))
}

/// For how long a hold still lasts: in words, and as a part of what it was given.
fn time_left(lease: &Lease, now_ms: i64, bar: bool) -> (Style, String) {
    let status = lease.status.as_ref();
    let ended = status.is_some_and(|status| status.phase == Some(LeasePhase::Expired));
    let Some(status) = status.filter(|_| is_held(lease)) else {
        return if ended { (Style::Warning, "expired".to_owned()) } else { (Style::Faint, "-".to_owned()) };
    };
    let at = |text: &Option<String>| text.as_deref().and_then(parse_timestamp);
    let Some(expires) = at(&status.expires) else { return (Style::Faint, "-".to_owned()) };
    let left = (expires - now_ms).max(0);
    let given = at(&status.renewed).max(at(&status.acquired)).map_or(left, |from| expires - from).max(1);
    let tenths = (i128::from(left) * 10 / i128::from(given)).clamp(0, 10);
    let style = match tenths {
        _ if left == 0 => Style::Bad,
        0..2 => Style::Warning,
        _ => Style::Good,
    };
    let words = if left == 0 { "over".to_owned() } else { span(left) };
    if !bar {
        return (style, words);
    }
    // A part of a cell is a cell: an empty bar is no time at all.
    let full = usize::try_from((i128::from(left) * BAR as i128).div_euclid(i128::from(given)) + i128::from(left > 0));
    let full = full.unwrap_or(BAR).min(BAR);
    (style, format!("[{}{}] {words}", "#".repeat(full), " ".repeat(BAR - full)))
}

/// As wide as the cells need; where that is too wide, the widest of names are cut first.
fn widths(rows: &[[(Style, String); 6]], columns: usize) -> [usize; 6] {
    const NAMES: [usize; 3] = [0, 1, 5];
    let mut widths = [0; 6];
    for row in rows {
        for (most, (_, text)) in widths.iter_mut().zip(row) {
            *most = (*most).max(width(&plain(text)));
        }
    }
    let gaps = 2 * (widths.len() - 1);
    while widths.iter().sum::<usize>() + gaps > columns {
        let Some(widest) = NAMES.into_iter().filter(|&at| widths[at] > NARROWEST).max_by_key(|&at| widths[at]) else {
            break;
        };
        widths[widest] -= 1;
    }
    widths
}

/// A row that is cut where the terminal ends, without blanks that nobody sees.
fn fitted(row: Row, columns: usize) -> Row {
    let mut left = columns;
    let mut fitted = Row::new();
    for (style, text) in row {
        let text = fit(&text, left);
        left -= width(&text).min(left);
        fitted.push((style, text));
    }
    while let Some((style, last)) = fitted.pop() {
        let seen = last.trim_end();
        if !seen.is_empty() {
            fitted.push((style, seen.to_owned()));
            break;
        }
    }
    fitted.retain(|(_, text)| !text.is_empty());
    fitted
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
