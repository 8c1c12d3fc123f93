//! Small things about texts for people.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

/// The longest list of suggestions.
const SIMILAR_MAX: usize = 3;

/// The names that somebody who typed `name` may have meant, the likeliest first.
#[must_use]
pub fn similar(name: &str, names: Vec<String>) -> Vec<String> {
    let limit = name.chars().count().div_ceil(3).max(1);
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .filter(|other| other != name)
        .map(|other| {
            let contained = other.len().min(name.len()) >= 3 && (other.contains(name) || name.contains(&other));
            (if contained { 1 } else { distance(name, &other) }, other)
        })
        .filter(|&(distance, _)| distance <= limit)
        .collect();
    near.sort();
    near.into_iter().take(SIMILAR_MAX).map(|(_, name)| name).collect()
}

/// Says which leases have a similar name, if there are any.
#[must_use]
pub fn similar_leases(similar: &[String]) -> Option<String> {
    (!similar.is_empty()).then(|| format!("leases with a similar name there: {}", similar.join(", ")))
}

/// How many letters must be put in, left out or changed to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A time span for people: the two largest units, `4m10s`, `3d4h`, `0s`.
#[must_use]
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) if s == 0 => format!("{m}m"),
        (0, 0, m) => format!("{m}m{s}s"),
        (0, h, 0) => format!("{h}h"),
        (0, h, m) => format!("{h}h{m}m"),
        (d, 0, _) => format!("{d}d"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

/// A text of several lines in which names and words from elsewhere may be, without what a terminal would obey.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_obeyed) { Cow::Owned(text.replace(is_obeyed, " ")) } else { Cow::Borrowed(text) }
}

/// A text from elsewhere on one line, without what a terminal would obey.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How many columns of a terminal a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// A text that takes at most so many columns; where something is cut off, it says so.
#[must_use]
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        let wide = c.width().unwrap_or_default();
        if wide > left {
            break;
        }
        left -= wide;
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// A number of bytes for people.
#[must_use]
pub fn bytes(count: usize) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count.div_ceil(1_024)),
        _ => format!("{}.{} MiB", count / 1_048_576, count % 1_048_576 * 10 / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_probably_meant() {
        let names = || ["db-migration", "db-migration-2", "daily-report", "x"].map(str::to_owned).to_vec();
        assert_eq!(similar("db-migratoin", names()), ["db-migration", "db-migration-2"]);
        assert_eq!(similar("migration", names()), ["db-migration", "db-migration-2"]);
        assert_eq!(similar("daily-repor", names()), ["daily-report"]);
        assert!(similar("backup", names()).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn spans_and_sizes_are_short() {
        for (ms, text) in [
            (-1, "0s"),
            (999, "0s"),
            (250_000, "4m10s"),
            (600_000, "10m"),
            (7_200_000, "2h"),
            (5_400_000, "1h30m"),
            (273_600_000, "3d4h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(79_000), "78 KiB");
        assert_eq!(bytes(1_600_000), "1.5 MiB");
    }

    #[test]
    fn texts_fit_and_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a [2Jb c d");
        assert_eq!(lines("a\u{1b}[2Jb\n\tc\u{9b}d\re\u{7}"), "a [2Jb\n\tc d e ");
        for (text, columns, fitted) in [
            ("pod-a", 5, "pod-a"),
            ("pod-a", 4, "pod…"),
            ("pod-a", 1, "…"),
            ("pod-a", 0, ""),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
        ] {
            assert_eq!(fit(text, columns), fitted, "{text} in {columns}");
            assert!(width(fitted) <= columns);
        }
    }
}
