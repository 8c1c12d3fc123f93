//! The decisions of `lease run`, in virtual time.

use std::time::Duration;

use rustix::process::Signal;

use super::plan::*;
use crate::{args::OnLost, client::Moment};

/// A hold of 30 s that was counted from second 0: its deadline is 28.5, SIGKILL is sent at 28.3, SIGTERM at 18.3.
const RULES: Rules =
    Rules { grace: Duration::from_secs(10), on_lost: OnLost::Stop, once: false, ttl: Duration::from_secs(30) };

fn at(ms: u64) -> Moment {
    Moment::new(Duration::from_millis(ms))
}

fn signals(all: &[Signal]) -> Vec<Action> {
    all.iter().map(|&signal| Action::Signal(signal)).collect()
}

fn term(note: Note) -> Vec<Action> {
    let mut actions = vec![Action::Say(note)];
    actions.extend(signals(&[Signal::TERM, Signal::CONT]));
    actions
}

fn kill(note: Note) -> Vec<Action> {
    vec![Action::Say(note), Action::Signal(Signal::KILL)]
}

fn held(until: u64, ttl: u64) -> Event {
    Event::Held { deadline: at(until), ttl: Duration::from_secs(ttl) }
}

fn exited(exit: Exit, gone: bool) -> Event {
    Event::Exited { exit, gone }
}

/// A plan in virtual time: what happens when, and what it does. `Tick` comes at every moment that the plan asks for.
fn play(rules: Rules, script: &[(u64, Event)]) -> Vec<(u64, Action)> {
    let mut plan = Plan::new(rules, at(28_500));
    let mut done = Vec::new();
    let mut events = script.iter().cloned().peekable();
    for _ in 0..1_000 {
        let wake = plan.wake_at().map(|moment| u64::try_from(moment.since_origin().as_millis()).expect("small"));
        let (now, event) = match (events.peek(), wake) {
            (Some((next, _)), Some(wake)) if wake < *next => (wake, Event::Tick),
            (Some(_), _) => events.next().expect("peeked"),
            (None, Some(wake)) if wake < 40_000 => (wake, Event::Tick),
            (None, _) => return done,
        };
        // Time does not go back.
        let now = now.max(done.last().map_or(0, |(at, _)| *at));
        done.extend(plan.on(at(now), event).into_iter().map(|action| (now, action)));
    }
    panic!("it does not come to rest: {done:?}");
}

fn timed(now: u64, actions: Vec<Action>) -> Vec<(u64, Action)> {
    actions.into_iter().map(|action| (now, action)).collect()
}

#[test]
fn a_command_that_ends_is_released_after_and_its_status_is_told() {
    for (exit, code) in [(Exit::Code(0), 0), (Exit::Code(3), 3), (Exit::Signal(9), 137), (Exit::Signal(15), 143)] {
        let done = play(RULES, &[(1_000, exited(exit, true)), (1_100, Event::Released)]);
        assert_eq!(done, [(1_000, Action::Release), (1_100, Action::Exit(code))], "{exit:?}");
    }
}

#[test]
fn a_hold_that_is_renewed_is_left_alone() {
    let done =
        play(RULES, &[(10_000, held(38_500, 30)), (20_000, held(48_500, 30)), (30_000, exited(Exit::Code(0), true))]);
    assert_eq!(done, [(30_000, Action::Release)]);
}

#[test]
fn a_ttl_that_was_made_shorter_makes_the_grace_shorter_and_not_the_command() {
    // From 30 s to 6 s: the grace of 10 s is 2 s from then on, and SIGKILL is sent 200 ms before the deadline.
    let script = [(10_000, held(15_700, 6)), (12_000, held(17_700, 6)), (13_000, exited(Exit::Code(0), true))];
    assert_eq!(play(RULES, &script), [(13_000, Action::Release)]);
    let done = play(RULES, &script[..2]);
    assert_eq!(done[..3], timed(15_500, term(Note::Ending)));
    assert_eq!(done[3], (17_500, Action::Say(Note::Killing)));
}

#[test]
fn who_cannot_renew_is_asked_to_end_and_killed_before_the_deadline_and_released_when_all_is_gone() {
    // It ignores SIGTERM; what it forked is gone later.
    let done =
        play(RULES, &[(28_320, exited(Exit::Signal(9), false)), (30_500, Event::Gone), (30_600, Event::Released)]);
    let mut expected = timed(18_300, term(Note::Ending));
    expected.extend(timed(28_300, kill(Note::Killing)));
    expected.extend(timed(29_300, signals(&[Signal::KILL])));
    expected.extend(timed(30_300, signals(&[Signal::KILL])));
    expected.extend([(30_500, Action::Release), (30_600, Action::Exit(LOST))]);
    assert_eq!(done, expected);
}

