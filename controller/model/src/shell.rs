//! The shell around the core as `controller/src` has it: the cache, what is asked before a grant, the
//! write and the answers. Each function names what it models.

use konductor_core::{
    Answer, Answered, Ending, LeaseFacts, Millis, PastHold, Plan, Record, Request, RequestAnswer, RequestId, Seen,
    Settings, Snapshot, State as CoreState, Time, orphans, transition::Transition,
};

use crate::{
    config::{Config, Mutant, Rules},
    policy::plans,
    state::{
        Cached, Ctrl, Due, Flight, HISTORY, Hold, How, Job, LONG_AGO, Lease, Obj, Preemption, REQUESTS, RequestEvent,
        Said, Sent, Set, Slot, State, Status, Write,
    },
};

/// A tick in milliseconds.
pub(crate) const TICK: i64 = 1_000;
/// What the clock of the API server says now: all times are relative to it.
const NOW: i64 = 1_000;
/// When the requests were made that are older than the Lease, and those that are not.
const OLDER: Time = Time(0);
const YOUNGER: Time = Time(1);

fn time(ticks: i8) -> Time {
    Time((NOW + i64::from(ticks)) * TICK)
}

fn ticks(time: Time) -> i8 {
    i8::try_from(time.0.div_euclid(TICK) - NOW).unwrap_or(LONG_AGO).max(LONG_AGO)
}

fn small(number: i64) -> u8 {
    u8::try_from(number).expect("the runs of the model are short")
}

const UIDS: [&str; 16] =
    ["r0", "r1", "r2", "r3", "", "", "", "", "gone0", "gone1", "gone2", "gone3", "gone4", "gone5", "gone6", "gone7"];

fn id(request: u8) -> RequestId {
    let uid = UIDS[usize::from(request)].to_owned();
    RequestId { name: uid.clone(), uid }
}

fn index(uid: &str) -> u8 {
    small(UIDS.iter().position(|known| *known == uid).expect("the core names only what it was shown") as i64)
}

/// Who makes this request.
pub(crate) fn holder(config: &Config, request: u8) -> &'static str {
    if config.is(Mutant::ConstantIdentity) {
        return "klock";
    }
    let client = config.clients.iter().position(|own| own.contains(&request));
    client.map_or("somebody", |c| ["client 0", "client 1", "client 2"][c])
}

/// What a reconcile comes to: the world after it.
pub(crate) enum Looked {
    /// It has asked the API server something.
    Asked,
    /// It came to this plan.
    Planned(Box<Plan>),
    /// There is no lease.
    Orphans,
}

// ---- the cache: controller/src/observe/world.rs ----

/// `World::upsert_lease`.
pub(crate) fn apply_lease(ctrl: &mut Ctrl, lease: Lease) {
    match &mut ctrl.lease {
        Some((known, _)) if known.version > lease.version => {}
        Some((known, _)) if known.uid == lease.uid => *known = lease,
        _ => {
            ctrl.deleted = Set::default();
            ctrl.lease = Some((lease, None));
        }
    }
}

/// `World::delete_lease`.
pub(crate) fn delete_lease(ctrl: &mut Ctrl, uid: u8) {
    if ctrl.lease.is_some_and(|(known, _)| known.uid == uid) {
        ctrl.lease = None;
        ctrl.deleted = Set::default();
    }
}

/// `World::upsert_request`.
fn upsert(config: &Config, ctrl: &mut Ctrl, request: u8, obj: Obj) {
    let brings_back = config.is(Mutant::LateWatchBringsBack) || config.is(Mutant::LateAnswerBringsBack);
    if ctrl.deleted.has(request) && !brings_back {
        return;
    }
    let entry = &mut ctrl.requests[usize::from(request)];
    if let Some(known) = entry
        && known.obj.version > obj.version
    {
        if known.obj.sequence == 0 {
            known.sequence = known.sequence.min(obj.version);
        }
        return;
    }
    let first = entry.map_or(obj.version, |known| known.sequence);
    let told = if obj.sequence > 0 { obj.sequence } else { first };
    let untouched = match entry {
        Some(known) if known.obj.renewals == obj.renewals => known.untouched,
        _ => 0,
    };
    *entry = Some(Cached { obj, sequence: told, untouched });
}

fn remember_deleted(ctrl: &mut Ctrl, request: u8) {
    if ctrl.lease.is_some() {
        ctrl.deleted.add(request);
    }
}

