//! `koncli lease run`: acquire, run a command, stop it in time, release.
//!
//! [`plan`] decides, and is tested without a process or a clock; this file and the others beside it carry out.

mod child;
mod family;
mod plan;
#[cfg(test)]
mod plan_tests;
mod report;
mod signals;
mod supervise;
mod terminal;
mod watchdog;

use std::{cell::RefCell, time::Duration};

use konductor_crds::Lease;
use tokio::sync::oneshot;

use super::{acquire, check_name, host, open, placed, valid_holder};
use crate::{
    args::{Global, OnLost, RunArgs},
    client::{Client, Completed, Connection, Error, Guard, Hold, Key, Problem, Result, Stop, completed_in, no_room},
    output::{self, Output},
};
use plan::{FAILED, Rules};
use signals::Signals;
use supervise::Run;
pub(super) use watchdog::watch;

/// The lease was not acquired: sysexits' EX_TEMPFAIL, which no command uses for anything else.
const NOT_ACQUIRED: u8 = 75;
/// How long a command has between SIGTERM and SIGKILL unless something else is said.
const GRACE: Duration = Duration::from_secs(10);

/// Runs it and returns the exit code.
pub(super) async fn run(global: &Global, args: RunArgs) -> u8 {
    let out = Output::new(global);
    match prepared(global, out, args).await {
        Ok(Start::Run(run)) => run.finish().await,
        Ok(Start::Done(completed)) => {
            let Completed { key, at, holder, .. } = completed;
            let when = if at.is_empty() { String::new() } else { format!(" by {holder} at {at}") };
            out.say(format_args!("{key} was completed{when}: nothing to do"));
            0
        }
        Err(error) => {
            output::report(&error);
            code_of(error.problem())
        }
    }
}

fn code_of(problem: &Problem) -> u8 {
    match problem {
        // Lost: it was granted and over before this process had it.
        Problem::NotAcquired { .. } | Problem::Denied { .. } | Problem::Lost { .. } => NOT_ACQUIRED,
        Problem::Stopped(stop) => stop.exit_code,
        _ => FAILED,
    }
}

enum Start {
    Done(Completed),
    Run(Box<Run>),
}

async fn prepared(global: &Global, out: Output, args: RunArgs) -> Result<Start> {
    check_name("lease", &args.acquire.of.name)?;
    if args.once.is_some() && args.on_lost == OnLost::Ignore {
        let why =
            "--once and --on-lost ignore exclude each other: who runs on without the lease may not be the only one";
        return Err(Error::new("run the command", Problem::Invalid(why.to_owned())));
    }
    let signals = Signals::new().map_err(cannot_listen)?;
    let connection = open(global, out).await?;
    acquired(&connection, out, args, signals).await.map_err(|error| placed(error, &connection))
}

fn cannot_listen(error: std::io::Error) -> Error {
    Error::new("listen to signals", Problem::Local(error.to_string()))
}

/// Waits for the lease, or for somebody else to complete what is to run.
async fn acquired(connection: &Connection, out: Output, args: RunArgs, mut signals: Signals) -> Result<Start> {
    let RunArgs { acquire: wanted, grace, on_lost, once, command } = args;
    let owner = acquire::owner(connection, out).await;
    let holder = match wanted.of.holder.clone() {
        Some(holder) => holder,
        None => default_holder(connection, owner.as_ref().map(|pod| pod.name.as_str())),
    };
    let (client, want) = acquire::prepare(connection, out, wanted, valid_holder(holder)?, owner).await?;
    let hold = loop {
        if let Some(completed) = check(&client, &want.lease, once.as_ref()).await? {
            return Ok(Start::Done(completed));
        }
        // Another may complete it while this one waits.
        let (tell, done) = oneshot::channel();
        let tell = RefCell::new(Some(tell));
        let seen = |lease: &Lease| {
            let is_done = |key: &Key| completed_in(lease).iter().any(|completed| completed.key == *key);
            if once.as_ref().is_some_and(is_done) {
                tell.take().map(|tell| tell.send(()));
            }
        };
        let stop = async {
            tokio::select! {
                stop = signals.stop() => stop,
                _ = done => COMPLETED,
            }
        };
        match acquire::acquire(out, &client, &want, stop, seen).await {
            Ok(hold) => break hold,
            // The watch may be late, so it is read again.
            Err(error) if *error.problem() == Problem::Stopped(COMPLETED) => {}
            Err(error) => return Err(error),
        }
    };
    signals.while_running().map_err(cannot_listen)?;
    let ttl = Duration::from_millis(u64::try_from(hold.ttl_ms).unwrap_or_default());
    let rules = Rules { grace: grace.unwrap_or(GRACE), on_lost, once: once.is_some(), ttl };
    let fits = rules.fitting();
    if grace.is_some_and(|asked| fits < asked) {
        out.say(format_args!(
            "--grace is {:.1} s: a third of the ttl, or there would be no time to renew",
            fits.as_secs_f64()
        ));
    }
    match last_check(&client, hold, once.as_ref()).await? {
        Held::Done(completed) => Ok(Start::Done(completed)),
        Held::Guard(guard) => {
            Ok(Start::Run(Box::new(Run { out, client, guard: *guard, signals, rules, once, command })))
        }
    }
}

