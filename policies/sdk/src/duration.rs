//! Durations as a Lease writes them: `30s`, `10m`, `2h`, `1h30m`, `500ms`, `1d`.

/// The longest duration, in milliseconds: 366 days, as everywhere in the API. Longer is a typing error.
pub const MAX_MS: i64 = 366 * 24 * 60 * 60 * 1000;

/// Parses a duration into milliseconds; `None` if it is none, is negative, has no unit (except a
/// bare `0`), or is above [`MAX_MS`].
#[must_use]
pub fn parse_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut number: i64 = 0;
        for digit in rest.get(..digits).filter(|d| !d.is_empty())? {
            number = number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        }
        rest = rest.get(digits..)?;
        let (unit, len) = match rest {
            [b'm', b's', ..] => (1, 2),
            [b's', ..] => (1_000, 1),
            [b'm', ..] => (60_000, 1),
            [b'h', ..] => (3_600_000, 1),
            [b'd', ..] => (86_400_000, 1),
            _ => return None,
        };
        rest = rest.get(len..)?;
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty() && total <= MAX_MS).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_api_writes_them() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("366d", MAX_MS),
        ] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", " ", "5", "s", "-5s", "1.5s", "5 s", "1M", "1y", "1w", "5S", "1h30", "367d", "99999999999999999999s"]
        {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
