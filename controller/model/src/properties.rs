//! What must be so, by the names of PEERS.md: in every state, on every write, and in every run in
//! which from some state on nothing goes wrong any more.

use std::cell::RefCell;

use stateright::Property;

use crate::{
    check::Protocol,
    config::{Config, Rules},
    state::{Flight, How, Lease, REQUESTS, Said, Slot, State, Status, Write},
    steps::{fire, is_superseded, land, list_arrives, mark, reconcile_fairly, see_lease, see_request, settle, tick},
};

pub(crate) const S1: &str = "S1 a hold is only replaced by a write that ends it";
pub(crate) const S2: &str = "S2 tokens strictly rise";
pub(crate) const S3: &str = "S3/S7 a client believes that it holds only while the Lease says so";
pub(crate) const S5_TWICE: &str = "S5 a request is granted at most once";
pub(crate) const S5_GHOST: &str = "S5 nobody is granted who is known to be gone or to have lapsed";
pub(crate) const S8: &str = "S8 a hold does not expire early";
pub(crate) const S9: &str = "S9 a preemption does not overlap";
pub(crate) const S12: &str = "S12 a hold is not taken for released while its request is there";
pub(crate) const S14: &str = "S14 a hold is written whole";
pub(crate) const D9: &str = "D9 Expired can be observed";
pub(crate) const CORE: &str = "the core's own invariants";
pub(crate) const L4: &str = "L4 first come, first served";
pub(crate) const L1: &str = "L1 who waits is granted";
pub(crate) const L2: &str = "L2/L3 a lease that is free is granted without waiting for time";
pub(crate) const L3: &str = "L3 every request is told without waiting for time";
pub(crate) const L5: &str = "L5 everything comes to rest";

/// All of them.
pub(crate) fn all(config: &Config) -> Vec<Property<Protocol>> {
    fn unbroken(name: &'static str, state: &State) -> bool {
        state.broken != Some(name)
    }
    let mut all: Vec<Property<Protocol>> = vec![
        Property::always(S1, |_, s| unbroken(S1, s)),
        Property::always(S2, |_, s| unbroken(S2, s)),
        Property::always(S3, |_, s| belief_is_true(s)),
        Property::always(S5_TWICE, |_, s| unbroken(S5_TWICE, s)),
        Property::always(S5_GHOST, |_, s| unbroken(S5_GHOST, s)),
        Property::always(S8, |_, s| unbroken(S8, s)),
        Property::always(S9, |_, s| unbroken(S9, s)),
        Property::always(S12, |_, s| unbroken(S12, s)),
        Property::always(S14, |_, s| unbroken(S14, s)),
        Property::always(D9, |_, s| unbroken(D9, s)),
        Property::always(CORE, |_, s| unbroken(CORE, s)),
    ];
    if config.rules == Rules::Default {
        all.push(Property::always(L4, |_, s| unbroken(L4, s)));
    }
    if config.wakes {
        all.push(Property::always(L1, |m, s| fair_once(m.config(), s) != Some(L1)));
        all.push(Property::always(L2, |m, s| fair_once(m.config(), s) != Some(L2)));
        all.push(Property::always(L3, |m, s| fair_once(m.config(), s) != Some(L3)));
        all.push(Property::always(L5, |m, s| fair_once(m.config(), s) != Some(L5)));
    }
    all
}

/// A client relies on its hold only while the Lease says that it holds, unless it was ended by force.
fn belief_is_true(state: &State) -> bool {
    let held = state.lease.as_ref().and_then(Lease::held).map(|hold| hold.request);
    let beliefs = || state.clients.iter().filter_map(|client| client.belief);
    beliefs().all(|belief| state.excused.has(belief.request) || held == Some(belief.request))
}

/// Judges a write of the Lease by what was and what is: it knows nothing of how it came about, except
/// for the time at which it was decided.
pub(crate) fn judge(config: &Config, state: &mut State, old: &Lease, new: &Lease, write: &Write) {
    let mut found = None;
    let mut broken = |what| found = found.or(Some(what));
    let mut excused = None;
    let before = match &old.state {
        Status::Held(hold) | Status::Evicted(hold) => Some(*hold),
        Status::Available | Status::Expired(_) => None,
    };
    let is_new = new.held().is_some_and(|hold| before.is_none_or(|old| old.request != hold.request));
    if let Some(hold) = new.held() {
        if hold.length == 0 || new.token == 0 {
            broken(S14);
        }
        if is_new {
            let request = hold.request;
            if new.token <= state.token_max {
                broken(S2);
            }
            if state.granted.has(request) {
                broken(S5_TWICE);
            }
            if write.to_a_ghost {
                broken(S5_GHOST);
            }
            let waits = |k: u8| {
                state.requests[usize::from(k)].there().is_some_and(|obj| !obj.said.is_over())
                    && !state.granted.has(k)
                    && !new.has_held(k)
                    && config.priorities[usize::from(k)] >= config.priorities[usize::from(request)]
                    && !is_superseded(config, state, k)
            };
            let first = state.order.iter().copied().find(|k| *k == request || waits(*k));
            if config.rules == Rules::Default && first != Some(request) {
                broken(L4);
            }
        } else if new.token != old.token {
            broken(S2);
        }
    } else if new.token != old.token {
        broken(S2);
    }
    if let Some(hold) = before
        && (is_new || new.held().is_none())
    {
        let evicted = matches!(old.state, Status::Evicted(_));
        let gone = state.requests[usize::from(hold.request)] == Slot::Gone;
        let forced = write.forced;
        let same_holder = new.held().is_some_and(|to| {
            is_new && crate::shell::holder(config, to.request) == crate::shell::holder(config, hold.request)
        });
        if !(evicted || gone || write.due || forced || same_holder) {
            broken(match write.how {
                Some(How::Released) => S12,
                Some(How::Expired) => S8,
                Some(How::Preempted) | None => S9,
                Some(How::Forced | How::Superseded) => S1,
            });
        }
        if new.history[0] != hold.request && !evicted {
            broken(S1);
        }
        if forced {
            excused = Some(hold.request);
        }
        if write.how == Some(How::Expired) && new.state == Status::Available {
            broken(D9);
        }
    }
    state.broken = state.broken.or(found);
    excused.into_iter().for_each(|request| state.excused.add(request));
    match new.held() {
        Some(hold) => {
            let renewed = before.is_none_or(|old| old.renewals != hold.renewals);
            if is_new || renewed {
                state.promise = Some((hold.expires - write.off).max(0));
            }
        }
        None => state.promise = None,
    }
    if let (true, Some(hold)) = (is_new, new.held()) {
        state.granted.add(hold.request);
        state.token_max = state.token_max.max(new.token);
    }
}