/// A wait that is over because somebody else has completed it.
const COMPLETED: Stop = Stop { why: "it was completed", exit_code: 0 };

enum Held {
    Done(Completed),
    Guard(Box<Guard>),
}

/// Looks once more whether it is completed, now that nobody else can complete it.
async fn last_check(client: &Client, hold: Hold, once: Option<&Key>) -> Result<Held> {
    let guard = client.guard(hold);
    let checked = check(client, guard.lease(), once).await;
    match checked {
        Ok(None) => Ok(Held::Guard(Box::new(guard))),
        Ok(Some(completed)) => {
            // What was to be done is done. The hold ends at its expiry, if not now.
            if let Err(error) = guard.release().await {
                output::report(&error);
            }
            Ok(Held::Done(completed))
        }
        Err(error) => {
            // Nothing runs under it.
            let _ = guard.release().await;
            Err(error)
        }
    }
}

/// Whether it is completed; an error if it could not be recorded.
async fn check(client: &Client, lease: &str, once: Option<&Key>) -> Result<Option<Completed>> {
    let Some(key) = once else { return Ok(None) };
    let found = client.get(lease).await?;
    let completed = completed_in(&found).into_iter().find(|completed| completed.key == *key);
    match no_room(&found) {
        Some(problem) if completed.is_none() => {
            Err(Error::new(format!("run \"{key}\" once under lease \"{lease}\""), problem))
        }
        _ => Ok(completed),
    }
}

/// In a Pod its name: a container that is started again takes the place of what it was. Elsewhere two runs are two
/// holders; one of the same name would take the lease from the other.
fn default_holder(connection: &Connection, pod: Option<&str>) -> String {
    match pod {
        Some(pod) => pod.to_owned(),
        None if connection.in_cluster => host(),
        None => format!("{}-{}", host(), std::process::id()),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::client::scripted;

    // Time is paused: pauses between tries take none.
    #[tokio::test(start_paused = true)]
    async fn what_is_completed_is_done_also_if_the_lease_cannot_be_given_back() {
        let lease = r#"{"apiVersion":"konductor.io/v1","kind":"Lease","metadata":{"name":"x","annotations":
            {"once.konductor.io/v1":"{\"holder\":\"b\",\"token\":6,\"at\":\"2026-01-01T00:00:00.000Z\"}"}},"spec":{"ttl":"1m"}}"#;
        // It answers once, and is away then.
        let (kube, _) = scripted::client(&[(200, lease.to_owned())]);
        let client = Client::new(kube, "default");
        let key = Key::from_str("v1").expect("a key");
        let hold = scripted::hold(&client);
        match last_check(&client, hold, Some(&key)).await {
            Ok(Held::Done(completed)) => assert_eq!((completed.key, completed.holder.as_str()), (key, "b")),
            Ok(Held::Guard(_)) => panic!("it is completed"),
            Err(error) => panic!("{error}"),
        }
    }
}