/// `on_request`, `World::request_watched` and `World::request_deleted`.
pub(crate) fn request_event(config: &Config, ctrl: &mut Ctrl, event: RequestEvent) {
    match event {
        RequestEvent::Put(request, obj) => {
            seen(ctrl, request, obj);
            ctrl.seen_to = ctrl.seen_to.max(obj.version);
            upsert(config, ctrl, request, obj);
        }
        RequestEvent::Deleted(request, version) => {
            ctrl.sent[usize::from(request)] = None;
            ctrl.seen_to = ctrl.seen_to.max(version);
            ctrl.requests[usize::from(request)] = None;
            remember_deleted(ctrl, request);
        }
    }
}

/// `Answers::seen`.
fn seen(ctrl: &mut Ctrl, request: u8, obj: Obj) {
    ctrl.sent[usize::from(request)].take_if(|sent| sent.said.is_told_as(obj.said));
}

/// `World::request_found` and `World::confirm_deleted`: the API server's answer about a request.
fn confirmed(config: &Config, ctrl: &mut Ctrl, request: u8, found: Option<Obj>) {
    let Some(obj) = found else {
        if usize::from(request) < REQUESTS {
            ctrl.requests[usize::from(request)] = None;
        }
        remember_deleted(ctrl, request);
        return;
    };
    let known = ctrl.requests[usize::from(request)].is_some();
    if !known && obj.version <= ctrl.seen_to && !config.is(Mutant::LateAnswerBringsBack) {
        return;
    }
    if let Some(listing) = &mut ctrl.listing {
        listing.found.add(request);
    }
    upsert(config, ctrl, request, obj);
}

/// `World::request_listed` and `World::requests_list_done`.
pub(crate) fn listed(config: &Config, ctrl: &mut Ctrl, objs: &[Option<Obj>; REQUESTS], found: Set) {
    for (request, obj) in (0u8..).zip(objs) {
        match obj {
            Some(obj) => {
                seen(ctrl, request, *obj);
                upsert(config, ctrl, request, *obj);
            }
            None if ctrl.requests[usize::from(request)].is_some() => {
                ctrl.requests[usize::from(request)] = None;
                if !found.has(request) || config.is(Mutant::ListProvesAbsence) {
                    remember_deleted(ctrl, request);
                }
            }
            None => {}
        }
    }
    let newest = objs.iter().flatten().map(|obj| obj.version).max();
    ctrl.seen_to = ctrl.seen_to.max(newest.unwrap_or(0));
}

// ---- what is seen: controller/src/observe/snapshot.rs ----

enum Sight {
    NoLease(Vec<Request>),
    Unconfirmed(u8),
    Lease(Box<Observed>),
}

struct Observed {
    lease: Lease,
    snapshot: Snapshot,
    seen: Seen,
}

fn request(config: &Config, lease: Option<&Lease>, request: u8, cached: &Cached) -> Request {
    let is_older = lease.is_some_and(|lease| lease.older.has(request));
    Request {
        arrived: if is_older { OLDER } else { YOUNGER },
        id: id(request),
        holder: holder(config, request).to_owned(),
        priority: Some(config.priorities[usize::from(request)]),
        renewals: i64::from(cached.obj.renewals),
        timeout: config
            .timeout
            .filter(|_| !config.is(Mutant::DeadWaiterGranted))
            .map(|ticks| Millis(i64::from(ticks) * TICK)),
        untouched: Millis(i64::from(cached.untouched) * TICK),
        version: i64::from(cached.obj.version),
        sequence: i64::from(cached.sequence),
        answered: answered(cached.obj.said),
        ..Request::default()
    }
}

fn answered(said: Said) -> Option<Answered> {
    Some(match said {
        Said::Nothing => return None,
        Said::Pending => Answered::Pending,
        Said::NoLease => Answered::NoLease,
        Said::Granted(token) => Answered::Granted(i64::from(token)),
        Said::Denied => Answered::Denied,
        Said::Finished => Answered::Finished,
    })
}

