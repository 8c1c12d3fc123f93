//! The judge: goes through a history in the order of revisions and finds what contradicts what came before.

mod grants;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use konductor_crds::{
    DEFAULT_POLICY, Lease, LeaseRequest,
    time::{parse_duration, parse_timestamp},
    v1::{HoldEnd, LeasePhase, PastHold, RequestPhase},
};

use crate::{
    Change, Event, Evidence, Figures, Follows, Hold, Holding, Kind, List, Report, Rule, Stored, Unjudged, Violation,
    history::History, holding,
};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long a controller may take to learn of a request, of its last sign of life and of its deletion, in
    /// milliseconds: a watch that works tells in some, one that has to be opened again waits for a few seconds.
    pub lag: i64,
    /// By how much the clock of who recorded it and the controller's may disagree about how long something took, in
    /// milliseconds, the way of a write and of its event included.
    pub tolerance: i64,
    /// By how much the clocks of two replicas may differ, in milliseconds: what the controllers are told with the flag of
    /// this name. Zero where one machine has written everything.
    pub max_clock_skew: i64,
    /// Whether equals are to be served in the order of arrival where the built-in policy decides.
    pub order: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { lag: 10_000, tolerance: 2_000, max_clock_skew: 1_000, order: true }
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    /// At one revision: the write, a deletion that came after it, then gaps and lists as they came.
    enum Step<'h> {
        Event(&'h Event),
        Gap(Kind),
        List(&'h List),
    }
    let mut steps: Vec<((i64, u8, usize), Step<'_>)> = Vec::new();
    steps.extend(history.events.iter().map(|event| {
        let rank = u8::from(event.change == Change::Deleted);
        ((event.revision, rank, 0), Step::Event(event))
    }));
    steps.extend(history.gaps.iter().map(|gap| ((gap.after, 2, 2 * gap.lists_before), Step::Gap(gap.of))));
    let lists = history.lists.iter().enumerate();
    steps.extend(lists.map(|(index, list)| ((list.revision, 2, 2 * index + 1), Step::List(list))));
    // Stable: what has the same place stays in the order in which it was seen.
    steps.sort_by_key(|&(place, _)| place);

    let known = if history.complete { Known::Everything } else { Known::Nothing };
    let mut judge = Judge { requests_known: known, ..Judge::new(options) };
    for (_, step) in steps {
        match step {
            Step::Event(event) => judge.event(event),
            Step::Gap(kind) => judge.gap(kind),
            Step::List(list) => judge.list(list),
        }
    }
    judge.finish()
}

/// What is known of the requests that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Every one that ever was.
    Everything,
    /// Every one since a list, which was seen at this time.
    Since(Option<i64>),
    /// Only those that were seen.
    Nothing,
}

/// A LeaseRequest.
#[derive(Debug)]
struct Asked {
    lease: String,
    holder: String,
    priority: Option<i32>,
    /// In milliseconds; none if it is valid until it is deleted.
    timeout: Option<i64>,
    renewals: i64,
    /// When its renewals were last seen to be raised, or it was seen first.
    touched: Option<i64>,
    /// The API server's time of its creation, in whole seconds.
    created: Option<i64>,
    sequence: Option<i64>,
    phase: Option<RequestPhase>,
    revision: i64,
    last: Evidence,
    gone: Option<Gone>,
    /// There was a gap since it was seen.
    unsure: bool,
    /// The place in `grants` of its lease at which it was first seen.
    grants_before: usize,
}

#[derive(Debug, Clone, Copy)]
struct Gone {
    seen: Option<i64>,
}

/// A grant, for those who came before whoever got it.
#[derive(Debug)]
struct Grant {
    request: String,
    acquired: i64,
    revision: i64,
    /// The priority of a request that states none.
    lease_priority: i32,
    evidence: Evidence,
}

