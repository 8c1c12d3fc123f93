//! What can happen next: controllers, clients, a person, faults, and time.

mod clients;
mod controllers;

use std::fmt;

use crate::{
    config::{Config, Mutant, Rules},
    properties,
    shell::{
        self, Looked, answer_is_back, apply_lease, committed, delete_lease, done, holder, listed, reconcile,
        request_event,
    },
    state::{
        Belief, Client, Ctrl, Flight, GONE, HISTORY, Lease, LeaseEvent, Listing, OLD, Obj, REQUESTS, RequestEvent,
        Said, Set, Slot, State, Status, View, Write,
    },
};

pub(crate) use clients::*;
pub(crate) use controllers::*;

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    LeaseSeen(usize),
    RequestSeen(usize),
    LeasesListed(usize),
    RequestsListed(usize),
    ListTaken(usize),
    ListArrived(usize),
    Reconcile(usize, String),
    AnswerIsBack(usize),
    Lands(usize),
    TimedOut(usize),
    AdriftLands,
    AdriftIsLost,
    Restart(usize),
    Marked(usize, u8),
    MarkLost(usize, u8),
    MarkedUnheard(usize, u8),
    TimerFires(usize),
    ClockJumps(usize),
    Create(usize, u8),
    Sees(usize, usize),
    Beats(usize, u8),
    Deletes(usize, u8),
    ForceRelease,
    LeaseDeleted,
    LeaseCreated,
    Tick(Option<usize>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseSeen(i) => write!(f, "controller {i}'s watch brings an event of the Lease"),
            Self::RequestSeen(i) => write!(f, "controller {i}'s watch brings an event of a request"),
            Self::LeasesListed(i) => write!(f, "controller {i} lists the Leases"),
            Self::RequestsListed(i) => write!(f, "controller {i} lists the requests"),
            Self::ListTaken(i) => write!(f, "controller {i}'s watch breaks; the API server takes a list of requests"),
            Self::ListArrived(i) => write!(f, "controller {i} gets the list"),
            Self::Reconcile(i, plan) => write!(f, "controller {i} reconciles: {plan}"),
            Self::AnswerIsBack(i) => write!(f, "controller {i} gets the answer"),
            Self::Lands(i) => write!(f, "controller {i}'s write arrives, and the answer to it"),
            Self::TimedOut(i) => write!(f, "controller {i} gives up on its write, which is still on its way"),
            Self::AdriftLands => f.write_str("the write that was given up arrives"),
            Self::AdriftIsLost => f.write_str("the write that was given up is lost"),
            Self::Restart(i) => write!(f, "controller {i} restarts"),
            Self::Marked(i, k) => write!(f, "controller {i}'s mark on request {k} arrives"),
            Self::MarkLost(i, k) => write!(f, "controller {i}'s mark on request {k} is lost"),
            Self::MarkedUnheard(i, k) => write!(f, "controller {i}'s mark on request {k} arrives, the answer is lost"),
            Self::TimerFires(i) => write!(f, "controller {i}'s timer fires"),
            Self::ClockJumps(i) => write!(f, "controller {i}'s wall clock jumps"),
            Self::Create(c, k) => write!(f, "client {c} creates request {k}"),
            Self::Sees(c, n) if *n > 1 => write!(f, "client {c} sees the Lease, its watch has left out {}", n - 1),
            Self::Sees(c, _) => write!(f, "client {c} sees the Lease"),
            Self::Beats(c, k) => write!(f, "client {c} raises the counter of request {k}"),
            Self::Deletes(c, k) => write!(f, "client {c} deletes request {k}"),
            Self::ForceRelease => f.write_str("a person releases by force"),
            Self::LeaseDeleted => f.write_str("a person deletes the Lease"),
            Self::LeaseCreated => f.write_str("a person makes the Lease anew"),
            Self::Tick(None) => f.write_str("a tick passes"),
            Self::Tick(Some(c)) => write!(f, "a tick passes that client {c}'s clock loses"),
        }
    }
}

