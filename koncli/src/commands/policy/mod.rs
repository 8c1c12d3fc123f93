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
    client::{Connection, Error, Result},
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
        PolicyCommand::New(args) => without_cluster(new::run(out, &args)),
        PolicyCommand::Inspect(args) => without_cluster(inspect::run(out, &args)),
        PolicyCommand::Test(args) => without_cluster(test::run(out, &args)),
        PolicyCommand::Simulate(args) => without_cluster(simulate::run(out, &args)),
        PolicyCommand::Eval(args) => without_cluster(eval::run(out, args)),
        PolicyCommand::Bench(args) => without_cluster(bench::run(out, &args)),
        PolicyCommand::Replay(args) => without_cluster(replay::run(out, &args)),
    }
}

fn without_cluster(ran: Result<()>) -> Result<()> {
    ran.map_err(Error::without_cluster)
}

fn config_maps(connection: &Connection) -> Api<ConfigMap> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

/// Whether a ConfigMap is a policy.
fn is_policy(map: &ConfigMap) -> bool {
    let labels = map.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(konductor_crds::POLICY_MODULE_LABEL)).is_some_and(|value| value == "true")
}
