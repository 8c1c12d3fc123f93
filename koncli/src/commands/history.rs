//! `koncli lease history`.

use konductor_crds::{
    Lease,
    time::parse_timestamp,
    v1::{LeasePhase, PastHold},
};
use serde_json::json;

use super::client_for;
use crate::{
    args::Format,
    client::{Connection, Result},
    output::{Output, Table, lease_name, wall_clock_ms},
    text::span,
};

pub(super) async fn run(connection: &Connection, out: Output, name: &str) -> Result<()> {
    let lease = client_for(connection).get(name).await?;
    match out.format {
        Format::Text | Format::Wide => out.data(table(&lease, wall_clock_ms())),
        Format::Name => out.data(lease_name(name)),
        Format::Json | Format::Yaml => {
            let history = lease.status.as_ref().map(|status| status.history.as_slice()).unwrap_or_default();
            out.structured(&json!({ "lease": name, "namespace": connection.namespace, "history": history }))
        }
    }
}

/// The hold that lasts, then those that are over, newest first.
fn table(lease: &Lease, now_ms: i64) -> Table {
    let mut table = Table::new(&["HOLDER", "TOKEN", "ACQUIRED", "ENDED", "HELD-FOR", "HOW"]);
    let Some(status) = &lease.status else {
        return table;
    };
    if status.phase == Some(LeasePhase::Held) {
        let acquired = status.acquired.clone().unwrap_or_default();
        table.row(vec![
            status.holder.clone().unwrap_or_default(),
            status.fencing_token.map(|token| token.to_string()).unwrap_or_default(),
            acquired.clone(),
            String::new(),
            parse_timestamp(&acquired).map(|from| span(now_ms - from)).unwrap_or_default(),
            "Held".to_owned(),
        ]);
    }
    for PastHold { holder, token, acquired, ended, how, request: _, request_name: _ } in &status.history {
        let held_for = match (parse_timestamp(acquired), parse_timestamp(ended)) {
            (Some(from), Some(to)) => span(to - from),
            _ => String::new(),
        };
        table.row(vec![
            holder.clone(),
            token.to_string(),
            acquired.clone(),
            ended.clone(),
            held_for,
            how.as_str().to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use konductor_crds::{LeaseStatus, v1::HoldEnd};

    use super::*;

    #[test]
    fn the_hold_that_lasts_comes_first() {
        let mut lease = Lease::default();
        assert_eq!(table(&lease, 0).to_string(), "HOLDER  TOKEN  ACQUIRED  ENDED  HELD-FOR  HOW");
        lease.status = Some(LeaseStatus {
            phase: Some(LeasePhase::Held),
            holder: Some("b".into()),
            acquired: Some("2026-01-01T00:01:00.000Z".into()),
            fencing_token: Some(9),
            history: vec![PastHold {
                holder: "a".into(),
                request: "u".into(),
                request_name: "r".into(),
                token: 7,
                acquired: "2026-01-01T00:00:00.000Z".into(),
                ended: "2026-01-01T00:00:50.000Z".into(),
                how: HoldEnd::Released,
            }],
            ..LeaseStatus::default()
        });
        let now = parse_timestamp("2026-01-01T00:01:05.000Z").expect("a time");
        assert_eq!(
            table(&lease, now).to_string(),
            "HOLDER  TOKEN  ACQUIRED                  ENDED                     HELD-FOR  HOW\n\
             b       9      2026-01-01T00:01:00.000Z  -                         5s        Held\n\
             a       7      2026-01-01T00:00:00.000Z  2026-01-01T00:00:50.000Z  50s       Released"
        );
    }
}