/// A name of a lease; outlives the deletion of the Lease.
#[derive(Debug, Default)]
struct Name {
    /// The highest token so far, and where it was seen.
    token: i64,
    token_seen: Evidence,
    /// The revision of the last state; 0 if the Lease is not there, or not known to be.
    revision: i64,
    /// What comes next may have been led to by writes that were not seen.
    blind: bool,
    /// The highest token that may have been given to a hold that was not seen.
    unseen_to: i64,
    /// The index of the hold that stands.
    current: Option<usize>,
    /// The index of a hold that is over, and not yet told how.
    untold: Option<usize>,
    /// By token: the index of every hold.
    by_token: BTreeMap<i64, usize>,
    /// By token: what the history says of it, and where it said so first.
    told: BTreeMap<i64, (PastHold, Evidence)>,
    last: Evidence,
    /// Since when the expiry of the hold that stands is what it is, by the clock of who saw it, and how long it was to
    /// last from then on.
    promised: Option<(i64, i64)>,
    /// Grants of the built-in policy.
    grants: Vec<Grant>,
}

#[derive(Debug)]
struct Judge<'o> {
    options: &'o Options,
    requests: HashMap<String, Asked>,
    requests_known: Known,
    granted: HashMap<String, (i64, Evidence)>,
    names: BTreeMap<(String, String), Name>,
    holds: Vec<Hold>,
    violations: Vec<Violation>,
    figures: Figures,
}

/// What is found wrong with one event.
type Found = Vec<(Rule, String, Option<Evidence>)>;

