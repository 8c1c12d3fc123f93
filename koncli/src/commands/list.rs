//! `koncli lease list`.

use futures::{StreamExt as _, TryStreamExt as _};
use konductor_crds::{Lease, v1::LeasePhase};
use kube::{
    Api,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use super::signals;
use crate::{
    args::{Format, ListArgs},
    client::{Access, CallFailure, CallFailureKind, Connection, Error, Result, call},
    output::{Output, Table, lease_name, relative, wall_clock_ms},
    text::span,
};

pub(super) async fn run(connection: &Connection, out: Output, args: &ListArgs) -> Result<()> {
    let (leases, place): (Api<Lease>, _) = if args.all_namespaces {
        (Api::all(connection.client.clone()), "all namespaces".to_owned())
    } else {
        (
            Api::namespaced(connection.client.clone(), &connection.namespace),
            format!("namespace \"{}\"", connection.namespace),
        )
    };
    let columns = Columns { namespace: args.all_namespaces, wide: out.format == Format::Wide };
    if args.watch {
        return follow(leases, out, columns, &place).await;
    }
    let params = ListParams::default();
    let listed = call(Access::leases("list"), || leases.list(&params)).await;
    let items = listed.map_err(|failure| Error::from_call(format!("list leases in {place}"), failure))?.items;
    match out.format {
        Format::Json | Format::Yaml => out.structured(&json!({ "apiVersion": "v1", "kind": "List", "items": items })),
        Format::Name => items.iter().try_for_each(|lease| out.data(lease_name(name(lease)))),
        Format::Text | Format::Wide if items.is_empty() => {
            out.say(format_args!("there are no leases in {place}"));
            Ok(())
        }
        Format::Text | Format::Wide => {
            let mut table = columns.table();
            let now = wall_clock_ms();
            items.iter().for_each(|lease| table.row(columns.row(lease, None, now)));
            out.data(table)
        }
    }
}

/// Writes every lease, then every change, until it is stopped.
async fn follow(leases: Api<Lease>, out: Output, columns: Columns, place: &str) -> Result<()> {
    let mut events = watcher(leases, watcher::Config::default()).default_backoff().boxed();
    let mut stop = std::pin::pin!(signals::stop());
    let mut table = columns.table();
    let mut reached = false;
    loop {
        let event = tokio::select! {
            _ = stop.as_mut() => return Ok(()),
            event = events.try_next() => event,
        };
        let (lease, phase) = match event {
            Ok(Some(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => (lease, None),
            Ok(Some(watcher::Event::Delete(lease))) => (lease, Some("Deleted")),
            Ok(Some(watcher::Event::Init)) => continue,
            Ok(Some(watcher::Event::InitDone)) => {
                if !std::mem::replace(&mut reached, true)
                    && matches!(out.format, Format::Text | Format::Wide)
                    && !out.more(&table)?
                {
                    return Ok(());
                }
                continue;
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                fatal(error, reached)
                    .map_or(Ok(()), |failure| Err(Error::from_call(format!("watch leases in {place}"), failure)))?;
                out.detail("the watch broke off and is opened again");
                continue;
            }
        };
        let is_read = match out.format {
            Format::Json => out.more(serde_json::to_string(&lease).unwrap_or_default())?,
            Format::Yaml => out.more("---")? && out.more_structured(&lease)?,
            Format::Name => out.more(lease_name(name(&lease)))?,
            Format::Text | Format::Wide => {
                table.row(columns.row(&lease, phase, wall_clock_ms()));
                // What there is at the beginning is one table, so that its columns fit.
                !reached || out.more(table.take_last_line())?
            }
        };
        if !is_read {
            return Ok(());
        }
    }
}

/// The failure that ends a watch: one that trying again does not mend, or one before anything was seen.
fn fatal(error: watcher::Error, reached: bool) -> Option<CallFailure> {
    let (verb, error) = match error {
        watcher::Error::InitialListFailed(error) => ("list", error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => ("watch", error),
        watcher::Error::WatchError(status) => ("watch", kube::Error::Api(status)),
        _ => return None,
    };
    let failure = CallFailure { access: Access::leases(verb), kind: CallFailureKind::Kube(error) };
    (!(reached && failure.is_transient())).then_some(failure)
}

fn name(lease: &Lease) -> &str {
    lease.metadata.name.as_deref().unwrap_or_default()
}

#[derive(Debug, Clone, Copy)]
struct Columns {
    namespace: bool,
    wide: bool,
}

impl Columns {
    fn table(self) -> Table {
        let mut head = vec!["NAME", "HOLDER", "PHASE", "TTL", "EXPIRES", "WAITING", "TOKEN", "POLICY", "AGE"];
        if self.namespace {
            head.insert(0, "NAMESPACE");
        }
        if self.wide {
            head.extend(["EXPIRES-AT", "RENEWALS", "REQUEST", "PRIORITY", "RENEWABLE", "REASON"]);
        }
        Table::new(&head)
    }

    fn row(self, lease: &Lease, phase: Option<&str>, now_ms: i64) -> Vec<String> {
        let status = lease.status.clone().unwrap_or_default();
        let held = status.phase == Some(LeasePhase::Held);
        let number = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
        let policy = status.policy.clone().unwrap_or_default();
        let named = lease.spec.policy.as_ref().and_then(|policy| policy.name.clone()).unwrap_or_default();
        let created = lease.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
        let expires = status.expires.clone().filter(|_| held);
        let mut row = vec![
            name(lease).to_owned(),
            status.holder.clone().unwrap_or_default(),
            phase.map_or_else(|| status.phase.map(LeasePhase::as_str).unwrap_or_default().to_owned(), str::to_owned),
            lease.spec.ttl.clone(),
            expires.as_deref().map(|at| relative(at, now_ms)).unwrap_or_default(),
            number(status.waiting),
            number(status.fencing_token),
            if policy.name.is_empty() { named } else { policy.name },
            created.map(|at| span(now_ms - at)).unwrap_or_default(),
        ];
        if self.namespace {
            row.insert(0, lease.metadata.namespace.clone().unwrap_or_default());
        }
        if self.wide {
            row.extend([
                expires.unwrap_or_default(),
                number(status.renewals),
                status.request.map(|request| request.name).unwrap_or_default(),
                lease.spec.priority.unwrap_or_default().to_string(),
                lease.spec.renewable.unwrap_or(true).to_string(),
                policy.reason.unwrap_or_default(),
            ]);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::{LeaseSpec, LeaseStatus, time::parse_timestamp};

    use super::*;

    #[test]
    fn a_row_shows_what_there_is() {
        let mut lease = Lease::new("db", LeaseSpec { ttl: "10m".into(), ..LeaseSpec::default() });
        lease.metadata.namespace = Some("prod".into());
        let now = parse_timestamp("2026-01-01T00:00:00Z").expect("a time");
        let narrow = Columns { namespace: false, wide: false };
        assert_eq!(narrow.row(&lease, None, now), ["db", "", "", "10m", "", "", "", "", ""]);
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("pod-a".into()),
            expires: Some("2026-01-01T00:04:10Z".into()),
            waiting: Some(2),
            fencing_token: Some(7),
            ..LeaseStatus::default()
        });
        let all = Columns { namespace: true, wide: true };
        let row = all.row(&lease, None, now);
        assert_eq!(row[..8], ["prod", "db", "pod-a", "Held", "10m", "in 4m10s", "2", "7"].map(str::to_owned));
        assert_eq!(row.len(), 16);
        assert_eq!(all.row(&lease, Some("Deleted"), now)[3], "Deleted");
    }
}
