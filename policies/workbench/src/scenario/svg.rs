//! A story as a drawing: SVG that stands for itself, without a script or a font of its own.

use std::fmt::Write as _;

use super::{
    story::{Happening, Story, WaitEnd},
    text::clock,
};

const LANE: i64 = 34;
const TOP: i64 = 64;
const MARGIN: i64 = 16;
/// How wide the time is drawn, in the drawing's own units.
const WIDTH: i64 = 900;
/// About how wide a letter is at the size of a name.
const LETTER: i64 = 8;
/// The longest name that is written beside its lane, in letters; the whole is in the lane's title.
const NAME_MAX: usize = 28;

/// Spans that a person calls round, in milliseconds: what an axis is marked with.
const ROUND: [i64; 22] = [
    1,
    10,
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    10_800_000,
    21_600_000,
    86_400_000,
    604_800_000,
    2_592_000_000,
    7_776_000_000,
];

/// Round times from 0 to the end, about so many.
pub(super) fn ticks(until: i64, about: usize) -> Vec<i64> {
    let about = i64::try_from(about.max(1)).unwrap_or(1);
    let step = ROUND.into_iter().find(|step| until / step <= about).unwrap_or(until.max(1));
    (0..=until / step).map(|i| i * step).collect()
}

impl Story {
    /// The drawing: a lane for each holder, waiting thin, holding thick.
    #[must_use]
    pub fn svg(&self) -> String {
        let holders = self.holders();
        let shown = |name: &str| name.chars().take(NAME_MAX).collect::<String>();
        let letters = holders.iter().map(|name| shown(name).chars().count()).max().unwrap_or(0);
        let left = MARGIN + i64::try_from(letters).unwrap_or(0).max(6) * LETTER + 12;
        let lanes = i64::try_from(holders.len()).unwrap_or(0);
        let bottom = TOP + lanes * LANE;
        let (width, height) = (left + WIDTH + 3 * MARGIN, bottom + 72);
        let x = |at: i64| left as f64 + at as f64 / self.until.max(1) as f64 * WIDTH as f64;
        let mut out = String::new();
        let mut draw = |line: String| {
            out.push_str(&line);
            out.push('\n');
        };
        draw(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="13" role="img">"#
        ));
        let description = if self.description.is_empty() { "A scenario" } else { &self.description };
        draw(format!("<title>{}</title>", escaped(description)));
        draw(format!(r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##));
        draw(format!(
            r##"<text x="{MARGIN}" y="26" font-size="16" font-weight="600" fill="#1f2937">{}</text>"##,
            escaped(description.lines().next().unwrap_or_default())
        ));
        let digest: String = self.digest.chars().take(19).collect();
        draw(format!(
            r##"<text x="{MARGIN}" y="45" font-size="11" fill="#6b7280">policy {}, {} of virtual time</text>"##,
            escaped(&digest),
            clock(self.until)
        ));
        for at in ticks(self.until, 10) {
            draw(format!(
                r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}" stroke="#e5e7eb"/><text x="{x:.1}" y="{}" text-anchor="middle" font-size="11" fill="#6b7280">{}</text>"##,
                bottom + 18,
                clock(at),
                x = x(at)
            ));
        }
        for (i, holder) in holders.iter().enumerate() {
            let middle = TOP + i64::try_from(i).unwrap_or(0) * LANE + LANE / 2;
            draw(format!(
                r##"<text x="{}" y="{}" text-anchor="end" fill="#1f2937"><title>{}</title>{}</text>"##,
                left - 10,
                middle + 4,
                escaped(holder),
                escaped(&shown(holder))
            ));
            self.lane_svg(holder, middle, &x, &mut draw);
        }
        draw(format!(r##"<line x1="{left}" y1="{bottom}" x2="{}" y2="{bottom}" stroke="#9ca3af"/>"##, left + WIDTH));
        draw(legend(left, bottom + 44));
        out.push_str("</svg>\n");
        out
    }

    fn lane_svg(&self, holder: &str, middle: i64, x: &dyn Fn(i64) -> f64, draw: &mut dyn FnMut(String)) {
        // At least wide enough to be seen and pointed at.
        let bar = |from: i64, to: i64, thick: i64, style: &str, title: &str| {
            format!(
                r#"<rect x="{:.1}" y="{}" width="{:.1}" height="{thick}" {style}><title>{}</title></rect>"#,
                x(from),
                middle - thick / 2,
                (x(to) - x(from)).max(1.5),
                escaped(title)
            )
        };
        for wait in self.waits.iter().filter(|wait| wait.holder == holder) {
            let to = wait.to.unwrap_or(self.until);
            if to == wait.from {
                continue;
            }
            let end = match wait.end {
                WaitEnd::Granted => "then granted",
                WaitEnd::Denied => "then denied",
                WaitEnd::Left => "then left",
                WaitEnd::TimedOut => "then timed out",
                WaitEnd::Superseded => "then asked anew",
                WaitEnd::Waiting => "still waiting",
            };
            let title = format!("{holder} waits {} from {}, {end}", clock(to - wait.from), clock(wait.from));
            draw(bar(wait.from, to, 4, r##"fill="#f59e0b""##, &title));
        }
        for hold in self.holds.iter().filter(|hold| hold.holder == holder) {
            let to = hold.to.unwrap_or(self.until);
            let how = hold.how.unwrap_or("still held");
            let title = format!(
                "{holder} holds {} from {}, token {}, {} renewals, {how}",
                clock(to - hold.from),
                clock(hold.from),
                hold.token,
                hold.renewals
            );
            let alive = hold.crashed.unwrap_or(to);
            draw(bar(hold.from, alive, 20, r##"rx="2" fill="#2563eb""##, &title));
            if let Some(crashed) = hold.crashed {
                let title = format!("{holder} has crashed and still holds, {} until {how}", clock(to - crashed));
                draw(bar(crashed, to, 20, r##"rx="2" fill="#93c5fd""##, &title));
            }
        }
        for entry in self.entries.iter().filter(|entry| entry.holder == holder) {
            let mark = mark(entry.what, x(entry.at), middle);
            if !mark.is_empty() {
                let why = if entry.text.is_empty() { String::new() } else { format!(": {}", entry.text) };
                let title = format!("{} {} at {}{why}", holder, words(entry.what), clock(entry.at));
                draw(format!("<g>{mark}<title>{}</title></g>", escaped(&title)));
            }
        }
    }
}

fn words(what: Happening) -> &'static str {
    match what {
        Happening::Crashes => "crashes",
        Happening::Preempting => "is asked to leave",
        Happening::Denied => "is denied",
        _ => "",
    }
}

/// What is drawn at a point of a lane.
fn mark(what: Happening, x: f64, middle: i64) -> String {
    let y = middle as f64;
    let mut path = String::new();
    match what {
        // A cross.
        Happening::Crashes => {
            let _ = write!(
                path,
                r##"<path d="M{:.1} {:.1}l12 12m0 -12l-12 12" stroke="#dc2626" stroke-width="3" fill="none"/>"##,
                x - 6.0,
                y - 6.0
            );
        }
        // A triangle that points at the hold.
        Happening::Preempting => {
            let _ = write!(path, r##"<path d="M{:.1} {:.1}l6 -9h-12z" fill="#7c3aed"/>"##, x, y - 8.0);
        }
        // A barred circle.
        Happening::Denied => {
            let _ = write!(
                path,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="6" stroke="#dc2626" stroke-width="2" fill="#ffffff"/><path d="M{:.1} {:.1}l8.4 -8.4" stroke="#dc2626" stroke-width="2"/>"##,
                x - 4.2,
                y + 4.2
            );
        }
        _ => {}
    }
    path
}

fn legend(left: i64, y: i64) -> String {
    let mut out = String::from(r##"<g font-size="11" fill="#374151">"##);
    let mut at = left;
    for (shape, text) in [
        (format!(r##"<rect x="{}" y="{}" width="18" height="10" rx="2" fill="#2563eb"/>"##, at, y - 9), "holds"),
        (
            format!(r##"<rect x="{}" y="{}" width="18" height="10" rx="2" fill="#93c5fd"/>"##, at + 80, y - 9),
            "has crashed",
        ),
        (format!(r##"<rect x="{}" y="{}" width="18" height="4" fill="#f59e0b"/>"##, at + 200, y - 6), "waits"),
        (mark(Happening::Crashes, (at + 289) as f64, y - 4), "crashes"),
        (mark(Happening::Preempting, (at + 389) as f64, y + 4), "is asked to leave"),
        (mark(Happening::Denied, (at + 549) as f64, y - 4), "is denied"),
    ] {
        out.push_str(&shape);
        let _ = write!(out, r#"<text x="{}" y="{y}">{text}</text>"#, at + 26);
        at = match text {
            "holds" => left + 80,
            "has crashed" => left + 200,
            "waits" => left + 280,
            "crashes" => left + 380,
            _ => left + 540,
        };
    }
    out.push_str("</g>\n");
    out
}

/// As XML writes it. Of control characters XML has only tabs and ends of lines: a reader refuses the whole drawing for
/// any other, however it is written.
fn escaped(text: &str) -> String {
    let is_unfit = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    let text = text.replace(is_unfit, " ");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
