//! What controllers do, and what reaches them and what they write.

use super::*;
use crate::state::Job;

pub(super) fn list_leases(state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    match state.lease {
        Some(lease) => apply_lease(ctrl, lease),
        None => ctrl.lease = None,
    }
    ctrl.leases_at = state.lease_log.len() as u8;
    ctrl.listed.0 = true;
    ctrl.queued = true;
}

pub(super) fn list_requests(config: &Config, state: &mut State, i: usize) {
    let ctrl = &mut state.ctrls[i];
    let objs = state.requests.map(Slot::there);
    listed(config, ctrl, &objs, Set::default());
    ctrl.requests_at = state.request_log.len() as u8;
    ctrl.listed.1 = true;
    ctrl.queued = true;
}

/// An event that tells a controller nothing, and wakes it for nothing, need not be waited for: its own write.
pub(super) fn skip_the_known(config: &Config, state: &mut State) {
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

pub(super) fn controller(config: &Config, state: &State, i: usize, all: &mut Vec<(Step, State)>) {
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
                    unmarked(config, &mut s.ctrls[i], &job);
                }),
            ));
            all.push((
                Step::MarkedUnheard(i, job.request),
                with(&mut |s| {
                    s.budget.lost_answers -= 1;
                    mark(config, s, i, n);
                    unmarked(config, &mut s.ctrls[i], job);
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

pub(super) fn said(looked: &Looked) -> String {
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
pub(super) fn failed(config: &Config, ctrl: &mut Ctrl) {
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
pub(super) fn put(config: &Config, state: &mut State, write: &Write) -> Option<Lease> {
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
pub(super) fn publish(config: &Config, state: &mut State, lease: Lease) {
    state.lease = Some(lease);
    state.lease_log.push(LeaseEvent::Put(lease));
    show_clients(config, state);
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
        _ => unmarked(config, &mut state.ctrls[i], &job),
    }
}

/// `Queue::push_after`: the mark did not get there; another look finds that out.
pub(super) fn unmarked(config: &Config, ctrl: &mut Ctrl, job: &Job) {
    // Another answer may have taken its place since, which still may get there.
    ctrl.sent[usize::from(job.request)].take_if(|sent| sent.said == job.said && sent.to == job.version);
    if config.wakes {
        ctrl.timer = Some(0);
    }
}

/// A reconcile by the rules of the built-in policy, for runs in which nothing is left to chance.
pub(crate) fn reconcile_fairly(config: &Config, state: &State, i: usize) -> State {
    let mut all = shell::reconcile(config, Rules::Default, state, i);
    all.swap_remove(0).1
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