/// `observe`.
fn observe(config: &Config, ctrl: &mut Ctrl) -> Sight {
    let lease = ctrl.lease.map(|(lease, _)| lease);
    let mut requests: Vec<Request> = (0u8..)
        .zip(&ctrl.requests)
        .filter_map(|(k, cached)| cached.as_ref().map(|cached| request(config, lease.as_ref(), k, cached)))
        .collect();
    let Some((lease, known)) = &mut ctrl.lease else { return Sight::NoLease(requests) };
    let lease = *lease;
    let mut left = None;
    if let Some(hold) = lease.held() {
        let uid = UIDS[usize::from(hold.request)];
        let is_seen = requests.iter().any(|r| r.id.uid == uid);
        let is_there = config.is(Mutant::ReleaseIsNoOp)
            || (config.is(Mutant::HeldWithoutRequest) && !ctrl.deleted.has(hold.request));
        if !is_seen && is_there {
            let obj = Obj { version: 0, renewals: hold.acted_on, said: Said::Granted(lease.token), sequence: 0 };
            requests.push(request(config, Some(&lease), hold.request, &Cached { obj, sequence: 0, untouched: 0 }));
        } else if !is_seen && !ctrl.deleted.has(hold.request) && !config.is(Mutant::AbsentMeansReleased) {
            return Sight::Unconfirmed(hold.request);
        }
        // `due` and `skew_if_ahead`.
        let skew = if config.is(Mutant::NoSkewAllowance) { 0 } else { config.skew as i8 };
        let ahead = hold.expires - ctrl.off;
        let at = ahead.max(0) + (skew - (-ahead).max(0)).max(0);
        let mut due = Due { token: lease.token, renewals: hold.renewals, at }.after(*known);
        if config.is(Mutant::WallClockExpiry) {
            due.at = ahead;
        }
        *known = Some(due);
        left = Some(Millis(i64::from(due.at) * TICK));
    }
    if config.is(Mutant::GrantedAgain) {
        requests.iter_mut().for_each(|r| r.answered = None);
    }
    let snapshot = Snapshot {
        now: time(ctrl.off),
        resource_version: i64::from(lease.version),
        lease: LeaseFacts {
            name: "l".to_owned(),
            ttl: Some(Millis(i64::from(config.ttl) * TICK)),
            renewable: true,
            ..LeaseFacts::default()
        },
        record: record(config, &lease),
        remaining: left,
        requests,
        waiting_told: 0,
        since_write: Millis::ZERO,
        settings: Settings {
            max_hold: None,
            expired_retention: Millis(TICK),
            // Nothing is swept within a run.
            finished_retention: Millis(i64::MAX),
            ..Settings::default()
        },
    };
    let mut seen = Seen::beside(&snapshot, i64::from(ctrl.seen_to), Some(OLDER), |uid| ctrl.deleted.has(index(uid)));
    if config.is(Mutant::UnseenTakenForGone) {
        seen.unseen.clear();
    }
    if config.is(Mutant::FormerLeaseForgotten) {
        seen.older_until = None;
    }
    Sight::Lease(Box::new(Observed { lease, snapshot, seen }))
}

/// `convert::record`.
fn record(config: &Config, lease: &Lease) -> Record {
    let hold = |hold: &Hold| konductor_core::Hold {
        holder: holder(config, hold.request).to_owned(),
        request: id(hold.request),
        acquired: time(hold.expires - hold.length as i8),
        expires: time(hold.expires),
        renewed: time(hold.expires - hold.length as i8),
        renewals: i64::from(hold.renewals),
        acted_on: i64::from(hold.acted_on),
        counted: i64::from(hold.counted),
        preemption: hold.preemption.map(|p| konductor_core::Preemption {
            by: holder(config, p.request).to_owned(),
            request: UIDS[usize::from(p.request)].to_owned(),
            deadline: time(p.deadline),
            force: p.force,
            reason: String::new(),
        }),
    };
    let past = |&request: &u8| PastHold {
        holder: holder(config, request).to_owned(),
        request: UIDS[usize::from(request)].to_owned(),
        request_name: UIDS[usize::from(request)].to_owned(),
        token: 0,
        acquired: time(LONG_AGO),
        ended: time(LONG_AGO),
        how: Ending::Released,
    };
    let history = lease.history.iter().filter(|k| **k != u8::MAX);
    Record {
        token: i64::from(lease.token),
        state: match &lease.state {
            Status::Available => CoreState::Available,
            Status::Held(h) => CoreState::Held(hold(h)),
            Status::Expired(at) => CoreState::Expired(time(*at)),
            Status::Evicted(h) => CoreState::Evicted(hold(h)),
        },
        history: if config.is(Mutant::GrantedAgain) { Vec::new() } else { history.map(past).collect() },
        policy_state: String::new(),
    }
}

