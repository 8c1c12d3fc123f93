//! A short form of each fault of `make torture`; those of `crash` and `storm` are not repeated.

use konductor_tests::{
    torture::{Fault, Mutant, Outcome, Torture},
    *,
};

/// The same in every run.
const SEED: u64 = 7;

async fn survived(faults: &[Fault]) -> Outcome {
    let plane = ControlPlane::installed().await;
    let mut torture = Torture::new(&plane, SEED, 4).await;
    for fault in faults {
        let begun = std::time::Instant::now();
        torture.suffers(*fault).await;
        println!("{fault:?}: {:?}", begun.elapsed());
    }
    let outcome = torture.ends().await;
    println!("{outcome}\n{:?}", outcome.operations);
    outcome.is_fine();
    // Somebody was served before, and after each of them.
    assert!(outcome.report.figures.grants > faults.len(), "{outcome}");
    outcome
}

#[tokio::test]
async fn a_worker_that_slept_through_its_hold_writes_nothing_any_more() {
    let plane = ControlPlane::installed().await;
    let mut torture = Torture::new(&plane, SEED, 4).await;
    torture.suffers(Fault::KillWorker).await;
    // Whether it sleeps while it holds, and somebody else writes meanwhile, is chance.
    for _ in 0..20 {
        torture.suffers(Fault::StopWorker).await;
        if torture.refused() > 0 {
            break;
        }
    }
    let outcome = torture.ends().await;
    println!("{outcome}\n{:?}", outcome.operations);
    outcome.is_fine();
    assert!(outcome.refused > 0, "no old token was ever tried, so nothing was tested: {outcome}");
}

#[tokio::test]
async fn a_line_that_is_slow_silent_or_cut_costs_time_and_nothing_else() {
    survived(&[Fault::SlowLine, Fault::SilentLine, Fault::CutLine, Fault::SilentLine]).await;
}

#[tokio::test]
async fn an_etcd_that_is_full_refuses_and_nothing_is_lost() {
    let outcome = survived(&[Fault::FullEtcd]).await;
    assert!(outcome.operations.keys().any(|operation| operation.starts_with("acquire") && operation != "acquire 0"));
}

#[tokio::test]
async fn an_etcd_that_is_killed_or_frozen_is_waited_for() {
    survived(&[Fault::KillEtcd, Fault::StopEtcd, Fault::StopApiserver]).await;
}

#[tokio::test]
async fn controllers_whose_token_has_expired_grant_nothing_until_they_have_a_new_one() {
    survived(&[Fault::BadToken]).await;
}

#[tokio::test]
async fn controllers_take_a_new_token_from_its_file_when_the_old_one_has_expired() {
    survived(&[Fault::ExpiredToken]).await;
}

#[tokio::test]
async fn an_etcd_whose_disk_is_full_ends_and_nothing_is_lost() {
    survived(&[Fault::FullDisk, Fault::FullDisk]).await;
}

// Else it would show nothing that none of the others finds anything.
#[tokio::test]
async fn a_broken_controller_is_found() {
    for mutant in Mutant::ALL {
        let plane = ControlPlane::installed().await;
        let mut torture = Torture::new(&plane, SEED, 4).await;
        torture.breaks(mutant).await;
        torture.is_broken().await;
        let outcome = torture.ends().await;
        let found: Vec<_> = outcome.report.violations.iter().map(|violation| violation.rule).collect();
        assert!(found.contains(&mutant.breaks()), "{mutant:?} was not found: {outcome}, {found:?}");
    }
}
