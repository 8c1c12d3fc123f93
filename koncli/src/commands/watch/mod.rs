//! `koncli lease watch`: a live view on a terminal, lines anywhere else.

mod change;
mod picture;
mod scene;
mod screen;

use std::{future::pending, io::Read as _, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::Either};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::{
    change::Change,
    picture::{Frame, picture},
    scene::Scene,
    screen::{Pressed, Screen, pressed},
};
use super::{apis, signals};
use crate::{
    args::{Format, WatchArgs},
    client::{Access, CallFailure, Connection, Error, Followed, Problem, Result, follow},
    output::{Output, lease_name, may_colour, wall_clock_ms},
    text::similar_leases,
};

/// The time left is counted down so often.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come one after the other are drawn together: faster than this nobody can read.
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(connection: &Connection, out: Output, args: &WatchArgs) -> Result<()> {
    // From here on, so that none is missed while it starts.
    let mut stop = std::pin::pin!(signals::stop());
    let time = args.duration.map_or(Either::Left(pending()), |most| Either::Right(tokio::time::sleep(most)));
    let mut time = std::pin::pin!(time);
    let (leases, requests) = apis(connection, args.all_namespaces);
    let place = match args.all_namespaces {
        true => "all namespaces".to_owned(),
        false => format!("namespace {}", connection.namespace),
    };
    let failed = |failure: CallFailure| Error::from_call(format!("watch leases in {place}"), failure);

    let mut leases = follow(leases, Access::leases);
    let mut requests = follow(requests, Access::requests);
    let mut scene = Scene::new(&args.leases);
    // Leases first: an error of theirs ends it, and nothing is drawn before it is known that there is something to see.
    let first = tokio::select! {
        biased;
        _ = stop.as_mut() => return Ok(()),
        first = leases.next() => first,
    };
    if let Some(first) = first {
        scene.lease_event(first.map_err(failed)?, wall_clock_ms());
    }
    let mut view = View::new(out, args.all_namespaces, place.clone())?;
    // Who waits is good to know; the leases are what was asked for.
    let mut follows_requests = true;
    let mut began = false;
    view.wants_drawing();
    loop {
        let changes = tokio::select! {
            // In this order: a signal or a key is not to wait behind a storm.
            biased;
            _ = stop.as_mut() => break,
            () = time.as_mut(), if began => break,
            input = view.input() => {
                if view.takes(input, &scene)? { continue } else { break }
            }
            Some(item) = requests.next(), if follows_requests => {
                match item {
                    Ok(event) => {
                        let listed = matches!(event, Followed::Listed(..));
                        let mut changes = scene.request_event(event, wall_clock_ms());
                        if listed && !std::mem::replace(&mut began, true) {
                            changes = scene.begin(wall_clock_ms());
                            view.begins(&scene);
                        }
                        changes
                    }
                    Err(failure) if failure.is_refusal() && !began => {
                        view.out.say(format_args!("not allowed to {}: it is not shown who waits, only how many", failure.access));
                        follows_requests = false;
                        began = true;
                        scene.without_requests();
                        let changes = scene.begin(wall_clock_ms());
                        view.begins(&scene);
                        changes
                    }
                    Err(failure) => return Err(failed(failure)),
                }
            }
            Some(item) = leases.next() => scene.lease_event(item.map_err(failed)?, wall_clock_ms()),
        };
        if !view.shows(&changes)? {
            break;
        }
    }
    Ok(())
}

/// Where it is shown.
struct View {
    out: Output,
    namespaces: bool,
    place: String,
    canvas: Option<Canvas>,
}

/// A terminal, and what is awaited from it.
struct Canvas {
    screen: Screen,
    keys: mpsc::Receiver<Vec<Pressed>>,
    resized: Option<Signal>,
    suspended: Option<Signal>,
    scroll: usize,
    scroll_most: usize,
    page: usize,
    drawn: Instant,
    draw_at: Instant,
}

/// What a terminal says.
#[derive(Debug)]
enum Input {
    Keys(Vec<Pressed>),
    Resized,
    Suspended,
    Draw,
}

impl View {
    fn new(out: Output, namespaces: bool, place: String) -> Result<Self> {
        let canvas = out.is_canvas().then(Canvas::new).transpose();
        let canvas = canvas.map_err(|error| unable(&error))?;
        Ok(Self { out, namespaces, place, canvas })
    }

    fn begins(&self, scene: &Scene) {
        if self.canvas.is_none() {
            for name in scene.missing() {
                let similar =
                    similar_leases(&scene.similar(name)).map(|names| format!("; {names}")).unwrap_or_default();
                self.out.say(format_args!("there is no lease {name} in {} yet{similar}", self.place));
            }
        }
    }

