//! Many clients on few leases, with two controllers that both decide: whatever happens, never two holders.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream};
use konductor_crds::{
    Lease, LeaseRequest, LeaseRequestSpec,
    v1::{HoldEnd, LeasePhase, RequestPhase},
};
use konductor_tests::*;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde_json::json;
use tokio::sync::watch;

/// How long a live waiter may have to wait, API servers that are killed and holds that have to run out included.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// Short, so that abandoned holds run out while the test lasts.
pub(crate) const TTL: &str = "600ms";

/// A storm: its clients and what they see.
pub(crate) struct Storm<'p> {
    user: User<'p>,
    operator: User<'p>,
    leases: Vec<String>,
    seen: Mutex<Seen>,
    news: watch::Sender<()>,
    enough: AtomicBool,
}

/// What two watches have shown.
#[derive(Default)]
struct Seen {
    leases: BTreeMap<String, Lease>,
    requests: BTreeMap<String, Option<LeaseRequest>>,
    /// The uid of every request that was ever seen to hold a lease.
    granted: BTreeSet<String>,
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It holds the lease.
    Held,
    /// It was denied, has held the lease, or can never hold it any more.
    Over,
}

impl Seen {
    fn holds(&self, lease: &str, uid: &str) -> Option<i64> {
        let status = self.leases.get(lease)?.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held))?;
        status.request.as_ref().filter(|request| request.uid == uid).map(|request| request.renewals)
    }

    fn fate(&self, lease: &str, uid: &str) -> Option<Fate> {
        if self.holds(lease, uid).is_some() {
            return Some(Fate::Held);
        }
        let phase = |request: &LeaseRequest| request.status.as_ref().and_then(|status| status.phase);
        let over = match self.requests.get(uid) {
            Some(Some(request)) => matches!(phase(request), Some(RequestPhase::Denied | RequestPhase::Finished)),
            Some(None) => true,
            None => false,
        };
        (over || self.granted.contains(uid)).then_some(Fate::Over)
    }
}

impl<'p> Storm<'p> {
    /// Makes the leases and the users.
    pub(crate) async fn new(team: &Namespace<'p>, leases: &[&str]) -> Self {
        for lease in leases {
            team.create_lease(lease, TTL).await;
        }
        Self {
            user: team.user(&["konductor-lease-user"]).await,
            operator: team.user(&["konductor-lease-operator"]).await,
            leases: leases.iter().map(|&lease| lease.to_owned()).collect(),
            seen: Mutex::default(),
            news: watch::channel(()).0,
            enough: AtomicBool::new(false),
        }
    }

    /// Lets clients rage while `meanwhile` goes on. Then each of them asks once more, and each is served.
    pub(crate) async fn rages(&self, clients: u64, meanwhile: impl Future<Output = ()>) {
        let raging = join_all((0..clients).map(|number| async move {
            let mut client = Client::new(self, number);
            while !self.enough.load(Ordering::Relaxed) {
                client.turn().await;
            }
            client.is_served().await;
        }));
        let ends = async {
            meanwhile.await;
            self.enough.store(true, Ordering::Relaxed);
        };
        tokio::select! {
            _ = async { tokio::join!(raging, ends) } => {}
            () = self.look() => {}
        }
    }

    /// Waits until so many grants were seen.
    pub(crate) async fn grants(&self, count: usize) {
        self.until(&format!("{count} grants"), |seen| (seen.granted.len() >= count).then_some(())).await;
    }

    /// How many grants were seen.
    pub(crate) fn granted(&self) -> usize {
        self.seen.lock().expect("not poisoned").granted.len()
    }

    /// Waits until so many more grants were seen.
    pub(crate) async fn more_grants(&self, count: usize) {
        self.grants(self.granted() + count).await;
    }

