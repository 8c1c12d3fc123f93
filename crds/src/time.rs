//! Durations and timestamps as they stand in the API, and the only code that parses them.
//!
//! Durations are Go's syntax without fractions and signs (`30s`, `10m`, `1h30m`, `500ms`), plus `d`
//! for 24 hours. Timestamps are RFC 3339 in UTC with milliseconds.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

/// The longest duration that any field accepts: 366 days, a leap year. Longer is a typing error.
pub const DURATION_MAX_MS: i64 = 366 * 24 * 60 * 60 * 1000;

/// The longest text of a duration, in bytes: far more than `365d23h59m59s999ms` needs.
const DURATION_TEXT_MAX: usize = 64;

/// Why a text is not a duration that this API accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(40).flat_map(char::escape_debug).collect();
        write!(f, "\"{shown}\" {}; write a duration such as 30s, 10m, 2h, 1h30m or 500ms", self.problem)
    }
}

impl std::error::Error for DurationError {}

/// Parses a duration in milliseconds, zero allowed.
///
/// # Errors
/// A [`DurationError`] for text that is not a duration, or one above [`DURATION_MAX_MS`].
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let refuse = |problem| DurationError { text: text.to_owned(), problem };
    if text.is_empty() {
        return Err(refuse("is empty"));
    }
    if text == "0" {
        // Go and kubectl read a bare zero as a duration; every other number needs its unit.
        return Ok(0);
    }
    if text.starts_with('-') {
        return Err(refuse("is negative"));
    }
    if text.len() > DURATION_TEXT_MAX {
        return Err(refuse("is too long to be a duration"));
    }
    if !has_duration_syntax(text) {
        return Err(refuse("is not a duration"));
    }
    let parsed = humantime::parse_duration(text).map_err(|_| refuse("is above the limit of 366 days"))?;
    match i64::try_from(parsed.as_millis()) {
        Ok(ms) if ms <= DURATION_MAX_MS => Ok(ms),
        _ => Err(refuse("is above the limit of 366 days")),
    }
}

/// Parses a duration in milliseconds that must be above zero: a `ttl`.
///
/// # Errors
/// As [`parse_duration`], and for zero.
pub fn parse_ttl(text: &str) -> Result<i64, DurationError> {
    match parse_duration(text)? {
        0 => Err(DurationError { text: text.to_owned(), problem: "is zero, a lease needs a time to live" }),
        ms => Ok(ms),
    }
}

/// `([0-9]+(ms|s|m|h|d))+`: what the CEL rule of the CRD accepts too. humantime alone would also
/// take `1M` for a month and `1y`, which no Kubernetes user expects.
fn has_duration_syntax(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if unit.len() == rest.len() {
            return false;
        }
        let Some(after) = ["ms", "s", "m", "h", "d"].iter().find_map(|u| unit.strip_prefix(u)) else {
            return false;
        };
        rest = after;
    }
    true
}

/// Writes a duration in milliseconds the way this API writes it: `1h30m`, `500ms`, `0s`.
#[must_use]
pub fn format_duration(ms: i64) -> String {
    if ms <= 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let mut rest = ms;
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

/// Writes milliseconds since the epoch as RFC 3339 in UTC with milliseconds.
///
/// Outside of what a calendar can say, the nearest end of it is written.
#[must_use]
pub fn format_timestamp(epoch_ms: i64) -> String {
    let at = DateTime::<Utc>::from_timestamp_millis(epoch_ms).unwrap_or(if epoch_ms < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    });
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads an RFC 3339 timestamp as milliseconds since the epoch, a part of a millisecond rounded up:
/// an expiry that was truncated would be early.
///
/// `None` for text that is not a timestamp.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    let up = i64::from(at.timestamp_subsec_nanos() % 1_000_000 != 0);
    at.timestamp_millis().checked_add(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_duration() {
        for (text, problem) in [
            ("", "is empty"),
            ("-5m", "is negative"),
            ("banana", "is not a duration"),
            ("1e9h", "is not a duration"),
            ("10", "is not a duration"),
            ("m", "is not a duration"),
            ("5 m", "is not a duration"),
            ("1M", "is not a duration"),
            ("1.5h", "is not a duration"),
            ("367d", "is above the limit"),
            ("99999999999999999999h", "is above the limit"),
            ("９s", "is not a duration"),
        ] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("write a duration such as"), "{error}");
        }
        assert!(parse_ttl("0s").expect_err("zero").to_string().contains("is zero"));
    }

    #[test]
    fn reads_durations_and_writes_them_back() {
        for (text, ms) in [
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(parse_ttl(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), text);
        }
        assert_eq!(parse_duration("0"), Ok(0));
        assert_eq!(parse_duration("0s"), Ok(0));
        assert_eq!(parse_duration("1d"), Ok(86_400_000));
        assert_eq!(format_duration(0), "0s");
    }

    #[test]
    fn timestamps_never_move_an_expiry_forward() {
        assert_eq!(format_timestamp(1_705_314_600_000), "2024-01-15T10:30:00.000Z");
        assert_eq!(parse_timestamp("2024-01-15T10:30:00Z"), Some(1_705_314_600_000));
        assert_eq!(parse_timestamp("2024-01-15T10:30:00.0001Z"), Some(1_705_314_600_001));
        assert_eq!(parse_timestamp(""), None);
        assert_eq!(parse_timestamp("soon"), None);
        assert_eq!(
            parse_timestamp(&format_timestamp(i64::MAX)).is_some(),
            parse_timestamp(&format_timestamp(i64::MIN)).is_some()
        );
    }
}
