//! One request for a lease, from its creation to its end.
//!
//! The uncontended path is: create the request → the controller writes the Lease → the watch tells.
//! The watch is opened together with the create. Everything else happens only when that does not end
//! it: the watch on the request (whose status ends a wait, and never begins a hold), the look whether
//! there is such a lease, and the beats that keep a waiting request alive.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use futures::StreamExt as _;
use konductor_crds::{
    Lease, LeaseRequest,
    time::{format_duration, parse_ttl},
    v1::{RequestPhase, RequestRef},
};
use kube::api::{ObjectMeta, PostParams};
use tokio::time::{Instant, sleep_until};

use super::{
    CONTROLLER_TIMEOUT, Client, FIELD_MANAGER, LEASE_LABEL, WITHDRAW_TIMEOUT,
    acquire::{Acquire, PENDING_VALIDITY, Progress, Wait},
    clock::Moment,
    creator,
    decide::{Acquiring, Grant, View, acquiring, why_not_granted},
    error::{Access, CallFailure, Error, LeaseSeen, Problem, Result, Stop},
    hold::{Beats, Hold, deadline},
    names,
    renew::Raised,
    watch::{self, From, Seen, Watch},
};
use crate::pending::{Pending, if_any};

/// The time between two beats. Three of them fit into the validity, so that one may be lost.
const BEAT: Duration = Duration::from_secs(10);
const BEAT_MIN: Duration = Duration::from_millis(100);
/// A controller answers within milliseconds. Who waits for less than this concludes nothing from its silence.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// For how long refused beats are not believed. Shorter than the longest interval: two of those are.
const REFUSAL_DOUBTED: Duration = Duration::from_secs(5);
/// How long after the create the answer may take before it is looked for elsewhere too.
const PROBE_AFTER: Duration = Duration::from_millis(50);

/// How long a create whose answer was lost may still take inside the API server.
const LATE_CREATE: Duration = Duration::from_secs(1);

/// How one request ended.
pub(super) enum Ending {
    Held(Box<Hold>),
    /// The request lapsed, although this client still wants the lease.
    Lapsed,
    Failed(Error),
}

/// An object as far as it is known.
enum Known<K> {
    Unknown,
    Gone,
    Present(Box<K>),
}

impl<K> Known<K> {
    fn view(&self) -> View<'_, K> {
        match self {
            Self::Unknown => View::Unknown,
            Self::Gone => View::Gone,
            Self::Present(object) => View::Present(object),
        }
    }

    fn present(&self) -> Option<&K> {
        match self {
            Self::Present(object) => Some(object),
            Self::Unknown | Self::Gone => None,
        }
    }
}

/// One request, from its creation to its end.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    want: &'a Acquire,
    doing: &'a str,
    beats: Beats,
    request: String,
    until: Option<Instant>,
    create: Option<Pending<Result<LeaseRequest, CallFailure>>>,
    created: Option<Created>,
    lease: Known<Lease>,
    own: Known<LeaseRequest>,
    outage: bool,
    /// Whether a controller has said something to the request.
    answered: bool,
}

struct Created {
    uid: String,
    version: String,
}

impl std::convert::From<LeaseRequest> for Created {
    fn from(request: LeaseRequest) -> Self {
        let LeaseRequest { metadata: ObjectMeta { uid, resource_version, .. }, .. } = request;
        Self { uid: uid.unwrap_or_default(), version: resource_version.unwrap_or_default() }
    }
}

/// The value that a beat raised the counter to, when it was sent, and what came of it.
type Beaten = (i64, Moment, Raised);

