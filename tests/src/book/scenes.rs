//! What the pictures of terminals show: koncli, at work on a real control plane.

use std::collections::BTreeMap;

use super::terminal::{COLUMNS, Window, svg};
use crate::{ControlPlane, LeaseExt as _, Namespace, Output, User, eventually};

/// Every picture of a terminal, by its path in the repository. The control plane has a controller.
///
/// # Panics
/// If a command does not do what the picture is to show.
pub async fn record(plane: &ControlPlane) -> BTreeMap<&'static str, String> {
    let team = plane.namespace("pictures").await;
    let user = team.user(&["konductor-lease-user"]).await;
    BTreeMap::from([
        ("docs/pictures/waiting.svg", waiting(&team, &user).await),
        ("docs/pictures/explain.svg", explain(&team, &user).await),
        ("docs/pictures/run.svg", run(&user).await),
        ("docs/pictures/watch.svg", watch(plane).await),
    ])
}

/// A script that runs `$LINE` in a terminal as wide as the picture.
fn in_terminal() -> String {
    format!("script -qefc \"stty cols {COLUMNS}; $LINE\" /dev/null")
}

/// Runs a command line as in a terminal, to its end.
async fn terminal(user: &User<'_>, line: &str) -> Output {
    user.script("pod-a", &in_terminal()).env("LINE", line).env("TERM", "xterm").run().await
}

async fn typed(user: &User<'_>, window: Window, line: &str) -> Window {
    let output = terminal(user, line).await.succeeds();
    window.command(line, &output.stdout)
}

/// Bob waits, Alice lets go, Bob has it.
async fn waiting(team: &Namespace<'_>, user: &User<'_>) -> String {
    let alice = Window::new("alice");
    let alice = typed(user, alice, "koncli lease create db-migration --ttl 10m").await;
    let alice = typed(user, alice, "koncli lease acquire db-migration --holder alice").await;
    let line = "koncli lease acquire db-migration --holder bob --wait --timeout=5m";
    let command = user.script("pod-b", &in_terminal()).env("LINE", line).env("TERM", "xterm");
    let bob = command.spawn();
    bob.says("1 of 1 in line").await;
    let alice = typed(user, alice, "koncli lease release db-migration --holder alice").await;
    let bob = Window::new("bob").command(line, &bob.wait().await.succeeds().stdout);
    let bob = typed(user, bob, "koncli lease history db-migration").await;
    team.lease_is("db-migration", "held by bob", |lease| lease.holder() == Some("bob")).await;
    svg(&[alice, bob])
}

/// Three wait, and one wants to know why it is not next.
async fn explain(team: &Namespace<'_>, user: &User<'_>) -> String {
    team.create_lease("deploy", "10m").await;
    user.koncli("lease acquire deploy --holder ana").run().await.succeeds();
    let mut waiting = Vec::new();
    for (holder, priority) in [("ben", "0"), ("cid", "5"), ("dan", "0")] {
        let line = format!("lease acquire deploy --wait --holder {holder} --priority {priority}");
        waiting.push(user.koncli(&line).spawn());
        eventually("it is in the line", async || {
            let lease = team.lease("deploy").await;
            let many = lease.status.as_ref().and_then(|status| status.waiting).unwrap_or_default();
            if usize::try_from(many) == Ok(waiting.len()) { Ok(()) } else { Err(many) }
        })
        .await;
    }
    let window = typed(user, Window::new("explain"), "koncli lease explain deploy").await;
    svg(&[typed(user, window, "koncli lease explain deploy --holder dan").await])
}

/// A command under a lease, and one that runs once.
async fn run(user: &User<'_>) -> String {
    let window = Window::new("run");
    let window = typed(user, window, "koncli lease create report --ttl 30s").await;
    let window =
        typed(user, window, "koncli lease run report -- sh -c 'echo working with token $KONDUCTOR_TOKEN'").await;
    let window = typed(user, window, "koncli lease run report --once v42 -- echo migrating").await;
    let window = typed(user, window, "koncli lease run report --once v42 -- echo migrating").await;
    svg(&[typed(user, window, "koncli lease once list report").await])
}

/// Two leases are held, two wait for one of them, and it changes hands.
async fn watch(plane: &ControlPlane) -> String {
    /// Enough for what there is to see, and the keys below it.
    const ROWS: u16 = 12;
    let shop = plane.namespace("shop").await;
    let user = shop.user(&["konductor-lease-user"]).await;
    for (lease, ttl) in [("daily-report", "1h"), ("db-migration", "15m"), ("web-leader", "30s")] {
        shop.create_lease(lease, ttl).await;
    }
    let columns = u16::try_from(COLUMNS).unwrap_or(u16::MAX);
    let mut view = user.koncli("lease watch").env("NO_COLOR", "1").on_terminal(ROWS, columns);
    for (lease, holder) in [("db-migration", "web-7"), ("web-leader", "web-9")] {
        user.koncli(&format!("lease acquire {lease} --holder {holder}")).run().await.succeeds();
    }
    let mut waiting = Vec::new();
    for (place, holder) in [("1. web-8", "web-8"), ("2. web-9", "web-9")] {
        waiting.push(user.koncli(&format!("lease acquire db-migration --wait --holder {holder}")).spawn());
        view.says(place).await;
    }
    user.koncli("lease release db-migration --holder web-7").run().await.succeeds();
    let screen = view.says("handed over from web-7 (Released) to web-8").await;
    view.types("q");
    view.ends().await;
    svg(&[Window::new("koncli lease watch").screen(&screen)])
}
