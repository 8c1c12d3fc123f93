//! Text as Markdown shows it.

/// One line, for a cell of a table: what is typed between `backticks` stays so, the rest loses what Markdown would read.
pub fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let parts = line.split('`').enumerate();
    let safe = parts.map(|(n, part)| if n % 2 == 0 { plain(part) } else { part.to_owned() });
    safe.collect::<Vec<_>>().join("`")
}

/// Prose without what Markdown would read in it.
fn plain(text: &str) -> String {
    text.replace('<', "&lt;").replace('*', "\\*").replace('[', "\\[")
}

/// A table, or nothing where there are no rows.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![format!("| {} |", head.join(" | ")), format!("|{}", "---|".repeat(head.len()))];
    lines.extend(rows.iter().map(|row| format!("| {} |", row.join(" | "))));
    lines.join("\n") + "\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_and_says_what_was_meant() {
        assert_eq!(cell("a <B>\n  or `c|<d>` *"), "a &lt;B> or `c\\|<d>` \\*");
    }
}
