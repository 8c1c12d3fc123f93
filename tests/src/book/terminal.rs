//! A picture of a terminal: what was typed and what was answered, as text in an SVG.

use std::fmt::Write as _;

/// So many characters are in a line; a longer one is broken, as a terminal does it.
pub(super) const COLUMNS: usize = 100;
/// The width of a character of the font, and the height of a line, in pixels.
const CHARACTER: f32 = 7.83;
const LINE: f32 = 18.0;
/// Around the text of a window, and its title bar.
const PADDING: f32 = 14.0;
const BAR: f32 = 28.0;

/// One window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    title: String,
    lines: Vec<String>,
}

impl Window {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), lines: Vec::new() }
    }

    /// Adds a command and what a terminal showed of it.
    #[must_use]
    pub fn command(mut self, typed: &str, raw: &str) -> Self {
        self.lines.extend(format!("$ {typed}").lines().map(str::to_owned));
        self.lines.extend(shown(raw));
        self
    }

    /// Adds what a program shows that has the whole screen, without the empty rows below it.
    #[must_use]
    pub fn screen(mut self, rows: &str) -> Self {
        self.lines.extend(rows.trim_end().lines().map(|row| row.trim_end().to_owned()));
        self
    }
}

/// The lines that a terminal shows of what was written to it. Of a line that is written over, what it was last is kept:
/// it is what a person saw for most of the time.
#[must_use]
pub fn shown(raw: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in raw.replace("\r\n", "\n").trim_end().split('\n') {
        let states: Vec<String> =
            line.split('\r').map(without_escapes).filter(|state| !state.trim().is_empty()).collect();
        let from = states.len().saturating_sub(2);
        match &states[from..] {
            [] => lines.push(String::new()),
            last => lines.extend(last.iter().map(|state| state.trim_end().to_owned())),
        }
    }
    lines
}

/// Without what moves the cursor or colours.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            // ESC [ … letter
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

/// The windows, one below the other.
#[must_use]
pub fn svg(windows: &[Window]) -> String {
    let width = COLUMNS as f32 * CHARACTER + 2.0 * PADDING;
    let mut body = String::new();
    let mut top = 0.0;
    for window in windows {
        let lines: Vec<String> = window.lines.iter().flat_map(|line| broken(line)).collect();
        let height = BAR + lines.len() as f32 * LINE + 2.0 * PADDING;
        let _ = writeln!(body, r##"<rect y="{top}" width="{width:.0}" height="{height}" rx="8" fill="#16181d"/>"##);
        for (n, colour) in ["#ff5f57", "#febc2e", "#28c840"].iter().enumerate() {
            let _ = writeln!(body, r#"<circle cx="{}" cy="{}" r="5" fill="{colour}"/>"#, 18 + 18 * n, top + 15.0);
        }
        let middle = width / 2.0;
        let _ = writeln!(
            body,
            r##"<text x="{middle:.0}" y="{}" fill="#9aa0aa" text-anchor="middle">{}</text>"##,
            top + 19.0,
            escaped(&window.title)
        );
        for (n, line) in lines.iter().enumerate() {
            let y = top + BAR + PADDING + n as f32 * LINE + 6.0;
            let colour = if line.starts_with("$ ") { "#8fd6ff" } else { "#e4e6eb" };
            let _ = writeln!(body, r#"<text x="{PADDING}" y="{y}" fill="{colour}">{}</text>"#, escaped(line));
        }
        top += height + 12.0;
    }
    let height = top - 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width:.0} {height}\" width=\"{width:.0}\" height=\"{height}\">\n\
         <style>text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, \"DejaVu Sans Mono\", monospace; white-space: pre }}</style>\n\
         {body}</svg>\n"
    )
}

/// A line as a terminal of [`COLUMNS`] columns breaks it.
fn broken(line: &str) -> Vec<String> {
    let characters: Vec<char> = line.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(COLUMNS).map(|part| part.iter().collect()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A picture without what differs from run to run: every word with a digit in it.
#[must_use]
pub fn masked(svg: &str) -> Vec<String> {
    let texts = svg.lines().filter_map(|line| line.strip_suffix("</text>")?.rsplit_once('>').map(|(_, text)| text));
    let mut lines = Vec::new();
    for text in texts {
        let mut words: Vec<&str> = Vec::new();
        for word in text.split_whitespace() {
            let word = if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word };
            if word != "#" || words.last() != Some(&"#") {
                words.push(word);
            }
        }
        lines.push(words.join(" "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_written_over_is_kept_as_it_was_last() {
        let raw = "\r\x1b[2Kwaiting 1\r\x1b[2Kwaiting 2\r\x1b[2Kdone\r\n\x1b[1mbold\x1b[0m\r\n\r\nend\r\n";
        assert_eq!(shown(raw), ["waiting 2", "done", "bold", "", "end"]);
    }

    #[test]
    fn a_picture_has_what_was_typed_and_said() {
        let window = Window::new("a & b").command("echo '<x>'", "<x>\n");
        let picture = svg(&[window]);
        for part in ["a &amp; b", "$ echo '&lt;x&gt;'", ">&lt;x&gt;</text>"] {
            assert!(picture.contains(part), "{part}\n{picture}");
        }
    }

    #[test]
    fn two_runs_differ_in_figures_only() {
        let run = |raw: &str| masked(&svg(&[Window::new("t").command("c", raw)]));
        assert_eq!(run("held, expires in 9m 59s, token 7\n"), run("held, expires in 10m, token 12\n"));
        assert_ne!(run("held by a\n"), run("held by b\n"));
    }
}
