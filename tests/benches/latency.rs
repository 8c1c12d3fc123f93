//! How long acquire, renew and hand-over take through the real controller, beside what the API server alone takes for
//! the writes and watch hops that they cannot do without.
//!
//! `make bench`, or `cargo bench -p konductor-tests -- ROUNDS`. The two kinds alternate, so that a busy machine slows
//! both alike; what counts are the ratios of one run, and nothing asserts a time.
//!
//! Each step begins when nothing of the one before is under way any more ([`SETTLE`]): what the controller writes after
//! a grant (the request's status, an Event) is its throughput, and no part of the latency of the next step.
//!
//! The raw kind is the same objects under another API group, so that the controller does not see them, and a bare loop
//! in place of the controller: on an event of a request it writes the lease's status, without a thought.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use koncli::client::{Acquire, Client as Leases, ConnectOptions, Progress, Wait, connect};
use konductor_crds::LeaseRequest;
use konductor_tests::{ControlPlane, Controller, ControllerOptions};
use kube::{
    Api, Client, ResourceExt as _,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

const ROUNDS: usize = 300;
const WARM_UP: usize = 30;
/// Ten times what an answer takes here.
const SETTLE: Duration = Duration::from_millis(40);
const GROUP: &str = "bench.konductor.io";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ROUNDS);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(rounds))
}

async fn run(rounds: usize) -> Result<(), Failure> {
    let plane = ControlPlane::installed().await;
    let controller = Controller::start(&plane, ControllerOptions::default()).await;
    let namespace = plane.namespace("bench").await;
    namespace.create_lease("lease", "10m").await;
    let alice = namespace.user(&["konductor-lease-user"]).await;
    // Two clients with connections of their own, as two Pods have.
    let how = ConnectOptions { kubeconfig: Some(alice.kubeconfig().to_owned()), ..ConnectOptions::default() };
    let first = Leases::new(connect(&how).await?.client, namespace.name());
    let second = Leases::new(connect(&how).await?.client, namespace.name());
    // Its history is full after these rounds, and stays so: the API alone writes a status of the same size.
    for _ in 0..WARM_UP {
        our_round(&first, &second).await?;
    }
    let hold = first.acquire(&Acquire::new("lease", "first")).await?;
    let status = serde_json::to_value(first.get("lease").await?.status)?;
    first.release_hold(hold).await?;
    let mut raw = Raw::start(&plane, status).await?;

    let mut ours = Times::default();
    let mut bare = Times::default();
    for round in 0..rounds + WARM_UP {
        let keep = round >= WARM_UP;
        let [acquire, renew, hand_over] = our_round(&first, &second).await?;
        let raw_times = raw.round().await?;
        if keep {
            ours.push([acquire, renew, hand_over]);
            bare.push(raw_times);
        }
    }
    println!("{rounds} rounds each, alternating; milliseconds");
    println!(
        "{:>22} {:>23} {:>23} {:>10} {:>10}",
        "", "ours p50/p90/p99", "API alone p50/p90/p99", "ratio p50", "ratio p90"
    );
    for (i, name) in ["acquire", "renew", "release -> next holder"].into_iter().enumerate() {
        let (a, b) = (percentiles(&mut ours.0[i]), percentiles(&mut bare.0[i]));
        let show = |p: [f64; 3]| format!("{:.2}/{:.2}/{:.2}", p[0], p[1], p[2]);
        println!("{name:>22} {:>23} {:>23} {:>10.2} {:>10.2}", show(a), show(b), a[0] / b[0], a[1] / b[1]);
    }
    drop(controller);
    Ok(())
}

/// Acquire a free lease, renew it, hand it over to a waiting client; then leave it free.
async fn our_round(first: &Leases, second: &Leases) -> Result<[Duration; 3], Failure> {
    tokio::time::sleep(SETTLE).await;
    let begun = Instant::now();
    let mut hold = first.acquire(&Acquire::new("lease", "first")).await?;
    let acquire = begun.elapsed();

    tokio::time::sleep(SETTLE).await;
    let begun = Instant::now();
    first.renew_hold(&mut hold).await?;
    let renew = begun.elapsed();

    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let next = second.clone();
    let waiter = tokio::spawn(async move {
        let want = Acquire { wait: Wait::Forever, ..Acquire::new("lease", "second") };
        let progress = |progress: Progress<'_>| {
            if let Progress::Requested { request } = progress
                && let Some(tell) = tell.take()
            {
                let _ = tell.send(request.to_owned());
            }
        };
        let held = next.acquire_until(&want, std::future::pending(), progress).await;
        held.map(|hold| (hold, Instant::now()))
    });
    // It is in the line when the controller has said so.
    let name = told.await?;
    let requests = Api::<LeaseRequest>::namespaced(first.kube().clone(), first.namespace());
    konductor_tests::eventually("the second waits", async || {
        let request = requests.get(&name).await.map_err(|e| e.to_string())?;
        request.status.and_then(|s| s.phase).ok_or_else(|| "no answer yet".to_owned())
    })
    .await;
    tokio::time::sleep(SETTLE).await;
    let begun = Instant::now();
    let released = first.release_hold(hold);
    let (released, held) = tokio::join!(released, waiter);
    released?;
    let (hold, at) = held??;
    let hand_over = at - begun;
    second.release_hold(hold).await?;
    Ok([acquire, renew, hand_over])
}

/// The API server alone.
struct Raw {
    requests: Api<DynamicObject>,
    request_kind: ApiResource,
    /// When the lease's watch has shown the answer to a request of this number.
    seen: mpsc::UnboundedReceiver<(i64, Instant)>,
    number: i64,
}

