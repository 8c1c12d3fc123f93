//! `koncli policy …`: policies are ConfigMaps with a label. What is done with a module before it is
//! one needs no cluster; those commands are thin, and konductor-workbench does the work.

mod bench;
mod delete;
mod eval;
pub(super) mod files;
mod inspect;
mod list;
mod new;
mod replay;
mod simulate;
mod status;
mod test;
mod upload;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::open;
use crate::{
    args::{Global, PolicyCommand},
    client::{Connection, Result},
    output::Output,
};

pub(super) async fn run(global: &Global, out: Output, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Upload { name, file, no_check } => {
            // What is wrong with the file is told before anything is asked of a cluster.
            let module = upload::read(&name, &file)?;
            upload::run(&open(global, out).await?, out, &name, &module, !no_check).await
        }
        PolicyCommand::List { all_namespaces } => list::run(&open(global, out).await?, out, all_namespaces).await,
        PolicyCommand::Status { name } => status::run(&open(global, out).await?, out, &name).await,
        PolicyCommand::Delete { name } => delete::run(&open(global, out).await?, out, &name).await,
        PolicyCommand::New(args) => new::run(out, &args),
        PolicyCommand::Inspect(args) => inspect::run(out, &args),
        PolicyCommand::Test(args) => test::run(out, &args),
        PolicyCommand::Simulate(args) => simulate::run(out, &args),
        PolicyCommand::Eval(args) => eval::run(out, args),
        PolicyCommand::Bench(args) => bench::run(out, &args),
        PolicyCommand::Replay(args) => replay::run(out, &args),
    }
}

fn config_maps(connection: &Connection) -> Api<ConfigMap> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

/// Whether a ConfigMap is a policy.
fn is_policy(map: &ConfigMap) -> bool {
    let labels = map.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(konductor_crds::POLICY_MODULE_LABEL)).is_some_and(|value| value == "true")
}
