//! `koncli lease delete`.

use konductor_crds::Lease;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde_json::json;

use super::client_for;
use crate::{
    client::{Access, Connection, Error, LeaseSeen, Result, call},
    output::{Output, lease_name},
};

pub(super) async fn run(connection: &Connection, out: Output, name: &str) -> Result<()> {
    let found = client_for(connection).get(name).await?;
    let seen = LeaseSeen::of(&found);
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: found.metadata.uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match call(Access::leases("delete"), || leases.delete(name, &params)).await {
        Ok(_) => {}
        Err(failure) if failure.is_object_missing() => {}
        Err(failure) => {
            let doing = format!("delete lease \"{name}\" in namespace \"{}\"", connection.namespace);
            return Err(Error::from_call(doing, failure));
        }
    }
    if let Some(holder) = &seen.holder {
        out.say(format_args!("{holder} held it, and can neither renew nor release it any more"));
    }
    let data = json!({ "lease": name, "namespace": connection.namespace, "result": "Deleted" });
    out.done(&lease_name(name), format_args!("{name} deleted"), &data)
}