/// Within so many steps everything has come to rest, where nobody does anything and nothing fails.
const STEPS: usize = 400;

thread_local! {
    /// The last state that was run on from, and what that came to: four properties ask for the same.
    static LAST: RefCell<Option<(State, Option<&'static str>)>> = const { RefCell::new(None) };
}

fn fair_once(config: &Config, state: &State) -> Option<&'static str> {
    LAST.with_borrow_mut(|last| match last {
        Some((known, broken)) if known == state => *broken,
        _ => last.insert((state.clone(), fair(config, state))).1,
    })
}

/// Runs on from a state: no faults, and no client does anything any more, so every holder has died and
/// every waiter still waits. Which property that run breaks, if one.
fn fair(config: &Config, from: &State) -> Option<&'static str> {
    if from.broken.is_some() || from.lease.is_none() {
        return None;
    }
    let mut state = from.clone();
    state.adrift.clear();
    let mut ticks_left = 3 * (config.ttl + config.skew + 2);
    let mut rested = false;
    for _ in 0..STEPS {
        settle(&mut state);
        if state.broken.is_some() {
            // That is another property's.
            return None;
        }
        if work(config, &mut state) {
            continue;
        }
        let waiting = || (0..REQUESTS as u8).any(|request| waits(config, &state, request));
        if !rested {
            rested = true;
            if waiting() && !is_held_by_somebody(&state) {
                return Some(L2);
            }
            if config.marks && !all_told(config, &state) {
                return Some(L3);
            }
        }
        if ticks_left == 0 {
            return waiting().then_some(L1);
        }
        ticks_left -= 1;
        state = tick(config, &state, None);
    }
    Some(L5)
}

/// Does the next thing that there is to do; false: there is nothing, and only time can bring something.
fn work(config: &Config, state: &mut State) -> bool {
    for i in 0..state.ctrls.len() {
        let ctrl = &state.ctrls[i];
        if !ctrl.synced() {
            *state = crate::steps::synced(config, state, i);
            return true;
        }
        if usize::from(ctrl.leases_at) < state.lease_log.len() {
            see_lease(state, i);
            return true;
        }
        if ctrl.listing.is_some() {
            list_arrives(config, state, i);
            return true;
        }
        if usize::from(ctrl.requests_at) < state.request_log.len() {
            see_request(config, state, i);
            return true;
        }
        if !ctrl.jobs.is_empty() {
            mark(config, state, i, 0);
            return true;
        }
        match &ctrl.flight {
            Flight::Writing(_) => {
                land(config, state, i);
                return true;
            }
            Flight::Reading(..) | Flight::ReadingLease(_) => {
                crate::shell::answer_is_back(config, &mut state.ctrls[i]);
                return true;
            }
            Flight::Nothing => {}
        }
        if ctrl.timer == Some(0) {
            fire(&mut state.ctrls[i]);
            return true;
        }
        if ctrl.queued {
            *state = reconcile_fairly(config, state, i);
            return true;
        }
    }
    false
}

/// Whether a request waits and may be granted.
fn waits(config: &Config, state: &State, request: u8) -> bool {
    let there = state.requests[usize::from(request)].there();
    let lease_knows = state.lease.as_ref().is_some_and(|lease| {
        lease.has_held(request) || matches!(&lease.state, Status::Held(h) | Status::Evicted(h) if h.request == request)
    });
    there.is_some_and(|obj| !obj.said.is_over() && !matches!(obj.said, Said::Granted(_)))
        && !lease_knows
        && !is_superseded(config, state, request)
}

fn is_held_by_somebody(state: &State) -> bool {
    let held = state.lease.as_ref().and_then(Lease::held);
    held.is_some_and(|hold| state.requests[usize::from(hold.request)].there().is_some())
}

/// Whether every request's status says what the Lease says of it.
fn all_told(config: &Config, state: &State) -> bool {
    let Some(lease) = &state.lease else { return true };
    (0u8..).zip(&state.requests).all(|(k, slot)| {
        let Some(obj) = slot.there() else { return true };
        match lease.held() {
            Some(hold) if hold.request == k => obj.said == Said::Granted(lease.token),
            _ if lease.has_held(k) => obj.said.is_over(),
            _ => is_superseded(config, state, k) || !config.pending_marks || obj.said != Said::Nothing,
        }
    })
}
