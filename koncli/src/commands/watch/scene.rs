//! What is known of leases and of those who wait: from what the API server tells to what has changed. Nothing here reads
//! a clock or writes to a terminal.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use konductor_crds::{
    Lease, LeaseRequest, LeaseStatus,
    time::format_timestamp,
    v1::{LeasePhase, RequestPhase, reasons},
};

use super::change::{Change, What};
use crate::{
    client::{Followed, in_line, is_pending},
    commands::problem::problems,
    text::similar,
};

/// The changes that are kept for the picture: more than a terminal has lines for.
const LATEST_KEPT: usize = 200;

/// More than this nobody looks through for a name that is like another.
const OTHERS_MOST: usize = 500;

/// A namespace and a name.
pub(super) type Key = (String, String);

/// What is known now.
#[derive(Debug, Default)]
pub(super) struct Scene {
    /// Only these leases; all if there are none.
    names: Vec<String>,
    leases: BTreeMap<Key, Lease>,
    /// Names of leases that were there at the beginning and are not shown: what a name that no lease has may have been
    /// meant to be.
    others: BTreeSet<String>,
    /// Requests that wait, by lease and by their own names.
    waiting: BTreeMap<Key, BTreeMap<String, LeaseRequest>>,
    /// Whether changes are told: what there is at the beginning is none.
    began: bool,
    /// Newest first.
    latest: VecDeque<Change>,
    /// Why what is shown may be old.
    trouble: Option<String>,
    /// Whether it is known who waits, and not only how many.
    knows_waiting: bool,
}

