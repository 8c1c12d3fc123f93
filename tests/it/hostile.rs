//! Hostile policies on a real control plane: what each comes to, and that nobody else notices.

use konductor_tests::{hostile::Siege, *};

use crate::lifecycle::alone;

/// How much more memory the controller may have after the siege, in KiB. What it keeps: 256 KiB of each place for a
/// guest, the stacks of threads that block (512 KiB of a guest's each, 16 of them at most here), what the allocator
/// holds back of modules of 4 MiB that came in four at a time, and some hundred refusals. One module that leaked its
/// code or its memory of 16 MiB a few times would be above it.
const KEPT_MOST: u64 = 32 * 1024;

#[tokio::test]
async fn every_hostile_module_comes_to_its_end_and_nobody_else_notices() {
    let table = hostile::table();
    let plane = ControlPlane::installed().await;
    let options = ControllerOptions::with("--leader-elect=false --policy-compile-time 5s");
    let controller = Controller::start(&plane, options).await;
    let process = controller.pid();
    let siege = Siege::prepare(&plane, &controller).await;
    let (reports, honest) = siege.lay(&table.cases).await;
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| {
            Some(format!("{}: {}\n    got {}", report.case.case, report.problem.as_ref()?, report.got))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), reports.len(), failed.join("\n"));
    assert!(honest >= 20, "the honest lease changed hands only {honest} times");
    let aftermath = siege.lift(honest, KEPT_MOST).await;
    println!("{} cases; {aftermath}", reports.len());
    assert_eq!(controller.pid(), process);
    assert!(!controller.log().contains("panicked"), "something has panicked");
    let _ = alone;
}
