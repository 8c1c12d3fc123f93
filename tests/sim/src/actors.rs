//! Who takes part: clients of the library, an operator, controllers, and what befalls them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use koncli::client::{Acquire, Client, Clock as _, Hold, Problem, Randomness, Stop, Wait};
use konductor_controller::{
    decide::Calls,
    replica::{Replica, Surroundings},
    report::Metrics,
};
use konductor_core::{Millis, Settings};
use konductor_crds::{Lease, LeaseRequest, LeaseSpec, v1::RequestPhase};
use konductor_policy::Host;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};

use crate::{
    Mutant, NAMESPACE,
    clock::MachineClock,
    plan::{LeasePlan, Plan},
    scene::{BeliefId, Scene},
    server::Link,
};

/// Chance for the client library.
struct Seeded(Mutex<fastrand::Rng>);

impl Randomness for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }
}

/// A process that can be stopped for a while (SIGSTOP, a long pause of its garbage collector), and killed.
#[derive(Default)]
pub struct Process {
    stopped_until: Mutex<Option<Instant>>,
    killed: Notify,
}

impl Process {
    /// Nothing of it runs for so long.
    pub fn stop(&self, span: Duration) {
        *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + span);
    }

    /// It runs again.
    pub fn go_on(&self) {
        *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It dies, wherever it is.
    pub fn kill(&self) {
        self.killed.notify_one();
    }

    fn stopped_until(&self) -> Option<Instant> {
        let until = *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }
}

/// A future that is not polled while its process is stopped.
struct Stoppable<'a, F> {
    process: &'a Process,
    inner: F,
    until: Option<Pin<Box<Sleep>>>,
}

impl<F: Future + Unpin> Future for Stoppable<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        while let Some(until) = self.process.stopped_until() {
            // Looked at every now and then, since it may go on before its time.
            let next = until.min(Instant::now() + Duration::from_millis(100));
            let wait = self.until.insert(Box::pin(tokio::time::sleep_until(next)));
            if wait.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A client process and what it does.
pub struct ClientActor {
    /// Its name, which is its holder's too.
    pub name: String,
    /// Its way to the API server.
    pub link: Arc<Link>,
    /// The process.
    pub process: Arc<Process>,
    scene: Arc<Scene>,
    plan: Arc<Plan>,
    clock: Arc<MachineClock>,
    client: Client,
    chance: fastrand::Rng,
}

/// Ends the belief of a process that has died or moved on.
struct Believing {
    scene: Arc<Scene>,
    id: BeliefId,
}

impl Drop for Believing {
    fn drop(&mut self) {
        self.scene.believes_no_more(self.id);
    }
}

impl ClientActor {
    /// A client, with machine, way and chance of its own. Must be made where tokio runs.
    #[must_use]
    pub fn new(name: String, scene: &Arc<Scene>, plan: &Arc<Plan>, mut chance: fastrand::Rng) -> Self {
        let link = Link::new(name.clone(), scene.clone(), plan.weather, chance.u64(..), false);
        let (drift, uptime) = (plan.drift(&mut chance), Duration::from_secs(chance.u64(1..1_000_000)));
        let clock = Arc::new(MachineClock::new(scene.begun(), drift, uptime, 0));
        let client = Client::new(link.client(), NAMESPACE)
            .with_clock(clock.clone())
            .with_randomness(Arc::new(Seeded(Mutex::new(chance.fork()))));
        let (scene, plan) = (scene.clone(), plan.clone());
        Self { name, link, process: Arc::default(), scene, plan, clock, client, chance }
    }

    /// Does what clients do until there are no more faults, dying now and then.
    pub async fn live(&mut self) {
        let process = self.process.clone();
        while !self.scene.is_quiet() {
            let mut forced_end = std::pin::pin!(process.killed.notified());
            let ended = {
                let life = Box::pin(self.episodes());
                let mut life = Stoppable { process: &process, inner: life, until: None };
                tokio::select! {
                    biased;
                    () = &mut forced_end => true,
                    () = &mut life => false,
                }
            };
            if ended {
                self.scene.fault(&self.name, "dies");
                sleep(Duration::from_millis(self.chance.u64(10..5_000))).await;
                self.scene.log(&self.name, "starts again");
            }
        }
    }