/// `commit::next_status`.
fn lease_of(config: &Config, old: &Lease, plan: &Plan) -> Lease {
    let mut history = [u8::MAX; HISTORY];
    for (slot, past) in history.iter_mut().zip(&plan.next.history) {
        *slot = index(&past.request);
    }
    if config.is(Mutant::GrantedAgain) && plan.next.history.is_empty() {
        history = old.history;
    }
    let hold = |hold: &konductor_core::Hold| Hold {
        request: index(&hold.request.uid),
        expires: ticks(hold.expires),
        length: small((hold.expires - hold.renewed).0 / TICK),
        renewals: small(hold.renewals),
        acted_on: small(hold.acted_on),
        counted: small(hold.counted),
        preemption: hold.preemption.as_ref().map(|p| Preemption {
            request: index(&p.request),
            deadline: ticks(p.deadline),
            force: p.force,
        }),
    };
    let mut token = small(plan.next.token);
    if config.is(Mutant::TokenFromRecordOnly) && plan.grants() {
        token = old.token + 1;
    }
    if config.is(Mutant::EvictedGetsItBack)
        && matches!(
            plan.transition,
            Transition::End(Ending::ForceReleased) | Transition::HandOver(Ending::ForceReleased, _)
        )
    {
        history = old.history;
    }
    let mut state = match &plan.next.state {
        CoreState::Available => Status::Available,
        CoreState::Held(h) => Status::Held(hold(h)),
        CoreState::Expired(at) => Status::Expired(ticks(*at)),
        CoreState::Evicted(h) => Status::Evicted(hold(h)),
    };
    if config.is(Mutant::ExpiredOverwritten) && matches!(state, Status::Expired(_)) {
        state = Status::Available;
    }
    if config.is(Mutant::PreemptedAtOnce)
        && let Status::Held(hold) = &state
        && hold.preemption.is_some()
    {
        history.rotate_right(1);
        history[0] = hold.request;
        state = Status::Available;
    }
    Lease { token, state, history, ..*old }
}

fn how(plan: &Plan) -> Option<How> {
    let (Transition::End(how) | Transition::HandOver(how, _)) = &plan.transition else { return None };
    Some(match how {
        Ending::Released => How::Released,
        Ending::Expired => How::Expired,
        Ending::Preempted => How::Preempted,
        Ending::ForceReleased => How::Forced,
        Ending::Superseded => How::Superseded,
    })
}

// ---- the straight line: controller/src/reconcile.rs ----

/// `Answers::on_the_way`, as reconcile lays it over what was seen.
fn lay_over(config: &Config, ctrl: &Ctrl, requests: &mut [Request], history: &[PastHold]) {
    let is_past = |request: &Request| history.iter().any(|past| past.request == request.id.uid);
    let forgets = config.is(Mutant::HistoryForgets);
    let history = if forgets || config.is(Mutant::MarkOnItsWayCounts) { &[] } else { history };
    konductor_core::lay_over(requests, history, |request| match forgets && is_past(request) {
        true => Some(Answered::Finished),
        false => {
            let sent = ctrl.sent[usize::from(index(&request.id.uid))]?;
            (i64::from(sent.to) >= request.version).then(|| answered(sent.said))?
        }
    });
}

/// A reconcile of controller `i`, from the look to the write that it sends: every world that it can
/// lead to, with what was done.
pub(crate) fn reconcile(config: &Config, rules: Rules, from: &State, i: usize) -> Vec<(Looked, State)> {
    let mut state = from.clone();
    state.ctrls[i].queued = false;
    let mut ctrl = std::mem::replace(&mut state.ctrls[i], Ctrl::new(0));
    match observe(config, &mut ctrl) {
        Sight::Unconfirmed(request) => {
            ctrl.flight = Flight::Reading(request, at_the_api(&state, request));
            state.ctrls[i] = ctrl;
            vec![(Looked::Asked, state)]
        }
        Sight::NoLease(mut requests) => {
            lay_over(config, &ctrl, &mut requests, &[]);
            let plan = orphans(&requests, Settings { finished_retention: Millis(i64::MAX), ..Settings::default() });
            // The lease is asked for, unless its absence was just the answer.
            let absent = ctrl.settled == (u8::MAX, Set::default());
            if !plan.answers.is_empty() && !absent {
                ctrl.flight = Flight::ReadingLease(state.lease);
                state.ctrls[i] = ctrl;
                return vec![(Looked::Asked, state)];
            }
            ctrl.settled = (0, Set::default());
            send(&mut ctrl, jobs(config, &plan.answers));
            done(config, &mut ctrl, plan.wake_in.map(wake_ticks));
            state.ctrls[i] = ctrl;
            vec![(Looked::Orphans, state)]
        }
        Sight::Lease(mut observed) => {
            let record = observed.snapshot.record.clone();
            lay_over(config, &ctrl, &mut observed.snapshot.requests, &record.history);
            let mut all = Vec::new();
            for mut plan in plans(config, rules, &observed.snapshot) {
                if config.is(Mutant::ListOrder) {
                    last_in_line(&observed.snapshot, &mut plan);
                }
                let mut next = state.clone();
                let mut ctrl = ctrl.clone();
                let looked = carry_out(config, &mut next, &mut ctrl, &observed, plan);
                next.ctrls[i] = ctrl;
                all.push((looked, next));
            }
            all
        }
    }
}

