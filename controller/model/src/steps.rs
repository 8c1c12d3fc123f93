//! What can happen next: controllers, clients, a person, faults, and time.

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
    let lease = Lease { uid: 1, version: 1, token: 0, state: Status::Available, history: [u8::MAX; HISTORY] };
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

fn list_leases(state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    match state.lease {
        Some(lease) => apply_lease(ctrl, lease),
        None => ctrl.lease = None,
    }
    ctrl.leases_at = state.lease_log.len() as u8;
    ctrl.listed.0 = true;
    ctrl.queued = true;
}

fn list_requests(config: &Config, state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    let objs = state.requests.map(Slot::there);
    listed(config, ctrl, &objs, Set::default());
    ctrl.requests_at = state.request_log.len() as u8;
    ctrl.listed.1 = true;
    ctrl.queued = true;
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

/// An event that tells a controller nothing, and wakes it for nothing, need not be waited for: its own write.
fn skip_the_known(config: &Config, state: &mut State) {
    if config.wakes || config.budget.recreations > 0 {
        return;
    }
    for ctrl in &mut state.ctrls {
        let Some((known, _)) = ctrl.lease else { continue };
        while let Some(LeaseEvent::Put(lease)) = state.lease_log.get(usize::from(ctrl.leases_at))
            && lease.version <= known.version
        {
            ctrl.leases_at += 1;
        }
    }
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

fn controller(config: &Config, state: &State, i: usize, all: &mut Vec<(Step, State)>) {
    let ctrl = &state.ctrls[i];
    let with = |change: &mut dyn FnMut(&mut State)| {
        let mut next = state.clone();
        change(&mut next);
        next
    };
    if !ctrl.listed.0 {
        all.push((Step::LeasesListed(i), with(&mut |s| list_leases(s, i))));
    }
    if !ctrl.listed.1 {
        all.push((Step::RequestsListed(i), with(&mut |s| list_requests(config, s, i))));
    }
    if !ctrl.synced() {
        return;
    }
    if usize::from(ctrl.leases_at) < state.lease_log.len() {
        all.push((Step::LeaseSeen(i), with(&mut |s| see_lease(s, i))));
    }
    if usize::from(ctrl.requests_at) < state.request_log.len() && ctrl.listing.is_none() {
        all.push((Step::RequestSeen(i), with(&mut |s| see_request(config, s, i))));
    }
    if state.budget.relists > 0 && ctrl.listing.is_none() {
        all.push((
            Step::ListTaken(i),
            with(&mut |s| {
                s.budget.relists -= 1;
                let objs = s.requests.map(Slot::there);
                s.ctrls[i].listing = Some(Listing { objs, found: Set::default() });
                s.ctrls[i].requests_at = s.request_log.len() as u8;
            }),
        ));
    }
    if ctrl.listing.is_some() {
        all.push((Step::ListArrived(i), with(&mut |s| list_arrives(config, s, i))));
    }
    match &ctrl.flight {
        Flight::Nothing => {
            if ctrl.queued || !config.wakes {
                for (looked, next) in reconcile(config, config.rules, state, i) {
                    all.push((Step::Reconcile(i, said(&looked)), next));
                }
            }
        }
        Flight::Reading(..) | Flight::ReadingLease(_) => {
            all.push((Step::AnswerIsBack(i), with(&mut |s| answer_is_back(config, &mut s.ctrls[i]))));
        }
        Flight::Writing(_) => {
            all.push((Step::Lands(i), with(&mut |s| land(config, s, i))));
            if state.budget.timeouts > 0 {
                all.push((
                    Step::TimedOut(i),
                    with(&mut |s| {
                        s.budget.timeouts -= 1;
                        if let Flight::Writing(write) = std::mem::replace(&mut s.ctrls[i].flight, Flight::Nothing) {
                            s.adrift.push(*write);
                        }
                        failed(config, &mut s.ctrls[i]);
                    }),
                ));
            }
        }
    }
    for (n, job) in ctrl.jobs.iter().enumerate() {
        all.push((Step::Marked(i, job.request), with(&mut |s| mark(config, s, i, n))));
        if state.budget.lost_answers > 0 {
            all.push((
                Step::MarkLost(i, job.request),
                with(&mut |s| {
                    s.budget.lost_answers -= 1;
                    let job = s.ctrls[i].jobs.remove(n);
                    unmarked(config, &mut s.ctrls[i], job.request);
                }),
            ));
            all.push((
                Step::MarkedUnheard(i, job.request),
                with(&mut |s| {
                    s.budget.lost_answers -= 1;
                    mark(config, s, i, n);
                    unmarked(config, &mut s.ctrls[i], job.request);
                }),
            ));
        }
    }
    if config.wakes && ctrl.timer == Some(0) {
        all.push((Step::TimerFires(i), with(&mut |s| fire(&mut s.ctrls[i]))));
    }
    if state.budget.restarts > 0 {
        all.push((
            Step::Restart(i),
            with(&mut |s| {
                s.budget.restarts -= 1;
                let off = s.ctrls[i].off;
                let old = std::mem::replace(&mut s.ctrls[i], Ctrl::new(off));
                if let Flight::Writing(write) = old.flight {
                    s.adrift.push(*write);
                }
            }),
        ));
    }
    if state.budget.jumps > 0 {
        all.push((
            Step::ClockJumps(i),
            with(&mut |s| {
                s.budget.jumps -= 1;
                let ctrl = &mut s.ctrls[i];
                ctrl.off = if ctrl.off == 0 { config.jump_to } else { 0 };
            }),
        ));
    }
}

fn said(looked: &Looked) -> String {
    match looked {
        Looked::Asked => "asks the API server".to_owned(),
        Looked::Orphans => "there is no Lease".to_owned(),
        Looked::Planned(plan) => {
            let to = plan.granted().map(|id| format!(" to {}", id.uid)).unwrap_or_default();
            let answers: Vec<String> =
                plan.answers.iter().map(|a| format!("{} {:?}", a.request.uid, a.answer)).collect();
            let how = match &plan.transition {
                konductor_core::transition::Transition::End(how)
                | konductor_core::transition::Transition::HandOver(how, _) => {
                    format!(" {how:?}")
                }
                konductor_core::transition::Transition::Adjust(_, what) => format!(" {what:?}"),
                _ => String::new(),
            };
            let tell = if answers.is_empty() { String::new() } else { format!("; tells {}", answers.join(", ")) };
            format!("{}{how}{to}{tell}", plan.transition.name())
        }
    }
}

pub(crate) fn see_lease(state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    let event = state.lease_log[usize::from(ctrl.leases_at)];
    ctrl.leases_at += 1;
    match event {
        LeaseEvent::Put(lease) => apply_lease(ctrl, lease),
        LeaseEvent::Deleted(uid) => delete_lease(ctrl, uid),
    }
    ctrl.push();
}

pub(crate) fn see_request(config: &Config, state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    let event = state.request_log[usize::from(ctrl.requests_at)];
    ctrl.requests_at += 1;
    request_event(config, ctrl, event);
    if !config.is(Mutant::NoRequestWatch) {
        ctrl.push();
    }
}

pub(crate) fn list_arrives(config: &Config, state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    if let Some(listing) = ctrl.listing.take() {
        listed(config, ctrl, &listing.objs, listing.found);
        ctrl.push();
    }
}

pub(crate) fn fire(ctrl: &mut Ctrl) {
    ctrl.timer = None;
    ctrl.push();
}

/// A reconcile that has not come to its end is tried again soon.
fn failed(config: &Config, ctrl: &mut Ctrl) {
    ctrl.settled = (0, Set::default());
    done(config, ctrl, Some(0));
    if config.is(Mutant::NoWakeInTime) && config.wakes {
        ctrl.timer = Some(0);
    }
}

/// A write of the Lease arrives, and what the API server says comes back.
pub(crate) fn land(config: &Config, state: &mut State, i: usize) {
    let Flight::Writing(write) = std::mem::replace(&mut state.ctrls[i].flight, Flight::Nothing) else { return };
    let there = state.lease.is_some();
    match put(config, state, &write) {
        Some(written) => committed(config, &mut state.ctrls[i], &write, written),
        None => {
            if !there {
                delete_lease(&mut state.ctrls[i], write.to.uid);
            }
            failed(config, &mut state.ctrls[i]);
        }
    }
}

/// The API server's side of it: compare, and swap.
fn put(config: &Config, state: &mut State, write: &Write) -> Option<Lease> {
    let old = state.lease?;
    let same = old.uid == write.to.uid && old.version == write.to.version;
    if !same && !config.is(Mutant::NoCompareAndSwap) {
        return None;
    }
    state.version += 1;
    let new = Lease { uid: old.uid, version: state.version, ..write.to };
    properties::judge(config, state, &old, &new, write);
    publish(config, state, new);
    Some(new)
}

/// The Lease is so now, and the watches will tell.
fn publish(config: &Config, state: &mut State, lease: Lease) {
    state.lease = Some(lease);
    state.lease_log.push(LeaseEvent::Put(lease));
    show_clients(config, state);
}

fn show_clients(config: &Config, state: &mut State) {
    if config.wakes {
        // What a client believes does not matter to who is granted.
        return;
    }
    for client in &mut state.clients {
        let Some(request) = client.request.filter(|_| !client.is_over()) else { continue };
        let view = match state.lease.as_ref().and_then(Lease::held).filter(|hold| hold.request == request) {
            Some(hold) => View::Mine {
                acted_on: hold.acted_on,
                counted: if config.is(Mutant::CountsFromTheRefused) { hold.acted_on } else { hold.counted },
                length: hold.length,
                renewals: hold.renewals,
            },
            None => View::NotMine,
        };
        if *client.views.last().unwrap_or(&client.seen) != view {
            client.views.push(view);
        }
    }
}

/// `AnswerJobs::run`: only on the object as it was seen.
pub(crate) fn mark(config: &Config, state: &mut State, i: usize, n: usize) {
    let job = state.ctrls[i].jobs.remove(n);
    match state.requests[usize::from(job.request)] {
        Slot::There(obj) if obj.version == job.version => {
            state.version += 1;
            let obj = Obj { version: state.version, said: job.said, sequence: job.sequence, ..obj };
            state.requests[usize::from(job.request)] = Slot::There(obj);
            state.request_log.push(RequestEvent::Put(job.request, obj));
        }
        _ => unmarked(config, &mut state.ctrls[i], job.request),
    }
}

/// `Queue::push_after`: the mark did not get there; another look finds that out.
fn unmarked(config: &Config, ctrl: &mut Ctrl, request: u8) {
    ctrl.sent[usize::from(request)] = Said::Nothing;
    if config.wakes {
        ctrl.timer = Some(0);
    }
}

// ---- clients: koncli/src/client ----

fn client(config: &Config, state: &State, c: usize, all: &mut Vec<(Step, State)>) {
    let own = &state.clients[c];
    if let Some(&request) = config.clients[c].get(usize::from(own.made)) {
        let mut next = state.clone();
        next.version += 1;
        let obj = Obj { version: next.version, renewals: 0, said: Said::Nothing, sequence: 0 };
        next.requests[usize::from(request)] = Slot::There(obj);
        next.request_log.push(RequestEvent::Put(request, obj));
        next.order.push(request);
        // A process that starts anew knows nothing of its last life.
        next.clients[c] = Client {
            made: own.made + 1,
            request: Some(request),
            belief: None,
            beats: vec![0],
            views: Vec::new(),
            seen: View::NotMine,
            slipped: own.slipped,
            knew: false,
        };
        all.push((Step::Create(c, request), next));
    }
    let Some(request) = own.request else { return };
    let most = if config.skip_views { own.views.len() } else { own.views.len().min(1) };
    for n in 1..=most {
        let mut next = state.clone();
        see(config, &mut next.clients[c], n);
        all.push((Step::Sees(c, n), next));
    }
    let there = state.requests[usize::from(request)].there();
    if let Some(obj) = there {
        if state.budget.renewals > 0 && !own.is_over() {
            let mut next = state.clone();
            next.budget.renewals -= 1;
            next.version += 1;
            next.clients[c].beats.push(0);
            let obj = Obj { version: next.version, renewals: obj.renewals + 1, ..obj };
            next.requests[usize::from(request)] = Slot::There(obj);
            next.request_log.push(RequestEvent::Put(request, obj));
            all.push((Step::Beats(c, request), next));
        }
        // Who holds releases; who waits may give up.
        if config.withdraw || config.wakes || own.knew {
            let mut next = state.clone();
            next.version += 1;
            next.requests[usize::from(request)] = Slot::Gone;
            next.request_log.push(RequestEvent::Deleted(request, next.version));
            let own = &mut next.clients[c];
            if !config.is(Mutant::ReleaseBeforeStop) {
                forget(own);
            }
            all.push((Step::Deletes(c, request), next));
        }
        if config.is(Mutant::MarkBeforeLease) && matches!(obj.said, Said::Granted(_)) && own.belief.is_none() {
            let mut next = state.clone();
            next.clients[c].belief = Some(Belief { request, left: config.ttl, renewals: 0 });
            all.push((Step::Sees(c, 1), next));
        }
    }
}

/// It has stopped, and cares for nothing any more.
fn forget(client: &mut Client) {
    client.request = None;
    client.belief = None;
    client.beats.clear();
    client.views.clear();
    client.seen = View::NotMine;
    client.knew = false;
}

/// `decide::acquiring` and `decide::renewing`, and the deadline that follows.
fn see(config: &Config, client: &mut Client, n: usize) {
    let Some(request) = client.request else { return };
    client.seen = client.views[n - 1];
    client.views.drain(..n);
    let View::Mine { acted_on, counted, length, renewals } = client.seen else {
        client.belief = None;
        client.tidy();
        return;
    };
    let newest = client.beats.len() - 1;
    let margin = if config.is(Mutant::NoMargin) { 0 } else { config.margin };
    let until = |beat: usize| {
        let age = if config.is(Mutant::DeadlineFromWhenSeen) { 0 } else { client.beats[beat] };
        (length.saturating_sub(margin)).saturating_sub(age)
    };
    if !client.knew {
        client.knew = true;
        let left = until(usize::from(counted).min(newest));
        client.belief = (left > 0).then_some(Belief { request, left, renewals });
    } else if let Some(belief) = &mut client.belief
        && usize::from(acted_on.min(counted)) >= newest
        && renewals > belief.renewals
    {
        let left = until(newest);
        client.belief = (left > 0).then_some(Belief { request, left, renewals });
    }
    client.tidy();
}

// ---- a person ----

fn person(config: &Config, state: &State, all: &mut Vec<(Step, State)>) {
    let held = state.lease.as_ref().and_then(Lease::held);
    if let (Some(hold), true) = (held, state.budget.forces > 0) {
        let mut next = state.clone();
        next.budget.forces -= 1;
        next.version += 1;
        next.excused.add(hold.request);
        let lease = state.lease.expect("it is held");
        let evicted = Lease { version: next.version, state: Status::Evicted(*hold), ..lease };
        publish(config, &mut next, evicted);
        all.push((Step::ForceRelease, next));
    }
    match state.lease {
        Some(lease) if state.budget.recreations > 0 => {
            let mut next = state.clone();
            next.budget.recreations -= 1;
            next.version += 1;
            next.lease = None;
            next.lease_log.push(LeaseEvent::Deleted(lease.uid));
            if let Status::Held(hold) | Status::Evicted(hold) = &lease.state {
                next.excused.add(hold.request);
            }
            // Another Lease, another life: only the tokens go on.
            next.granted = Set::default();
            next.promise = None;
            show_clients(config, &mut next);
            all.push((Step::LeaseDeleted, next));
        }
        Some(_) => {}
        None => {
            let mut next = state.clone();
            next.version += 1;
            next.uids += 1;
            let (uid, version) = (next.uids, next.version);
            let lease = Lease { uid, version, token: 0, state: Status::Available, history: [u8::MAX; HISTORY] };
            publish(config, &mut next, lease);
            all.push((Step::LeaseCreated, next));
        }
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

/// A reconcile by the rules of the built-in policy, for runs in which nothing is left to chance.
pub(crate) fn reconcile_fairly(config: &Config, state: &State, i: usize) -> State {
    let mut all = shell::reconcile(config, Rules::Default, state, i);
    all.swap_remove(0).1
}

/// Whether a newer request of the same holder is there.
pub(crate) fn is_superseded(config: &Config, state: &State, request: u8) -> bool {
    let place = |k: u8| state.order.iter().position(|o| *o == k);
    (0..REQUESTS as u8).any(|other| {
        other != request
            && state.requests[usize::from(other)].there().is_some()
            && holder(config, other) == holder(config, request)
            && place(other) > place(request)
    })
}

/// A controller that has started has listed everything.
pub(crate) fn synced(config: &Config, state: &State, i: usize) -> State {
    let mut next = state.clone();
    if !next.ctrls[i].listed.0 {
        list_leases(&mut next, i);
    }
    if !next.ctrls[i].listed.1 {
        list_requests(config, &mut next, i);
    }
    next
}
