//! Carries out what the plan decides while the command runs.

use std::{ffi::OsString, time::Duration};

use rustix::process::Signal;

use super::{
    child::{Group, Seen, not_started},
    plan::{Action, Event, Plan, Rules},
    report::sentence,
    signals::{Heard, Signals},
    terminal::Terminal,
    watchdog::Watchdog,
};
use crate::{
    args::OnLost,
    client::{By, Client, Completed, Guard, Key, Moment, Problem, Result, Standing, sleep_until},
    output::{Output, report},
    pending::{Pending, if_any},
};

use super::plan::FAILED;

/// The pause before an attempt to record a success is repeated.
const RECORD_PAUSE: Duration = Duration::from_millis(500);
/// While leftovers of the command end, they are looked for so often: not everybody's end is told as a signal.
const LOOK_FOR_LEFTOVERS: Duration = Duration::from_millis(200);

/// A command that is about to run under a hold.
pub(super) struct Run {
    pub(super) out: Output,
    pub(super) client: Client,
    pub(super) guard: Guard,
    pub(super) signals: Signals,
    pub(super) rules: Rules,
    pub(super) once: Option<Key>,
    pub(super) command: Vec<OsString>,
}

/// What runs, and what is being done.
struct Running {
    out: Output,
    client: Client,
    lease: String,
    once: Option<(By, Key)>,
    guard: Option<Guard>,
    standing: Standing,
    group: Group,
    watchdog: Option<Watchdog>,
    terminal: Terminal,
    plan: Plan,
    recording: Option<Pending<Result<Completed>>>,
    releasing: Option<Pending<Result<()>>>,
}

impl Run {
    pub(super) async fn finish(self) -> u8 {
        let Self { out, client, guard, mut signals, rules, once, command } = self;
        let standing = guard.standing();
        let env = [
            ("KONDUCTOR_LEASE", guard.lease().to_owned()),
            ("KONDUCTOR_NAMESPACE", client.namespace().to_owned()),
            ("KONDUCTOR_HOLDER", guard.holder().to_owned()),
            ("KONDUCTOR_TOKEN", guard.token().to_string()),
            ("KONDUCTOR_EXPIRES", standing.expires.clone()),
        ];
        out.detail(format_args!("lease {} acquired by {}, token {}", guard.lease(), guard.holder(), guard.token()));
        // Nothing is to be killed because of a lease that is ignored.
        let watchdog = (rules.on_lost != OnLost::Ignore).then(Watchdog::start).transpose();
        let watchdog = match watchdog {
            Ok(watchdog) => watchdog,
            Err(error) => {
                let why = format!("cannot start the process that watches over this one: {error}");
                return nothing_ran(guard, FAILED, &why).await;
            }
        };
        let group = match Group::start(&command, &env) {
            Ok(group) => group,
            Err(error) => {
                if let Some(watchdog) = watchdog {
                    watchdog.dismiss();
                }
                let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
                return nothing_ran(guard, not_started(&error), &format!("cannot run {program}: {error}")).await;
            }
        };
        // After the command is started, which would inherit the signal that is blocked there.
        let terminal = Terminal::open();
        let plan = Plan::new(rules, standing.deadline);
        let mut running = Running {
            out,
            client,
            lease: guard.lease().to_owned(),
            once: once.map(|key| (guard.by(), key)),
            guard: Some(guard),
            standing,
            group,
            watchdog,
            terminal,
            plan,
            recording: None,
            releasing: None,
        };
        let mut events = vec![Event::Tick];
        loop {
            let now = running.client.now();
            for event in events {
                for action in running.plan.on(now, event) {
                    if let Some(code) = running.carry_out(action) {
                        running.terminal.take_back(running.group.id());
                        return code;
                    }
                }
            }
            running.watch_over();
            events = running.next(&mut signals).await;
        }
    }
}

