//! What clients and people do, and what clients see.

use super::*;

pub(super) fn show_clients(config: &Config, state: &mut State) {
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

// ---- clients: koncli/src/client ----

pub(super) fn client(config: &Config, state: &State, c: usize, all: &mut Vec<(Step, State)>) {
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
pub(super) fn forget(client: &mut Client) {
    client.request = None;
    client.belief = None;
    client.beats.clear();
    client.views.clear();
    client.seen = View::NotMine;
    client.knew = false;
}

/// `decide::acquiring` and `decide::renewing`, and the deadline that follows.
pub(super) fn see(config: &Config, client: &mut Client, n: usize) {
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

pub(super) fn person(config: &Config, state: &State, all: &mut Vec<(Step, State)>) {
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
            // Another Lease, another life: only the tokens go on, and what requests were told to be over.
            let mut older = Set::default();
            for (k, slot) in (0..).zip(&state.requests) {
                if *slot != Slot::NotYet {
                    older.add(k);
                }
                if !slot.there().is_some_and(|obj| obj.said.is_over()) {
                    next.granted.remove(k);
                }
            }
            let state = Status::Available;
            let lease = Lease { uid, version, token: 0, state, history: [u8::MAX; HISTORY], older };
            publish(config, &mut next, lease);
            all.push((Step::LeaseCreated, next));
        }
    }
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