    async fn until<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut news = self.news.subscribe();
        let (mut granted, mut until) = (0, tokio::time::Instant::now());
        loop {
            {
                let seen = self.seen.lock().expect("not poisoned");
                if let Some(value) = found(&seen) {
                    return value;
                }
                // As long as somebody is served it may take as long as it takes.
                if granted == 0 || seen.granted.len() > granted {
                    (granted, until) = (seen.granted.len().max(1), tokio::time::Instant::now() + SERVED_WITHIN);
                }
            }
            match tokio::time::timeout_at(until, news.changed()).await {
                Ok(changed) => changed.expect("the storm lasts"),
                Err(_) => {
                    let seen = self.seen.lock().expect("not poisoned");
                    let leases: Vec<_> = seen.leases.values().map(|lease| &lease.status).collect();
                    panic!("waited {SERVED_WITHIN:?} for {what}; {leases:#?}")
                }
            }
        }
    }

    /// Watches, through every restart of the API server.
    async fn look(&self) {
        let (namespace, client) = (self.user.namespace(), self.user.client());
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let requests: Api<LeaseRequest> = Api::namespaced(client.clone(), namespace);
        let leases = watcher(leases, watcher::Config::default()).default_backoff().map(|event| {
            let Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) = event else { return };
            let mut seen = self.seen.lock().expect("not poisoned");
            let status = lease.status.as_ref().filter(|status| status.phase == Some(LeasePhase::Held));
            seen.granted.extend(status.and_then(|status| status.request.as_ref()).map(|request| request.uid.clone()));
            seen.leases.insert(lease.metadata.name.clone().expect("a name"), lease);
        });
        let requests = watcher(requests, watcher::Config::default()).default_backoff().map(|event| {
            let (request, here) = match event {
                Ok(watcher::Event::Apply(request) | watcher::Event::InitApply(request)) => (request, true),
                Ok(watcher::Event::Delete(request)) => (request, false),
                _ => return,
            };
            let uid = request.metadata.uid.clone().expect("a uid");
            self.seen.lock().expect("not poisoned").requests.insert(uid, here.then_some(request));
        });
        let mut all = stream::select(leases.boxed_local(), requests.boxed_local());
        while all.next().await.is_some() {
            self.news.send_replace(());
        }
    }
}

/// One client of a storm; its requests have names, so that a create whose answer was lost can be repeated.
struct Client<'s> {
    storm: &'s Storm<'s>,
    requests: Api<LeaseRequest>,
    forced: Api<Lease>,
    name: String,
    /// It comes back under another name after it has died.
    life: u32,
    count: u32,
    dice: u64,
}

/// A request that was made.
struct Request {
    lease: String,
    name: String,
    uid: String,
}