impl Raw {
    async fn start(plane: &ControlPlane, status: serde_json::Value) -> Result<Self, Failure> {
        let kind = |kind: &str, plural: &str| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural)
        };
        let (lease_kind, request_kind) = (kind("Lease", "leases"), kind("LeaseRequest", "leaserequests"));
        for (_, definition) in konductor_crds::definitions() {
            let text = serde_json::to_string(&definition)?.replace("\"konductor.io\"", &format!("\"{GROUP}\""));
            let mut definition: serde_json::Value = serde_json::from_str(&text)?;
            let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default().to_owned();
            definition["metadata"]["name"] = json!(format!("{plural}.{GROUP}"));
            definition["spec"]["names"]["shortNames"] = json!([]);
            definition["spec"]["names"]["categories"] = json!([]);
            let manifests = konductor_tests::manifests::objects(&definition.to_string(), "bench".as_ref())?;
            for manifest in &manifests {
                konductor_tests::manifests::apply(plane.admin(), manifest).await?;
            }
        }
        let admin = plane.admin().clone();
        let leases = || Api::<DynamicObject>::namespaced_with(admin.clone(), "bench", &lease_kind);
        let requests = Api::<DynamicObject>::namespaced_with(admin.clone(), "bench", &request_kind);
        let lease = DynamicObject::new("lease", &lease_kind).data(json!({"spec": {"ttl": "10m"}}));
        konductor_tests::eventually("the definitions are served", async || {
            requests.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
            leases().create(&PostParams::default(), &lease).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
        // The bare loop and the client each have connections of their own.
        let server = konductor_tests::kubeconfig::client(&plane.admin_kubeconfig()).await?;
        tokio::spawn(answer(server, lease_kind.clone(), request_kind.clone(), status));
        let (sender, seen) = mpsc::unbounded_channel();
        let watched = leases();
        tokio::spawn(async move {
            let params = WatchParams::default().fields("metadata.name=lease");
            let mut stream = watched.watch(&params, "0").await?.boxed();
            while let Some(event) = stream.try_next().await? {
                if let WatchEvent::Modified(lease) = event {
                    let number = lease.data["status"]["fencingToken"].as_i64().unwrap_or(0);
                    let _ = sender.send((number, Instant::now()));
                }
            }
            Ok::<(), kube::Error>(())
        });
        Ok(Self { requests, request_kind, seen, number: 0 })
    }

    /// When the lease says this number.
    async fn answered(&mut self, number: i64) -> Result<Instant, Failure> {
        while let Some((seen, at)) = self.seen.recv().await {
            if seen == number {
                return Ok(at);
            }
        }
        Err("the watch of the lease has ended".into())
    }

    /// Create a request, change it, delete it; each is answered by one write of the lease's status.
    async fn round(&mut self) -> Result<[Duration; 3], Failure> {
        let mut times = [Duration::ZERO; 3];
        let name = format!("request-{}", self.number);
        for (step, time) in times.iter_mut().enumerate() {
            tokio::time::sleep(SETTLE).await;
            self.number += 1;
            let number = self.number;
            let begun = Instant::now();
            match step {
                0 => {
                    let spec = json!({"spec": {"lease": "lease", "holder": "raw", "renewals": number}});
                    let object = DynamicObject::new(&name, &self.request_kind).data(spec);
                    self.requests.create(&PostParams::default(), &object).await?;
                }
                1 => {
                    let patch = Patch::Merge(json!({"spec": {"renewals": number}}));
                    self.requests.patch(&name, &PatchParams::default(), &patch).await?;
                }
                _ => {
                    self.requests.delete(&name, &DeleteParams::default()).await?;
                }
            }
            *time = self.answered(number).await? - begun;
        }
        Ok(times)
    }
}

/// The least that a controller could do: one write of the lease for each event of a request.
/// `status` is what our own controller writes, so that the server has as much to do.
async fn answer(
    client: Client,
    lease_kind: ApiResource,
    request_kind: ApiResource,
    mut status: serde_json::Value,
) -> kube::Result<()> {
    let leases = Api::<DynamicObject>::namespaced_with(client.clone(), "bench", &lease_kind);
    let requests = Api::<DynamicObject>::namespaced_with(client, "bench", &request_kind);
    let mut lease = leases.get("lease").await?;
    let mut stream = requests.watch(&WatchParams::default(), "0").await?.boxed();
    let mut number = 0;
    while let Some(event) = stream.try_next().await? {
        let request = match event {
            WatchEvent::Added(r) | WatchEvent::Modified(r) | WatchEvent::Deleted(r) => r,
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
        };
        number += 1;
        status["fencingToken"] = json!(number);
        status["request"] =
            json!({"name": request.name_any(), "uid": request.uid().unwrap_or_default(), "renewals": 0});
        lease.data["status"] = status.clone();
        lease.metadata.managed_fields = None;
        lease = leases.replace_status("lease", &PostParams::default(), &lease).await?;
    }
    Ok(())
}

/// Acquire, renew, hand-over.
#[derive(Default)]
struct Times([Vec<Duration>; 3]);

impl Times {
    fn push(&mut self, times: [Duration; 3]) {
        for (all, one) in self.0.iter_mut().zip(times) {
            all.push(one);
        }
    }
}

/// p50, p90 and p99 in milliseconds.
fn percentiles(times: &mut [Duration]) -> [f64; 3] {
    times.sort_unstable();
    [50, 90, 99].map(|p| times[(times.len() * p / 100).min(times.len() - 1)].as_secs_f64() * 1e3)
}
