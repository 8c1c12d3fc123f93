//! What `lease run` decides: a state machine without I/O. Events go in with the time, actions come out.
//!
//! The rules, in the order of their weight:
//!
//! 1. Nothing is released before every process of the command's group is gone, and what else it has left behind.
//! 2. While the hold may be relied on, the command is asked to end (SIGTERM) so early that its grace is over, and
//!    SIGKILL sent, before the hold can end. When the hold is over, it is killed at once.
//! 3. What was stopped because of the lease is not recorded as completed, whatever its exit status.

use std::time::Duration;

use rustix::process::Signal;

use crate::{args::OnLost, client::Moment};

/// Of the time before the deadline, so much is left for the kill to be done: a twentieth of the ttl, at most this. The
/// deadline itself lies before the moment at which the lease may be granted again.
const RESERVE_MOST: Duration = Duration::from_millis(200);
/// A kill is repeated so often until nothing is left: a process may have joined the group just then.
const AGAIN: Duration = Duration::from_secs(1);
/// A grace is at most this part of the ttl: renewals begin after the first third, and have the second to succeed.
const GRACE_SHARE: u32 = 3;

/// What `lease run` ends with when the lease was lost or asked back and the command stopped.
pub(super) const LOST: u8 = 124;
/// What it ends with when it failed itself.
pub(super) const FAILED: u8 = 125;

/// How the command is to be treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The time between SIGTERM and SIGKILL that was asked for.
    pub(super) grace: Duration,
    pub(super) on_lost: OnLost,
    /// Whether its success is to be recorded.
    pub(super) once: bool,
    /// How long the hold lasts from a renewal.
    pub(super) ttl: Duration,
}

impl Rules {
    /// The time between SIGTERM and SIGKILL: as much of what was asked for as fits into the ttl.
    pub(super) fn fitting(&self) -> Duration {
        self.grace.min(self.ttl / GRACE_SHARE)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell tells it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The hold may be relied on until then, and lasts so long from a renewal.
    Held { deadline: Moment, ttl: Duration },
    /// Somebody else is to have the lease by then; by force, if the hold ends then in any case.
    AskedBack { until: Moment, force: bool },
    /// Nobody asks for it any more.
    NotAskedBack,
    /// The hold is over.
    Lost,
    /// A signal has come that the command should have.
    Signal(Signal),
    /// The command itself has ended; unless all of its group is gone, what it started still runs.
    Exited { exit: Exit, gone: bool },
    /// No process of its group is left.
    Gone,
    /// Whether its success was recorded.
    Recorded(bool),
    /// The lease was released, or could not be.
    Released,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Send it to every process of the group.
    Signal(Signal),
    /// Tell people.
    Say(Note),
    /// Record that the command has succeeded.
    Record,
    /// Give up recording, release the lease.
    Release,
    /// End with this code.
    Exit(u8),
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The hold will end soon: the command gets SIGTERM.
    Ending,
    /// The lease is asked back: the command gets SIGTERM.
    Leaving,
    /// The command gets SIGKILL: its grace is over.
    Killing,
    /// The hold will end at once, and the command gets SIGKILL: there is no time for a grace, or it is to have none.
    KillingNow,
    /// The hold is over: the command gets SIGKILL.
    KillingLost,
    /// The hold is over, and the command runs on.
    RunsOn,
    /// The command has ended, and what it left gets SIGTERM.
    Leftovers,
    /// It succeeded, and the hold ended before that was recorded.
    NotRecorded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Recording,
    Releasing,
    Over,
}

/// The state of a run.
#[derive(Debug)]
pub(super) struct Plan {
    rules: Rules,
    deadline: Moment,
    asked: Option<(Moment, bool)>,
    lost: bool,
    phase: Phase,
    ended: Option<Exit>,
    /// When SIGTERM was sent of our own accord.
    termed: Option<Moment>,
    /// When SIGKILL was sent last.
    killed: Option<Moment>,
    /// Whether the command was stopped because of the lease.
    stopped: bool,
    /// Whether it was told that the command runs on without the lease.
    told: bool,
    code: u8,
}

impl Plan {
    pub(super) fn new(rules: Rules, deadline: Moment) -> Self {
        Self {
            rules,
            deadline,
            asked: None,
            lost: false,
            phase: Phase::Running,
            ended: None,
            termed: None,
            killed: None,
            stopped: false,
            told: false,
            code: FAILED,
        }
    }

    /// When everything must be dead that relies on the hold, whatever becomes of this process.
    pub(super) fn last_moment(&self) -> Moment {
        match self.asked {
            Some((until, true)) => until.min(self.deadline),
            _ => self.deadline,
        }
    }

    /// When SIGKILL is sent at the latest.
    fn kill_at_latest(&self) -> Moment {
        self.last_moment().before(RESERVE_MOST.min(self.rules.ttl / 20))
    }

    /// When SIGKILL is sent to whom SIGTERM was sent at `termed`.
    fn kill_after(&self, termed: Moment) -> Moment {
        let grace_over = termed.after(self.rules.fitting());
        // Who is asked to leave has as long as that says, if it is longer.
        let until = match self.asked {
            Some((until, _)) if self.ended.is_none() => grace_over.max(until),
            _ => grace_over,
        };
        until.min(self.kill_at_latest())
    }

    /// When SIGTERM is sent of our own accord. `None`: not because of the lease.
    fn term_at(&self) -> Option<Moment> {
        match self.rules.on_lost {
            OnLost::Stop if self.asked.is_some() => Some(Moment::new(Duration::ZERO)),
            OnLost::Stop => Some(self.kill_at_latest().before(self.rules.fitting())),
            OnLost::Kill | OnLost::Ignore => None,
        }
    }

