//! `make hostile`: every hostile module against the real controller, as a table, and what one that loops costs others.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use koncli::client::{Acquire, Client as Leases, ConnectOptions, connect};
use konductor_tests::{
    ControlPlane, Controller, ControllerOptions, Namespace, eventually,
    hostile::{Case, Caught, SABOTEUR, Siege, Source, table},
    policies::upload,
};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

/// So many leases share a module that loops.
const SHARED_BY: usize = 32;
/// How often the honest lease is acquired for each of the two figures.
const ROUNDS: usize = 200;
/// More memory than before, in KiB: see tests/it/hostile.rs.
const KEPT_MOST: u64 = 32 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    let table = table();
    let plane = ControlPlane::installed().await;
    let options = ControllerOptions::with("--leader-elect=false --policy-compile-time 5s");
    let controller = Controller::start(&plane, options).await;
    let siege = Siege::prepare(&plane, &controller).await;
    let begun = Instant::now();
    let (reports, honest) = siege.lay(&table.cases).await;
    let took = begun.elapsed();
    println!("{:<34} {:<8} {:<28} got", "case", "caught", "expected");
    for report in &reports {
        let (status, reason) = report.case.caught.condition();
        println!(
            "{:<34} {:<8} {:<28} {}",
            report.case.case,
            report.case.caught.to_string(),
            format!("{status}/{reason}"),
            cut(&report.got, 150)
        );
        if let Some(problem) = &report.problem {
            println!("{:>34} WRONG: {problem}", "");
        }
    }
    for elsewhere in &table.elsewhere {
        println!("rows {:?}: {}", elsewhere.rows, elsewhere.why);
    }
    let aftermath = siege.lift(honest, KEPT_MOST).await;

    let effect = effect(&plane, &controller, siege.honest()).await;
    let wrong = reports.iter().filter(|report| report.problem.is_some()).count();
    println!("{effect}");
    println!(
        "{} cases in {:.0} s, {} as expected, {wrong} not; {aftermath}",
        reports.len(),
        took.as_secs_f64(),
        reports.len() - wrong
    );
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first characters of a text.
fn cut(text: &str, most: usize) -> String {
    let mut cut: String = text.chars().take(most).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// How long acquiring an honest lease takes, alone and beside leases that share a module that loops.
async fn effect(plane: &ControlPlane, controller: &Controller, honest: &Namespace<'_>) -> String {
    let hostile = plane.namespace("shared").await;
    let user = honest.user(&["konductor-lease-user"]).await;
    let how = ConnectOptions { kubeconfig: Some(user.kubeconfig().to_owned()), ..ConnectOptions::default() };
    let client = connect(&how).await.unwrap_or_else(|problem| panic!("cannot connect: {problem}")).client;
    let leases = Leases::new(client, honest.name());
    acquires(&leases, 20).await;
    let alone = acquires(&leases, ROUNDS).await;

    for n in 0..SHARED_BY {
        let policy = json!({"name": "loops", "onFailure": "Default"});
        hostile.create_lease_with(&format!("lease-{n}"), json!({"ttl": "10m", "policy": policy})).await;
        hostile.request(&format!("lease-{n}"), SABOTEUR).await;
    }
    let over = AtomicBool::new(false);
    let attack = attack(controller, &hostile, &over);
    let measure = async {
        let beside = acquires(&leases, ROUNDS).await;
        over.store(true, Ordering::Relaxed);
        beside
    };
    let (uploads, beside) = tokio::join!(attack, measure);
    format!(
        "acquiring an honest lease, {ROUNDS} times: p50 {:.1} ms and p99 {:.1} ms alone; p50 {:.1} ms and p99 {:.1} ms beside {SHARED_BY} leases of a module that loops and was uploaded anew {uploads} times",
        alone[0], alone[1], beside[0], beside[1]
    )
}

/// p50 and p99 in milliseconds.
async fn acquires(leases: &Leases, rounds: usize) -> [f64; 2] {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let hold = leases.acquire(&Acquire::new("well", "measured")).await;
        times.push(begun.elapsed());
        let hold = hold.unwrap_or_else(|problem| panic!("the honest lease was not acquired: {problem}"));
        leases.release_hold(hold).await.unwrap_or_else(|problem| panic!("it was not released: {problem}"));
    }
    times.sort_unstable();
    [50, 99].map(|p| times[times.len() * p / 100].as_secs_f64() * 1000.0)
}

/// Uploads a module that loops again and again, each time another one: so none is known to be bad. And has all of its
/// leases asked for: each change of a request is a question.
async fn attack(controller: &Controller, hostile: &Namespace<'_>, over: &AtomicBool) -> usize {
    let case = Case {
        case: "loops".to_owned(),
        stands_for: String::new(),
        rows: vec![41],
        module: Source::Sleeper("loops".to_owned()),
        gzip: false,
        params: serde_json::Value::Null,
        more: 0,
        idle: false,
        caught: Caught::Decide,
        says: String::new(),
    };
    let (key, module) = case.module();
    let mut uploads = 0u32;
    let loads = controller.metrics().await.sum("konductor_policy_loads_total", &[("outcome", "active")]);
    let mut before = loads.unwrap_or_default();
    while !over.load(Ordering::Relaxed) {
        let mut module = module.clone();
        // A custom section with a name that says nothing.
        module.extend([0, 5, 4]);
        module.extend(uploads.to_be_bytes().map(|byte| byte & 0x7f));
        upload(hostile, "loops", key, &module).await;
        uploads += 1;
        // Those of the last time are withdrawn: a line that grows for ever would be another attack.
        let all = hostile.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        all.unwrap_or_else(|problem| panic!("cannot delete the requests: {problem}"));
        for n in 0..SHARED_BY {
            hostile.request(&format!("lease-{n}"), &format!("{SABOTEUR}-{uploads}")).await;
        }
        // As quickly as it gets into use: the next one then is not known yet either.
        let loads = async || {
            let metrics = controller.metrics().await;
            metrics.sum("konductor_policy_loads_total", &[("outcome", "active")]).unwrap_or_default()
        };
        eventually("the module is in use", async || match loads().await {
            now if now > before => Ok(()),
            now => Err(format!("{now} loads")),
        })
        .await;
        before = loads().await;
    }
    uploads as usize
}
