//! What everybody in a simulation shares: the store, the timeline, and the judge of what clients believe.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use koncli::client::{Clock as _, Moment};
use konductor_crds::{
    Lease,
    time::parse_timestamp,
    v1::{HoldEnd, LeasePhase},
};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{
    clock::{EPOCH, MachineClock},
    store::{Change, Did, Kind, Refusal, Store},
};

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the beginning.
    pub at: Duration,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9.3}  {:<14} {}", self.at.as_secs_f64(), self.who, self.what)
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// What clients and operators have begun to do.
    pub operations: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Grants that the Lease recorded.
    pub grants: u64,
    /// Requests to the API server.
    pub calls: u64,
    /// Accesses that the guarded resources accepted.
    pub accesses: u64,
    /// Accesses that they refused for their old token.
    pub fenced: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.faults += other.faults;
        self.grants += other.grants;
        self.calls += other.calls;
        self.accesses += other.accesses;
        self.fenced += other.fenced;
    }
}

/// What a client believes: that it holds a lease, until its deadline.
#[derive(Debug, Clone)]
struct Belief {
    who: String,
    lease: String,
    lease_uid: String,
    token: i64,
    deadline: Moment,
    clock: Arc<MachineClock>,
}

impl Belief {
    fn stands(&self) -> bool {
        self.clock.now() < self.deadline
    }
}

/// Names a belief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BeliefId(u64);

/// A resource that refuses what comes with an older token than it has seen, as the docs recommend.
#[derive(Debug, Default)]
struct Resource {
    newest: i64,
    /// Every access that it accepted: the token, and whose it was.
    accepted: Vec<(i64, String)>,
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) figures: Figures,
    timeline: Vec<Entry>,
    /// Of everything that was asked and delivered.
    trace: u64,
    violations: Vec<String>,
    beliefs: BTreeMap<BeliefId, Belief>,
    next_belief: u64,
    /// How each hold ended, by the lease's uid and the token.
    endings: BTreeMap<(String, i64), HoldEnd>,
    /// Which requests each lease has been granted to, by the lease's uid.
    granted: BTreeSet<(String, String)>,
    /// The last record of each lease.
    recorded: BTreeMap<String, Lease>,
    resources: BTreeMap<String, Resource>,
    /// Calls of each kind of actor, since the last time that somebody looked.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// What everybody shares.
pub struct Scene {
    begun: Instant,
    state: Mutex<State>,
    /// Rung after each write.
    pub(crate) changed: Notify,
    quiet: AtomicBool,
    guards_compare: bool,
}

