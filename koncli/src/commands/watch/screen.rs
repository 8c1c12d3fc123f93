//! The terminal: taken, drawn on, and given back on every way out.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::picture::{Picture, Row, Style};

/// The other screen, no cursor, no wrapping at the right edge.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// The same in the other direction, and no colour.
const GIVE_BACK: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What the terminal was like, while it is taken. One for the process, since a panic has to find it.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

#[derive(Debug)]
struct Taken {
    /// How keys were read, if this process reads them.
    keyboard: Option<(File, Termios)>,
}

/// A terminal that is drawn on. Dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen {
    colours: bool,
    drawn: Vec<Row>,
    size: (usize, usize),
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take(colours: bool) -> io::Result<Self> {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // First, so that what the panic says is seen.
            give_back();
            others(panic);
        }));
        let screen = Self { colours, drawn: Vec::new(), size: (0, 0) };
        screen.take_again()?;
        Ok(screen)
    }

    fn take_again(&self) -> io::Result<()> {
        let keyboard = io::stdin().is_terminal().then(quiet_keys).transpose()?;
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Taken { keyboard });
        write(TAKE)
    }

    /// Gives the terminal back for as long as the process is stopped.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SIGTSTP has a handler here; this one stops as well. It returns when the job is continued.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TTIN);
        self.redraw();
        self.take_again()
    }

    /// Rows and columns, as they are now.
    pub(super) fn size() -> (usize, usize) {
        // A terminal that does not know is taken for the one that everybody had.
        const USUAL: (usize, usize) = (24, 80);
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
            _ => USUAL,
        }
    }

    /// The next picture is drawn as a whole.
    pub(super) fn redraw(&mut self) {
        self.size = (0, 0);
    }

    /// Draws what differs from what is there.
    pub(super) fn draw(&mut self, picture: Picture, size: (usize, usize)) -> io::Result<()> {
        let text = difference(&self.drawn, &picture.rows, self.size != size, self.colours);
        (self.drawn, self.size) = (picture.rows, size);
        if text.is_empty() { Ok(()) } else { write(&text) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Keys are read at once and not shown. Ctrl-C and Ctrl-Z stay signals; Ctrl-S does not stop the picture.
fn quiet_keys() -> io::Result<(File, Termios)> {
    let keyboard = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let before = tcgetattr(&keyboard)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    quiet.input_modes.remove(InputModes::IXON);
    tcsetattr(&keyboard, OptionalActions::Now, &quiet)?;
    Ok((keyboard, before))
}

/// Makes the terminal what it was, if it is taken.
fn give_back() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(taken) = taken else { return };
    // Nobody is left to be told if that fails.
    let _ = write(GIVE_BACK);
    if let Some((keyboard, before)) = taken.keyboard {
        let _ = tcsetattr(&keyboard, OptionalActions::Now, &before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What has to be written so that a terminal that shows `before` shows `now`.
fn difference(before: &[Row], now: &[Row], whole: bool, colours: bool) -> String {
    let mut text = String::new();
    if whole {
        text.push_str("\x1b[2J");
    }
    for (at, row) in now.iter().enumerate() {
        if !whole && before.get(at) == Some(row) {
            continue;
        }
        let _ = write!(text, "\x1b[{};1H", at + 1);
        for (style, piece) in row {
            match code(*style).filter(|_| colours) {
                Some(code) => {
                    let _ = write!(text, "\x1b[{code}m{piece}\x1b[0m");
                }
                None => text.push_str(piece),
            }
        }
        text.push_str("\x1b[K");
    }
    if !whole && before.len() > now.len() {
        let _ = write!(text, "\x1b[{};1H\x1b[J", now.len() + 1);
    }
    text
}

fn code(style: Style) -> Option<u8> {
    match style {
        Style::Plain => None,
        Style::Head => Some(1),
        Style::Faint => Some(2),
        Style::Good => Some(32),
        Style::Warning => Some(33),
        Style::Bad => Some(31),
    }
}

/// What a person does with the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressed {
    Quit,
    Redraw,
    /// So many rows down, or up.
    Rows(isize),
    /// So many pages.
    Pages(isize),
    Top,
    Bottom,
}

/// The keys in what a terminal has sent at once.
pub(super) fn pressed(bytes: &[u8]) -> Vec<Pressed> {
    const KEYS: [(&[u8], Pressed); 20] = [
        (b"\x1b[A", Pressed::Rows(-1)),
        (b"\x1b[B", Pressed::Rows(1)),
        (b"\x1bOA", Pressed::Rows(-1)),
        (b"\x1bOB", Pressed::Rows(1)),
        (b"\x1b[5~", Pressed::Pages(-1)),
        (b"\x1b[6~", Pressed::Pages(1)),
        (b"\x1b[H", Pressed::Top),
        (b"\x1b[F", Pressed::Bottom),
        (b"\x1b[1~", Pressed::Top),
        (b"\x1b[4~", Pressed::Bottom),
        (b"k", Pressed::Rows(-1)),
        (b"j", Pressed::Rows(1)),
        (b" ", Pressed::Pages(1)),
        (b"b", Pressed::Pages(-1)),
        (b"g", Pressed::Top),
        (b"G", Pressed::Bottom),
        (b"q", Pressed::Quit),
        (b"Q", Pressed::Quit),
        // Where the terminal does not make a signal of it.
        (b"\x03", Pressed::Quit),
        (b"\x0c", Pressed::Redraw),
    ];
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        match KEYS.iter().find(|(key, _)| rest.starts_with(key)) {
            Some((key, pressed)) => {
                found.push(*pressed);
                rest = &rest[key.len()..];
            }
            // A key that means nothing here: as a whole, so that the end of its code is not taken for another.
            None if rest.starts_with(b"\x1b[") => {
                let end = rest.iter().skip(2).position(|byte| (0x40..0x7f).contains(byte));
                rest = end.map_or(&[][..], |end| &rest[end + 3..]);
            }
            None => rest = &rest[1..],
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_anything() {
        const CHILD: &str = "KONCLI_TEST_PANICS_ON_A_TERMINAL";
        if std::env::var_os(CHILD).is_some() {
            let _screen = Screen::take(false).expect("a terminal");
            panic!("on purpose");
        }
        // This test once more, on a terminal of its own.
        let test = "commands::watch::screen::tests::a_panic_gives_the_terminal_back_before_it_says_anything";
        let program = std::env::current_exe().expect("a path");
        let command = format!("'{}' --exact {test} --nocapture", program.display());
        let ran = std::process::Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env(CHILD, "1")
            .stdin(std::process::Stdio::null())
            .output()
            .expect("script (util-linux) runs");
        let seen = String::from_utf8_lossy(&ran.stdout);
        let (taken, given_back) = seen.split_once(GIVE_BACK).unwrap_or_else(|| panic!("not given back: {seen:?}"));
        assert!(taken.contains(TAKE) && !taken.contains("on purpose"), "{seen:?}");
        assert!(given_back.contains("on purpose") && !given_back.contains(GIVE_BACK), "{seen:?}");
    }

    fn row(text: &str) -> Row {
        vec![(Style::Good, text.to_owned())]
    }

    #[test]
    fn only_what_differs_is_drawn() {
        let (a, b) = ([row("a"), row("b")], [row("a"), row("c")]);
        assert_eq!(difference(&a, &a, false, true), "");
        assert_eq!(difference(&a, &b, false, true), "\x1b[2;1H\x1b[32mc\x1b[0m\x1b[K");
        assert_eq!(difference(&a, &b, false, false), "\x1b[2;1Hc\x1b[K", "without colours");
        assert_eq!(difference(&a, &a[..1], false, true), "\x1b[2;1H\x1b[J", "what was below is gone");
        assert_eq!(difference(&a, &b[..1], true, false), "\x1b[2J\x1b[1;1Ha\x1b[K");
    }

    #[test]
    fn keys_are_read_also_several_at_once_and_unknown_ones_mean_nothing() {
        use Pressed::{Bottom, Pages, Quit, Redraw, Rows, Top};
        for (bytes, expected) in [
            (&b"q"[..], vec![Quit]),
            (b"\x03", vec![Quit]),
            (b"\x1b[A\x1b[Bjk", vec![Rows(-1), Rows(1), Rows(1), Rows(-1)]),
            (b"\x1b[5~\x1b[6~gG\x0c", vec![Pages(-1), Pages(1), Top, Bottom, Redraw]),
            (b"\x1b[1;5q", vec![]),
            (b"\x1b[15~q", vec![Quit]),
            (b"\x1b", vec![]),
            (b"\x1b[", vec![]),
            (b"x\xffy", vec![]),
        ] {
            assert_eq!(pressed(bytes), expected, "{bytes:?}");
        }
    }
}
