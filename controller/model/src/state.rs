//! The state of the little world. Everything is small, copied and counted relative to now, so that
//! two states that differ only in when they are reached are one.

use std::fmt;

/// The most LeaseRequests that there are in one run.
pub(crate) const REQUESTS: usize = 3;
/// Requests of holds that were over before the run began, and are gone: their indexes begin here.
pub(crate) const GONE: u8 = 8;
/// As many holds as a history has.
pub(crate) const HISTORY: usize = konductor_core::HISTORY_MAX;
/// Where times stop to be counted down: further back makes no difference to anybody.
pub(crate) const LONG_AGO: i8 = -2;
/// Where ages stop to be counted up.
pub(crate) const OLD: u8 = 3;

/// A set of requests, by index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Set(pub(crate) u16);

impl Set {
    pub(crate) fn has(self, k: u8) -> bool {
        self.0 & (1 << k) != 0
    }
    pub(crate) fn add(&mut self, k: u8) {
        self.0 |= 1 << k;
    }
    pub(crate) fn remove(&mut self, k: u8) {
        self.0 &= !(1 << k);
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..16).filter(|k| self.has(*k))).finish()
    }
}

/// What a request's status says, and what an answer would make it say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub(crate) enum Said {
    #[default]
    Nothing,
    Pending,
    NoLease,
    Granted(u8),
    Denied,
    Finished,
}

