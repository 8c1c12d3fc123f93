//! The journal of decisions, where it is switched on: every question and answer, exactly, in two
//! files of which the older one is overwritten.
//!
//! It is written beside the way of a decision and never holds one up: what the disk does not take in
//! time is left out and counted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use konductor_policy::journal::{JournalError, LINE_MAX, Record};
use tracing::warn;

use crate::report::Metrics;

/// The newest records.
const NEWER: &str = "decisions.jsonl";
/// The ones before.
const OLDER: &str = "decisions.1.jsonl";

/// How many records may wait for the disk. A record of a usual question has some kilobytes.
const WAITING_MAX: usize = 1024;
/// The writing end of the journal.
#[derive(Debug, Clone)]
pub struct Journal {
    lines: SyncSender<String>,
    metrics: Arc<Metrics>,
}

impl Journal {
    /// Opens the journal in a directory, which is made if it is not there. It takes at most `bytes` of the disk.
    ///
    /// # Errors
    /// If the directory or the file cannot be made.
    pub fn open(directory: &Path, bytes: u64, metrics: Arc<Metrics>) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let files = Files::open(directory, bytes / 2)?;
        let (lines, receiver) = sync_channel(WAITING_MAX);
        let counted = metrics.clone();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || write(files, &receiver, &counted))?;
        Ok(Self { lines, metrics })
    }

    /// Writes a record, soon.
    pub fn write(&self, record: &Record) {
        let result = match record.line() {
            Ok(line) => match self.lines.try_send(line) {
                Ok(()) => return,
                Err(_) => "dropped",
            },
            Err(JournalError::TooLong { .. }) => "too_long",
            Err(_) => "failed",
        };
        self.metrics.journal(result);
    }
}

/// Writes lines until nobody can send any more.
fn write(mut files: Files, lines: &Receiver<String>, metrics: &Metrics) {
    let mut failing = false;
    while let Ok(line) = lines.recv() {
        let result = files.append(line);
        metrics.journal(if result.is_ok() { "written" } else { "failed" });
        // A full disk is told once, and counted each time.
        if let Err(error) = &result
            && !failing
        {
            warn!(error = error as &dyn std::error::Error, directory = %files.directory.display(), "cannot write the journal of decisions");
        }
        failing = result.is_err();
    }
}

struct Files {
    directory: PathBuf,
    newer: File,
    /// The length of its whole lines.
    written: u64,
    /// Whether there may be a part of a line behind them.
    torn: bool,
    most: u64,
}

impl Files {
    fn open(directory: &Path, most: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Inputs have the labels of requests in them, which are not everybody's to read.
        let mut newer = options.create(true).append(true).read(true).mode(0o600).open(directory.join(NEWER))?;
        let written = whole_lines(&mut newer)?;
        newer.set_len(written)?;
        Ok(Self { directory: directory.to_owned(), newer, written, torn: false, most })
    }

    fn append(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let bytes = line.len() as u64;
        self.mend()?;
        if self.written > 0 && self.written + bytes > self.most {
            match std::fs::rename(self.directory.join(NEWER), self.directory.join(OLDER)) {
                // The last time it was renamed, and then no new one could be made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            *self = Self::open(&self.directory, self.most)?;
        }
        // In one piece: what is in the file are whole lines, whenever somebody looks or the process ends.
        let appended = self.newer.write_all(line.as_bytes());
        if appended.is_ok() {
            self.written += bytes;
        } else {
            self.torn = true;
            // Where this fails too it is tried again before the next line.
            let _ = self.mend();
        }
        appended
    }

    /// Takes away what a full disk has left of a line: it would spoil the next one.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.newer.set_len(self.written)?;
            self.torn = false;
        }
        Ok(())
    }
}

/// How long the part of a file is that ends with a line's end: what comes after it was cut off when the
/// process ended, and would spoil the next line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    // No line is longer, so within this much there is an end, or there is none at all.
    let tail = length.min(LINE_MAX as u64 + 1);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let kept = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
    Ok(length - tail + kept)
}

/// Copies the journal in a directory to somewhere, oldest record first.
///
/// # Errors
/// If there is none, or it cannot be read or written.
pub fn print(directory: &Path, to: &mut impl io::Write) -> io::Result<()> {
    match File::open(directory.join(OLDER)) {
        Ok(mut older) => drop(io::copy(&mut older, to)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    io::copy(&mut File::open(directory.join(NEWER))?, to)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use konductor_policy::journal::VERSION;

    use super::*;

    fn record(n: usize) -> Record {
        Record {
            v: VERSION,
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            lease: "ns/l".to_owned(),
            uid: "u".to_owned(),
            decision: 7,
            policy: "p".to_owned(),
            digest: "d".to_owned(),
            cause: "request".to_owned(),
            input: n.to_string(),
            output: None,
            fault: None,
            fuel: None,
            applied: true,
        }
    }

    #[test]
    fn the_journal_keeps_the_newest_within_its_limit_and_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = record(100).line().expect("short").len() as u64 + 1;
        let mut files = Files::open(directory.path(), 10 * line).expect("opened");
        for n in 100..135 {
            if n == 117 {
                files.newer.write_all(b"{\"v\":1,").expect("half a line");
                files = Files::open(directory.path(), 10 * line).expect("opened again");
            }
            files.append(record(n).line().expect("short")).expect("written");
        }
        drop(files);
        let mut printed = Vec::new();
        print(directory.path(), &mut printed).expect("printed");
        assert!(printed.len() as u64 <= 20 * line);
        let kept: Vec<_> = String::from_utf8(printed)
            .expect("text")
            .lines()
            .map(|line| Record::parse(line).expect("whole").input)
            .collect();
        let expected: Vec<_> = (120..135).map(|n| n.to_string()).collect();
        assert_eq!(kept, expected, "the newest, without a gap, and half a line spoils nothing");
    }

    fn kept(directory: &Path) -> Vec<String> {
        let mut printed = Vec::new();
        print(directory, &mut printed).expect("printed");
        let text = String::from_utf8(printed).expect("text");
        text.lines().map(|line| Record::parse(line).expect("whole").input).collect()
    }

    #[test]
    fn a_journal_that_was_renamed_and_not_made_anew_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = |n| record(n).line().expect("short");
        let most = line(100).len() as u64 + 1;
        let mut files = Files::open(directory.path(), most).expect("opened");
        files.append(line(100)).expect("written");
        // As it is after a rotation that could not open the new file.
        std::fs::rename(directory.path().join(NEWER), directory.path().join(OLDER)).expect("renamed");
        files.append(line(101)).expect("written");
        assert_eq!(kept(directory.path()), ["100", "101"]);
    }

    #[test]
    fn a_part_of_a_line_that_could_not_be_written_is_taken_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = |n| record(n).line().expect("short");
        let mut files = Files::open(directory.path(), 1 << 20).expect("opened");
        files.append(line(100)).expect("written");
        // A disk that takes half a line and then nothing, not even that it be taken away.
        files.newer.write_all(b"{\"v\":1,").expect("half a line");
        let only_read = File::open(directory.path().join(NEWER)).expect("opened");
        let good = std::mem::replace(&mut files.newer, only_read);
        assert!(files.append(line(101)).is_err());
        files.newer = good;
        files.append(line(102)).expect("written");
        assert_eq!(kept(directory.path()), ["100", "102"], "every line is whole");
    }

    #[test]
    fn a_directory_without_a_journal_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(print(directory.path(), &mut Vec::new()).is_err());
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert!(Journal::open(&file, 1, Arc::new(Metrics::new())).is_err());
    }
}