async fn next_if_any<K>(watch: &mut Option<Watch<K>>) -> Option<Result<Seen<K>, CallFailure>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until an instant that may not be set.
async fn at_if_any(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<'a> Attempt<'a> {
    /// A request named `request` that waits at most until `until`. Nothing is sent yet.
    pub(super) fn new(
        client: &'a Client,
        want: &'a Acquire,
        doing: &'a str,
        request: String,
        until: Option<Instant>,
    ) -> Self {
        Self {
            client,
            want,
            doing,
            beats: Beats::new(client.clock.now()),
            request,
            until,
            create: None,
            created: None,
            lease: Known::Unknown,
            own: Known::Unknown,
            outage: false,
            answered: false,
        }
    }

    pub(super) async fn run<S: Future<Output = Stop>>(
        mut self,
        mut stop: Pin<&mut S>,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Ending {
        self.create = Some(self.create());
        let mut lease_watch = Some(self.client.watch_from(&self.want.lease, From::Now));
        let mut own_watch: Option<Watch<LeaseRequest>> = None;
        let mut look: Option<Pending<Result<Lease, CallFailure>>> = None;
        let mut beat: Option<Pending<Result<Beaten, CallFailure>>> = None;
        let mut probe_at: Option<Instant> = None;
        let mut silence_at: Option<Instant> = None;
        // When the last beat was sent, and how much of the interval the next one lets pass.
        let mut beaten_at: Option<(Instant, f64)> = None;
        let mut refused_since: Option<Instant> = None;

        loop {
            if let Some(created) = &self.created {
                match acquiring(&created.uid, self.lease.view(), self.own.view()) {
                    Acquiring::Wait { contended, answered } => {
                        if contended && own_watch.is_none() {
                            own_watch = Some(self.watch_own());
                        }
                        if answered {
                            self.answered = true;
                            silence_at = None;
                        }
                    }
                    // Whether the lease exists decides what a refusal means; it is looked up once.
                    Acquiring::TimedOut if matches!(self.lease, Known::Unknown) => {
                        if look.is_none() {
                            look = Some(self.look());
                        }
                    }
                    ending => return self.end(ending, lease_watch).await,
                }
            }
            // Reckoned anew every time: which ttl counts is known only when the lease is seen.
            let beat_at = beaten_at.map(|(last, share)| {
                last + beat_interval(self.want.ttl.as_deref(), self.lease.present()).mul_f64(share)
            });
            tokio::select! {
                biased;
                stopped = stop.as_mut() => {
                    let error = Error::new(self.doing, Problem::Stopped(stopped));
                    return self.fail(error).await;
                }
                made = if_any(&mut self.create) => match made {
                    Ok(object) => {
                        let now = Instant::now();
                        self.created = Some(Created::from(object));
                        probe_at = Some(now + PROBE_AFTER);
                        silence_at = Some(now + CONTROLLER_TIMEOUT);
                        beaten_at = (self.want.wait != Wait::No).then(|| (now, names::jitter(&*self.client.random)));
                        progress(Progress::Requested { request: &self.request });
                    }
                    Err(failure) => return self.not_created(failure).await,
                },
                event = next_if_any(&mut lease_watch) => match event {
                    Some(Ok(Seen::Present(lease))) => {
                        progress(Progress::Waiting { lease: &lease });
                        self.lease = Known::Present(Box::new(lease));
                        self.recovered(&mut silence_at, progress);
                    }
                    Some(Ok(Seen::Gone)) => {
                        self.lease = Known::Gone;
                        self.recovered(&mut silence_at, progress);
                    }
                    Some(Ok(Seen::Trouble(why))) => self.trouble(&why, progress),
                    Some(Err(failure)) => return self.fail_call(failure).await,
                    None => lease_watch = None,
                },
                event = next_if_any(&mut own_watch) => match event {
                    Some(Ok(Seen::Present(request))) => {
                        self.see_own(request);
                        self.recovered(&mut silence_at, progress);
                    }
                    Some(Ok(Seen::Gone)) => self.own = Known::Gone,
                    Some(Ok(Seen::Trouble(why))) => self.trouble(&why, progress),
                    Some(Err(failure)) => return self.fail_call(failure).await,
                    None => own_watch = None,
                },
                looked = if_any(&mut look) => match looked {
                    Ok(lease) if matches!(self.lease, Known::Unknown) => self.lease = Known::Present(Box::new(lease)),
                    Ok(_) => {}
                    Err(failure) if failure.is_object_missing() => self.lease = Known::Gone,
                    // The watch will tell, or fail in its own way.
                    Err(failure) if failure.is_transient() => {}
                    Err(failure) => return self.fail_call(failure).await,
                },
                beaten = if_any(&mut beat) => match beaten {
                    Ok((counter, sent, raised)) => {
                        refused_since = None;
                        match raised {
                            Raised::Done(request) => {
                                self.beats.raised(counter, sent);
                                self.see_own(*request);
                            }
                            Raised::Stands(stands) => {
                                self.beats.stands(stands);
                                beat = Some(self.beat());
                            }
                            Raised::Gone => self.own = Known::Gone,
                        }
                        self.recovered(&mut silence_at, progress);
                    }
                    Err(failure) if failure.is_transient() => {
                        self.trouble(&format!("{} failed", failure.access), progress);
                    }
                    // An API server that has just started refuses everybody until it has read its access rules.
                    Err(failure)
                        if failure.is_refusal()
                            && refused_since.get_or_insert_with(Instant::now).elapsed() < REFUSAL_DOUBTED => {}
                    Err(failure) => return self.fail_call(failure).await,
                },
                () = at_if_any(probe_at) => {
                    probe_at = None;
                    if own_watch.is_none() {
                        own_watch = Some(self.watch_own());
                    }
                    if matches!(self.lease, Known::Unknown) && look.is_none() {
                        look = Some(self.look());
                    }
                }
                () = at_if_any(beat_at) => {
                    beaten_at = Some((Instant::now(), names::jitter(&*self.client.random)));
                    if beat.is_none() {
                        beat = Some(self.beat());
                    }
                }
                // An API server that is away is not an absent controller, where there is time to wait.
                () = at_if_any(silence_at), if !(self.outage && self.want.wait != Wait::No) => {
                    return self.silence().await;
                }
                () = at_if_any(self.until) => {
                    return self.too_late().await;
                }
            }
        }
    }

    fn object(&self) -> LeaseRequest {
        let mut labels = BTreeMap::new();
        if names::is_label_value(&self.want.lease) {
            labels.insert(LEASE_LABEL.to_owned(), self.want.lease.clone());
        }
        LeaseRequest {
            metadata: ObjectMeta {
                name: Some(self.request.clone()),
                namespace: Some(self.client.namespace.clone()),
                labels: (!labels.is_empty()).then_some(labels),
                owner_references: self.client.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: self.want.spec(),
            status: None,
        }
    }

    fn create(&self) -> Pending<Result<LeaseRequest, CallFailure>> {
        let client = self.client.clone();
        let mut object = self.object();
        Box::pin(async move {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            let mut made = client.call(Access::requests("create"), || client.requests.create(&params, &object)).await;
            if made.as_ref().is_err_and(creator::is_asked_for) && creator::sign(&client, &mut object).await {
                made = client.call(Access::requests("create"), || client.requests.create(&params, &object)).await;
            }
            let failure = match made {
                Ok(created) => return Ok(created),
                Err(failure) => failure,
            };
            if failure.status().is_some_and(kube::core::Status::is_already_exists) {
                // The name is random: it is ours, from a try whose answer was lost.
                let name = object.metadata.name.as_deref().unwrap_or_default();
                let found = client.call(Access::requests("get"), || client.requests.get(name)).await;
                if let Some(found) = found.ok().filter(|found| found.spec == object.spec) {
                    return Ok(found);
                }
            }
            Err(failure)
        })
    }

    fn watch_own(&self) -> Watch<LeaseRequest> {
        let version = self.created.as_ref().map(|created| created.version.clone());
        let from = version.filter(|version| !version.is_empty()).map_or(From::Now, From::After);
        watch::object(self.client.requests.clone(), &self.request, from, Access::requests, self.client.random.clone())
    }

    fn look(&self) -> Pending<Result<Lease, CallFailure>> {
        let (client, name) = (self.client.clone(), self.want.lease.clone());
        Box::pin(async move { client.call(Access::leases("get"), || client.leases.get(&name)).await })
    }

    /// Says that somebody still waits.
    fn beat(&self) -> Pending<Result<Beaten, CallFailure>> {
        let (counter, sent) = (self.beats.next(), self.client.clock.now());
        let uid = self.created.as_ref().map(|created| created.uid.clone()).unwrap_or_default();
        let (client, name) = (self.client.clone(), self.request.clone());
        Box::pin(async move { Ok((counter, sent, client.raise(&name, &uid, counter).await?)) })
    }

    /// Takes over what is newer: a request that has ended does not come back.
    fn see_own(&mut self, request: LeaseRequest) {
        let ended = |request: &LeaseRequest| {
            let phase = request.status.as_ref().and_then(|status| status.phase);
            matches!(phase, Some(RequestPhase::Denied | RequestPhase::Finished))
        };
        if matches!(self.own, Known::Gone) || self.own.present().is_some_and(ended) {
            return;
        }
        self.own = Known::Present(Box::new(request));
    }

    fn trouble(&mut self, why: &str, progress: &mut impl FnMut(Progress<'_>)) {
        if !std::mem::replace(&mut self.outage, true) {
            progress(Progress::Outage { why });
        }
    }

    fn recovered(&mut self, silence_at: &mut Option<Instant>, progress: &mut impl FnMut(Progress<'_>)) {
        if std::mem::replace(&mut self.outage, false) {
            progress(Progress::Recovered);
            if silence_at.is_some() {
                *silence_at = Some(Instant::now() + CONTROLLER_TIMEOUT);
            }
        }
    }

    fn seen(&self) -> Box<LeaseSeen> {
        Box::new(self.lease.present().map(LeaseSeen::of).unwrap_or_default())
    }

    async fn end(mut self, ending: Acquiring, watch: Option<Watch<Lease>>) -> Ending {
        let lease = self.seen();
        let problem = match ending {
            Acquiring::Held(grant) => return self.held(grant, watch).await,
            // The caller's own limit has not passed, or it would have ended this.
            Acquiring::TimedOut if self.want.wait != Wait::No => {
                self.withdraw().await;
                return Ending::Lapsed;
            }
            Acquiring::TimedOut => {
                let told = self.own.present().and_then(|own| own.status.as_ref()?.message.clone());
                let why = told.filter(|_| lease.holder.is_none()).unwrap_or_else(|| "it is not free".to_owned());
                Problem::NotAcquired { why, lease }
            }
            Acquiring::Denied(reason) => Problem::Denied { reason },
            Acquiring::Crowded(why) => Problem::NotAcquired { why, lease },
            Acquiring::InvalidRequest(why) => Problem::Invalid(why),
            Acquiring::Superseded => Problem::NotAcquired {
                why: "a newer request of the same holder took its place (give every process its own --holder)"
                    .to_owned(),
                lease,
            },
            Acquiring::Withdrawn => Problem::NotAcquired { why: "somebody deleted the request".to_owned(), lease },
            Acquiring::Over(how) => {
                Problem::Lost { how: format!("it was granted and over before this was seen: {how}") }
            }
            Acquiring::NoLease => {
                let error = self.client.no_such_lease(&self.want.lease, self.doing).await;
                return self.fail(error).await;
            }
            // Only called with what is decided.
            Acquiring::Wait { .. } => Problem::Local("a wait is not an ending".to_owned()),
        };
        let error = Error::new(self.doing, problem);
        self.fail(error).await
    }

    async fn held(self, grant: Grant, watch: Option<Watch<Lease>>) -> Ending {
        let granted_after = self.beats.before_grant(grant.counted);
        let deadline = deadline(granted_after, grant.length_ms);
        if deadline <= self.client.clock.now() {
            let how = format!("it was granted until {}, and that was over before this was seen", grant.expires);
            let error = Error::new(self.doing, Problem::Lost { how });
            return self.fail(error).await;
        }
        let Some(created) = self.created else {
            return Ending::Failed(Error::new(self.doing, Problem::Local("a hold without a request".to_owned())));
        };
        Ending::Held(Box::new(Hold {
            lease: self.want.lease.clone(),
            namespace: self.client.namespace.clone(),
            holder: self.want.holder.clone(),
            request: RequestRef {
                name: self.request,
                uid: created.uid,
                renewals: grant.acted_on,
                counted: Some(grant.counted),
            },
            token: grant.token,
            acquired: grant.acquired,
            expires: grant.expires,
            ttl_ms: grant.length_ms,
            renewals: grant.renewals,
            deadline,
            counter: self.beats.last(),
            watch,
        }))
    }

    async fn silence(self) -> Ending {
        let problem = if self.outage {
            Problem::Unreachable("the watch cannot be kept open".to_owned())
        } else {
            Problem::NoController { waited: CONTROLLER_TIMEOUT, left: "the request is withdrawn".to_owned() }
        };
        let error = Error::new(self.doing, problem);
        self.fail(error).await
    }

    /// Whether no controller has looked at the request in this time, so that nobody knows whether the lease is free.
    fn is_unanswered(&self, waited: Duration) -> bool {
        waited >= ANSWERED_WITHIN && !self.answered
    }

    async fn too_late(self) -> Ending {
        let problem = match (&self.created, self.want.wait) {
            (Some(_), Wait::AtMost(limit)) => {
                match self.outage {
                    // Nobody knows whether it became free.
                    true => Problem::Unreachable("when the time was over, the watch could not be kept open".to_owned()),
                    false if self.is_unanswered(limit) => {
                        Problem::NoController { waited: limit, left: "the request is withdrawn".to_owned() }
                    }
                    false => {
                        let said = format_duration(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
                        let why = self.lease.present().and_then(why_not_granted);
                        let why = match why {
                            Some(why) => format!("it was not granted within {said}: {why}"),
                            None => format!("it did not become free within {said}"),
                        };
                        Problem::NotAcquired { why, lease: self.seen() }
                    }
                }
            }
            _ => Problem::Unreachable("it did not accept the request in time".to_owned()),
        };
        let error = Error::new(self.doing, problem);
        self.fail(error).await
    }

    async fn fail_call(self, failure: CallFailure) -> Ending {
        let error = Error::from_call(self.doing, failure);
        self.fail(error).await
    }

    /// The create did not succeed. If the API server did not say so itself, it may have been done all the same.
    async fn not_created(self, failure: CallFailure) -> Ending {
        if failure.is_ambiguous() {
            return self.fail_call(failure).await;
        }
        Ending::Failed(Error::from_call(self.doing, failure))
    }

    /// Withdraws the request and ends with this error.
    async fn fail(mut self, error: Error) -> Ending {
        match self.withdraw().await {
            None => Ending::Failed(error),
            Some(note) => Ending::Failed(error.with_note(note)),
        }
    }

    /// Withdraws the request, in a time of its own; if it was granted in this very moment, that
    /// releases the lease. Returns what is left behind, if anything.
    async fn withdraw(&mut self) -> Option<String> {
        let request = self.request.clone();
        match tokio::time::timeout(WITHDRAW_TIMEOUT, self.withdrawn()).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) | Err(_) if self.created.is_none() => None,
            Ok(Err(_)) | Err(_) => Some(format!(
                "the request {request} could not be withdrawn: unless it is granted it lapses within {PENDING_VALIDITY}; delete it with: kubectl delete klr {request} -n {}",
                self.client.namespace
            )),
        }
    }

    async fn withdrawn(&mut self) -> Result<(), CallFailure> {
        // A create on its way would come after its own deletion.
        if let Some(create) = self.create.take() {
            self.created = create.await.ok().map(Created::from);
        }
        if let Some(created) = &self.created {
            return self.client.delete_request(&self.request, Some(&created.uid)).await;
        }
        // The answer to the create was lost. Its name is random, so there is no other; and it may
        // still be on its way inside the API server.
        self.client.delete_request(&self.request, None).await?;
        tokio::time::sleep(LATE_CREATE).await;
        self.client.delete_request(&self.request, None).await
    }
}

/// Every ten seconds; more often for a short ttl, because a grant's deadline is counted from the
/// last beat before it. The ttl that counts is the shorter of what is asked for and the lease's.
fn beat_interval(asked: Option<&str>, lease: Option<&Lease>) -> Duration {
    let known = [asked, lease.map(|lease| lease.spec.ttl.as_str())];
    let shortest = known.into_iter().flatten().filter_map(|ttl| u64::try_from(parse_ttl(ttl).ok()?).ok()).min();
    shortest.map_or(BEAT, |ms| Duration::from_millis(ms) / 3).clamp(BEAT_MIN, BEAT)
}

#[cfg(test)]
mod tests;