#[test]
fn who_ends_on_sigterm_was_stopped_whatever_its_status() {
    for once in [false, true] {
        let done = play(Rules { once, ..RULES }, &[(18_900, exited(Exit::Code(0), true)), (19_000, Event::Released)]);
        let mut expected = timed(18_300, term(Note::Ending));
        expected.extend([(18_900, Action::Release), (19_000, Action::Exit(LOST))]);
        assert_eq!(done, expected, "nothing is recorded: {once}");
    }
}

#[test]
fn a_hold_that_is_over_means_sigkill_at_once() {
    for on_lost in [OnLost::Stop, OnLost::Kill] {
        let done = play(Rules { on_lost, ..RULES }, &[(5_000, Event::Lost), (5_010, exited(Exit::Signal(9), true))]);
        let mut expected = timed(5_000, kill(Note::KillingLost));
        expected.push((5_010, Action::Release));
        assert_eq!(done, expected, "{on_lost:?}");
    }
}

#[test]
fn who_wakes_after_the_deadline_kills_before_anything_else() {
    let mut plan = Plan::new(RULES, at(28_500));
    assert_eq!(plan.on(at(60_000), Event::Tick), kill(Note::KillingNow), "no SIGTERM, no grace");
    assert_eq!(plan.on(at(60_001), exited(Exit::Signal(9), true)), [Action::Release]);
    assert_eq!(plan.on(at(60_002), Event::Released), [Action::Exit(LOST)]);
    // The watchdog has done it.
    let mut plan = Plan::new(RULES, at(28_500));
    assert_eq!(plan.on(at(60_000), exited(Exit::Signal(9), true)), [Action::Release]);
    assert_eq!(plan.on(at(60_001), Event::Released), [Action::Exit(LOST)]);
    // Killed by somebody else, in good time.
    let mut plan = Plan::new(RULES, at(28_500));
    assert_eq!(plan.on(at(1_000), exited(Exit::Signal(9), true)), [Action::Release]);
    assert_eq!(plan.on(at(1_001), Event::Released), [Action::Exit(137)]);
}

#[test]
fn who_is_asked_to_leave_has_the_time_that_it_is_given() {
    for (what, until, force, killed_at) in [
        ("a long grace", 20_000, false, 20_000),
        ("a short one, and nobody is forced: its own", 6_000, false, 15_000),
        ("a short one by force: before it ends", 6_000, true, 5_800),
        ("longer than the hold", 99_000, false, 28_300),
    ] {
        let done = play(RULES, &[(5_000, Event::AskedBack { until: at(until), force })]);
        let mut expected = timed(5_000, term(Note::Leaving));
        expected.extend(timed(killed_at, kill(Note::Killing)));
        assert_eq!(done[..5], expected, "{what}");
    }
    // Without SIGTERM: at the last moment.
    let rules = Rules { on_lost: OnLost::Kill, ..RULES };
    let done = play(rules, &[(5_000, Event::AskedBack { until: at(20_000), force: false })]);
    assert_eq!(done[..2], timed(20_000, kill(Note::KillingNow)));
    // Nobody asks any more, and nothing had to be done yet.
    let done = play(
        rules,
        &[
            (5_000, Event::AskedBack { until: at(20_000), force: false }),
            (6_000, Event::NotAskedBack),
            (10_000, held(38_500, 30)),
            (30_000, exited(Exit::Code(0), true)),
        ],
    );
    assert_eq!(done, [(30_000, Action::Release)]);
}

#[test]
fn what_the_command_leaves_behind_is_stopped_before_the_release() {
    for on_lost in [OnLost::Stop, OnLost::Kill, OnLost::Ignore] {
        let done = play(
            Rules { on_lost, ..RULES },
            &[(1_000, exited(Exit::Code(4), false)), (11_010, Event::Gone), (11_020, Event::Released)],
        );
        let mut expected = timed(1_000, term(Note::Leftovers));
        expected.extend(timed(11_000, kill(Note::Killing)));
        expected.extend([(11_010, Action::Release), (11_020, Action::Exit(4))]);
        assert_eq!(done, expected, "{on_lost:?}");
    }
}

#[test]
fn signals_are_passed_on_while_the_command_runs() {
    let mut plan = Plan::new(RULES, at(28_500));
    for signal in [Signal::INT, Signal::USR1, Signal::WINCH] {
        assert_eq!(plan.on(at(1), Event::Signal(signal)), signals(&[signal]));
    }
    for signal in [Signal::TERM, Signal::HUP] {
        assert_eq!(plan.on(at(1), Event::Signal(signal)), signals(&[signal, Signal::CONT]));
    }
    plan.on(at(2), exited(Exit::Signal(15), true));
    assert_eq!(plan.on(at(3), Event::Signal(Signal::TERM)), [], "its number may be another's");
    assert_eq!(plan.on(at(4), Event::Released), [Action::Exit(143)]);
}