    fn wants_drawing(&mut self) {
        if let Some(canvas) = &mut self.canvas {
            canvas.draw_at = canvas.draw_at.min(canvas.drawn + DRAW_EVERY);
        }
    }

    /// Writes changes as lines; a picture is drawn a little later. Returns whether somebody still reads them.
    fn shows(&mut self, changes: &[Change]) -> Result<bool> {
        if self.canvas.is_some() {
            self.wants_drawing();
            return Ok(true);
        }
        for change in changes {
            let is_read = match self.out.format {
                Format::Json => self.out.more(serde_json::to_string(change).unwrap_or_default())?,
                Format::Yaml => self.out.more("---")? && self.out.more_structured(change)?,
                Format::Name => self.out.more(lease_name(&change.lease))?,
                Format::Text | Format::Wide => {
                    let (name, said) = (change.name(self.namespaces), change.says(wall_clock_ms()));
                    self.out.more(format_args!("{}  {name}  {said}", change.time))?
                }
            };
            if !is_read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for what the terminal says; for ever where there is none.
    async fn input(&mut self) -> Input {
        let Some(canvas) = &mut self.canvas else { return pending().await };
        tokio::select! {
            biased;
            Some(keys) = canvas.keys.recv() => Input::Keys(keys),
            () = next(&mut canvas.suspended) => Input::Suspended,
            () = next(&mut canvas.resized) => Input::Resized,
            () = sleep_until(canvas.draw_at) => Input::Draw,
        }
    }

    /// Does what the terminal says. Returns whether to go on.
    fn takes(&mut self, input: Input, scene: &Scene) -> Result<bool> {
        let Some(canvas) = &mut self.canvas else { return Ok(true) };
        match input {
            Input::Keys(keys) => {
                if keys.contains(&Pressed::Quit) {
                    return Ok(false);
                }
                keys.into_iter().for_each(|key| canvas.key(key));
            }
            Input::Suspended => canvas.screen.suspend().map_err(|error| unable(&error))?,
            Input::Resized => canvas.screen.redraw(),
            Input::Draw => {}
        }
        let (rows, columns) = Screen::size();
        let frame = Frame {
            rows,
            columns,
            now_ms: wall_clock_ms(),
            place: self.place.clone(),
            namespaces: self.namespaces,
            scroll: canvas.scroll,
        };
        let picture = picture(scene, &frame);
        (canvas.scroll_most, canvas.page) = (picture.scroll_most, picture.page);
        canvas.scroll = canvas.scroll.min(canvas.scroll_most);
        canvas.screen.draw(picture, (rows, columns)).map_err(|error| unable(&error))?;
        canvas.drawn = Instant::now();
        canvas.draw_at = canvas.drawn + TICK;
        Ok(true)
    }
}

impl Canvas {
    fn new() -> std::io::Result<Self> {
        let colours = may_colour(std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref());
        let listen = |kind| signal(kind).ok();
        let now = Instant::now();
        Ok(Self {
            resized: listen(SignalKind::window_change()),
            suspended: listen(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw())),
            screen: Screen::take(colours)?,
            keys: keyboard(),
            scroll: 0,
            scroll_most: 0,
            page: 1,
            drawn: now,
            draw_at: now,
        })
    }

    fn key(&mut self, key: Pressed) {
        let page = isize::try_from(self.page).unwrap_or(isize::MAX);
        self.scroll = match key {
            Pressed::Rows(count) => self.scroll.saturating_add_signed(count),
            Pressed::Pages(count) => self.scroll.saturating_add_signed(count.saturating_mul(page)),
            Pressed::Top => 0,
            Pressed::Bottom => self.scroll_most,
            Pressed::Redraw => {
                self.screen.redraw();
                self.scroll
            }
            Pressed::Quit => self.scroll,
        }
        .min(self.scroll_most);
    }
}

/// Reads keys on a thread of its own: reading a terminal blocks. It ends with the process.
fn keyboard() -> mpsc::Receiver<Vec<Pressed>> {
    /// More than anybody types between two drawings; then the terminal keeps what is typed.
    const TYPED_AHEAD: usize = 64;
    let (tell, keys) = mpsc::channel(TYPED_AHEAD);
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            // At its end the terminal is gone, and a signal says so.
            while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut bytes) {
                if tell.blocking_send(pressed(&bytes[..count])).is_err() {
                    break;
                }
            }
        });
    }
    keys
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => signal.recv().map(drop).await,
        None => pending().await,
    }
}

fn unable(error: &std::io::Error) -> Error {
    Error::new("draw on the terminal", Problem::Local(error.to_string()))
        .with_note("lines instead of a picture: koncli lease watch | cat")
}