impl<'s> Client<'s> {
    fn new(storm: &'s Storm<'_>, number: u64) -> Self {
        let namespace = storm.user.namespace();
        Self {
            storm,
            requests: Api::namespaced(storm.user.client().clone(), namespace),
            forced: Api::namespaced(storm.operator.client().clone(), namespace),
            name: format!("client-{number}"),
            life: 0,
            count: 0,
            dice: (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// A number below `sides`; the same ones in every run.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    async fn turn(&mut self) {
        let asks_for = self.roll(100);
        let timeout = match asks_for {
            0..10 => Some("0s"),
            10..15 => Some("300ms"),
            _ => None,
        };
        let request = self.asks(timeout).await;
        if (15..22).contains(&asks_for) {
            return self.leaves(&request).await;
        }
        if self.fate(&request).await == Fate::Over {
            return self.leaves(&request).await;
        }
        match self.roll(100) {
            0..15 => {
                self.renews(&request).await;
                self.leaves(&request).await;
            }
            15..27 => {
                let lease = request.lease.clone();
                let newer = self.asks_on(lease, None).await;
                self.fate(&newer).await;
                self.leaves(&newer).await;
            }
            27..33 => self.life += 1,
            33..41 => self.forces(&request).await,
            _ => self.leaves(&request).await,
        }
    }

    /// It waits as long as it takes, and is served.
    async fn is_served(&mut self) {
        let request = self.asks(None).await;
        self.fate(&request).await;
        assert!(
            self.storm.seen.lock().expect("not poisoned").granted.contains(&request.uid),
            "{} of {} was alive and never served",
            request.name,
            self.name
        );
        self.leaves(&request).await;
    }

    async fn asks(&mut self, timeout: Option<&str>) -> Request {
        let number = self.storm.leases.len() as u64;
        let index = usize::try_from(self.roll(number)).expect("small");
        self.asks_on(self.storm.leases[index].clone(), timeout).await
    }

    async fn asks_on(&mut self, lease: String, timeout: Option<&str>) -> Request {
        self.count += 1;
        let name = format!("{}-{}", self.name, self.count);
        let spec = LeaseRequestSpec {
            lease: lease.clone(),
            holder: format!("{}-{}", self.name, self.life),
            priority: (self.roll(4) == 0).then_some(1),
            timeout: timeout.map(str::to_owned),
            ..LeaseRequestSpec::default()
        };
        let request = LeaseRequest::new(&name, spec);
        let made = within(&format!("{name} is made"), SERVED_WITHIN, async || {
            match self.requests.create(&PostParams::default(), &request).await {
                Err(kube::Error::Api(status)) if status.code == 409 => self.requests.get(&name).await,
                made => made,
            }
        })
        .await;
        Request { lease, name, uid: made.metadata.uid.expect("a uid") }
    }

    async fn fate(&self, request: &Request) -> Fate {
        let what = format!("{} to be served {}", request.lease, request.name);
        self.storm.until(&what, |seen| seen.fate(&request.lease, &request.uid)).await
    }

    /// Raises the counter, and waits until that was acted on or the hold is over.
    async fn renews(&self, request: &Request) {
        let patch = Patch::Merge(json!({"spec": {"renewals": 1}}));
        let renewed = insists("a renewal", async || {
            self.requests.patch(&request.name, &PatchParams::default(), &patch).await.map(drop)
        });
        if renewed.await {
            let what = format!("the renewal of {}", request.name);
            self.storm
                .until(&what, |seen| {
                    (seen.holds(&request.lease, &request.uid).is_none_or(|acted| acted == 1)).then_some(())
                })
                .await;
        }
    }

    async fn leaves(&self, request: &Request) {
        insists("a release", async || self.requests.delete(&request.name, &DeleteParams::default()).await.map(drop))
            .await;
    }

    /// Takes the lease from whoever has it now, as kubectl would.
    async fn forces(&self, request: &Request) {
        let patch = Patch::Merge(json!({"status": {"phase": "Available", "holder": ""}}));
        insists("a forced release", async || {
            self.forced.patch_status(&request.lease, &PatchParams::default(), &patch).await.map(drop)
        })
        .await;
    }
}

/// Tries until the API server has answered; whether the object was there.
async fn insists(what: &str, mut call: impl AsyncFnMut() -> kube::Result<()>) -> bool {
    within(&format!("{what} is accepted"), SERVED_WITHIN, async || match call().await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(problem) => Err(problem),
    })
    .await
}

/// Judges everything that has happened, and says how often a hold ended how.
pub(crate) async fn judged(
    plane: &ControlPlane,
    team: &Namespace<'_>,
) -> (Vec<checker::Hold>, BTreeMap<String, usize>) {
    let history = plane.history(team).await;
    let holds = checker::check(&history).unwrap_or_else(|violations| panic!("{violations}"));
    let mut endings = BTreeMap::new();
    for hold in &holds {
        let how = hold.how.map_or("none", HoldEnd::as_str);
        *endings.entry(how.to_owned()).or_default() += 1;
    }
    (holds, endings)
}

#[tokio::test]
async fn two_controllers_at_once_never_make_two_holders() {
    let plane = ControlPlane::installed().await;
    let team = plane.namespace("team").await;
    let options = ControllerOptions::with("--leader-elect=false --max-clock-skew=0s --expired-retention=1s");
    let (one, two) = tokio::join!(
        Controller::start(&plane, options.clone().named("one")),
        Controller::start(&plane, options.named("two"))
    );

    let storm = Storm::new(&team, &["north", "east", "south", "west"]).await;
    storm.rages(32, storm.grants(400)).await;
    // What was abandoned last runs out too.
    for lease in ["north", "east", "south", "west"] {
        team.lease_is(lease, "free", |lease| lease.phase() == LeasePhase::Available).await;
    }

    let (holds, endings) = judged(&plane, &team).await;
    assert!(holds.len() >= 432, "{} grants", holds.len());
    for how in [HoldEnd::Released, HoldEnd::Expired, HoldEnd::ForceReleased, HoldEnd::Superseded] {
        assert!(endings.contains_key(how.as_str()), "no hold was {}: {endings:?}", how.as_str());
    }
    assert!(holds.iter().any(|hold| hold.holding.renewals > 0), "nobody has renewed");

    // Both took part, they got in each other's way, and each grant was counted by the one that had made it.
    let (one, two) = (one.metrics().await, two.metrics().await);
    let of = |name: &str, labels: &[(&str, &str)]| [&one, &two].map(|m| m.sum(name, labels).unwrap_or_default());
    let conflicts = of("konductor_reconciles_total", &[("outcome", "conflict")]);
    let grants = of("konductor_grants_total", &[]);
    println!("{} grants by {grants:?}, conflicts {conflicts:?}, ended {endings:?}", holds.len());
    assert!(conflicts.iter().sum::<f64>() >= 10.0, "the two hardly ever met: conflicts {conflicts:?}");
    assert!(grants.iter().all(|&grants| grants > 5.0), "one of them did it all: {grants:?}");
    assert_eq!(grants.iter().sum::<f64>(), holds.len() as f64);
    assert_eq!(of("konductor_reconciles_total", &[("outcome", "panic")]), [0.0, 0.0]);
}
