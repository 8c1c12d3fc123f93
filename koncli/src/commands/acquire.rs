//! `koncli lease acquire`.

use std::{cell::RefCell, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use konductor_crds::{Lease, LeaseSpec, time::format_duration};
use serde::Serialize;

use super::{client_for, holder, signals, waiting::Line};
use crate::{
    args::AcquireArgs,
    client::{Acquire, Client, Connection, Hold, Progress, Result, Stop, Wait, find_owner},
    output::{Output, lease_name},
};

/// A hold as `-o json` writes it. Scripts depend on it: a field is added, never renamed.
#[derive(Debug, Serialize)]
struct HoldData<'a> {
    lease: &'a str,
    namespace: &'a str,
    holder: &'a str,
    request: RequestData<'a>,
    token: i64,
    acquired: &'a str,
    expires: &'a str,
    ttl: String,
    renewals: i64,
}

#[derive(Debug, Serialize)]
struct RequestData<'a> {
    name: &'a str,
    uid: &'a str,
}

pub(super) async fn run(connection: &Connection, out: Output, args: AcquireArgs) -> Result<()> {
    let holder = holder(args.of.holder.clone())?;
    let owner = owner(connection, out).await;
    let (client, want) = prepare(connection, out, args, holder, owner).await?;
    let hold = acquire(out, &client, &want, signals::stop(), |_| {}).await?;
    write(out, &hold)
}

/// The Pod that the request is to belong to.
pub(super) async fn owner(connection: &Connection, out: Output) -> Option<OwnerReference> {
    let owner = find_owner(connection, |name| std::env::var(name).ok()).await;
    match &owner.reference {
        Some(pod) => out.detail(format_args!("the request belongs to pod {} ({})", pod.name, owner.why)),
        None => out.detail(format_args!("the request belongs to no Pod: {}", owner.why)),
    }
    owner.reference
}

/// What is to be acquired, as it was typed; the lease is there if it was to be created.
pub(super) async fn prepare(
    connection: &Connection,
    out: Output,
    args: AcquireArgs,
    holder: String,
    owner: Option<OwnerReference>,
) -> Result<(Client, Acquire)> {
    let client = client_for(connection).with_owner(owner);
    let want = Acquire {
        wait: wait(args.wait, args.timeout),
        ttl: args.ttl,
        priority: args.priority,
        ..Acquire::new(args.of.name, holder)
    };
    if args.create {
        let spec = LeaseSpec { ttl: want.ttl.clone().unwrap_or_default(), ..LeaseSpec::default() };
        if client.ensure(&want.lease, spec).await? {
            out.say(format_args!("created lease {} in namespace {}", want.lease, client.namespace()));
        }
    }
    Ok((client, want))
}

/// Acquires it, and tells people what they wait for. `seen` is told of every state of the lease until then.
pub(super) async fn acquire(
    out: Output,
    client: &Client,
    want: &Acquire,
    stop: impl Future<Output = Stop>,
    mut seen: impl FnMut(&Lease),
) -> Result<Hold> {
    let line = RefCell::new(Line::new(out, &want.lease));
    let tell = |text: &str| {
        // What is told does not stand behind the line.
        line.borrow().clear();
        out.say(text);
    };
    let progress = |progress: Progress<'_>| match progress {
        Progress::Requested { request } => out.detail(format_args!("request {request}")),
        Progress::Waiting { lease } => {
            seen(lease);
            line.borrow_mut().lease(lease);
        }
        Progress::Outage { why } => tell(&format!("the API server cannot be reached, trying again: {why}")),
        Progress::Recovered => tell("the API server can be reached again"),
        Progress::Lapsed => tell("the request lapsed while it could not be kept alive; made a new one"),
    };
    let acquiring = client.acquire_until(want, stop, progress);
    let acquired = tokio::select! {
        biased;
        acquired = acquiring => acquired,
        never = super::waiting::keep_current(&line, client, &want.holder) => match never {},
    };
    line.borrow().clear();
    acquired
}

fn wait(wait: bool, timeout: Option<Duration>) -> Wait {
    match timeout {
        Some(Duration::ZERO) => Wait::No,
        Some(limit) => Wait::AtMost(limit),
        None if wait => Wait::Forever,
        None => Wait::No,
    }
}

fn write(out: Output, hold: &Hold) -> Result<()> {
    let data = HoldData {
        lease: &hold.lease,
        namespace: &hold.namespace,
        holder: &hold.holder,
        request: RequestData { name: &hold.request.name, uid: &hold.request.uid },
        token: hold.token,
        acquired: &hold.acquired,
        expires: &hold.expires,
        ttl: format_duration(hold.ttl_ms),
        renewals: hold.renewals,
    };
    let line = format!("{} acquired by {}, token {}, expires {}", hold.lease, hold.holder, hold.token, hold.expires);
    out.done(&lease_name(&hold.lease), line, &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_follows_from_the_flags() {
        let limit = Duration::from_secs(300);
        for (flag, timeout, expected) in [
            (false, None, Wait::No),
            (true, None, Wait::Forever),
            (false, Some(Duration::ZERO), Wait::No),
            (true, Some(Duration::ZERO), Wait::No),
            (false, Some(limit), Wait::AtMost(limit)),
            (true, Some(limit), Wait::AtMost(limit)),
        ] {
            assert_eq!(wait(flag, timeout), expected, "{flag} {timeout:?}");
        }
    }
}