impl Scene {
    /// A scene that begins now.
    #[must_use]
    pub fn new(store: Store, guards_compare: bool) -> Arc<Self> {
        let state = State {
            store,
            figures: Figures::default(),
            timeline: Vec::new(),
            trace: 0,
            violations: Vec::new(),
            beliefs: BTreeMap::new(),
            next_belief: 0,
            endings: BTreeMap::new(),
            granted: BTreeSet::new(),
            recorded: BTreeMap::new(),
            resources: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        Arc::new(Self {
            begun: Instant::now(),
            state: Mutex::new(state),
            changed: Notify::new(),
            quiet: AtomicBool::new(false),
            guards_compare,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// True seconds since the epoch: the API server's clock.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        (EPOCH + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0)) / 1000
    }

    /// No fault happens any more.
    pub fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
        self.log("world", "no more faults");
    }

    /// Whether faults are over.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Notes what somebody does.
    pub fn log(&self, who: &str, what: impl Into<String>) {
        let at = self.begun.elapsed();
        self.lock().timeline.push(Entry { at, who: who.to_owned(), what: what.into() });
    }

    /// Notes an operation of a client.
    pub fn operation(&self, who: &str, what: impl Into<String>) {
        self.lock().figures.operations += 1;
        self.log(who, what);
    }

    /// Notes a fault.
    pub fn fault(&self, who: &str, what: impl Into<String>) {
        self.lock().figures.faults += 1;
        self.log(who, format!("! {}", what.into()));
    }

    /// Notes something that must not happen.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.log("JUDGE", format!("VIOLATION: {what}"));
        self.lock().violations.push(what);
    }

    /// What somebody asked, or was told, goes into the trace: two runs of a seed have the same.
    pub(crate) fn trace(&self, what: impl std::hash::Hash) {
        let at = self.begun.elapsed();
        let mut state = self.lock();
        let mut hasher = DefaultHasher::new();
        (state.trace, at, what).hash(&mut hasher);
        state.trace = hasher.finish();
    }

    /// The timeline, the trace, the violations and the figures so far.
    #[must_use]
    pub fn so_far(&self) -> (Vec<Entry>, u64, Vec<String>, Figures) {
        let state = self.lock();
        (state.timeline.clone(), state.trace, state.violations.clone(), state.figures)
    }

    /// Something is done to the store, by `who`; what changes is noted and judged.
    pub(crate) fn write<T>(
        &self,
        who: &str,
        what: &str,
        write: impl FnOnce(&mut Store) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (result, changes) = {
            let mut state = self.lock();
            let before = state.store.changes().len();
            let result = write(&mut state.store);
            (result, state.store.changes()[before..].to_vec())
        };
        if let Err(refusal) = &result {
            self.log(who, format!("{what}: {} {}", refusal.code, refusal.body["reason"].as_str().unwrap_or_default()));
        }
        for change in &changes {
            self.log(who, described(change));
            if change.kind == Kind::Lease {
                self.judge(who, change);
            }
        }
        if !changes.is_empty() {
            self.changed.notify_waiters();
        }
        result
    }

    /// A lease is another: is anybody wrong about it?
    fn judge(&self, who: &str, change: &Change) {
        let Ok(lease) = serde_json::from_value::<Lease>((*change.object).clone()) else {
            self.violation(format!("{who} stores what is no Lease"));
            return;
        };
        let uid = lease.metadata.uid.clone().unwrap_or_default();
        let name = change.key.1.clone();
        let found = {
            let mut state = self.lock();
            let before = state.recorded.remove(&name);
            if change.did != Did::Deleted {
                state.recorded.insert(name.clone(), lease.clone());
            }
            let status = lease.status.clone().unwrap_or_default();
            for past in &status.history {
                state.endings.insert((uid.clone(), past.token), past.how);
            }
            let early = state.ended_early(&uid);
            let token_before = before.and_then(|lease| lease.status).and_then(|status| status.fencing_token);
            let token = status.fencing_token.unwrap_or(0);
            if change.did == Did::Deleted || status.phase != Some(LeasePhase::Held) || token_before >= Some(token) {
                early
            } else {
                state.figures.grants += 1;
                let mut found = state.wrong_about(&name);
                found.extend(early);
                let request = status.request.as_ref().map(|request| request.uid.clone()).unwrap_or_default();
                if !state.granted.insert((uid, request.clone())) {
                    found.push(format!("{name} is granted to the request {request} for the second time"));
                }
                found
            }
        };
        for what in found {
            self.violation(what);
        }
    }

    /// A client has become sure that it holds.
    pub(crate) fn believes(
        &self,
        who: &str,
        lease: &str,
        token: i64,
        request: &str,
        deadline: Moment,
        clock: &Arc<MachineClock>,
    ) -> BeliefId {
        self.log(who, format!("holds {lease} with token {token}"));
        let (id, found) = {
            let mut state = self.lock();
            let id = BeliefId(state.next_belief);
            state.next_belief += 1;
            // Of the object that granted it: the newest that says so.
            let granting = state.store.changes().iter().rev().find(|change| {
                let status = &change.object["status"];
                change.kind == Kind::Lease
                    && change.key.1 == lease
                    && status["fencingToken"].as_i64() == Some(token)
                    && status["request"]["uid"].as_str() == Some(request)
            });
            let lease_uid = granting.and_then(|change| change.object["metadata"]["uid"].as_str());
            let Some(lease_uid) = lease_uid.map(str::to_owned) else {
                drop(state);
                self.violation(format!("{who} believes in token {token} of {lease}, which was never granted to it"));
                return BeliefId(u64::MAX);
            };
            let belief = Belief {
                who: who.to_owned(),
                lease: lease.to_owned(),
                lease_uid,
                token,
                deadline,
                clock: clock.clone(),
            };
            state.beliefs.insert(id, belief);
            (id, state.wrong_about(lease))
        };
        for what in found {
            self.violation(what);
        }
        id
    }

    /// A client's deadline has moved.
    pub(crate) fn believes_until(&self, id: BeliefId, deadline: Moment) {
        let found = {
            let mut state = self.lock();
            let Some(belief) = state.beliefs.get_mut(&id) else { return };
            belief.deadline = deadline;
            let lease = belief.lease.clone();
            state.wrong_about(&lease)
        };
        for what in found {
            self.violation(what);
        }
    }

    /// A client does not believe that it holds any more.
    pub(crate) fn believes_no_more(&self, id: BeliefId) {
        self.lock().beliefs.remove(&id);
    }

    /// A client works on what a lease protects. Whether it was let in.
    pub(crate) fn access(&self, who: &str, lease: &str, token: i64, request: &str) -> bool {
        let found = {
            let mut state = self.lock();
            let resource = state.resources.entry(lease.to_owned()).or_default();
            if self.guards_compare && token < resource.newest {
                state.figures.fenced += 1;
                drop(state);
                self.log(who, format!("is refused by what {lease} protects: token {token} is old"));
                return false;
            }
            let older = resource.accepted.iter().map(|(token, _)| *token).max().filter(|newest| *newest > token);
            let shared = resource.accepted.iter().find(|(of, whose)| *of == token && whose != request);
            let found = match (older, shared) {
                (Some(newest), _) => {
                    Some(format!("{who} works on {lease} with token {token}, after somebody has with {newest}"))
                }
                (None, Some((_, whose))) => {
                    Some(format!("token {token} of {lease} was given to two requests, {whose} and {request}"))
                }
                (None, None) => None,
            };
            resource.newest = resource.newest.max(token);
            resource.accepted.push((token, request.to_owned()));
            state.figures.accesses += 1;
            found
        };
        if let Some(found) = found {
            self.violation(found);
        }
        true
    }
}

impl State {
    /// Whose hold of this lease ended as expired, or as given back, although its holder still relies on it.
    fn ended_early(&mut self, lease_uid: &str) -> Vec<String> {
        let (endings, mut found) = (&self.endings, Vec::new());
        self.beliefs.retain(|_, belief| {
            let ending = endings.get(&(belief.lease_uid.clone(), belief.token));
            let early = belief.lease_uid == lease_uid
                && belief.stands()
                && matches!(ending, Some(HoldEnd::Expired | HoldEnd::Released | HoldEnd::Preempted));
            if early {
                let left = belief.deadline.left_at(belief.clock.now());
                let how = ending.map_or("?", |how| how.as_str());
                found.push(format!(
                    "{} relies for another {left:.3?} on {} with token {}, and its hold has ended: {how}",
                    belief.who, belief.lease, belief.token
                ));
            }
            !early
        });
        found
    }