/// The states that a run begins with.
pub(crate) fn beginnings(config: &Config) -> Vec<State> {
    let client = |_: &Vec<u8>| Client {
        made: 0,
        request: None,
        belief: None,
        beats: Vec::new(),
        views: Vec::new(),
        seen: View::NotMine,
        slipped: false,
        knew: false,
    };
    let lease = Lease {
        uid: 1,
        version: 1,
        token: 0,
        state: Status::Available,
        history: [u8::MAX; HISTORY],
        older: Set::default(),
    };
    let mut state = State {
        version: 1,
        lease: Some(lease),
        uids: 1,
        requests: [Slot::NotYet; REQUESTS],
        lease_log: Vec::new(),
        request_log: Vec::new(),
        ctrls: (0..usize::from(config.controllers)).map(|i| Ctrl::new(config.offsets[i])).collect(),
        clients: config.clients.iter().map(client).collect(),
        adrift: Vec::new(),
        budget: config.budget,
        token_max: 0,
        granted: Set::default(),
        excused: Set::default(),
        promise: None,
        order: Vec::new(),
        broken: None,
    };
    if config.made_anew {
        return vec![made_anew(config, state)];
    }
    if !config.full_history {
        for i in 0..state.ctrls.len() {
            list_leases(&mut state, i);
            list_requests(config, &mut state, i);
        }
        return vec![state];
    }
    // The oldest hold was of request 0. Nobody has told it yet, or only that it is granted.
    let mut all = Vec::new();
    for said in [Said::Nothing, Said::Granted(2), Said::Finished] {
        let mut state = state.clone();
        state.requests[0] =
            Slot::There(Obj { version: 2, renewals: 0, said, sequence: 2 * u8::from(said != Said::Nothing) });
        state.clients[0].made = 1;
        state.clients[0].request = Some(0);
        state.clients[0].knew = true;
        state.clients[0].beats = vec![OLD];
        state.order = vec![0];
        state.granted.add(0);
        state.version = 3;
        state.token_max = 2;
        let mut history = [0; HISTORY];
        for (k, past) in (GONE..).zip(&mut history) {
            *past = k;
        }
        history[HISTORY - 1] = 0;
        state.lease = Some(Lease { version: 3, token: 2, history, ..lease });
        for i in 0..state.ctrls.len() {
            list_leases(&mut state, i);
            // The other way too: it has not seen the requests yet.
            let mut late = state.clone();
            list_requests(config, &mut late, i);
            // What is not in the cache and not known to be gone.
            state = late;
        }
        all.push(state.clone());
        // A controller whose watch of requests is behind what the Lease says.
        let mut behind = state;
        let obj = behind.requests[0].there();
        for ctrl in &mut behind.ctrls {
            ctrl.requests[0] = None;
            ctrl.seen_to = 0;
        }
        behind.request_log = obj.map(|obj| RequestEvent::Put(0, obj)).into_iter().collect();
        all.push(behind.clone());
        // Request 1 came before, and is all that it has seen of the requests.
        let first = Obj { version: 1, renewals: 0, said: Said::Nothing, sequence: 0 };
        behind.requests[1] = Slot::There(first);
        behind.clients[1] = Client { made: 1, request: Some(1), beats: vec![OLD], ..client(&Vec::new()) };
        behind.order = vec![1, 0];
        behind.ctrls.iter_mut().for_each(|ctrl| listed(config, ctrl, &[None, Some(first), None], Set::default()));
        all.push(behind);
    }
    // Request 0 is marked and forgotten since, and the watch of requests has not brought that yet.
    let mut frozen = all[0].clone();
    let marked = Obj { version: 3, renewals: 0, said: Said::Finished, sequence: 2 };
    frozen.version = 4;
    frozen.requests[0] = Slot::There(marked);
    frozen.request_log = vec![RequestEvent::Put(0, marked)];
    if let Some(lease) = &mut frozen.lease {
        lease.version = 4;
        lease.history[HISTORY - 1] = GONE + HISTORY as u8 - 1;
        let lease = *lease;
        frozen.ctrls.iter_mut().for_each(|ctrl| apply_lease(ctrl, lease));
    }
    all.push(frozen);
    all
}

/// Request 0 has held the former Lease and is told that this is over; nobody has seen that yet.
fn made_anew(config: &Config, mut state: State) -> State {
    let waits = Obj { version: 1, renewals: 0, said: Said::Nothing, sequence: 0 };
    let over = Obj { version: 3, renewals: 0, said: Said::Finished, sequence: 1 };
    for ctrl in &mut state.ctrls {
        listed(config, ctrl, &[Some(waits), None, None], Set::default());
        ctrl.listed.1 = true;
    }
    (state.version, state.uids, state.token_max) = (4, 2, 2);
    state.requests[0] = Slot::There(over);
    state.request_log = vec![RequestEvent::Put(0, over)];
    state.order = vec![0];
    state.granted.add(0);
    let mut older = Set::default();
    older.add(0);
    state.lease = state.lease.map(|former| Lease { uid: 2, version: 4, older, ..former });
    (0..state.ctrls.len()).for_each(|i| list_leases(&mut state, i));
    let client = &mut state.clients[0];
    (client.made, client.request, client.knew, client.beats) = (1, Some(0), true, vec![OLD]);
    state
}

