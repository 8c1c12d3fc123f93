//! One seed: from its plan to its judgement.

use std::{
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use konductor_crds::v1::RequestPhase;
use konductor_policy::{
    Host,
    limits::{EpochTicks, Limits},
};
use konductor_tests::{
    Change as Written, Event, History, Stored,
    checker::{self, Rule, Violation},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Mutant, NAMESPACE,
    actors::{ClientActor, ControllerActor, Operator, Process},
    plan::Plan,
    scene::{Entry, Figures, Scene},
    server::Link,
    store::{Did, Kind, Leniency, Store},
};

/// How long after the last fault the last client may take to end what it was at. A dead peer is noticed after 35 s, a
/// request that nobody waits for any more lapses after 30 s, a hold that nobody gives back after 12 s.
const SETTLED_MOST: Duration = Duration::from_secs(180);
/// How long it may take, when nothing is wrong, that four clients one after the other get a lease each.
const SERVED_MOST: Duration = Duration::from_secs(20);
/// How many calls a client may make to acquire, renew and release: create, two watches, two looks, a renewal and a
/// delete are 7, and its watches may be closed by the server and taken up again, each for two.
const CALLS_MOST: u64 = 16;
/// Longer than any play takes, in virtual time.
const PLAY_MOST_MS: i64 = 600_000;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What it decided at the beginning.
    pub plan: Plan,
    /// What happened.
    pub timeline: Vec<Entry>,
    /// Of everything that was asked and delivered: the same for each run of a seed.
    pub trace: u64,
    /// What must not happen, and did.
    pub violations: Vec<String>,
    /// What was counted.
    pub figures: Figures,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: {:#?}", self.seed, self.plan)?;
        for entry in &self.timeline {
            writeln!(f, "{entry}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        let mutant = self.plan.mutant.map(|mutant| format!(" MUTANT={mutant:?}")).unwrap_or_default();
        write!(f, "again: make sim SEED={}{mutant}", self.seed)
    }
}

/// The sandbox, one for all simulations of this process: compiling the built-in policy takes longer than a simulation.
fn host() -> Arc<Host> {
    static HOST: OnceLock<Arc<Host>> = OnceLock::new();
    let made = HOST.get_or_init(|| {
        // The deadline counts real time, which has no place here; the fuel remains.
        let limits = Limits { deadline: EpochTicks(1_000_000), ..Limits::default() };
        Arc::new(Host::with_limits(limits).unwrap_or_else(|error| panic!("cannot start the policy host: {error}")))
    });
    made.clone()
}

/// Plays a seed.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("cannot start a runtime: {error}"));
    runtime.block_on(play(seed, mutant))
}

async fn play(seed: u64, mutant: Option<Mutant>) -> Report {
    let mut chance = fastrand::Rng::with_seed(seed);
    let plan = Arc::new(Plan::draw(&mut chance, mutant));
    let leniency = Leniency { any_version: mutant == Some(Mutant::AnyVersion) };
    let scene = Scene::new(Store::new(chance.i64(100..10_000), leniency), mutant != Some(Mutant::AnyToken));
    let namespace = serde_json::json!({ "metadata": { "name": NAMESPACE } });
    let _ = scene.write("world", "create", |store| store.create(Kind::Namespace, "", namespace, scene.seconds()));
    for lease in &plan.leases {
        let object = serde_json::json!({ "metadata": { "name": lease.name }, "spec": lease.spec() });
        let _ = scene.write("world", "create", |store| store.create(Kind::Lease, NAMESPACE, object, scene.seconds()));
    }

    let mut controllers = JoinSet::new();
    let mut replicas = Vec::new();
    for n in 0..plan.controllers {
        let controller = ControllerActor::new(format!("controller-{n}"), &scene, &plan, host(), chance.fork());
        replicas.push((controller.name.clone(), controller.clock.clone(), controller.link.clone()));
        controllers.spawn(controller.live());
    }
    let mut clients = JoinSet::new();
    let mut processes = Vec::new();
    for n in 0..plan.clients {
        let mut client = ClientActor::new(format!("client-{n}"), &scene, &plan, chance.fork());
        processes.push((client.name.clone(), client.process.clone(), client.link.clone()));
        clients.spawn(async move {
            client.live().await;
            client
        });
    }
    let mut operator = JoinSet::new();
    operator.spawn(Operator::new(&scene, &plan, chance.fork()).live());

    let misfortunes = misfortunes(&scene, &plan, &processes, &replicas, chance.fork());
    let _ = timeout(plan.span, misfortunes).await;

    scene.be_quiet();
    operator.abort_all();
    for (_, process, link) in &processes {
        process.go_on();
        link.heal();
    }
    for (_, clock, link) in &replicas {
        // A clock that was out of bounds is set right: liveness was promised for clocks within them.
        if plan.wild_clock {
            clock.set_wrong(0);
        }
        link.lock().unwrap_or_else(PoisonError::into_inner).heal();
    }
    Operator::puts_right(&scene, &plan).await;
    if let Some(clients) = settles(&scene, clients).await {
        is_served(&scene, &plan, clients).await;
    }
    scene.log("world", "ends");
    judge(&scene, &plan);
    let (timeline, trace, violations, figures) = scene.so_far();
    Report { seed, plan: (*plan).clone(), timeline, trace, violations, figures }
}

/// Everybody ends what they were at.
async fn settles(scene: &Arc<Scene>, mut clients: JoinSet<ClientActor>) -> Option<Vec<ClientActor>> {
    let mut done = Vec::new();
    let all = async {
        while let Some(client) = clients.join_next().await {
            match client {
                Ok(client) => done.push(client),
                Err(panic) => scene.violation(format!("a client has panicked: {panic}")),
            }
        }
    };
    if timeout(SETTLED_MOST, all).await.is_err() {
        scene.violation(format!("somebody still waits {} s after the last fault", SETTLED_MOST.as_secs()));
        return None;
    }
    done.sort_by(|a, b| a.name.cmp(&b.name));
    Some(done)
}

/// Everybody is served: soon after the faults after some tries, and then at the first try, within a bound, with few
/// calls. And when nobody wants anything any more, nothing is written.
async fn is_served(scene: &Arc<Scene>, plan: &Arc<Plan>, mut clients: Vec<ClientActor>) {
    for (round, strict) in [(1, false), (2, true)] {
        if strict {
            // The longest hold that nobody gave back is over (also one that a clock that was set back has made longer),
            // dead connections are noticed, and requests of the dead have lapsed.
            sleep(Duration::from_secs(90)).await;
            scene.lock().calls.clear();
        }
        let mut serving = JoinSet::new();
        for (n, mut client) in clients.drain(..).enumerate() {
            let lease = plan.leases[(n + usize::from(strict)) % plan.leases.len()].clone();
            serving.spawn(async move {
                client.acquires_at_last(&lease, round, strict).await;
                client
            });
        }
        let mut served = Vec::new();
        let all = async {
            while let Some(Ok(client)) = serving.join_next().await {
                served.push(client);
            }
        };
        let most = if strict { SERVED_MOST } else { SETTLED_MOST };
        if timeout(most, all).await.is_err() {
            scene.violation(format!("not everybody was served within {} s of round {round}", most.as_secs()));
            return;
        }
        served.sort_by(|a, b| a.name.cmp(&b.name));
        clients = served;
    }
    for (who, calls) in &scene.lock().calls.clone() {
        if who.starts_with("client") && *calls > CALLS_MOST {
            scene.violation(format!("{who} has made {calls} calls to acquire, renew and release once"));
        }
    }
    // Finished requests are deleted, leases become Available, counts of waiting requests are written.
    sleep(Duration::from_secs(u64::try_from(plan.finished_retention).unwrap_or(60) + 30)).await;
    let before = scene.lock().store.version();
    sleep(Duration::from_secs(60)).await;
    let writes = scene.lock().store.version() - before;
    if writes > 0 {
        scene.violation(format!("{writes} writes in a minute in which nobody wanted anything"));
    }
}

type Replicas = [(String, Arc<crate::clock::MachineClock>, Arc<std::sync::Mutex<Arc<Link>>>)];

/// What befalls processes, machines and the network, one after the other, until the future is dropped.
async fn misfortunes(
    scene: &Arc<Scene>,
    plan: &Plan,
    processes: &[(String, Arc<Process>, Arc<Link>)],
    replicas: &Replicas,
    mut chance: fastrand::Rng,
) {
    loop {
        sleep(Duration::from_millis(chance.u64(1..plan.misfortune_ms * 2))).await;
        let span = Duration::from_millis(chance.u64(100..20_000));
        let (name, process, way) = &processes[chance.usize(..processes.len())];
        let (replica, clock, replica_way) = &replicas[chance.usize(..replicas.len())];
        let replica_way = replica_way.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match chance.u8(0..10) {
            0 | 1 => {
                scene.fault(name, format!("is stopped for {span:.3?}"));
                process.stop(span);
            }
            2 => {
                scene.fault(name, "is killed");
                process.go_on();
                process.kill();
            }
            3 => {
                scene.fault(name, format!("is cut off for {span:.3?}"));
                way.cut_off(span);
            }
            4 => {
                scene.fault(replica, format!("is cut off for {span:.3?}"));
                replica_way.cut_off(span);
            }
            8 | 9 => {
                let kind = if chance.u8(0..3) == 0 { Kind::Lease } else { Kind::Request };
                scene.fault(replica, format!("its watch of {} stalls for {span:.3?}", kind.plural()));
                replica_way.stall(kind, span);
            }
            5 if !plan.wild_clock => {
                scene.fault(replica, "is killed");
                replica_way.die();
            }
            6 => {
                let wrong = match plan.wild_clock {
                    true => chance.i64(-30_000_000_000..30_000_000_000),
                    false => plan.skew_within(&mut chance),
                };
                scene.fault(replica, format!("its wall clock jumps to {} ms off", wrong / 1_000_000));
                clock.set_wrong(wrong);
            }
            _ => {
                let mut state = scene.lock();
                let version = state.store.version() - chance.i64(0..10);
                state.store.compact(version);
                drop(state);
                scene.fault("world", format!("versions before {version} are forgotten"));
            }
        }
    }
}

/// The history of everything that was stored, judged as that of a real control plane.
fn judge(scene: &Scene, plan: &Plan) {
    let events = {
        let state = scene.lock();
        let ours = state.store.changes().iter().filter(|change| matches!(change.kind, Kind::Lease | Kind::Request));
        let events = ours.map(|change| {
            let object = (*change.object).clone();
            let object = match change.kind {
                Kind::Lease => serde_json::from_value(object).map(|lease| Stored::Lease(Box::new(lease))),
                _ => serde_json::from_value(object).map(|request| Stored::Request(Box::new(request))),
            };
            let change_was = match change.did {
                Did::Added => Written::Created,
                Did::Modified => Written::Updated,
                Did::Deleted => Written::Deleted,
            };
            object.map(|object| Event {
                revision: change.version,
                change: change_was,
                namespace: change.key.0.clone(),
                name: change.key.1.clone(),
                object,
                seen: None,
                follows: checker::Follows::Unknown,
            })
        });
        events.collect::<Result<Vec<_>, _>>()
    };
    match events {
        Ok(events) => {
            let history = History { events, complete: true, ..History::default() };
            // A watch may stand still here for as long as the plan says, and then order says nothing.
            let options = checker::Options {
                order: false,
                lag: PLAY_MOST_MS,
                max_clock_skew: written_skew(plan),
                ..checker::Options::default()
            };
            let violations = checker::report(&history, &options).violations;
            let told = violations.iter().filter(|violation| !is_excused(&history, violation));
            told.for_each(|violation| scene.violation(violation.to_string()));
        }
        Err(error) => scene.violation(format!("what is stored cannot be read: {error}")),
    }
}

/// By how much two times that replicas wrote down may contradict each other, in milliseconds. What counts where a clock
/// jumps further is whether a hold ended before its holder stopped to rely on it, which the scene judges in true time.
fn written_skew(plan: &Plan) -> i64 {
    match (plan.exact_clocks, plan.wild_clock) {
        (true, _) => 0,
        (_, true) => i64::MAX,
        _ => i64::try_from(plan.max_skew.as_millis()).unwrap_or(i64::MAX),
    }
}

/// What the checker refuses and must be borne here: that a request which has held a Lease is granted its successor of the
/// same name, where what it was to be told had not come in when that was made. With the Lease goes its history. The scene
/// judges that none is granted the same object twice.
fn is_excused(history: &History, violation: &Violation) -> bool {
    if violation.rule != Rule::GrantedTwice {
        return false;
    }
    let of_lease = |event: &&Event| event.namespace == violation.namespace && event.name == violation.lease;
    let until = |revision: i64| history.events.iter().filter(move |event| event.revision <= revision);
    let made = until(violation.revision).filter(of_lease).rfind(|event| event.change == Written::Created);
    let granted = until(violation.revision).rfind(of_lease).and_then(|event| match &event.object {
        Stored::Lease(lease) => lease.status.as_ref()?.request.as_ref().map(|request| request.uid.clone()),
        Stored::Request(_) => None,
    });
    let (Some(made), Some(granted), Some(before)) = (made, granted, &violation.before) else { return false };
    let mut told = until(made.revision).filter_map(|event| match &event.object {
        Stored::Request(request) if request.metadata.uid.as_ref() == Some(&granted) => Some(request.status.as_ref()),
        _ => None,
    });
    let told = told.next_back().flatten().and_then(|status| status.phase);
    before.revision < made.revision && matches!(told, None | Some(RequestPhase::Pending))
}