    /// Who believes to hold a lease although another is recorded as its holder with a later token, and nobody has
    /// taken it by force.
    fn wrong_about(&mut self, lease: &str) -> Vec<String> {
        let Some(recorded) = self.recorded.get(lease) else { return Vec::new() };
        let uid = recorded.metadata.uid.clone().unwrap_or_default();
        let Some(status) = recorded.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held)) else {
            return Vec::new();
        };
        let token = status.fencing_token.unwrap_or(0);
        let mut found = Vec::new();
        for belief in self.beliefs.values() {
            if belief.lease != lease || belief.token >= token || !belief.stands() {
                continue;
            }
            let ending = self.endings.get(&(belief.lease_uid.clone(), belief.token));
            // With the lease goes its hold, by the hand of a person; by force likewise, and by a newer request of the
            // same holder. The token protects then, and that is documented.
            if belief.lease_uid != uid || matches!(ending, Some(HoldEnd::ForceReleased | HoldEnd::Superseded)) {
                continue;
            }
            let left = belief.deadline.left_at(belief.clock.now());
            found.push(format!(
                "{} believes for another {left:.3?} that it holds {lease} with token {}, while {} is recorded with \
                 token {token} (the old hold ended as {ending:?})",
                belief.who,
                belief.token,
                status.holder.as_deref().unwrap_or_default(),
            ));
        }
        // Once is enough.
        if !found.is_empty() {
            self.beliefs.retain(|_, belief| belief.lease != lease || belief.token >= token);
        }
        found
    }
}

/// A wall clock's time as seconds since the beginning.
fn since_begin(text: &Value) -> String {
    match text.as_str().and_then(parse_timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "for people, in a run of minutes")]
        Some(ms) => format!("{:.3}", (ms - EPOCH) as f64 / 1000.0),
        None => "?".to_owned(),
    }
}

/// A write in a few words.
fn described(change: &Change) -> String {
    let (object, name) = (&change.object, &change.key.1);
    let status = &object["status"];
    let mut text = format!("[{}] {} {name}", change.version, change.did.word().to_lowercase());
    if change.did == Did::Deleted {
        return text;
    }
    let text_of = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    // Writing to a string cannot fail.
    let _ = match change.kind {
        Kind::Lease if status["phase"] == "Held" => write!(
            text,
            ": Held by {} ({}) token {} until {}, {} renewals, beat {}, {} waiting{}",
            text_of(&status["holder"]),
            text_of(&status["request"]["name"]),
            status["fencingToken"],
            since_begin(&status["expires"]),
            status["renewals"].as_i64().unwrap_or(0),
            status["request"]["renewals"].as_i64().unwrap_or(0),
            status["waiting"].as_i64().unwrap_or(0),
            past(status),
        ),
        Kind::Lease => write!(
            text,
            ": {} token {} ttl {}{}",
            text_of(&status["phase"]),
            status["fencingToken"],
            text_of(&object["spec"]["ttl"]),
            past(status),
        ),
        Kind::Request => write!(
            text,
            ": {} on {} beat {}, told {} {}",
            text_of(&object["spec"]["holder"]),
            text_of(&object["spec"]["lease"]),
            object["spec"]["renewals"],
            text_of(&status["phase"]),
            text_of(&status["reason"]),
        ),
        Kind::ConfigMap | Kind::Namespace | Kind::Event => Ok(()),
    };
    text
}

fn past(status: &Value) -> String {
    match status["history"].get(0) {
        Some(past) => format!(", before: {} {} token {}", past["holder"], past["how"], past["token"]),
        None => String::new(),
    }
}

impl Figures {
    /// The line of figures.
    #[must_use]
    pub fn sentence(self, seeds: u64, violations: usize) -> String {
        let Self { operations, faults, grants, calls, accesses, fenced } = self;
        let n = |number: u64| {
            let digits = number.to_string();
            let mut grouped = String::new();
            for (place, digit) in digits.char_indices() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        };
        format!(
            "sim: {} seeds, {} operations, {} calls, {} faults, {} grants, {} accesses, {} refused for an old token, \
             {violations} violations",
            n(seeds),
            n(operations),
            n(calls),
            n(faults),
            n(grants),
            n(accesses),
            n(fenced),
        )
    }
}
