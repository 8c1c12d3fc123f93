//! A migration that runs once, however many Pods start it at the same time or later.
//!
//!     cargo run -p koncli --example migrate_once -- db-migration v42 "$HOSTNAME"
//!
//! The lease has to exist: `koncli lease create db-migration --ttl 15m`.

use std::str::FromStr as _;

use koncli::client::{Acquire, Client, ConnectOptions, Guard, Key, Result, Wait, connect, find_owner};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [lease, version, holder] = &args[..] else {
        eprintln!("usage: migrate_once LEASE VERSION HOLDER");
        std::process::exit(2);
    };
    let key = Key::from_str(version).unwrap_or_else(|problem| {
        eprintln!("\"{version}\" is no key: {problem}");
        std::process::exit(2);
    });
    let connection = connect(&ConnectOptions::default()).await?;
    let owner = find_owner(&connection, |name| std::env::var(name).ok()).await;
    let client = Client::new(connection.client, &connection.namespace).with_owner(owner.reference);

    // Who comes late need not wait.
    if let Some(done) = client.completion(lease, &key).await? {
        println!("{key} was completed by {}", done.holder);
        return Ok(());
    }
    let guard = client.acquire_guarded(&Acquire { wait: Wait::Forever, ..Acquire::new(lease, holder) }).await?;
    // Somebody may have completed it while this one waited; from here on nobody else can.
    if let Some(done) = client.completion(lease, &key).await? {
        println!("{key} was completed by {}", done.holder);
        return guard.release().await;
    }
    guard.while_held(migrate(&guard)).await?;
    // A process that dies here leaves no record, and the next one migrates again: a migration has to bear that.
    guard.complete(&key).await?;
    println!("{holder} has completed {key}");
    guard.release().await
}

/// The work. A database that stores the highest token it has seen can refuse a migration that was paused for too long.
async fn migrate(guard: &Guard) {
    println!("{} migrates with token {}", guard.holder(), guard.token());
}
