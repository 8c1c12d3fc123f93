//! `koncli lease create`.

use konductor_crds::{
    Lease, LeaseSpec,
    v1::{OnFailure, PolicySpec},
};
use kube::{Api, api::PostParams};

use crate::{
    args::{CreateArgs, OnFailureArg},
    client::{Access, Connection, Error, FIELD_MANAGER, Problem, Result, call},
    output::{Output, lease_name},
};

pub(super) async fn run(connection: &Connection, out: Output, args: CreateArgs) -> Result<()> {
    let (name, spec) = spec(args);
    let doing = format!("create lease \"{name}\" in namespace \"{}\"", connection.namespace);
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let object = Lease::new(&name, spec);
    let created = match call(Access::leases("create"), || leases.create(&params, &object)).await {
        Ok(created) => created,
        Err(failure) if failure.status().is_some_and(kube::core::Status::is_already_exists) => {
            return Err(Error::new(doing, Problem::AlreadyExists("there is a lease of that name already".to_owned())));
        }
        Err(failure) => return Err(Error::from_call(doing, failure)),
    };
    out.done(&lease_name(&name), format_args!("{name} created, ttl {}", created.spec.ttl), &created)
}

fn spec(args: CreateArgs) -> (String, LeaseSpec) {
    let CreateArgs { name, ttl, priority, renewable, policy, params, shadow, on_failure } = args;
    let on_failure = on_failure.map(|what| match what {
        OnFailureArg::Default => OnFailure::Default,
        OnFailureArg::Hold => OnFailure::Hold,
    });
    let policy = PolicySpec { name: policy, params, shadow, on_failure };
    let policy = (policy != PolicySpec::default()).then_some(policy);
    (name, LeaseSpec { ttl, priority, renewable, policy })
}
