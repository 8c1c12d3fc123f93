//! `koncli lease once`.

use serde_json::json;

use super::client_for;
use crate::{
    args::{Format, OnceCommand},
    client::{Completed, Connection, Result},
    output::{Output, Table, lease_name},
};

pub(super) async fn run(connection: &Connection, out: Output, command: OnceCommand) -> Result<()> {
    let client = client_for(connection);
    match command {
        OnceCommand::List { name } => {
            let completed = client.completed(&name).await?;
            match out.format {
                Format::Json | Format::Yaml => {
                    out.structured(&json!({ "lease": name, "namespace": client.namespace(), "completed": completed }))
                }
                Format::Name => completed.iter().try_for_each(|completed| out.data(&completed.key)),
                Format::Text | Format::Wide if completed.is_empty() => {
                    out.say(format_args!("nothing is recorded as completed under {name}"));
                    Ok(())
                }
                Format::Text | Format::Wide => out.data(table(&completed)),
            }
        }
        OnceCommand::Clear { name, keys, all } => {
            let cleared = client.clear_completed(&name, (!all).then_some(&*keys)).await?;
            let shown: Vec<&str> = cleared.iter().map(|completed| completed.key.as_str()).collect();
            let line = match &*shown {
                [] => format!("nothing was recorded as completed under {name}"),
                shown => format!("cleared {} of {name}: it will run again", shown.join(", ")),
            };
            let data = json!({ "lease": name, "namespace": client.namespace(), "cleared": cleared });
            out.done(&lease_name(&name), line, &data)
        }
    }
}

fn table(completed: &[Completed]) -> String {
    let mut table = Table::new(&["KEY", "COMPLETED", "BY", "TOKEN"]);
    for Completed { key, at, holder, token } in completed {
        table.row(vec![key.to_string(), at.clone(), holder.clone(), token.to_string()]);
    }
    table.to_string()
}
