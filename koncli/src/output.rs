//! How things are written: data to stdout, talk to stderr.

use std::{
    ffi::OsStr,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use konductor_crds::time::parse_timestamp;
use serde::Serialize;

use crate::{
    args::{self, Format, Global},
    client::{Error, Problem, Result},
    text::{lines, span},
};

/// Where a command writes to, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How data is written.
    pub format: Format,
    quiet: bool,
    verbose: bool,
}

impl Output {
    /// What the user asked for.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        Self { format: global.output, quiet: global.quiet, verbose: global.verbose }
    }

    /// Writes data.
    ///
    /// # Errors
    /// If stdout cannot be written to. A reader that went away, such as `head`, is no error.
    pub fn data(&self, text: impl Display) -> Result<()> {
        self.more(lines(&text.to_string())).map(drop)
    }

    /// Writes bytes as they are, and nothing else.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        is_read(stdout.write_all(bytes).and_then(|()| stdout.flush())).map(drop)
    }

    /// Writes data that goes on for ever. Returns whether somebody still reads it.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    pub fn more(&self, text: impl Display) -> Result<bool> {
        still_read(&mut io::stdout().lock(), &text)
    }

    /// Writes what was done: as a line for people, which `--quiet` leaves out, or as data.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn done(&self, name: &str, line: impl Display, data: &impl Serialize) -> Result<()> {
        match self.format {
            Format::Text | Format::Wide if self.quiet => Ok(()),
            Format::Text | Format::Wide => self.data(line),
            Format::Name => self.data(name),
            Format::Json | Format::Yaml => self.structured(data),
        }
    }

    /// Writes data as JSON or YAML.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn structured(&self, data: &impl Serialize) -> Result<()> {
        self.more_structured(data).map(drop)
    }

    /// As [`Output::more`], as JSON or YAML.
    ///
    /// # Errors
    /// As [`Output::more`].
    pub fn more_structured(&self, data: &impl Serialize) -> Result<bool> {
        let text = match self.format {
            Format::Yaml => serde_yaml::to_string(data).map_err(|error| error.to_string()),
            _ => serde_json::to_string_pretty(data).map_err(|error| error.to_string()),
        };
        let text = text.map_err(|why| Error::new("write the data", Problem::Local(why)))?;
        self.more(text.trim_end())
    }

    /// Says something on stderr, unless `--quiet`.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            talk(text);
        }
    }

    /// Says something on stderr if `--verbose`.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            talk(text);
        }
    }

    /// Whether a line on stderr that changes is welcome.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Whether a picture on stdout that changes is welcome: for people, on a terminal that can be drawn on.
    #[must_use]
    pub fn is_canvas(&self) -> bool {
        let draws = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let people = matches!(self.format, Format::Text | Format::Wide);
        draws && people && !self.quiet && io::stdout().is_terminal()
    }
}

/// Writes a line. Returns whether there is still a reader: one that has what it wants, such as `head`, is no error.
fn still_read(to: &mut impl io::Write, text: &impl Display) -> Result<bool> {
    is_read(writeln!(to, "{text}").and_then(|()| to.flush()))
}

fn is_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::new("write to stdout", Problem::Local(error.to_string()))),
    }
}

/// Whether what is drawn on a terminal may have colours: not if `NO_COLOR` is set to anything (no-color.org), nor on a
/// terminal that says that it has none.
#[must_use]
pub fn may_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Says something on stderr. Nobody is left to be told if that fails.
fn talk(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}: {}", args::program(), lines(&text.to_string()));
}

/// Writes an error: what was attempted and why it failed, what to do, and the cause.
pub fn report(error: &Error) {
    let mut text = format!("{}: {error}\n", args::program());
    for line in error.help() {
        text.push_str(&format!("  {}\n", args::as_typed(&line)));
    }
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!("  cause: {cause}\n"));
    }
    let _ = io::stderr().lock().write_all(lines(&text).as_bytes());
}

/// Milliseconds since the epoch on this machine's wall clock: for showing only, nothing is decided by it.
#[must_use]
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A timestamp as seen from now: `in 4m10s`, `12s ago`; as it is if it is not understood.
#[must_use]
pub fn relative(timestamp: &str, now_ms: i64) -> String {
    match parse_timestamp(timestamp) {
        Some(at) if at >= now_ms => format!("in {}", span(at - now_ms)),
        Some(at) => format!("{} ago", span(now_ms - at)),
        None => timestamp.to_owned(),
    }
}

/// A table: columns as wide as they need to be, two spaces apart.
#[derive(Debug)]
pub struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a head.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let mut table = Self { widths: vec![0; head.len()], rows: Vec::new() };
        table.row(head.iter().map(|&cell| cell.to_owned()).collect());
        table
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, mut cells: Vec<String>) {
        for (cell, width) in cells.iter_mut().zip(&mut self.widths) {
            if cell.is_empty() {
                cell.push('-');
            }
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
    }

    /// Takes all rows away and returns the last one, as wide as the table has been so far: for a
    /// table that goes on for ever.
    pub fn take_last_line(&mut self) -> String {
        let last = self.rows.pop();
        self.rows.clear();
        last.map(|row| self.line(&row)).unwrap_or_default()
    }

    fn line(&self, row: &[String]) -> String {
        let cells: Vec<String> = row.iter().zip(&self.widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.rows.iter().map(|row| self.line(row)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The name of a Lease as `-o name` writes it, and as kubectl reads it.
#[must_use]
pub fn lease_name(name: &str) -> String {
    format!("lease.konductor.io/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_holes() {
        let mut table = Table::new(&["NAME", "HOLDER"]);
        table.row(vec!["db-migration".into(), String::new()]);
        table.row(vec!["x".into(), "pod-a".into()]);
        assert_eq!(table.to_string(), "NAME          HOLDER\ndb-migration  -\nx             pod-a");
        assert_eq!(table.take_last_line(), "x             pod-a");
        assert_eq!(table.to_string(), "");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error_and_is_told() {
        struct Pipe(Option<io::ErrorKind>);
        impl io::Write for Pipe {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.map_or(Ok(bytes.len()), |kind| Err(kind.into()))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(still_read(&mut Pipe(None), &"x").expect("written"));
        assert!(!still_read(&mut Pipe(Some(io::ErrorKind::BrokenPipe)), &"x").expect("no error"));
        still_read(&mut Pipe(Some(io::ErrorKind::StorageFull)), &"x").expect_err("a disk that is full is one");
    }

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        for (no_color, term, expected) in [
            (None, Some("xterm-256color"), true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (Some("0"), Some("xterm"), false),
            (None, Some("dumb"), false),
            (None, Some(""), false),
            (None, None, false),
        ] {
            assert_eq!(may_colour(no_color.map(OsStr::new), term.map(OsStr::new)), expected, "{no_color:?} {term:?}");
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now = parse_timestamp("2026-01-01T00:00:00Z").expect("a time");
        assert_eq!(relative("2026-01-01T00:04:10Z", now), "in 4m10s");
        assert_eq!(relative("2025-12-31T23:59:48Z", now), "12s ago");
        assert_eq!(relative("soon", now), "soon");
    }
}
