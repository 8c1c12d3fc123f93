//! Every case against one controller, while an honest Lease is used.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{
    Lease, LeaseRequest,
    v1::{LeasePhase, RequestPhase},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{Case, Caught, SABOTEUR};
use crate::{ControlPlane, Controller, LeaseExt as _, Namespace, RequestExt as _, policies, wait};

/// How many cases are under way at once: as many as keep the controller's lanes for modules busy.
const AT_ONCE: usize = 10;

/// How long a case may take. Many times what it takes; the compiler's time is in it.
const CASE_MOST: Duration = Duration::from_secs(60);

/// What a case came to.
#[derive(Debug)]
pub struct Report {
    /// The case.
    pub case: Case,
    /// What it came to: the condition of the Lease, and who decided.
    pub got: String,
    /// What was wrong, if something was.
    pub problem: Option<String>,
}

/// A controller under attack.
pub struct Siege<'p> {
    controller: &'p Controller,
    /// Where the attackers are. Of one namespace the controller looks at one module at a time.
    hostile: Vec<Namespace<'p>>,
    /// A namespace of its own for those that take the compiler's whole time.
    slow: Namespace<'p>,
    honest: Namespace<'p>,
    /// The memory before it all, in KiB.
    before: u64,
}

/// What a siege has shown besides the cases.
#[derive(Debug, Clone, Copy)]
pub struct Aftermath {
    /// How often the honest Lease was acquired meanwhile, by its own policy.
    pub honest: usize,
    /// The controller's memory before and after, in KiB.
    pub memory: (u64, u64),
}

impl fmt::Display for Aftermath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.memory;
        write!(
            f,
            "the honest lease changed hands {} times meanwhile; memory {:.1} MiB before, {:.1} MiB after",
            self.honest,
            before as f64 / 1024.0,
            after as f64 / 1024.0
        )
    }
}

/// The memory of a controller, in KiB: what is resident and its own. Files that are mapped, such as the program, can
/// be dropped at any time.
///
/// # Panics
/// If it does not run.
#[must_use]
pub fn memory(controller: &Controller) -> u64 {
    let path = format!("/proc/{}/status", controller.pid());
    let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("the controller is gone: {path}: {e}"));
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
    };
    field("RssAnon:") + field("RssShmem:")
}

impl<'p> Siege<'p> {
    /// Gets a controller ready: an honest policy is in use and has decided.
    ///
    /// # Panics
    /// If it does not decide.
    pub async fn prepare(plane: &'p ControlPlane, controller: &'p Controller) -> Self {
        let hostile = join_all(["hostile-a", "hostile-b", "hostile-c"].map(|name| plane.namespace(name))).await;
        let (slow, honest) = (plane.namespace("hostile-slow").await, plane.namespace("honest").await);
        let first = policies::always(r#"{"grant":{"request":0,"ttlMs":60000},"reason":"first come"}"#);
        policies::upload(&honest, "honest", "policy.wasm", &first).await;
        honest
            .create_lease_with("well", json!({"ttl": "10m", "policy": {"name": "honest", "onFailure": "Hold"}}))
            .await;
        honest.lease_is("well", "decided by its policy", |l| condition(l).0 == "True/PolicyActive").await;
        for _ in 0..20 {
            turn(&honest).await;
        }
        Self { controller, hostile, slow, honest, before: memory(controller) }
    }

    /// Where the honest Lease `well` is.
    #[must_use]
    pub fn honest(&self) -> &Namespace<'p> {
        &self.honest
    }

    /// Tries every case, several at once, and acquires the honest Lease all the while.
    ///
    /// # Panics
    /// If the honest Lease is not served. What is wrong with a case is in its report.
    pub async fn lay(&self, cases: &[Case]) -> (Vec<Report>, usize) {
        let over = AtomicBool::new(false);
        let attack = async {
            let tried = stream::iter(cases.iter().enumerate()).map(|(n, case)| {
                let team =
                    if case.caught == Caught::Compile { &self.slow } else { &self.hostile[n % self.hostile.len()] };
                attempt(team, case)
            });
            let reports = tried.buffered(AT_ONCE).collect::<Vec<_>>().await;
            over.store(true, Ordering::Relaxed);
            reports
        };
        let live = async {
            let mut turns = 0;
            while !over.load(Ordering::Relaxed) {
                turn(&self.honest).await;
                turns += 1;
            }
            turns
        };
        tokio::join!(attack, live)
    }

    /// Deletes what the attackers have left, and waits until the controller's memory is at most `most` KiB above what
    /// it was before.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn lift(&self, honest: usize, most: u64) -> Aftermath {
        for team in self.hostile.iter().chain([&self.slow]) {
            let maps: Api<ConfigMap> = Api::namespaced(team.leases().into_client(), team.name());
            let (all, now) = (ListParams::default().labels("konductor.io/policy-module=true"), DeleteParams::default());
            maps.delete_collection(&now, &all).await.unwrap_or_else(|e| panic!("cannot delete the policies: {e}"));
            let all = ListParams::default();
            team.requests().delete_collection(&now, &all).await.unwrap_or_else(|e| panic!("cannot delete: {e}"));
            team.leases().delete_collection(&now, &all).await.unwrap_or_else(|e| panic!("cannot delete: {e}"));
        }
        let after = wait::eventually(&format!("it has at most {most} KiB more than {} KiB", self.before), async || {
            let now = memory(self.controller);
            if now <= self.before + most { Ok(now) } else { Err(format!("{now} KiB")) }
        })
        .await;
        turn(&self.honest).await;
        Aftermath { honest, memory: (self.before, after) }
    }
}