impl<'o> Judge<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            requests: HashMap::new(),
            requests_known: Known::Nothing,
            granted: HashMap::new(),
            names: BTreeMap::new(),
            holds: Vec::new(),
            violations: Vec::new(),
            figures: Figures::default(),
        }
    }

    fn event(&mut self, event: &Event) {
        self.figures.events += 1;
        match &event.object {
            Stored::Request(request) => {
                self.request(&event.namespace, event.revision, event.seen, event.change, request);
            }
            Stored::Lease(lease) => {
                let place = (event.namespace.clone(), event.name.clone());
                let known = self.names.get(&place).map_or(0, |name| name.revision);
                // The same write twice: from two recordings, or shown again by a watch.
                if known >= event.revision && event.change != Change::Deleted {
                    return;
                }
                let missed = match event.follows {
                    Follows::Unknown => false,
                    Follows::Revision(follows) => follows != known,
                    Follows::Token => {
                        let token = lease.status.as_ref().and_then(|status| status.fencing_token);
                        token.is_some_and(|token| self.names.get(&place).is_none_or(|name| name.token != token))
                    }
                };
                let first = event.change == Change::Updated && (known == 0 || missed);
                self.lease(place, event.revision, event.seen, event.change, first, lease);
            }
        }
    }

    fn gap(&mut self, kind: Kind) {
        self.figures.gaps += 1;
        match kind {
            Kind::Lease => self.names.values_mut().for_each(|name| name.blind = true),
            Kind::LeaseRequest => {
                self.requests_known = Known::Nothing;
                self.requests.values_mut().for_each(|asked| asked.unsure = true);
            }
        }
    }

    fn list(&mut self, list: &List) {
        self.figures.events += list.objects.len();
        match list.of {
            Kind::LeaseRequest => {
                let mut here = BTreeSet::new();
                for object in &list.objects {
                    let Stored::Request(request) = object else { continue };
                    here.extend(request.metadata.uid.clone());
                    let namespace = request.metadata.namespace.clone().unwrap_or_default();
                    let revision = version(request.metadata.resource_version.as_deref());
                    self.request(&namespace, revision, list.seen, Change::Updated, request);
                }
                for (uid, asked) in &mut self.requests {
                    let namespace = asked.lease.split_once('/').map_or("", |(namespace, _)| namespace);
                    let lease = asked.lease.split_once('/').map_or("", |(_, lease)| lease);
                    if list.scope.has(namespace, lease) && !here.contains(uid) && asked.gone.is_none() {
                        asked.gone = Some(Gone { seen: list.seen });
                        asked.last = Evidence::new(list.revision, list.seen, format!("request {uid} is not listed"));
                    }
                }
                if self.requests_known == Known::Nothing {
                    self.requests_known = Known::Since(list.seen);
                }
            }
            Kind::Lease => {
                let mut here = BTreeSet::new();
                for object in &list.objects {
                    let Stored::Lease(lease) = object else { continue };
                    let metadata = &lease.metadata;
                    let place =
                        (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
                    let revision = version(metadata.resource_version.as_deref());
                    let known = self.names.get(&place).map_or(0, |name| name.revision);
                    if revision > known {
                        self.lease(place.clone(), revision, list.seen, Change::Updated, true, lease);
                    }
                    self.names.entry(place.clone()).or_default().blind = false;
                    here.insert(place);
                }
                for ((namespace, lease), name) in &mut self.names {
                    if list.scope.has(namespace, lease) && !here.contains(&(namespace.clone(), lease.clone())) {
                        deleted(name, &mut self.holds, list.revision);
                    }
                }
            }
        }
    }

    fn request(&mut self, namespace: &str, revision: i64, seen: Option<i64>, change: Change, request: &LeaseRequest) {
        let Some(uid) = request.metadata.uid.clone() else { return };
        let (spec, status) = (&request.spec, request.status.as_ref());
        let lease = format!("{namespace}/{}", spec.lease);
        // One that is being deleted is withdrawn, even if a finalizer keeps it for a while.
        let gone = change == Change::Deleted || request.metadata.deletion_timestamp.is_some();
        let phase = status.and_then(|status| status.phase);
        let does = match change {
            Change::Created => "asks",
            Change::Updated => "has asked",
            Change::Deleted => "has withdrawn",
        };
        let says = format!(
            "{} {does} for {} by {} ({uid}), renewals {}{}",
            spec.holder,
            spec.lease,
            request.metadata.name.as_deref().unwrap_or_default(),
            spec.renewals,
            phase.map(|phase| format!(", {}", phase.as_str())).unwrap_or_default(),
        );
        let grants_before = || {
            let place = (namespace.to_owned(), spec.lease.clone());
            self.names.get(&place).map_or(0, |name| name.grants.len())
        };
        let asked = match self.requests.get_mut(&uid) {
            Some(asked) => asked,
            None => {
                let grants_before = grants_before();
                self.figures.requests += 1;
                self.requests.entry(uid).or_insert(Asked {
                    lease,
                    holder: spec.holder.clone(),
                    priority: spec.priority,
                    timeout: spec.timeout.as_deref().and_then(|timeout| parse_duration(timeout).ok()),
                    renewals: spec.renewals,
                    touched: seen,
                    created: request.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond()),
                    sequence: None,
                    phase: None,
                    revision: 0,
                    last: Evidence::default(),
                    gone: None,
                    unsure: false,
                    grants_before,
                })
            }
        };
        asked.unsure = false;
        if revision < asked.revision || asked.gone.is_some() {
            return;
        }
        if spec.renewals > asked.renewals {
            (asked.renewals, asked.touched) = (spec.renewals, seen);
        }
        asked.revision = revision;
        asked.phase = phase.or(asked.phase);
        asked.sequence = status.and_then(|status| status.sequence).or(asked.sequence);
        asked.last = Evidence::new(revision, seen, says);
        if gone {
            asked.gone = Some(Gone { seen });
        }
    }

    fn lease(
        &mut self,
        place: (String, String),
        revision: i64,
        seen: Option<i64>,
        change: Change,
        first: bool,
        lease: &Lease,
    ) {
        let mut name = self.names.remove(&place).unwrap_or_default();
        let mut found = Found::new();
        let evidence = Evidence::new(revision, seen, shown(change, lease));
        if change == Change::Deleted {
            deleted(&mut name, &mut self.holds, revision);
        } else {
            if change == Change::Created {
                // Its deletion was not seen.
                deleted(&mut name, &mut self.holds, revision);
            }
            let first = (first || name.blind) && change == Change::Updated;
            if first {
                name.untold = None;
                if name.token > 0 || name.blind {
                    self.unjudged(Unjudged::WritesMissed);
                }
            }
            name.blind = false;
            self.state(&place, &mut name, revision, seen, change, first, lease, &evidence, &mut found);
            name.revision = revision;
        }
        for (rule, what, before) in found {
            let (namespace, lease) = place.clone();
            self.violations.push(Violation { rule, revision, namespace, lease, what, before, event: evidence.clone() });
        }
        name.last = evidence;
        self.names.insert(place, name);
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of one event, used nowhere else")]
    fn state(
        &mut self,
        place: &(String, String),
        name: &mut Name,
        revision: i64,
        seen: Option<i64>,
        change: Change,
        first: bool,
        lease: &Lease,
        evidence: &Evidence,
        found: &mut Found,
    ) {
        let last = Some(name.last.clone());
        let holding = holding(lease).unwrap_or_else(|missing| {
            found.push((Rule::IncompleteHold, missing, None));
            None
        });
        let status = lease.status.as_ref();
        let token = status.and_then(|status| status.fencing_token);
        if let Some(token) = token.filter(|&token| token < name.token) {
            let what = format!("the token goes back from {} to {token}", name.token);
            found.push((Rule::TokenDoesNotRise, what, Some(name.token_seen.clone())));
        }
        if change == Change::Updated && token.is_none() && name.current.is_some() {
            found.push((Rule::TokenDoesNotRise, "the token of a hold is forgotten".to_owned(), last.clone()));
        }
        let history = status.map(|status| status.history.as_slice()).unwrap_or_default();
        let mut news = Vec::new();
        for past in history {
            match name.told.get(&past.token) {
                None => {
                    name.told.insert(past.token, (past.clone(), evidence.clone()));
                    news.push(past);
                }
                Some((told, _)) if told == past => {}
                Some((told, by)) => {
                    let what = format!("the history is rewritten: {told:?} becomes {past:?}");
                    found.push((Rule::HistoryRewritten, what, Some(by.clone())));
                }
            }
        }

        let same = name
            .current
            .filter(|&index| holding.as_ref().is_some_and(|new| self.holds[index].holding.token == new.token));
        if let (Some(index), Some(new)) = (same, &holding) {
            let old = &self.holds[index].holding;
            for (what, changed) in [
                ("holder", old.holder != new.holder),
                ("request", old.request != new.request),
                ("time of acquisition", old.acquired != new.acquired),
            ] {
                if changed {
                    let what = format!("the {what} changes without a new token: {old:?} becomes {new:?}");
                    found.push((Rule::HoldChanges, what, last.clone()));
                }
            }
            if new.expires < old.expires {
                let what = format!("the expiry goes back: {old:?} becomes {new:?}");
                found.push((Rule::HoldChanges, what, last.clone()));
            }
            if new.renewals < old.renewals {
                let what = format!("the renewals go back: {old:?} becomes {new:?}");
                found.push((Rule::HoldChanges, what, last.clone()));
            }
            if new.expires != old.expires {
                name.promised = seen.filter(|_| !first).and_then(|seen| Some((seen, promised(lease, new)?)));
            }
            self.holds[index].holding = new.clone();
        } else {
            let ended = name.current.take();
            if let Some(index) = ended {
                self.holds[index].over = Some(revision);
                name.untold = (!first).then_some(index);
            }
            if let Some(new) = &holding {
                self.new_hold(place, name, revision, seen, first, ended, lease, new, evidence, found);
            } else {
                let holder = status.and_then(|status| status.holder.as_deref()).filter(|holder| !holder.is_empty());
                if status.and_then(|status| status.phase) == Some(LeasePhase::Expired) && holder.is_some() {
                    found.push((Rule::IncompleteHold, "Expired, and somebody holds it".to_owned(), None));
                }
            }
        }
        if let Some(token) = token.filter(|&token| token > name.token) {
            (name.token, name.token_seen) = (token, evidence.clone());
        }
        if first {
            name.unseen_to = name.token;
        }
        for past in news {
            self.told(name, past, seen, first, found);
        }
        if name.untold.is_some_and(|index| self.holds[index].how.is_some()) {
            name.untold = None;
        }
    }

    /// What the history tells for the first time has to fit the hold that was seen.
    fn told(&mut self, name: &Name, past: &PastHold, seen: Option<i64>, first: bool, found: &mut Found) {
        let last = Some(name.last.clone());
        let Some(&index) = name.by_token.get(&past.token) else {
            // A hold may have come and gone unseen; its end may be told later, after a release by force.
            if past.token > name.unseen_to {
                let what = format!("the history tells of a hold that was never granted: {past:?}");
                found.push((Rule::FalseEnding, what, last));
            }
            return;
        };
        let hold = &self.holds[index];
        if hold.how.is_some() {
            return;
        }
        if hold.over.is_none() {
            let what = format!("the history tells of the end of a hold that stands: {past:?}");
            found.push((Rule::FalseEnding, what, last.clone()));
        }
        // Who was evicted by a patch that clears the holder, and has withdrawn: a controller that did not see the hold knows
        // the request's name.
        let nameless = past.how == HoldEnd::ForceReleased && past.holder == past.request_name;
        if (past.holder != hold.holding.holder && !nameless)
            || parse_timestamp(&past.acquired) != Some(hold.holding.acquired)
        {
            found.push((Rule::FalseEnding, format!("the history tells {past:?} of {:?}", hold.holding), last.clone()));
        }
        match (past.how, parse_timestamp(&past.ended)) {
            (_, None) => found.push((Rule::FalseEnding, format!("no time: {past:?}"), None)),
            // The expiry may be by the clock of the replica that granted or renewed, the end by that of another. Nothing
            // that is stored says which replica has written.
            (HoldEnd::Expired, Some(ended))
                if hold.holding.expires.saturating_sub(ended) > self.options.max_clock_skew =>
            {
                let what = format!("expired {} ms early: {past:?}", hold.holding.expires - ended);
                found.push((Rule::EarlyExpiry, what, last));
            }
            (HoldEnd::Expired, Some(_)) => {
                // Another clock than the controller's, which may have jumped: it says neither that it is time, nor that
                // so much time has gone by.
                if let (Some(seen), Some((since, span)), false) = (seen, name.promised, first)
                    && seen + self.options.tolerance < hold.holding.expires
                    && seen - since + self.options.tolerance < span
                {
                    let what = format!(
                        "expired {} ms early by the clock of who saw it: after {} ms of {span} ms",
                        hold.holding.expires - seen,
                        seen - since
                    );
                    found.push((Rule::EarlyExpiry, what, last));
                }
            }
            (HoldEnd::Released, _) => match self.requests.get(&hold.holding.request) {
                Some(asked) if asked.gone.is_none() && !asked.unsure => {
                    let what = format!("told as released, but its request is still there: {past:?}");
                    found.push((Rule::FalseEnding, what, Some(asked.last.clone())));
                }
                Some(asked) if asked.gone.is_some() => {}
                _ => self.unjudged(Unjudged::EndingsNotSeen),
            },
            _ => {}
        }
        self.holds[index].how = Some(past.how);
    }

    fn unjudged(&mut self, why: Unjudged) {
        *self.figures.unjudged.entry(why).or_default() += 1;
    }

    fn finish(mut self) -> Report {
        // Who never got it, and stood in the line to the end.
        if self.options.order {
            let mut found = Vec::new();
            for (uid, asked) in &self.requests {
                let over = matches!(asked.phase, Some(RequestPhase::Denied | RequestPhase::Finished));
                // One with a timeout may have lapsed, and one that was told nothing may never have been looked at.
                if self.granted.contains_key(uid) || over || asked.timeout.is_some() || asked.phase.is_none() {
                    continue;
                }
                let Some((namespace, lease)) = asked.lease.split_once('/') else { continue };
                let place = (namespace.to_owned(), lease.to_owned());
                let Some(name) = self.names.get(&place) else { continue };
                let until = asked.gone.map_or(i64::MAX, |_| asked.revision);
                let end = name.grants.partition_point(|grant| grant.revision < until);
                let superseded = self.requests.iter().any(|(other_uid, other)| {
                    other_uid != uid && other.lease == asked.lease && other.holder == asked.holder
                });
                if let (Some((first, grant)), false) = (self.overtaken(&name.grants[..end], asked), superseded) {
                    found.push(Violation {
                        rule: Rule::Overtaking,
                        revision: grant.revision,
                        namespace: namespace.to_owned(),
                        lease: lease.to_owned(),
                        what: format!(
                            "{} was served, and {}, which had come earlier with the same priority, never was",
                            first.holder, asked.holder
                        ),
                        before: Some(asked.last.clone()),
                        event: grant.evidence.clone(),
                    });
                }
            }
            self.violations.extend(found);
        }
        self.violations.sort_by(|a, b| (a.revision, a.rule, &a.lease).cmp(&(b.revision, b.rule, &b.lease)));
        for hold in &self.holds {
            let how = match (hold.how, hold.over) {
                (Some(how), _) => how.as_str(),
                (None, Some(_)) => "NotSeen",
                (None, None) => "Held",
            };
            *self.figures.endings.entry(how).or_default() += 1;
        }
        self.figures.leases = self.names.len();
        self.figures.holds = self.holds.len();
        Report { holds: self.holds, violations: self.violations, figures: self.figures }
    }
}