/// What the API server says of a request.
fn at_the_api(state: &State, request: u8) -> Option<Obj> {
    state.requests.get(usize::from(request)).and_then(|slot| slot.there())
}

fn carry_out(config: &Config, state: &mut State, ctrl: &mut Ctrl, observed: &Observed, plan: Plan) -> Looked {
    let lease = observed.lease;
    // What is in doubt, and what of it is settled.
    if ctrl.settled.0 != lease.version {
        ctrl.settled = (lease.version, Set::default());
    }
    if let Some(granted) = plan.granted()
        && !config.is(Mutant::StaleNotConfirmed)
    {
        let doubts = observed.seen.in_doubt(&observed.snapshot, granted);
        let doubts = doubts.into_iter().map(|doubt| index(&doubt.uid));
        if let Some(doubt) = doubts.into_iter().find(|doubt| !ctrl.settled.1.has(*doubt)) {
            ctrl.flight = Flight::Reading(doubt, at_the_api(state, doubt));
            return Looked::Asked;
        }
    }
    let mut broken = None;
    // A defect of the shell is to be found by what it leads to, but for the one that leads only to this.
    if config.mutant.is_none_or(|mutant| mutant == Mutant::LateWatchBringsBack)
        && !konductor_core::invariants::violations(&observed.snapshot, &plan).is_empty()
    {
        broken = Some("the core's own invariants");
    }
    let to = lease_of(config, &lease, &plan);
    let answers = jobs(config, &plan.answers);
    let wake = plan.wake_in.map(wake_ticks);
    if to == lease {
        ctrl.settled = (0, Set::default());
        send(ctrl, answers);
        done(config, ctrl, wake);
    } else {
        let granted = plan.granted().map(|granted| index(&granted.uid));
        if config.is(Mutant::MarkBeforeLease) {
            send(ctrl, answers.clone());
        }
        ctrl.flight = Flight::Writing(Box::new(Write {
            to,
            answers,
            off: ctrl.off,
            age: 0,
            wake,
            how: how(&plan),
            due: state.promise.is_none_or(|left| left <= 0),
            forced: forced(&lease, observed.snapshot.remaining),
            to_a_ghost: granted
                .is_some_and(|request| is_ghost(state, ctrl, request) || has_lapsed(config, ctrl, request)),
        }));
    }
    state.broken = state.broken.or(broken);
    Looked::Planned(Box::new(plan))
}

/// Whether a forced hand-over is at its deadline: so much sooner than the hold is due as it lies before the expiry.
fn forced(lease: &Lease, left: Option<Millis>) -> bool {
    let Some((hold, hand_over)) = lease.held().and_then(|hold| hold.preemption.map(|p| (hold, p))) else {
        return false;
    };
    let sooner = i64::from(hold.expires - hand_over.deadline) * TICK;
    hand_over.force && left.is_some_and(|left| left.0 <= sooner)
}

/// Whether a request is gone and the controller was shown it.
fn is_ghost(state: &State, ctrl: &Ctrl, request: u8) -> bool {
    let gone = state.requests[usize::from(request)] == Slot::Gone;
    let to_come = state.request_log[usize::from(ctrl.requests_at)..]
        .iter()
        .any(|event| matches!(event, RequestEvent::Deleted(k, _) if *k == request));
    gone && !to_come && ctrl.listing.is_none()
}

/// Whether nobody has touched a request for its timeout, as far as the controller can know.
fn has_lapsed(config: &Config, ctrl: &Ctrl, request: u8) -> bool {
    let cached = ctrl.requests[usize::from(request)];
    cached.is_some_and(|cached| config.timeout.is_some_and(|timeout| cached.untouched >= timeout))
}

