//! `koncli lease release`.

use serde_json::json;

use super::{client_for, holder};
use crate::{
    args::ReleaseArgs,
    client::{Client, Connection, Forced, Released, Result},
    output::{Output, lease_name},
};

pub(super) async fn run(connection: &Connection, out: Output, args: ReleaseArgs) -> Result<()> {
    let client = client_for(connection);
    if args.force {
        return force(&client, out, &args.of.name).await;
    }
    let holder = holder(args.of.holder)?;
    let (lease, namespace) = (&args.of.name, client.namespace());
    let mut data = json!({ "lease": lease, "namespace": namespace, "holder": holder, "result": "Released" });
    let line = match client.release(lease, &holder).await? {
        Released::Released { token } => {
            data["token"] = token.into();
            format!("{lease} released by {holder}, token {token}")
        }
        Released::Already => {
            data["result"] = "AlreadyReleased".into();
            format!("{lease} was already released by {holder}")
        }
        Released::Withdrawn(count) => {
            data["result"] = "Withdrawn".into();
            data["requests"] = count.into();
            format!("{holder} did not hold {lease}; withdrew {count} of its requests that waited for it")
        }
    };
    out.done(&lease_name(lease), line, &data)
}

async fn force(client: &Client, out: Output, lease: &str) -> Result<()> {
    let namespace = client.namespace();
    let (line, data) = match client.force_release(lease).await? {
        Forced::Evicted { holder, token } => (
            format!("{lease} released by force, evicted {holder}, token {token}"),
            json!({ "lease": lease, "namespace": namespace, "holder": holder, "token": token, "result": "ForceReleased" }),
        ),
        Forced::Free => (
            format!("{lease} is free, nobody had to be evicted"),
            json!({ "lease": lease, "namespace": namespace, "result": "Free" }),
        ),
    };
    out.done(&lease_name(lease), line, &data)
}
