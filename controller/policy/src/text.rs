//! Text that a guest wrote, made fit to be shown.

/// Makes a guest's text one plain line of at most `max` bytes: line breaks and tabs become spaces,
/// other control characters and those that reorder text go. Says whether anything was taken away.
pub(crate) fn clean(text: &mut String, max: usize) -> bool {
    if text.len() <= max && !text.chars().any(is_unfit) {
        return false;
    }
    let mut cleaned = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let c = match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if is_unfit(c) => continue,
            c => c,
        };
        if cleaned.len() + c.len_utf8() > max {
            break;
        }
        cleaned.push(c);
    }
    *text = cleaned;
    true
}

/// The cleaned text.
pub(crate) fn cleaned(text: impl Into<String>, max: usize) -> String {
    let mut text = text.into();
    clean(&mut text, max);
    text
}

/// Control characters, which a terminal obeys, and those that make a line read other than it is.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cleaned() {
        for (text, max, expected) in [
            ("plain text, ümlaut", 100, "plain text, ümlaut"),
            ("two\nlines\tand a tab", 100, "two lines and a tab"),
            ("\u{1b}[31mred\u{1b}[0m", 100, "[31mred[0m"),
            ("nul\0bell\u{7}", 100, "nulbell"),
            ("\u{202e}txet", 100, "txet"),
            ("abcdef", 3, "abc"),
            ("aüb", 2, "a"),
            ("", 0, ""),
        ] {
            assert_eq!(cleaned(text, max), expected, "{text:?}");
        }
    }
}
