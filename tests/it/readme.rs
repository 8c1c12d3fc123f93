//! README.md: a reader who follows it sees what it says.

use konductor_tests::{ControlPlane, Controller, ControllerOptions, markdown, repo};

/// What is marked so runs beside what follows.
const SECOND: &str = "sh second terminal";

/// Every block marked `sh`, in order, in one directory and with the rights that the README asks for. A block marked
/// `sh second terminal` runs beside the next ones and has to have ended well at the end.
#[tokio::test]
async fn every_command_block_works() {
    let blocks = markdown::blocks(&repo::text("README.md"));
    let blocks: Vec<_> = blocks.iter().filter(|block| ["sh", SECOND].contains(&&*block.info)).collect();
    assert!(blocks.len() >= 5, "the README has lost its examples");
    assert_eq!(blocks.iter().filter(|block| block.info == SECOND).count(), 1);

    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("readme").await;
    let user = team.user(&["konductor-lease-user", "konductor-lease-operator"]).await;

    // A new API server explains a new kind a moment after it serves it; a reader's has run for longer.
    konductor_tests::eventually("the API server explains leases", async || {
        let explained = user.kubectl("explain kl").run().await;
        if explained.code == 0 { Ok(()) } else { Err(explained) }
    })
    .await;

    let mut second = Vec::new();
    for block in blocks {
        // As a reader pastes it: line after line, and no line may fail.
        let script = user.script("readme", &format!("set -e\n{}", block.text));
        if block.info == SECOND {
            second.push(script.spawn());
            let waits = "bob is in the line";
            konductor_tests::eventually(waits, async || {
                let status = user.koncli("lease status my-lease").run().await.succeeds().stdout;
                if status.contains("bob") { Ok(()) } else { Err(status) }
            })
            .await;
        } else {
            script.run().await.succeeds();
        }
    }
    for running in second {
        running.wait().await.succeeds().prints("acquired by bob");
    }
}