/// The lease goes with its hold; what comes next under this name must have a higher token.
fn deleted(name: &mut Name, holds: &mut [Hold], revision: i64) {
    if let Some(hold) = name.current.take().and_then(|index| holds.get_mut(index)) {
        hold.over = Some(revision);
    }
    (name.untold, name.promised, name.revision, name.blind) = (None, None, 0, false);
}

/// How long a hold was to last when its expiry was written, by the controller's own clock.
fn promised(lease: &Lease, holding: &Holding) -> Option<i64> {
    let renewed = lease.status.as_ref()?.renewed.as_deref().and_then(parse_timestamp);
    match renewed {
        Some(renewed) => Some(holding.expires - renewed),
        None if holding.renewals == 0 => Some(holding.expires - holding.acquired),
        None => None,
    }
}

/// A resourceVersion as a number; 0 if there is none.
fn version(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A state of a lease in a line.
fn shown(change: Change, lease: &Lease) -> String {
    if change == Change::Deleted {
        return "the lease is deleted".to_owned();
    }
    let Some(status) = &lease.status else { return "the lease has no status".to_owned() };
    let phase = status.phase.unwrap_or_default();
    let token = status.fencing_token.unwrap_or_default();
    let mut text = match (phase, &status.holder) {
        (LeasePhase::Held, Some(holder)) => format!(
            "Held by {holder}, token {token}, from {} to {}",
            status.acquired.as_deref().unwrap_or("?"),
            status.expires.as_deref().unwrap_or("?"),
        ),
        _ => format!("{}, token {token}", phase.as_str()),
    };
    if let Some(past) = status.history.first() {
        text.push_str(&format!(
            "; before: {} with token {}, {} at {}",
            past.holder,
            past.token,
            past.how.as_str(),
            past.ended
        ));
    }
    text
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