impl Said {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Denied | Self::Finished)
    }
    /// Whether both are the same phase of a LeaseRequest, for the same reason.
    pub(crate) fn is_told_as(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A LeaseRequest as the API server has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Obj {
    pub(crate) version: u8,
    pub(crate) renewals: u8,
    pub(crate) said: Said,
    /// status.sequence; 0: not told.
    pub(crate) sequence: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Slot {
    NotYet,
    There(Obj),
    Gone,
}

impl Slot {
    pub(crate) fn there(self) -> Option<Obj> {
        match self {
            Self::There(obj) => Some(obj),
            Self::NotYet | Self::Gone => None,
        }
    }
}

/// A Lease object. The spec is the configuration's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Lease {
    pub(crate) uid: u8,
    pub(crate) version: u8,
    pub(crate) token: u8,
    pub(crate) state: Status,
    /// Requests, newest first; filled up with 255.
    pub(crate) history: [u8; HISTORY],
    /// The requests that were made before it.
    pub(crate) older: Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Status {
    Available,
    Held(Hold),
    Expired(i8),
    Evicted(Hold),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Hold {
    pub(crate) request: u8,
    /// In ticks from now, if the writer's wall clock was right.
    pub(crate) expires: i8,
    /// From when that was said to `expires`.
    pub(crate) length: u8,
    pub(crate) renewals: u8,
    pub(crate) acted_on: u8,
    /// When `expires` was computed.
    pub(crate) counted: u8,
    pub(crate) preemption: Option<Preemption>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Preemption {
    pub(crate) request: u8,
    pub(crate) deadline: i8,
    pub(crate) force: bool,
}

impl Lease {
    pub(crate) fn held(&self) -> Option<&Hold> {
        match &self.state {
            Status::Held(hold) => Some(hold),
            _ => None,
        }
    }
    pub(crate) fn has_held(&self, request: u8) -> bool {
        self.history.contains(&request)
    }
    /// A tick passes.
    pub(crate) fn age(&mut self) {
        let older = |at: &mut i8| *at = (*at - 1).max(LONG_AGO);
        match &mut self.state {
            Status::Available => {}
            Status::Expired(at) => older(at),
            Status::Held(hold) | Status::Evicted(hold) => {
                older(&mut hold.expires);
                if let Some(preemption) = &mut hold.preemption {
                    older(&mut preemption.deadline);
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LeaseEvent {
    Put(Lease),
    Deleted(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum RequestEvent {
    Put(u8, Obj),
    /// The request, and the version of its deletion.
    Deleted(u8, u8),
}

/// When a hold is due by a controller's monotonic clock, and of which hold that was said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Due {
    pub(crate) token: u8,
    pub(crate) renewals: u8,
    pub(crate) at: i8,
}

impl Due {
    /// `controller/src/observe/world.rs`, `Due::after`.
    pub(crate) fn after(mut self, known: Option<Self>) -> Self {
        match known {
            Some(known) if known.token == self.token && known.renewals == self.renewals => return known,
            Some(known) if known.token == self.token => self.at = self.at.max(known.at),
            _ => {}
        }
        self
    }
}

/// A LeaseRequest in a controller's cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Cached {
    pub(crate) obj: Obj,
    /// Its place in the order of arrival.
    pub(crate) sequence: u8,
    pub(crate) untouched: u8,
}

/// A status of a request on its way to the API server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) request: u8,
    pub(crate) version: u8,
    pub(crate) said: Said,
    pub(crate) sequence: u8,
}

/// What a request was told last, and no watch has shown: whoever sees it later sees that it was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sent {
    pub(crate) said: Said,
    /// To which version of the request.
    pub(crate) to: u8,
}

/// A status of the Lease on its way to the API server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Write {
    /// The version that it is conditional on is `to.version` until it has landed.
    pub(crate) to: Lease,
    pub(crate) answers: Vec<Job>,
    /// By how much the wall clock was wrong that it was computed with.
    pub(crate) off: i8,
    /// How long ago that clock was read.
    pub(crate) age: u8,
    pub(crate) wake: Option<u8>,
    /// How the hold ends that it ends.
    pub(crate) how: Option<How>,
    /// Whether the hold that it ends was due when the clocks were read, by a clock that is right, and
    /// whether it was at the deadline of a forced preemption.
    pub(crate) due: bool,
    pub(crate) forced: bool,
    /// Whether it grants to a request of which its controller was shown that it is gone.
    pub(crate) to_a_ghost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum How {
    Released,
    Expired,
    Preempted,
    Forced,
    Superseded,
}

/// What a reconcile is about. There is one at a time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Flight {
    Nothing,
    /// The API server was asked what has become of a request, and has answered this.
    Reading(u8, Option<Obj>),
    /// It was asked for the Lease.
    ReadingLease(Option<Lease>),
    Writing(Box<Write>),
}

/// A list of requests that was taken and has not arrived yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Listing {
    pub(crate) objs: [Option<Obj>; REQUESTS],
    /// What was read beside it.
    pub(crate) found: Set,
}

/// A controller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ctrl {
    /// By how much its wall clock is ahead.
    pub(crate) off: i8,
    pub(crate) lease: Option<(Lease, Option<Due>)>,
    pub(crate) requests: [Option<Cached>; REQUESTS],
    pub(crate) deleted: Set,
    /// Up to which version the requests' watch has brought everything.
    pub(crate) seen_to: u8,
    /// How far it has read in the logs.
    pub(crate) leases_at: u8,
    pub(crate) requests_at: u8,
    pub(crate) listed: (bool, bool),
    pub(crate) listing: Option<Listing>,
    pub(crate) flight: Flight,
    /// What it has asked for, and at which version of the Lease.
    pub(crate) settled: (u8, Set),
    pub(crate) sent: [Option<Sent>; REQUESTS],
    pub(crate) jobs: Vec<Job>,
    /// Whether the key is in the queue, and when its timer fires; only where wake-ups are part of the model.
    pub(crate) queued: bool,
    pub(crate) timer: Option<u8>,
    /// A key that was pushed while it ran goes back in.
    pub(crate) again: bool,
}

impl Ctrl {
    pub(crate) fn new(off: i8) -> Self {
        Self {
            off,
            lease: None,
            requests: [None; REQUESTS],
            deleted: Set::default(),
            seen_to: 0,
            leases_at: 0,
            requests_at: 0,
            listed: (false, false),
            listing: None,
            flight: Flight::Nothing,
            settled: (0, Set::default()),
            sent: [None; REQUESTS],
            jobs: Vec::new(),
            queued: false,
            timer: None,
            again: false,
        }
    }
    pub(crate) fn synced(&self) -> bool {
        self.listed == (true, true)
    }
    pub(crate) fn push(&mut self) {
        if self.flight == Flight::Nothing { self.queued = true } else { self.again = true }
    }
}

/// What a client can read from one state of the Lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum View {
    NotMine,
    Mine { acted_on: u8, counted: u8, length: u8, renewals: u8 },
}

/// That a client relies on its hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Belief {
    pub(crate) request: u8,
    /// For how much longer, by its own clock.
    pub(crate) left: u8,
    pub(crate) renewals: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Client {
    /// How many requests it has made.
    pub(crate) made: u8,
    /// The one that it cares for.
    pub(crate) request: Option<u8>,
    pub(crate) belief: Option<Belief>,
    /// How long ago each value of the counter was sent, by its own clock.
    pub(crate) beats: Vec<u8>,
    /// What its watch will bring, and what it has brought last.
    pub(crate) views: Vec<View>,
    pub(crate) seen: View,
    /// Whether its clock has lost the tick that it may lose.
    pub(crate) slipped: bool,
    /// Whether it was told of its hold already.
    pub(crate) knew: bool,
}

impl Client {
    /// Whether it has held and does not any more: it only cleans up.
    pub(crate) fn is_over(&self) -> bool {
        self.knew && self.belief.is_none()
    }

    /// Forgets what does not matter to it any more.
    pub(crate) fn tidy(&mut self) {
        if self.is_over() {
            self.views.clear();
            self.seen = View::NotMine;
        }
        if self.knew {
            let newest = self.beats.len().saturating_sub(usize::from(!self.is_over()));
            self.beats[..newest].fill(OLD);
        }
    }
}

/// How often things that nobody needs may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) restarts: u8,
    pub(crate) timeouts: u8,
    pub(crate) lost_answers: u8,
    pub(crate) relists: u8,
    pub(crate) forces: u8,
    pub(crate) recreations: u8,
    pub(crate) renewals: u8,
    pub(crate) jumps: u8,
}

/// The whole world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) version: u8,
    pub(crate) lease: Option<Lease>,
    pub(crate) uids: u8,
    pub(crate) requests: [Slot; REQUESTS],
    pub(crate) lease_log: Vec<LeaseEvent>,
    pub(crate) request_log: Vec<RequestEvent>,
    pub(crate) ctrls: Vec<Ctrl>,
    pub(crate) clients: Vec<Client>,
    /// Writes whose controller has given up on them, and that may still arrive.
    pub(crate) adrift: Vec<Write>,
    pub(crate) budget: Budget,
    // What the run has shown, for the properties.
    pub(crate) token_max: u8,
    pub(crate) granted: Set,
    /// Whose holds were ended by force: the fencing token protects from them.
    pub(crate) excused: Set,
    /// For how much longer the hold was promised, by a clock that is right.
    pub(crate) promise: Option<i8>,
    /// In which order the requests were created.
    pub(crate) order: Vec<u8>,
    /// The property that the last step broke.
    pub(crate) broken: Option<&'static str>,
}

impl State {
    /// Renumbers versions and tokens, which only count up: what matters is their order, what is equal, and
    /// what follows directly. A token is the last one plus one, or the version that it was computed from if that
    /// is higher, so gaps are kept, if only as gaps.
    pub(crate) fn renumber(&mut self) {
        let mut used = [false; 256];
        self.numbers(&mut |n| used[usize::from(*n)] = true);
        used[0] = true;
        let mut to = [0_u8; 256];
        let (mut last, mut new) = (0, 0);
        for n in 1..256 {
            if used[n] {
                new += (n - last).min(2) as u8;
                to[n] = new;
                last = n;
            }
        }
        self.numbers(&mut |n| *n = to[usize::from(*n)]);
        // A policy may renew a hold that is due as often as it likes: the same for how often it was renewed.
        let mut used = [false; 256];
        self.renewals(&mut |n| used[usize::from(*n)] = true);
        used[0] = true;
        let (mut last, mut new) = (0, 0);
        for n in 1..256 {
            if used[n] {
                new += (n - last).min(2) as u8;
                to[n] = new;
                last = n;
            }
        }
        self.renewals(&mut |n| *n = to[usize::from(*n)]);
    }

    /// Every number of renewals in it.
    fn renewals(&mut self, of: &mut impl FnMut(&mut u8)) {
        let lease = |lease: &mut Lease, of: &mut dyn FnMut(&mut u8)| {
            if let Status::Held(hold) | Status::Evicted(hold) = &mut lease.state {
                of(&mut hold.renewals);
            }
        };
        self.lease.iter_mut().for_each(|l| lease(l, of));
        for event in &mut self.lease_log {
            if let LeaseEvent::Put(l) = event {
                lease(l, of);
            }
        }
        self.adrift.iter_mut().for_each(|w| lease(&mut w.to, of));
        for ctrl in &mut self.ctrls {
            if let Some((l, due)) = &mut ctrl.lease {
                lease(l, of);
                due.iter_mut().for_each(|due| of(&mut due.renewals));
            }
            match &mut ctrl.flight {
                Flight::Nothing | Flight::Reading(..) | Flight::ReadingLease(None) => {}
                Flight::ReadingLease(Some(l)) => lease(l, of),
                Flight::Writing(w) => lease(&mut w.to, of),
            }
        }
        for client in &mut self.clients {
            for view in client.views.iter_mut().chain([&mut client.seen]) {
                if let View::Mine { renewals, .. } = view {
                    of(renewals);
                }
            }
            client.belief.iter_mut().for_each(|belief| of(&mut belief.renewals));
        }
    }

    /// Every version and token in it.
    fn numbers(&mut self, of: &mut impl FnMut(&mut u8)) {
        let lease = |lease: &mut Lease, of: &mut dyn FnMut(&mut u8)| {
            of(&mut lease.version);
            of(&mut lease.token);
        };
        let obj = |obj: &mut Obj, of: &mut dyn FnMut(&mut u8)| {
            of(&mut obj.version);
            of(&mut obj.sequence);
            said(&mut obj.said, of);
        };
        fn said(said: &mut Said, of: &mut dyn FnMut(&mut u8)) {
            if let Said::Granted(token) = said {
                of(token);
            }
        }
        let job = |job: &mut Job, of: &mut dyn FnMut(&mut u8)| {
            of(&mut job.version);
            of(&mut job.sequence);
            said(&mut job.said, of);
        };
        let write = |write: &mut Write, of: &mut dyn FnMut(&mut u8)| {
            lease(&mut write.to, of);
            write.answers.iter_mut().for_each(|j| job(j, of));
        };
        of(&mut self.version);
        of(&mut self.token_max);
        self.lease.iter_mut().for_each(|l| lease(l, of));
        for slot in &mut self.requests {
            if let Slot::There(o) = slot {
                obj(o, of);
            }
        }
        for event in &mut self.lease_log {
            if let LeaseEvent::Put(l) = event {
                lease(l, of);
            }
        }
        for event in &mut self.request_log {
            match event {
                RequestEvent::Put(_, o) => obj(o, of),
                RequestEvent::Deleted(_, version) => of(version),
            }
        }
        self.adrift.iter_mut().for_each(|w| write(w, of));
        for ctrl in &mut self.ctrls {
            of(&mut ctrl.seen_to);
            if ctrl.settled.0 != u8::MAX {
                of(&mut ctrl.settled.0);
            }
            if let Some((l, due)) = &mut ctrl.lease {
                lease(l, of);
                due.iter_mut().for_each(|due| of(&mut due.token));
            }
            for cached in ctrl.requests.iter_mut().flatten() {
                obj(&mut cached.obj, of);
                of(&mut cached.sequence);
            }
            if let Some(listing) = &mut ctrl.listing {
                listing.objs.iter_mut().flatten().for_each(|o| obj(o, of));
            }
            for sent in ctrl.sent.iter_mut().flatten() {
                said(&mut sent.said, of);
                of(&mut sent.to);
            }
            ctrl.jobs.iter_mut().for_each(|j| job(j, of));
            match &mut ctrl.flight {
                Flight::Nothing | Flight::Reading(_, None) | Flight::ReadingLease(None) => {}
                Flight::Reading(_, Some(o)) => obj(o, of),
                Flight::ReadingLease(Some(l)) => lease(l, of),
                Flight::Writing(w) => write(w, of),
            }
        }
    }
}
