//! `koncli policy delete`.

use konductor_crds::{Lease, POLICY_MODULE_LABEL};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Preconditions},
};
use serde_json::json;

use super::{config_maps, is_policy};
use crate::{
    client::{Access, Connection, Error, Problem, Result, call},
    output::Output,
};

pub(super) async fn run(connection: &Connection, out: Output, name: &str) -> Result<()> {
    let doing = format!("delete policy \"{name}\" in namespace \"{}\"", connection.namespace);
    let maps = config_maps(connection);
    let found = match call(Access::config_maps("get"), || maps.get(name)).await {
        Ok(found) if is_policy(&found) => found,
        Ok(_) => {
            let why =
                format!("the ConfigMap of that name has no label {POLICY_MODULE_LABEL}=true, so it is something else");
            return Err(Error::new(doing, Problem::NotFound(why)));
        }
        Err(failure) if failure.is_object_missing() => {
            return Err(Error::new(doing, Problem::NotFound("there is no such policy".to_owned())));
        }
        Err(failure) => return Err(Error::from_call(doing, failure)),
    };
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: found.metadata.uid, resource_version: None }),
        ..DeleteParams::default()
    };
    call(Access::config_maps("delete"), || maps.delete(name, &params))
        .await
        .map_err(|failure| Error::from_call(doing, failure))?;
    let users = users(connection, name).await;
    if !users.is_empty() {
        out.say(format_args!("leases of this namespace that still name it: {}", users.join(", ")));
    }
    let data = json!({ "policy": name, "namespace": connection.namespace, "result": "Deleted" });
    out.done(&format!("configmap/{name}"), format_args!("{name} deleted"), &data)
}

/// The leases that name a policy: a courtesy, so a failure to list them is not told.
async fn users(connection: &Connection, name: &str) -> Vec<String> {
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let params = ListParams::default();
    let listed = call(Access::leases("list"), || leases.list(&params)).await;
    let uses = |lease: &Lease| lease.spec.policy.as_ref().and_then(|policy| policy.name.as_deref()) == Some(name);
    let items = listed.map(|list| list.items).unwrap_or_default();
    items.into_iter().filter(uses).filter_map(|lease| lease.metadata.name).collect()
}