impl Running {
    /// Waits for what happens next.
    async fn next(&mut self, signals: &mut Signals) -> Vec<Event> {
        let clock = self.client.clock().clone();
        let wake_at = self.plan.wake_at();
        let ended = self.plan.awaits_leftovers() && !self.group.is_gone();
        tokio::select! {
            biased;
            () = at(&clock, wake_at) => vec![Event::Tick],
            standing = changed(&mut self.guard) => self.stands(standing),
            heard = signals.next() => match heard {
                Heard::Child => self.look(),
                Heard::Signal(Signal::TSTP) => {
                    self.group.signal(Signal::TSTP);
                    self.terminal.suspend(self.group.id());
                    self.group.signal(Signal::CONT);
                    // Much time may have passed.
                    vec![Event::Tick]
                }
                Heard::Signal(signal) => vec![Event::Signal(signal)],
            },
            () = tokio::time::sleep(LOOK_FOR_LEFTOVERS), if ended => self.look(),
            recorded = if_any(&mut self.recording) => vec![Event::Recorded(told(recorded))],
            released = if_any(&mut self.releasing) => {
                // What is lost is told already, and nothing is left to release.
                if let Err(error) = released && !matches!(error.problem(), Problem::Lost { .. }) {
                    report(&error);
                }
                vec![Event::Released]
            }
        }
    }

    fn stands(&mut self, standing: Standing) -> Vec<Event> {
        let mut events = vec![Event::Held { deadline: standing.deadline, ttl: standing.ttl }];
        match &standing.asked_back {
            Some(asked) => events.push(Event::AskedBack { until: asked.until, force: asked.force }),
            None if self.standing.asked_back.is_some() => events.push(Event::NotAskedBack),
            None => {}
        }
        if standing.lost.is_some() {
            events.push(Event::Lost);
        }
        if let Some(trouble) = &standing.trouble
            && self.standing.trouble.is_none()
        {
            self.out.say(format_args!("lease {} is not renewed, trying again: {trouble}", self.lease));
        }
        self.standing = standing;
        events
    }

    /// Looks what has become of the command.
    fn look(&mut self) -> Vec<Event> {
        let seen = self.group.look();
        let gone = seen.contains(&Seen::Gone);
        let exited = seen.iter().any(|seen| matches!(seen, Seen::Exited(_)));
        let mut events = Vec::new();
        for seen in seen {
            match seen {
                Seen::Exited(exit) => events.push(Event::Exited { exit, gone }),
                Seen::Stopped(signal) => {
                    if self.terminal.stopped(signal, self.group.id()) {
                        self.group.signal(Signal::CONT);
                    }
                    events.push(Event::Tick);
                }
                Seen::Gone if exited => {}
                Seen::Gone => events.push(Event::Gone),
            }
        }
        events
    }

    fn carry_out(&mut self, action: Action) -> Option<u8> {
        match action {
            Action::Signal(signal) => self.group.signal(signal),
            Action::Say(note) => self.out.say(sentence(note, &self.lease, &self.standing)),
            Action::Record => {
                if let Some((by, key)) = self.once.clone() {
                    self.recording = Some(Box::pin(record(self.client.clone(), by, key)));
                }
            }
            Action::Release => {
                self.recording = None;
                if let Some(guard) = self.guard.take() {
                    self.releasing = Some(Box::pin(guard.release()));
                }
            }
            Action::Exit(code) => return Some(code),
        }
        None
    }

    /// Keeps the second process informed.
    fn watch_over(&mut self) {
        if self.group.is_gone() {
            if let Some(watchdog) = self.watchdog.take() {
                watchdog.dismiss();
            }
        } else if let Some(watchdog) = &mut self.watchdog {
            watchdog.tell(self.group.id(), self.plan.last_moment());
        }
    }
}

/// Records a success, until it is done or cannot be. The plan gives it up when the hold is over.
async fn record(client: Client, by: By, key: Key) -> Result<Completed> {
    loop {
        match client.record_completed(&by, &key).await {
            Err(error) if matches!(error.problem(), Problem::Unreachable(_)) => tokio::time::sleep(RECORD_PAUSE).await,
            other => return other,
        }
    }
}

fn told(recorded: Result<Completed>) -> bool {
    match recorded {
        Ok(_) => true,
        Err(error) => {
            report(&error.with_note("the command has succeeded; because that is not recorded, it will run again"));
            false
        }
    }
}

/// Ends without a command having run.
async fn nothing_ran(guard: Guard, code: u8, why: &str) -> u8 {
    let error =
        crate::client::Error::new(format!("run under lease \"{}\"", guard.lease()), Problem::Local(why.to_owned()));
    report(&error);
    if let Err(error) = guard.release().await {
        report(&error);
    }
    code
}

async fn at(clock: &std::sync::Arc<dyn crate::client::Clock>, moment: Option<Moment>) {
    match moment {
        Some(moment) => sleep_until(&**clock, moment).await,
        None => std::future::pending().await,
    }
}

async fn changed(guard: &mut Option<Guard>) -> Standing {
    match guard {
        Some(guard) => guard.changed().await,
        None => std::future::pending().await,
    }
}
