//! `koncli lease list`.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _};
use konductor_crds::{Lease, v1::LeasePhase};
use kube::{
    Api,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use super::{
    problem::{problems, reasons_of},
    signals,
};
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
            out.data(table)?;
            // Who reads the table with a program gets the columns that it had; a person sees both.
            columns.troubled(&items).into_iter().for_each(|line| out.say(line));
            Ok(())
        }
    }
}

/// Writes every lease, then every change, until it is stopped.
async fn follow(leases: Api<Lease>, out: Output, columns: Columns, place: &str) -> Result<()> {
    let mut events = watcher(leases, watcher::Config::default()).default_backoff().boxed();
    let mut stop = std::pin::pin!(signals::stop());
    let mut table = columns.table();
    let mut reached = false;
    let mut known = Known::default();
    // What is said on stderr, after the table or line that it is about.
    let mut news: Vec<String> = Vec::new();
    loop {
        if reached {
            news.drain(..).for_each(|line| out.say(line));
        }
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
                news.extend(known.news(columns, &lease, phase.is_some()));
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

/// The problems that a watch has told: each is told once, until it is another or gone.
#[derive(Debug, Default)]
struct Known(HashMap<String, String>);

impl Known {
    fn news(&mut self, columns: Columns, lease: &Lease, is_gone: bool) -> Option<String> {
        let lines = if is_gone { Vec::new() } else { columns.troubled(std::slice::from_ref(lease)) };
        let lease = columns.full_name(lease);
        match lines.into_iter().next() {
            None => {
                self.0.remove(&lease);
                None
            }
            Some(line) => (self.0.insert(lease, line.clone()).as_ref() != Some(&line)).then_some(line),
        }
    }
}

/// So many leases with a problem are named on one line; `-o wide` has them all.
const NAMED_MOST: usize = 5;

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
            head.extend(["EXPIRES-AT", "RENEWALS", "REQUEST", "PRIORITY", "RENEWABLE", "REASON", "PROBLEM"]);
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
                reasons_of(&problems(lease)),
            ]);
        }
        row
    }

    fn full_name(self, lease: &Lease) -> String {
        match lease.metadata.namespace.as_deref().filter(|_| self.namespace) {
            Some(namespace) => format!("{namespace}/{}", name(lease)),
            None => name(lease).to_owned(),
        }
    }

    /// What is said of leases that do not work as they are meant to, where no column says it.
    fn troubled(self, leases: &[Lease]) -> Vec<String> {
        let troubled: Vec<(&Lease, String)> = leases
            .iter()
            .map(|lease| (lease, reasons_of(&problems(lease))))
            .filter(|(_, reasons)| !self.wide && !reasons.is_empty())
            .collect();
        let Some((first, _)) = troubled.first() else { return Vec::new() };
        let named: Vec<String> = troubled
            .iter()
            .take(NAMED_MOST)
            .map(|(lease, reasons)| format!("{} ({reasons})", self.full_name(lease)))
            .collect();
        let (count, more) = match (troubled.len(), troubled.len().saturating_sub(NAMED_MOST)) {
            (1, _) => ("1 lease has a problem".to_owned(), String::new()),
            (count, 0) => (format!("{count} leases have a problem"), String::new()),
            (count, more) => (format!("{count} leases have a problem"), format!(" and {more} more (-o wide)")),
        };
        let namespace = first.metadata.namespace.as_deref().filter(|_| self.namespace);
        let namespace = namespace.map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
        let which = format!("koncli lease status {}{namespace} says which", name(first));
        vec![format!("{count}: {}{more}; {which}", named.join(", "))]
    }
}

#[cfg(test)]
mod tests {
    use konductor_crds::{LeaseSpec, LeaseStatus, time::parse_timestamp};

    use super::*;
    use crate::commands::problem::tests::lease;

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
        assert_eq!((row.len(), row[16].as_str()), (17, ""));
        assert_eq!(all.row(&lease, Some("Deleted"), now)[3], "Deleted");
    }

    #[test]
    fn a_problem_has_a_column_or_a_line_beside_the_table() {
        const SPEC: [&str; 4] = ["Ready", "False", "InvalidSpec", "spec.ttl is \"1y\""];
        let mut inv = lease("inv", &[SPEC]);
        inv.metadata.namespace = Some("prod".into());
        let fine = lease("fine", &[["Ready", "True", "LeaseReady", ""], ["Held", "False", "LeaseAvailable", ""]]);
        let narrow = Columns { namespace: false, wide: false };
        let wide = Columns { namespace: true, wide: true };
        assert_eq!(wide.row(&inv, None, 0).last().map(String::as_str), Some("InvalidSpec"));
        assert_eq!(narrow.row(&inv, None, 0)[2], "Available", "a script reads the phase");
        assert!(
            wide.troubled(std::slice::from_ref(&inv)).is_empty()
                && narrow.troubled(std::slice::from_ref(&fine)).is_empty()
        );
        assert_eq!(
            narrow.troubled(&[fine.clone(), inv.clone()]),
            ["1 lease has a problem: inv (InvalidSpec); koncli lease status inv says which"]
        );
        let everywhere = Columns { namespace: true, wide: false }.troubled(&vec![inv.clone(); 7]);
        assert!(everywhere[0].starts_with("7 leases have a problem: prod/inv (InvalidSpec), "), "{everywhere:?}");
        assert!(everywhere[0].ends_with(" and 2 more (-o wide); koncli lease status inv -n prod says which"));

        let mut known = Known::default();
        let mut mended = inv.clone();
        mended.status = fine.status.clone();
        assert!(known.news(narrow, &inv, false).is_some() && known.news(narrow, &inv, false).is_none());
        assert!(known.news(narrow, &mended, false).is_none() && known.news(narrow, &inv, false).is_some());
        assert!(known.news(narrow, &inv, true).is_none() && known.news(narrow, &inv, false).is_some());
    }
}
