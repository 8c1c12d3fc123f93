//! Texts with `*` in them, which stands for anything.

/// Whether a text is what a pattern describes. There is no way to write a literal `*`: a sentence
/// that has one is described well enough by it.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // Each part at the first place where it fits: what comes later has then the most room.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text) in
            [("", ""), ("a", "a"), ("*", ""), ("*", "x"), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*b*b", "abb")]
        {
            assert!(matches(pattern, text), "{pattern:?} should match {text:?}");
        }
        for (pattern, text) in
            [("", "a"), ("a", "ab"), ("a*", "b"), ("*a", "b"), ("a*a", "a"), ("a*b*b", "ab"), ("*b*", "ac")]
        {
            assert!(!matches(pattern, text), "{pattern:?} should not match {text:?}");
        }
    }
}