/// All that can happen next.
pub(crate) fn successors(config: &Config, state: &State) -> Vec<(Step, State)> {
    let mut all = Vec::new();
    if state.broken.is_some() {
        return all;
    }
    for i in 0..state.ctrls.len() {
        controller(config, state, i, &mut all);
    }
    for c in 0..state.clients.len() {
        client(config, state, c, &mut all);
    }
    person(config, state, &mut all);
    if !state.adrift.is_empty() {
        let mut next = state.clone();
        let write = next.adrift.remove(0);
        put(config, &mut next, &write);
        all.push((Step::AdriftLands, next));
        let mut next = state.clone();
        next.adrift.remove(0);
        all.push((Step::AdriftIsLost, next));
    }
    if config.ticks {
        all.push((Step::Tick(None), tick(config, state, None)));
        for (c, client) in state.clients.iter().enumerate() {
            if config.drift && client.request.is_some() && !client.slipped && !client.is_over() {
                all.push((Step::Tick(Some(c)), tick(config, state, Some(c))));
            }
        }
    }
    all.retain_mut(|(_, next)| {
        skip_the_known(config, next);
        settle(next);
        next.renumber();
        next != state
    });
    all
}

/// What everybody has read is forgotten.
pub(crate) fn settle(state: &mut State) {
    let ctrls = || state.ctrls.iter();
    let least = ctrls().filter(|c| c.listed.0).map(|c| c.leases_at).min().unwrap_or(state.lease_log.len() as u8);
    state.lease_log.drain(..usize::from(least));
    let least_r = ctrls().filter(|c| c.listed.1).map(|c| c.requests_at).min().unwrap_or(state.request_log.len() as u8);
    state.request_log.drain(..usize::from(least_r));
    for ctrl in &mut state.ctrls {
        ctrl.leases_at = ctrl.leases_at.saturating_sub(least);
        ctrl.requests_at = ctrl.requests_at.saturating_sub(least_r);
    }
}

// ---- time ----

/// A tick passes, for everybody except perhaps for the clock of a client.
pub(crate) fn tick(config: &Config, state: &State, slow: Option<usize>) -> State {
    let mut next = state.clone();
    next.lease.iter_mut().for_each(Lease::age);
    for event in &mut next.lease_log {
        if let LeaseEvent::Put(lease) = event {
            lease.age();
        }
    }
    let older = |age: &mut u8| *age = (*age + 1).min(OLD);
    let write_ages = |write: &mut Write| {
        write.to.age();
        if config.wakes {
            older(&mut write.age);
        }
    };
    next.adrift.iter_mut().for_each(write_ages);
    for ctrl in &mut next.ctrls {
        if let Some((lease, due)) = &mut ctrl.lease {
            lease.age();
            if let Some(due) = due {
                due.at = (due.at - 1).max(0);
            }
        }
        match &mut ctrl.flight {
            Flight::Writing(write) => write_ages(write),
            Flight::ReadingLease(Some(lease)) => lease.age(),
            Flight::Nothing | Flight::Reading(..) | Flight::ReadingLease(None) => {}
        }
        for cached in ctrl.requests.iter_mut().flatten() {
            older(&mut cached.untouched);
        }
        if let Some(timer) = ctrl.timer.filter(|timer| *timer < u8::MAX) {
            ctrl.timer = Some(timer.saturating_sub(1));
        }
    }
    for (c, client) in next.clients.iter_mut().enumerate().filter(|_| !config.wakes) {
        if slow == Some(c) {
            client.slipped = true;
            continue;
        }
        client.beats.iter_mut().for_each(older);
        if let Some(belief) = &mut client.belief {
            belief.left -= 1;
            if belief.left == 0 {
                client.belief = None;
            }
        }
        client.tidy();
    }
    next.promise = next.promise.map(|left| (left - 1).max(0));
    next
}