/// The grant goes to the one that came last: the order of some list.
fn last_in_line(snapshot: &Snapshot, plan: &mut Plan) {
    let Some(granted) = plan.granted().cloned() else { return };
    let waits = |r: &&Request| !snapshot.record.has_held(&r.id.uid) && !r.answered.is_some_and(Answered::is_over);
    let Some(last) = snapshot.requests.iter().filter(waits).max_by_key(|r| r.sequence) else { return };
    if last.id == granted {
        return;
    }
    if let CoreState::Held(hold) = &mut plan.next.state {
        hold.request = last.id.clone();
        hold.holder.clone_from(&last.holder);
    }
    if let Transition::Grant(hold) | Transition::HandOver(_, hold) = &mut plan.transition {
        hold.request = last.id.clone();
    }
    plan.answers.retain(|a| a.request != granted && a.request != last.id);
}

/// The API server's answer to a question has come back: `confirm`, or the lease.
pub(crate) fn answer_is_back(config: &Config, ctrl: &mut Ctrl) {
    match std::mem::replace(&mut ctrl.flight, Flight::Nothing) {
        Flight::Reading(request, found) => {
            confirmed(config, ctrl, request, found);
            ctrl.settled.1.add(request);
        }
        Flight::ReadingLease(Some(lease)) => apply_lease(ctrl, lease),
        Flight::ReadingLease(None) => ctrl.settled = (u8::MAX, Set::default()),
        other => ctrl.flight = other,
    }
    // It goes on with the same reconcile.
    ctrl.queued = true;
}

/// The write has succeeded: `World::wrote_lease` and `report::publish`.
pub(crate) fn committed(config: &Config, ctrl: &mut Ctrl, write: &Write, written: Lease) {
    if ctrl.lease.is_some_and(|(known, _)| known.uid == written.uid) {
        let due = written.held().map(|hold| Due {
            token: written.token,
            renewals: hold.renewals,
            at: (hold.expires - write.off).max(0),
        });
        apply_lease(ctrl, written);
        if let Some((_, known)) = &mut ctrl.lease {
            *known = due.map(|due| due.after(*known));
        }
    }
    if !config.is(Mutant::MarkBeforeLease) {
        send(ctrl, write.answers.clone());
    }
    ctrl.settled = (0, Set::default());
    done(config, ctrl, write.wake.map(|wake| wake.saturating_sub(write.age)));
}

/// `work`: the key is done with, and its timer set in place of what was set before.
pub(crate) fn done(config: &Config, ctrl: &mut Ctrl, wake: Option<u8>) {
    if !config.wakes {
        return;
    }
    if let Some(wake) = wake.filter(|_| !config.is(Mutant::NoWakeInTime)) {
        ctrl.timer = Some(wake);
    }
    ctrl.queued |= std::mem::take(&mut ctrl.again);
}

fn wake_ticks(wake: Millis) -> u8 {
    // Beyond the horizon is never.
    u8::try_from(wake.0.max(0).unsigned_abs().div_ceil(TICK.unsigned_abs())).unwrap_or(u8::MAX)
}

// ---- answers: controller/src/report/answers.rs ----

fn jobs(config: &Config, answers: &[RequestAnswer]) -> Vec<Job> {
    if !config.marks {
        return Vec::new();
    }
    let mut jobs: Vec<Job> = answers
        .iter()
        .filter(|answer| config.pending_marks || answer.answer != Answer::Pending)
        .filter(|answer| answer.version > 0)
        .map(|answer| Job {
            request: index(&answer.request.uid),
            version: small(answer.version),
            said: match answer.answer.said() {
                Answered::Pending => Said::Pending,
                Answered::NoLease => Said::NoLease,
                Answered::Granted(token) => Said::Granted(small(token)),
                Answered::Denied => Said::Denied,
                Answered::Finished => Said::Finished,
            },
            sequence: small(answer.sequence),
        })
        .collect();
    jobs.sort_unstable();
    jobs
}

/// `Answers::send`.
fn send(ctrl: &mut Ctrl, jobs: Vec<Job>) {
    for job in jobs {
        let sent = &mut ctrl.sent[usize::from(job.request)];
        if sent.is_none_or(|sent| sent.said != job.said) {
            *sent = Some(Sent { said: job.said, to: job.version });
            ctrl.jobs.push(job);
        }
    }
    ctrl.jobs.sort_unstable();
}
