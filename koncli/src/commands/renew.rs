//! `koncli lease renew`.

use serde::Serialize;

use super::{client_for, holder};
use crate::{
    args::HolderArgs,
    client::{Connection, Result},
    output::{Output, lease_name},
};

#[derive(Debug, Serialize)]
struct RenewedData<'a> {
    lease: &'a str,
    namespace: &'a str,
    holder: &'a str,
    token: i64,
    acquired: &'a str,
    expires: &'a str,
    renewals: i64,
}

pub(super) async fn run(connection: &Connection, out: Output, args: HolderArgs) -> Result<()> {
    let holder = holder(args.holder)?;
    let client = client_for(connection);
    let renewed = client.renew(&args.name, &holder).await?;
    let data = RenewedData {
        lease: &args.name,
        namespace: client.namespace(),
        holder: &holder,
        token: renewed.token,
        acquired: &renewed.acquired,
        expires: &renewed.expires,
        renewals: renewed.renewals,
    };
    let line = format!("{} renewed by {holder}, token {}, expires {}", args.name, renewed.token, renewed.expires);
    out.done(&lease_name(&args.name), line, &data)
}