impl Scene {
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), knows_waiting: true, ..Self::default() }
    }

    /// It is not allowed to know who waits.
    pub(super) fn without_requests(&mut self) {
        self.knows_waiting = false;
    }

    /// Leases in the order in which they are shown.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Names that were asked for and that no lease has.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        let there = |name: &str| self.leases.keys().any(|(_, known)| known == name);
        self.names.iter().map(String::as_str).filter(move |name| !there(name))
    }

    /// The names of leases that a name may have been meant to be: not those that were asked for too.
    pub(super) fn similar(&self, name: &str) -> Vec<String> {
        similar(name, self.others.iter().cloned().collect())
    }

    pub(super) fn latest(&self) -> &VecDeque<Change> {
        &self.latest
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Who waits for a lease, who is served first by the built-in policy first; nothing if that may not be known.
    pub(super) fn line(&self, lease: &Lease) -> Option<Vec<&LeaseRequest>> {
        let holds = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held));
        let holding = holds.and_then(|status| status.request.as_ref()).map(|request| request.uid.as_str());
        let mut line: Vec<&LeaseRequest> = self
            .waiting
            .get(&key(&lease.metadata))
            .into_iter()
            .flat_map(BTreeMap::values)
            // The lease says first who has it; the request of that one follows.
            .filter(|request| request.metadata.uid.as_deref() != holding)
            .collect();
        in_line(lease, &mut line);
        self.knows_waiting.then_some(line)
    }

    /// How many wait for a lease.
    pub(super) fn count(&self, lease: &Lease) -> usize {
        let told = || lease.status.as_ref().and_then(|status| status.waiting).unwrap_or_default();
        self.line(lease).map_or_else(|| usize::try_from(told()).unwrap_or_default(), |line| line.len())
    }

    /// From now on changes are told. Returns what there is.
    pub(super) fn begin(&mut self, now_ms: i64) -> Vec<Change> {
        self.began = true;
        self.leases.values().map(|lease| self.current(lease, now_ms)).collect()
    }

    fn current(&self, lease: &Lease, now_ms: i64) -> Change {
        let status = lease.status.clone().unwrap_or_default();
        let held = status.phase == Some(LeasePhase::Held);
        Change {
            holder: status.holder.filter(|holder| held && !holder.is_empty()),
            expires: status.expires.filter(|_| held),
            token: status.fencing_token,
            waiting: Some(self.count(lease)),
            problems: problems(lease),
            ..change(What::Current, lease, now_ms)
        }
    }

    /// Takes in what became known of leases, and tells what has changed.
    pub(super) fn lease_event(&mut self, event: Followed<Lease>, now_ms: i64) -> Vec<Change> {
        let changes = match event {
            Followed::Listed(_, leases) => {
                self.trouble = None;
                let listed: HashSet<Key> = leases.iter().map(|lease| key(&lease.metadata)).collect();
                let gone: Vec<Key> = self.leases.keys().filter(|known| !listed.contains(*known)).cloned().collect();
                let gone: Vec<Change> = gone.into_iter().filter_map(|key| self.lease_gone(&key, now_ms)).collect();
                let there = leases.into_iter().flat_map(|lease| self.lease_is(lease, now_ms));
                gone.into_iter().chain(there.collect::<Vec<_>>()).collect()
            }
            Followed::Added(lease) | Followed::Modified(lease) => {
                self.trouble = None;
                self.lease_is(lease, now_ms)
            }
            Followed::Deleted(lease) => self.lease_gone(&key(&lease.metadata), now_ms).into_iter().collect(),
            Followed::Gap(_, why) | Followed::Trouble(why) => {
                self.trouble = Some(why);
                Vec::new()
            }
        };
        self.tell(changes)
    }

    fn lease_gone(&mut self, key: &Key, now_ms: i64) -> Option<Change> {
        self.leases.remove(key).map(|lease| change(What::Deleted, &lease, now_ms))
    }

    fn lease_is(&mut self, lease: Lease, now_ms: i64) -> Vec<Change> {
        let key = key(&lease.metadata);
        if !(self.names.is_empty() || self.names.contains(&key.1)) {
            if !self.began && self.others.len() < OTHERS_MOST {
                self.others.insert(key.1);
            }
            return Vec::new();
        }
        let before = self.leases.insert(key, lease.clone());
        match before {
            Some(before) if before.metadata.uid == lease.metadata.uid => {
                let trouble = trouble(Some(&before), &lease, now_ms);
                let old = before.status.unwrap_or_default();
                since(&old, &lease, now_ms).into_iter().chain(trouble).collect()
            }
            before => {
                let gone = before.map(|before| change(What::Deleted, &before, now_ms));
                let old = lease.status.as_ref().map(|status| LeaseStatus {
                    fencing_token: status.history.first().map(|hold| hold.token),
                    history: status.history.clone(),
                    ..LeaseStatus::default()
                });
                let granted = since(&old.unwrap_or_default(), &lease, now_ms);
                let trouble = trouble(None, &lease, now_ms);
                let created = [change(What::Created, &lease, now_ms)];
                gone.into_iter().chain(created).chain(granted).chain(trouble).collect()
            }
        }
    }

    /// Takes in what became known of requests, and tells what has changed.
    pub(super) fn request_event(&mut self, event: Followed<LeaseRequest>, now_ms: i64) -> Vec<Change> {
        let changes = match event {
            Followed::Listed(_, requests) => {
                let listed: HashSet<Option<String>> =
                    requests.iter().map(|request| request.metadata.uid.clone()).collect();
                let known = self.waiting.values().flat_map(BTreeMap::values);
                let gone: Vec<LeaseRequest> =
                    known.filter(|known| !listed.contains(&known.metadata.uid)).cloned().collect();
                let gone: Vec<Change> =
                    gone.iter().filter_map(|request| self.request_gone(request, false, now_ms)).collect();
                let there = requests.into_iter().filter_map(|request| self.request_is(request, now_ms));
                gone.into_iter().chain(there.collect::<Vec<_>>()).collect()
            }
            Followed::Added(request) | Followed::Modified(request) => {
                self.request_is(request, now_ms).into_iter().collect()
            }
            Followed::Deleted(request) => self.request_gone(&request, true, now_ms).into_iter().collect(),
            Followed::Gap(_, why) | Followed::Trouble(why) => {
                self.trouble = Some(why);
                Vec::new()
            }
        };
        self.tell(changes)
    }

    fn request_is(&mut self, request: LeaseRequest, now_ms: i64) -> Option<Change> {
        if !(self.names.is_empty() || self.names.contains(&request.spec.lease)) {
            return None;
        }
        if !is_pending(&request) {
            return self.request_gone(&request, true, now_ms);
        }
        let line = self.waiting.entry(lease_of(&request)).or_default();
        let before = line.insert(request.metadata.name.clone().unwrap_or_default(), request.clone());
        // One that gets the lease at once has not waited. The place costs as much as the line is long, and there is no
        // change to tell before it has begun.
        if before.as_ref().is_some_and(has_waited) || !has_waited(&request) || !self.began {
            return None;
        }
        let line = self.leases.get(&lease_of(&request)).and_then(|lease| self.line(lease)).unwrap_or_default();
        let place = line.iter().position(|other| other.metadata.uid == request.metadata.uid);
        Some(Change {
            place: place.map(|before| before + 1),
            waiting: Some(line.len().max(1)),
            reason: said(&request).map(str::to_owned),
            ..of_request(What::Waiting, &request, now_ms)
        })
    }

    /// A request waits no more. `is_last` says whether `request` is what it has become, and not what it was before.
    /// Who was granted the lease is told by the lease.
    fn request_gone(&mut self, request: &LeaseRequest, is_last: bool, now_ms: i64) -> Option<Change> {
        let lease = lease_of(request);
        let line = self.waiting.get_mut(&lease)?;
        let before = line.remove(request.metadata.name.as_deref().unwrap_or_default())?;
        if line.is_empty() {
            self.waiting.remove(&lease);
        }
        let status = self.leases.get(&lease).and_then(|lease| lease.status.as_ref());
        let uid = request.metadata.uid.as_deref();
        // It may have been granted and be over by now.
        let was_granted = status.is_some_and(|status| {
            status.request.as_ref().is_some_and(|request| Some(request.uid.as_str()) == uid)
                || status.history.iter().any(|hold| Some(hold.request.as_str()) == uid)
        });
        let told = request.status.clone().filter(|_| is_last).unwrap_or_default();
        if was_granted || told.phase == Some(RequestPhase::Granted) || told.fencing_token.is_some() {
            return None;
        }
        let what = if told.phase == Some(RequestPhase::Denied) { What::Denied } else { What::Left };
        if what == What::Left && !has_waited(&before) {
            return None;
        }
        let decided = matches!(told.phase, Some(RequestPhase::Denied | RequestPhase::Finished));
        Some(Change {
            reason: told.message.filter(|message| decided && !message.is_empty()),
            ..of_request(what, request, now_ms)
        })
    }

    fn tell(&mut self, changes: Vec<Change>) -> Vec<Change> {
        if !self.began {
            return Vec::new();
        }
        for change in &changes {
            self.latest.push_front(change.clone());
        }
        self.latest.truncate(LATEST_KEPT);
        changes
    }
}