    async fn episodes(&mut self) {
        while !self.scene.is_quiet() {
            self.episode().await;
            let pause = if self.plan.busy { 100 } else { 2_500 };
            sleep(Duration::from_millis(self.chance.u64(0..pause))).await;
        }
    }

    async fn episode(&mut self) {
        let chance = &mut self.chance;
        let lease = chance.choice(&self.plan.leases).cloned().unwrap_or_default();
        let wait = match chance.u8(0..10) {
            0..=2 => Wait::No,
            3..=6 => Wait::AtMost(Duration::from_millis(chance.u64(200..25_000))),
            _ => Wait::Forever,
        };
        // Two processes that call themselves alike: a new request takes the place of the old one.
        let holder = if chance.u8(0..10) == 0 { "twin".to_owned() } else { self.name.clone() };
        let want = Acquire {
            ttl: chance.bool().then(|| format!("{}ms", chance.u64(800..lease.ttl_ms.max(801)))),
            priority: chance.bool().then(|| chance.i32(-2..5)),
            wait,
            ..Acquire::new(&lease.name, holder)
        };
        let patience = if chance.u8(0..6) == 0 { chance.u64(10..8_000) } else { u64::MAX };
        let stop = async move {
            match patience {
                u64::MAX => std::future::pending().await,
                patience => sleep(Duration::from_millis(patience)).await,
            }
            Stop { why: "interrupted", exit_code: 130 }
        };
        let (ttl, priority) = (want.ttl.as_deref().unwrap_or("-"), want.priority);
        self.scene.operation(
            &self.name,
            format!("acquires {} as {}, ttl {ttl}, priority {priority:?}, waits {wait:?}", want.lease, want.holder),
        );
        match self.client.acquire_until(&want, stop, |_| {}).await {
            Ok(hold) => self.hold(hold).await,
            Err(error) => self.scene.log(&self.name, format!("has not got it: {:?}", named(error.problem()))),
        }
    }

    /// When a client that counts from after the answer believes that its hold ends.
    fn deadline(&self, hold: &Hold) -> koncli::client::Moment {
        match self.plan.mutant {
            Some(Mutant::CountsFromTheAnswer) => {
                let ttl = Duration::from_millis(u64::try_from(hold.ttl_ms).unwrap_or(0));
                let margin = (ttl / 20).clamp(Duration::from_millis(100), Duration::from_secs(5)).min(ttl / 2);
                self.clock.now().after(ttl - margin)
            }
            _ => hold.deadline(),
        }
    }

