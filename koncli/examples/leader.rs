//! A leader loop: of many processes of one service, one at a time does the work.
//!
//!     cargo run -p koncli --example leader -- service-leader "$HOSTNAME"
//!
//! The lease has to exist: `koncli lease create service-leader --ttl 15s`.

use std::time::Duration;

use koncli::client::{Acquire, Client, ConnectOptions, Guard, Problem, Result, Wait, connect, find_owner};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(lease), Some(holder)) = (args.next(), args.next()) else {
        eprintln!("usage: leader LEASE HOLDER");
        std::process::exit(2);
    };
    let connection = connect(&ConnectOptions::default()).await?;
    // In a Pod, what it holds is free as soon as the Pod is gone.
    let owner = find_owner(&connection, |name| std::env::var(name).ok()).await;
    let client = Client::new(connection.client, &connection.namespace).with_owner(owner.reference);
    let want = Acquire { wait: Wait::Forever, ..Acquire::new(lease, &holder) };
    loop {
        let guard = client.acquire_guarded(&want).await?;
        println!("{holder} leads, token {}", guard.token());
        // The work is dropped at its next await when the hold is lost.
        let led = guard.while_held(lead(&guard)).await;
        // Only now, when nothing of the work is left: another may begin at once.
        match led.and(guard.release().await) {
            Ok(()) => println!("{holder} has handed over"),
            Err(error) if matches!(error.problem(), Problem::Lost { .. }) => {
                println!("{holder} leads no more: {error}")
            }
            Err(error) => return Err(error),
        }
    }
}

/// What only the leader does, until somebody else is to lead.
async fn lead(guard: &Guard) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            asked = guard.asked_back() => {
                println!("{} is to lead", asked.by);
                return;
            }
            _ = ticks.tick() => step(guard.token()),
        }
    }
}

/// One step of the work. What it changes gets the token with each access, and refuses one below the highest it has seen:
/// that protects it also from a leader that was paused in the middle of this function.
fn step(_token: i64) {}