/// Whether a controller has told a request to wait.
fn has_waited(request: &LeaseRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.phase == Some(RequestPhase::Pending))
}

/// What one who waits was told, beyond that it waits.
pub(super) fn said(request: &LeaseRequest) -> Option<&str> {
    let status = request.status.as_ref().filter(|status| status.reason.as_deref() != Some(reasons::WAITING))?;
    status.message.as_deref().filter(|message| !message.is_empty())
}

/// The lease that a request asks for.
fn lease_of(request: &LeaseRequest) -> Key {
    (request.metadata.namespace.clone().unwrap_or_default(), request.spec.lease.clone())
}

/// The namespace and the name of an object.
fn key(metadata: &kube::api::ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn change(what: What, lease: &Lease, now_ms: i64) -> Change {
    let (namespace, lease) = key(&lease.metadata);
    Change::new(what, format_timestamp(now_ms), namespace, lease)
}

fn of_request(what: What, request: &LeaseRequest, now_ms: i64) -> Change {
    let namespace = request.metadata.namespace.clone().unwrap_or_default();
    Change {
        holder: Some(request.spec.holder.clone()),
        ..Change::new(what, format_timestamp(now_ms), namespace, request.spec.lease.clone())
    }
}

/// Whether something else is wrong with a lease than was. Other words for the same, such as of a policy that fails each
/// time it is asked, are no change.
fn trouble(old: Option<&Lease>, lease: &Lease, now_ms: i64) -> Option<Change> {
    let (before, problems) = (old.map(problems).unwrap_or_default(), problems(lease));
    let before = before.iter().map(|problem| (problem.condition, &problem.reason));
    if before.eq(problems.iter().map(|problem| (problem.condition, &problem.reason))) {
        return None;
    }
    let what = if problems.is_empty() { What::Mended } else { What::Problem };
    Some(Change { problems, ..change(what, lease, now_ms) })
}

/// What has happened to a lease since its status was `old`: every hold that began or ended, in order, also those that
/// began and ended in between.
fn since(old: &LeaseStatus, lease: &Lease, now_ms: i64) -> Vec<Change> {
    let Some(status) = &lease.status else { return Vec::new() };
    let known = old.fencing_token.unwrap_or_default();
    let ended = old.history.first().map_or(0, |hold| hold.token);
    let mut changes: Vec<Change> = Vec::new();
    let granted = |changes: &mut Vec<Change>, holder: &str, token: i64, expires: Option<String>| {
        // An end and the next beginning that become known together are a hand-over.
        let from = changes.pop_if(|last| last.what == What::Ended);
        changes.push(Change {
            holder: Some(holder.to_owned()),
            token: Some(token),
            expires,
            how: from.as_ref().and_then(|from| from.how),
            from: from.as_ref().and_then(|from| from.holder.clone()),
            ..change(if from.is_some() { What::HandedOver } else { What::Granted }, lease, now_ms)
        });
    };
    for hold in status.history.iter().rev().filter(|hold| hold.token > ended) {
        if hold.token > known {
            granted(&mut changes, &hold.holder, hold.token, None);
        }
        changes.push(Change {
            holder: Some(hold.holder.clone()),
            token: Some(hold.token),
            how: Some(hold.how),
            ..change(What::Ended, lease, now_ms)
        });
    }
    let token = status.fencing_token.unwrap_or_default();
    if status.phase == Some(LeasePhase::Held) && token > known {
        granted(&mut changes, status.holder.as_deref().unwrap_or_default(), token, status.expires.clone());
    }
    if let Some(asked) = status.preemption.as_ref().filter(|asked| {
        let before = old.preemption.as_ref().map(|before| before.request.as_str());
        before != Some(asked.request.as_str())
    }) {
        changes.push(Change {
            holder: Some(asked.by.clone()),
            from: status.holder.clone(),
            expires: Some(asked.deadline.clone()),
            reason: asked.reason.clone(),
            ..change(What::AskedBack, lease, now_ms)
        });
    }
    changes
}

#[cfg(test)]
#[path = "scene_tests.rs"]
pub(super) mod tests;