    async fn hold(&mut self, mut hold: Hold) {
        let (scene, who, lease) = (self.scene.clone(), self.name.clone(), hold.lease.clone());
        let request = hold.request.uid.clone();
        let mut deadline = self.deadline(&hold);
        let id = scene.believes(&who, &lease, hold.token, &request, deadline, &self.clock);
        let believing = Believing { scene: scene.clone(), id };
        let ends = match self.chance.u8(0..10) {
            0..=5 => End::Release,
            6 | 7 => End::Forget,
            _ => End::Never,
        };
        let mut steps = if self.plan.busy { self.chance.u32(0..3) } else { self.chance.u32(1..12) };
        let renews = self.chance.u8(0..4) != 0;
        let mut beside = JoinSet::new();
        loop {
            if self.plan.mutant == Some(Mutant::BelievesItsRequest) {
                match self.told_granted(&hold.request.name).await {
                    true => deadline = self.clock.now().after(Duration::from_secs(1)),
                    false => deadline = self.clock.now(),
                }
                scene.believes_until(id, deadline);
            }
            let left = deadline.left_at(self.clock.now());
            if left.is_zero() {
                scene.log(&who, format!("stops at its deadline for {lease}"));
                return;
            }
            // Between this look at the clock and the work, the process may be stopped for longer than the hold lasts.
            tokio::task::yield_now().await;
            if !scene.access(&who, &lease, hold.token, &request) {
                return;
            }
            if steps == 0 {
                match if scene.is_quiet() { End::Release } else { ends } {
                    End::Forget => {
                        scene.log(&who, format!("forgets {lease}"));
                        return;
                    }
                    End::Release => {
                        drop(believing);
                        scene.operation(&who, format!("releases {lease}"));
                        let released = self.client.release_hold(hold).await;
                        let said = released.map_err(|error| named(error.problem()));
                        scene.log(&who, format!("has released {lease}: {said:?}"));
                        return;
                    }
                    End::Never => steps = 4,
                }
            }
            steps -= 1;
            let ttl = Duration::from_millis(u64::try_from(hold.ttl_ms).unwrap_or(0));
            sleep(ttl.mul_f64(self.chance.f64() / 3.0).min(left)).await;
            if renews && left < ttl.mul_f64(0.8) && self.plan.mutant != Some(Mutant::BelievesItsRequest) {
                scene.operation(&who, format!("renews {lease}"));
                // A script beside it renews the same hold, now and then at the same moment.
                if self.chance.u8(0..4) == 0 {
                    let (script, holder, lease) = (self.client.clone(), hold.holder.clone(), lease.clone());
                    let pause = Duration::from_millis(self.chance.u64(0..40));
                    scene.operation(&who, format!("has a script renew {lease} too"));
                    beside.spawn(async move {
                        sleep(pause).await;
                        let _ = script.renew(&lease, &holder).await;
                    });
                }
                match self.client.renew_hold(&mut hold).await {
                    Ok(()) => {
                        deadline = self.deadline(&hold);
                        scene.believes_until(id, deadline);
                    }
                    Err(error) => {
                        let problem = error.problem();
                        scene.log(&who, format!("could not renew {lease}: {:?}", named(problem)));
                        if matches!(problem, Problem::Lost { .. }) {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// What a client that believes its request looks at.
    async fn told_granted(&self, request: &str) -> bool {
        let requests = Api::<LeaseRequest>::namespaced(self.link.client(), NAMESPACE);
        let found = timeout(Duration::from_secs(1), requests.get(request)).await;
        match found {
            Ok(Ok(found)) => found.status.and_then(|status| status.phase) == Some(RequestPhase::Granted),
            // It goes on as it was: nobody has told it otherwise.
            _ => true,
        }
    }

    /// After the faults: acquires, works, renews and releases, and each of these has to succeed.
    pub async fn acquires_at_last(&mut self, lease: &LeasePlan, round: u32, strict: bool) {
        let (scene, who) = (self.scene.clone(), self.name.clone());
        let want = Acquire { wait: Wait::Forever, ..Acquire::new(&lease.name, format!("{who}-last-{round}")) };
        loop {
            scene.operation(&who, format!("acquires {} at last", lease.name));
            let result = self.last(&want, lease).await;
            let Err(problem) = result else { return };
            if strict {
                scene.violation(format!("{who} has not got {} although nothing is wrong: {problem}", lease.name));
                return;
            }
            scene.log(&who, format!("tries again: {problem}"));
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn last(&mut self, want: &Acquire, lease: &LeasePlan) -> Result<(), String> {
        let told = |error: koncli::client::Error| named(error.problem());
        let mut hold = self.client.acquire(want).await.map_err(told)?;
        let id =
            self.scene.believes(&self.name, &hold.lease, hold.token, &hold.request.uid, hold.deadline(), &self.clock);
        let believing = Believing { scene: self.scene.clone(), id };
        if !self.scene.access(&self.name, &hold.lease, hold.token, &hold.request.uid) {
            return Err("what it protects refuses the newest token".to_owned());
        }
        sleep(Duration::from_millis(20)).await;
        if lease.renewable {
            self.client.renew_hold(&mut hold).await.map_err(told)?;
            self.scene.believes_until(id, hold.deadline());
        }
        drop(believing);
        self.client.release_hold(hold).await.map_err(told)
    }
}

/// How a client ends its hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Release,
    Forget,
    Never,
}

fn named(problem: &Problem) -> String {
    let text = format!("{problem:?}");
    match text.char_indices().nth(160) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// A person with the rights to everything.
pub struct Operator {
    scene: Arc<Scene>,
    plan: Arc<Plan>,
    client: Client,
    chance: fastrand::Rng,
}

impl Operator {
    /// An operator on a way of their own.
    #[must_use]
    pub fn new(scene: &Arc<Scene>, plan: &Arc<Plan>, mut chance: fastrand::Rng) -> Self {
        let link = Link::new("operator".to_owned(), scene.clone(), plan.weather, chance.u64(..), false);
        let client = Client::new(link.client(), NAMESPACE).with_randomness(Arc::new(Seeded(Mutex::new(chance.fork()))));
        Self { scene: scene.clone(), plan: plan.clone(), client, chance }
    }

    /// Does what operators do, until there are no more faults.
    pub async fn live(mut self) {
        while !self.scene.is_quiet() {
            sleep(Duration::from_millis(self.chance.u64(2_000..25_000))).await;
            if self.scene.is_quiet() {
                return;
            }
            let lease = self.chance.choice(&self.plan.leases).cloned().unwrap_or_default();
            let leases = Api::<Lease>::namespaced(self.client.kube().clone(), NAMESPACE);
            let said = match self.chance.u8(0..4) {
                0 => {
                    self.scene.operation("operator", format!("releases {} by force", lease.name));
                    format!("{:?}", self.client.force_release(&lease.name).await.map_err(|e| named(e.problem())))
                }
                1 => {
                    self.scene.operation("operator", format!("releases {} by force, with kubectl", lease.name));
                    let patch = json!({ "status": { "phase": "Available", "holder": "" } });
                    let patched = leases.patch_status(&lease.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    format!("{:?}", patched.map(drop).map_err(|e| e.to_string()))
                }
                2 => {
                    let ttl = format!("{}ms", self.chance.u64(900..lease.ttl_ms.max(901)));
                    self.scene.operation("operator", format!("makes the ttl of {} {ttl}", lease.name));
                    let patch = Patch::Merge(json!({ "spec": { "ttl": ttl } }));
                    let patched = leases.patch(&lease.name, &PatchParams::default(), &patch).await;
                    format!("{:?}", patched.map(drop).map_err(|e| e.to_string()))
                }
                _ => {
                    self.scene.operation("operator", format!("deletes {} and makes it anew", lease.name));
                    let deleted = leases.delete(&lease.name, &DeleteParams::default()).await;
                    sleep(Duration::from_millis(self.chance.u64(0..3_000))).await;
                    let made = self.client.ensure(&lease.name, lease.spec()).await;
                    format!(
                        "{:?} {:?}",
                        deleted.map(drop).map_err(|e| e.to_string()),
                        made.map_err(|e| named(e.problem()))
                    )
                }
            };
            self.scene.log("operator", said.chars().take(200).collect::<String>());
        }
    }

    /// Makes sure that every lease is there. Faults are over.
    pub async fn puts_right(scene: &Arc<Scene>, plan: &Arc<Plan>) {
        let link = Link::new("operator".to_owned(), scene.clone(), plan.weather, 0, false);
        let leases = Api::<Lease>::namespaced(link.client(), NAMESPACE);
        for lease in &plan.leases {
            if matches!(leases.get_opt(&lease.name).await, Ok(None)) {
                let made = leases.create(&PostParams::default(), &Lease::new(&lease.name, lease.spec())).await;
                scene.log("operator", format!("makes {}: {:?}", lease.name, made.map(drop)));
            }
        }
    }
}

/// A controller: a replica that dies and starts again.
pub struct ControllerActor {
    /// Its name.
    pub name: String,
    /// Its machine's clocks.
    pub clock: Arc<MachineClock>,
    /// Its way to the API server, of the process that runs now.
    pub link: Arc<Mutex<Arc<Link>>>,
    scene: Arc<Scene>,
    plan: Arc<Plan>,
    host: Arc<Host>,
    chance: fastrand::Rng,
}

impl ControllerActor {
    /// A controller on a machine of its own.
    #[must_use]
    pub fn new(name: String, scene: &Arc<Scene>, plan: &Arc<Plan>, host: Arc<Host>, mut chance: fastrand::Rng) -> Self {
        let (drift, uptime) = (plan.drift(&mut chance), Duration::from_secs(chance.u64(1..1_000_000)));
        let wrong = plan.skew_within(&mut chance);
        let clock = Arc::new(MachineClock::new(scene.begun(), drift, uptime, wrong));
        let link = Link::new(name.clone(), scene.clone(), plan.weather, chance.u64(..), true);
        let (scene, plan) = (scene.clone(), plan.clone());
        Self { name, clock, link: Arc::new(Mutex::new(link)), scene, plan, host, chance }
    }

    /// Runs one process after the other, until its task is dropped.
    pub async fn live(mut self) {
        loop {
            let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let metrics = Arc::new(Metrics::new());
            let told_skew = match self.plan.mutant {
                Some(Mutant::TrustsClocks) => Duration::ZERO,
                _ => self.plan.max_skew,
            };
            let replica = Replica::start(Surroundings {
                client: link.client(),
                clock: self.clock.clone(),
                seed: self.chance.u64(..),
                host: self.host.clone(),
                calls: Calls::InPlace,
                namespace: "konductor-system".to_owned(),
                identity: self.name.clone(),
                default_policy: konductor_crds::DEFAULT_POLICY.to_owned(),
                settings: Settings {
                    max_hold: None,
                    expired_retention: Millis::from_secs(2),
                    finished_retention: Millis::from_secs(self.plan.finished_retention),
                    ..Settings::default()
                },
                skew: told_skew,
                workers: 4,
                journal: None,
                metrics: metrics.clone(),
            });
            let Replica { mut tasks, reconciling, .. } = replica;
            let (_leading, is_leader) = watch::channel(true);
            let (_stop, stopping) = watch::channel(false);
            let mut reconciler = JoinSet::new();
            reconciler.spawn(reconciling.run(is_leader, stopping));
            tokio::select! {
                biased;
                () = link.died() => {}
                ended = tasks.join_next() => {
                    self.scene.violation(format!("a task of {} has ended: {ended:?}", self.name));
                }
                ended = reconciler.join_next() => {
                    self.scene.violation(format!("the reconciler of {} has ended: {ended:?}", self.name));
                }
            }
            drop((tasks, reconciler));
            link.die();
            if !metrics.encode().unwrap_or_default().contains("outcome=\"panic\"} 0\n") {
                self.scene.violation(format!("{} has panicked", self.name));
            }
            sleep(Duration::from_millis(self.chance.u64(20..6_000))).await;
            self.scene.log(&self.name, "starts");
            let next = Link::new(self.name.clone(), self.scene.clone(), self.plan.weather, self.chance.u64(..), true);
            *self.link.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
    }
}

impl LeasePlan {
    /// The spec of the lease.
    #[must_use]
    pub fn spec(&self) -> LeaseSpec {
        let mut spec = json!({ "ttl": format!("{}ms", self.ttl_ms), "renewable": self.renewable });
        if self.preemption {
            spec["policy"] = json!({ "params": { "preemption": "LowerPriority" } });
        }
        serde_json::from_value(spec).unwrap_or_default()
    }
}