    /// When SIGKILL is sent. `None`: not yet known, or not because of the lease.
    fn kill_at(&self) -> Option<Moment> {
        let again = |at: Moment| self.killed.map_or(at, |killed| at.max(killed.after(AGAIN)));
        let at = match (self.termed, self.rules.on_lost) {
            // What a command has left behind is stopped in any case.
            (Some(termed), OnLost::Ignore) => termed.after(self.rules.fitting()),
            (Some(termed), _) => self.kill_after(termed),
            (None, OnLost::Ignore) => return None,
            (None, OnLost::Kill) if self.asked.is_some() => {
                self.asked.map_or(self.deadline, |(until, _)| until).min(self.kill_at_latest())
            }
            (None, _) => self.kill_at_latest(),
        };
        let at = if self.lost && self.rules.on_lost != OnLost::Ignore { Moment::new(Duration::ZERO) } else { at };
        Some(again(at))
    }

    /// When [`Event::Tick`] is wanted.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Running => {
                let term = self.term_at().filter(|_| self.termed.is_none() && self.killed.is_none());
                let told = (self.rules.on_lost == OnLost::Ignore && !self.told).then_some(self.deadline);
                [term, self.kill_at(), told].into_iter().flatten().min()
            }
            Phase::Recording => Some(self.deadline),
            Phase::Releasing | Phase::Over => None,
        }
    }

    /// Whether the command has ended and something of its group is left.
    pub(super) fn awaits_leftovers(&self) -> bool {
        self.ended.is_some() && self.phase == Phase::Running
    }

    /// Takes in what has happened at `now`.
    pub(super) fn on(&mut self, now: Moment, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Held { deadline, ttl } => {
                self.deadline = deadline;
                // The lease's own may have been changed: what has to fit into it is reckoned anew.
                self.rules.ttl = ttl;
            }
            Event::AskedBack { until, force } => self.asked = Some((until, force)),
            Event::NotAskedBack => self.asked = None,
            Event::Lost => self.lost = true,
            Event::Signal(signal) if self.phase == Phase::Running => {
                actions.push(Action::Signal(signal));
                if matches!(signal, Signal::TERM | Signal::HUP) {
                    // A process that is stopped would see it only when it goes on.
                    actions.push(Action::Signal(Signal::CONT));
                }
            }
            Event::Signal(_) | Event::Tick => {}
            Event::Exited { exit, gone } => {
                self.code = exit.code();
                self.ended = Some(exit);
                // While we were suspended, somebody has done what we should have done.
                let watchdog = self.rules.on_lost != OnLost::Ignore
                    && exit == Exit::Signal(Signal::KILL.as_raw())
                    && now >= self.kill_at_latest();
                self.stopped |= watchdog;
                // What is left gets a grace of its own.
                self.termed = None;
                if gone {
                    actions.extend(self.gone(now));
                }
            }
            Event::Gone => actions.extend(self.gone(now)),
            Event::Recorded(well) if self.phase == Phase::Recording => {
                self.code = if well { 0 } else { FAILED };
                self.phase = Phase::Releasing;
                actions.push(Action::Release);
            }
            Event::Recorded(_) => {}
            Event::Released => {
                self.phase = Phase::Over;
                actions.push(Action::Exit(if self.stopped { LOST } else { self.code }));
            }
        }
        match self.phase {
            Phase::Running => actions.extend(self.running(now)),
            Phase::Recording if self.lost || now >= self.deadline => {
                self.stopped = true;
                self.phase = Phase::Releasing;
                actions.extend([Action::Say(Note::NotRecorded), Action::Release]);
            }
            Phase::Recording | Phase::Releasing | Phase::Over => {}
        }
        actions
    }

    /// Nothing of the command is left.
    fn gone(&mut self, now: Moment) -> Vec<Action> {
        if self.phase != Phase::Running {
            return Vec::new();
        }
        let held = !self.lost && now < self.deadline;
        let succeeded = self.ended == Some(Exit::Code(0)) && !self.stopped;
        if self.rules.once && succeeded && held {
            self.phase = Phase::Recording;
            return vec![Action::Record];
        }
        self.phase = Phase::Releasing;
        if self.rules.once && succeeded {
            self.stopped = true;
            return vec![Action::Say(Note::NotRecorded), Action::Release];
        }
        vec![Action::Release]
    }

    fn running(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.rules.on_lost == OnLost::Ignore && (self.lost || now >= self.deadline) && !self.told {
            self.told = true;
            actions.push(Action::Say(Note::RunsOn));
        }
        let by_lease = self.term_at().is_some_and(|at| at <= now);
        let left = self.ended.is_some();
        if self.kill_at().is_some_and(|at| at <= now) {
            if self.killed.is_none() {
                let note = match (self.lost, self.termed) {
                    (true, _) => Note::KillingLost,
                    (false, Some(_)) => Note::Killing,
                    (false, None) => Note::KillingNow,
                };
                actions.push(Action::Say(note));
            }
            self.killed = Some(now);
            self.stopped |= !left;
            actions.push(Action::Signal(Signal::KILL));
        } else if self.termed.is_none() && self.killed.is_none() && (by_lease || left) {
            self.termed = Some(now);
            let note = match (left, self.asked) {
                (true, _) => Note::Leftovers,
                (false, Some(_)) => Note::Leaving,
                (false, None) => Note::Ending,
            };
            self.stopped |= !left;
            actions.extend([Action::Say(note), Action::Signal(Signal::TERM), Action::Signal(Signal::CONT)]);
        }
        actions
    }
}