#[test]
fn success_is_recorded_before_the_release_and_only_while_it_is_held() {
    let once = Rules { once: true, ..RULES };
    let success = (1_000, exited(Exit::Code(0), true));
    for (well, code) in [(true, 0), (false, FAILED)] {
        let done = play(once, &[success.clone(), (1_500, Event::Recorded(well)), (1_600, Event::Released)]);
        assert_eq!(done, [(1_000, Action::Record), (1_500, Action::Release), (1_600, Action::Exit(code))]);
    }
    // A failure is not recorded.
    let done = play(once, &[(1_000, exited(Exit::Code(1), true)), (1_500, Event::Released)]);
    assert_eq!(done, [(1_000, Action::Release), (1_500, Action::Exit(1))]);
    // It cannot be recorded in time.
    let done = play(once, &[success.clone(), (28_600, Event::Recorded(true)), (28_700, Event::Released)]);
    let lost = |now| [(now, Action::Say(Note::NotRecorded)), (now, Action::Release)];
    let mut expected = vec![(1_000, Action::Record)];
    expected.extend(lost(28_500));
    expected.push((28_700, Action::Exit(LOST)));
    assert_eq!(done, expected);
    // It was lost meanwhile.
    let done = play(once, &[success, (2_000, Event::Lost), (2_100, Event::Released)]);
    let mut expected = vec![(1_000, Action::Record)];
    expected.extend(lost(2_000));
    expected.push((2_100, Action::Exit(LOST)));
    assert_eq!(done, expected);
    // It was over before the command ended, while this process did not run.
    let done = play(once, &[(40_000, Event::Released)]);
    assert_eq!(done[0].1, Action::Say(Note::Ending));
    let mut plan = Plan::new(once, at(28_500));
    let both = [Action::Say(Note::NotRecorded), Action::Release];
    assert_eq!(plan.on(at(60_000), exited(Exit::Code(0), true)), both);
    assert_eq!(plan.on(at(60_001), Event::Released), [Action::Exit(LOST)]);
}

#[test]
fn a_command_that_is_to_run_on_runs_on() {
    let rules = Rules { on_lost: OnLost::Ignore, ..RULES };
    let done = play(
        rules,
        &[
            (5_000, Event::AskedBack { until: at(6_000), force: true }),
            (35_000, Event::Lost),
            (36_000, exited(Exit::Code(3), true)),
            (36_100, Event::Released),
        ],
    );
    assert_eq!(done, [(28_500, Action::Say(Note::RunsOn)), (36_000, Action::Release), (36_100, Action::Exit(3))]);
}

#[test]
fn a_grace_leaves_time_to_renew() {
    let seconds = Duration::from_secs;
    let fitting = |grace, ttl| Rules { grace: seconds(grace), ttl: seconds(ttl), ..RULES }.fitting();
    assert_eq!(fitting(10, 600), seconds(10));
    assert_eq!(fitting(10, 3), seconds(1));
    let short = Rules { grace: seconds(1), ttl: seconds(3), ..RULES };
    let plan = Plan::new(short, at(2_850));
    assert_eq!(plan.wake_at(), Some(at(1_700)));
    assert_eq!(plan.last_moment(), at(2_850));
}

/// Whatever happens in whatever order: nothing is signalled or recorded after the release, and the release comes after
/// the group is gone.
#[test]
fn nothing_is_released_before_all_is_gone() {
    let events = [
        Event::Tick,
        held(38_000, 30),
        Event::AskedBack { until: at(9_000), force: true },
        Event::NotAskedBack,
        Event::Lost,
        Event::Signal(Signal::TERM),
        exited(Exit::Code(0), false),
        Event::Recorded(true),
    ];
    let count = events.len();
    for on_lost in [OnLost::Stop, OnLost::Kill, OnLost::Ignore] {
        for sequence in 0..count.pow(4) {
            let mut plan = Plan::new(Rules { once: sequence % 2 == 0, on_lost, ..RULES }, at(28_500));
            let mut choice = sequence;
            let mut exited_once = false;
            for step in 0..4 {
                let event = events[choice % count].clone();
                choice /= count;
                if matches!(event, Event::Exited { .. }) && std::mem::replace(&mut exited_once, true) {
                    continue;
                }
                for action in plan.on(at(7_000 * (step + 1)), event) {
                    assert!(
                        matches!(action, Action::Signal(_) | Action::Say(_)),
                        "{on_lost:?} {sequence}: {action:?} while a process of the group is left"
                    );
                }
            }
        }
    }
}