/// One acquire and release of the honest Lease, decided by its own policy.
async fn turn(honest: &Namespace<'_>) {
    let request = honest.request("well", "worker").await;
    let lease = honest.lease_is("well", "held by this request", |l| is_held_by(l, &request)).await;
    let policy = lease.status.and_then(|status| status.policy).unwrap_or_default();
    assert_eq!(policy.name, "honest", "another policy has decided about the honest lease");
    honest.delete_request(&request).await;
    honest.lease_is("well", "free", |l| l.phase() == LeasePhase::Available).await;
}

fn is_held_by(lease: &Lease, request: &LeaseRequest) -> bool {
    let uid = request.metadata.uid.as_deref().unwrap_or_default();
    lease.phase() == LeasePhase::Held
        && lease.status.as_ref().and_then(|status| status.request.as_ref()).is_some_and(|held| held.uid == uid)
}

/// `False/PolicyFault` and the message.
fn condition(lease: &Lease) -> (String, String) {
    let conditions = lease.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == "PolicyReady").cloned().unwrap_or_default();
    (format!("{}/{}", found.status, found.reason.unwrap_or_default()), found.message.unwrap_or_default())
}

async fn attempt(team: &Namespace<'_>, case: &Case) -> Report {
    let begun = Instant::now();
    match tokio::time::timeout(CASE_MOST, tried(team, case)).await {
        Ok((got, problem)) => Report { case: case.clone(), got, problem },
        Err(_) => {
            let problem = Some(format!("it was not over after {} s", begun.elapsed().as_secs()));
            let got = team.leases().get(&case.case).await.map_or_else(|e| e.to_string(), |lease| got(&lease));
            Report { case: case.clone(), got, problem }
        }
    }
}

/// What a Lease came to, in a few words.
fn got(lease: &Lease) -> String {
    let (condition, message) = condition(lease);
    let policy = lease.status.as_ref().and_then(|status| status.policy.clone()).unwrap_or_default();
    format!("{condition}, by {}: {message}", if policy.name.is_empty() { "nobody" } else { &policy.name })
}

async fn tried(team: &Namespace<'_>, case: &Case) -> (String, Option<String>) {
    let params = if case.params.is_null() { json!({}) } else { case.params.clone() };
    let policy = json!({"name": case.case, "onFailure": "Default", "params": params});
    team.create_lease_with(&case.case, json!({"ttl": "10m", "policy": policy})).await;
    let (key, module) = case.module();
    policies::upload(team, &case.case, key, &module).await;

    // Looked at, and in use or refused.
    let (status, reason) = if case.caught.is_used() { Caught::Never.condition() } else { case.caught.condition() };
    let seen = format!("{status}/{reason}");
    let looked = settled(team, &case.case, |lease| condition(lease).0 == seen).await;
    if condition(&looked).0 != seen {
        return (got(&looked), Some(format!("it should have become {seen} after its upload")));
    }

    // Asked for, and granted: by itself if it is honest about that, else by the built-in rules.
    let request = team.request(&case.case, SABOTEUR).await;
    if case.idle {
        // Asked, and told to wait, by the module itself.
        team.request_is(&request, "told that it waits", |r| r.phase() == Some(RequestPhase::Pending)).await;
        let lease = team.lease(&case.case).await;
        let (condition, message) = condition(&lease);
        let fine = condition == seen && message.contains(&case.says) && lease.token().is_none();
        let problem = format!("it should still be {seen}, say {:?}, and grant nothing", case.says);
        return (got(&lease), (!fine).then_some(problem));
    }
    let granted = settled(team, &case.case, |lease| is_held_by(lease, &request)).await;
    if !is_held_by(&granted, &request) {
        return (got(&granted), Some("nobody was granted the lease".to_owned()));
    }
    for n in 0..case.more {
        team.request(&case.case, &format!("other-{n}")).await;
    }
    let (status, reason) = case.caught.condition();
    let expected = format!("{status}/{reason}");
    let is_told = |lease: &Lease| {
        let (condition, message) = condition(lease);
        let why = lease.status.as_ref().and_then(|status| status.policy.as_ref()?.reason.clone()).unwrap_or_default();
        condition == expected && (message.contains(&case.says) || why.contains(&case.says))
    };
    let told = settled(team, &case.case, is_told).await;
    let policy = granted.status.as_ref().and_then(|status| status.policy.clone()).unwrap_or_default();
    let why = told.status.as_ref().and_then(|status| status.policy.as_ref()?.reason.clone()).unwrap_or_default();
    // Whoever waits for more has been granted by the module itself before.
    let decider = if case.caught == Caught::Never || case.more > 0 { &case.case } else { "default" };
    let problem = if !is_told(&told) {
        Some(format!("it should have become {expected} and say {:?}", case.says))
    } else if policy.name != *decider {
        Some(format!("{} should have granted it, not {:?}", decider, policy.name))
    } else if why.len() > 256 || why.contains(|c: char| c.is_control() || c == '\u{202e}') {
        Some(format!("it shows a reason that is not fit to be shown: {why:?}"))
    } else {
        None
    };
    (got(&told), problem)
}

/// The Lease once this is so, or as it is when it was long enough.
async fn settled(team: &Namespace<'_>, lease: &str, mut is: impl FnMut(&Lease) -> bool) -> Lease {
    let leases = team.leases();
    let settled = wait::poll("it is settled", wait::PATIENCE, async || {
        Ok(match leases.get(lease).await {
            Ok(lease) if is(&lease) => Ok(lease),
            Ok(_) => Err("not yet".to_owned()),
            Err(problem) => Err(problem.to_string()),
        })
    });
    match settled.await {
        Ok(lease) => lease,
        Err(_) => team.lease(lease).await,
    }
}
