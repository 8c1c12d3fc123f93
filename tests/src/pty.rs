//! A program on a terminal: a pseudo-terminal of its own, and what a person would see on it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{eventually, guard};

/// A program that has a terminal. Dropping it kills the program.
pub struct Terminal {
    child: Child,
    master: File,
    /// The other side, so that its modes can be asked for after the program has ended.
    slave: File,
    seen: Arc<Mutex<vt100::Parser>>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("child", &self.child).finish_non_exhaustive()
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts a program as the leader of a session that this terminal controls.
    ///
    /// # Panics
    /// If there is no terminal to be had, or no `setsid` (util-linux).
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        Self::try_start(command, rows, columns).unwrap_or_else(|problem| panic!("no terminal: {problem:#}"))
    }

    fn try_start(command: &Command, rows: u16, columns: u16) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let slave = File::from(open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
        tcsetwinsize(&master, size(rows, columns))?;
        // setsid becomes the program: it is no leader of a group, so it need not fork.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            session.current_dir(directory);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session
            .env(guard::MARK, guard::mark()?)
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave.try_clone()?)
            .spawn()?;
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 1_000)));
        let (mut reader, parser) = (master.try_clone()?, seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                parser.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Ok(Self { child, master, slave, seen })
    }

    fn seen(&self) -> MutexGuard<'_, vt100::Parser> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands on it now, as text.
    #[must_use]
    pub fn shows(&self) -> String {
        self.seen().screen().contents()
    }

    /// Whether something on it is coloured.
    #[must_use]
    pub fn is_coloured(&self) -> bool {
        let seen = self.seen();
        let (rows, columns) = seen.screen().size();
        let mut cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells.any(|(row, column)| {
            seen.screen()
                .cell(row, column)
                .is_some_and(|cell| cell.fgcolor() != vt100::Color::Default || cell.bold() || cell.dim())
        })
    }

    /// Whether a program has taken it: the other screen, no cursor, keys at once.
    #[must_use]
    pub fn is_taken(&self) -> [bool; 3] {
        let at_once = tcgetattr(self.slave.as_fd()).is_ok_and(|modes| !modes.local_modes.contains(LocalModes::ICANON));
        let seen = self.seen();
        [seen.screen().alternate_screen(), seen.screen().hide_cursor(), at_once]
    }

    /// Waits until it shows something.
    ///
    /// # Panics
    /// If it does not within 30 seconds, with what it shows.
    pub async fn until(&self, what: &str, mut is: impl FnMut(&str) -> bool) -> String {
        eventually(&format!("the terminal shows {what}"), async || {
            let shown = self.shows();
            if is(&shown) { Ok(shown) } else { Err(shown) }
        })
        .await
    }

    /// Waits until it shows a text.
    ///
    /// # Panics
    /// As [`Terminal::until`].
    pub async fn says(&self, text: &str) -> String {
        self.until(&format!("{text:?}"), |shown| shown.contains(text)).await
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn types(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).unwrap_or_else(|problem| panic!("cannot type: {problem}"));
    }

    /// Makes it larger or smaller.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.seen().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(rows, columns)).unwrap_or_else(|problem| panic!("cannot resize: {problem}"));
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and returns its exit status, or 128 + the signal that ended it.
    ///
    /// # Panics
    /// If that takes more than 30 seconds, with what the terminal shows.
    pub async fn ends(&mut self) -> i32 {
        let seen = self.seen.clone();
        let child = &mut self.child;
        eventually("the program on the terminal ends", async || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)),
            _ => Err(seen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()),
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
