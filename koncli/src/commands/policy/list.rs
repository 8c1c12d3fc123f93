//! `koncli policy list`.

use k8s_openapi::api::core::v1::ConfigMap;
use konductor_crds::{POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY, POLICY_MODULE_LABEL};
use kube::{Api, api::ListParams};
use serde_json::json;

use super::config_maps;
use crate::{
    args::Format,
    client::{Access, Connection, Error, Result, call},
    output::{Output, Table, wall_clock_ms},
    text::{bytes, span},
};

pub(super) async fn run(connection: &Connection, out: Output, all_namespaces: bool) -> Result<()> {
    let (maps, place): (Api<ConfigMap>, _) = if all_namespaces {
        (Api::all(connection.client.clone()), "all namespaces".to_owned())
    } else {
        (config_maps(connection), format!("namespace \"{}\"", connection.namespace))
    };
    let params = ListParams::default().labels(&format!("{POLICY_MODULE_LABEL}=true"));
    let listed = call(Access::config_maps("list"), || maps.list(&params)).await;
    let items = listed.map_err(|failure| Error::from_call(format!("list policies in {place}"), failure))?.items;
    match out.format {
        Format::Json | Format::Yaml => {
            let items: Vec<_> = items.iter().map(|map| {
                let (key, size) = module(map).unwrap_or_default();
                json!({ "policy": map.metadata.name, "namespace": map.metadata.namespace, "key": key, "size": size, "resourceVersion": map.metadata.resource_version })
            }).collect();
            out.structured(&json!({ "policies": items }))
        }
        Format::Name => items.iter().try_for_each(|map| out.data(format_args!("configmap/{}", name(map)))),
        Format::Text | Format::Wide if items.is_empty() => {
            out.say(format_args!("there are no uploaded policies in {place}; the built-in policy is always there"));
            Ok(())
        }
        Format::Text | Format::Wide => {
            let head = ["NAMESPACE", "NAME", "MODULE", "SIZE", "AGE"];
            let skip = usize::from(!all_namespaces);
            let mut table = Table::new(&head[skip..]);
            let now = wall_clock_ms();
            for map in &items {
                let (key, size) = module(map).unwrap_or(("none", 0));
                let created = map.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
                let row = vec![
                    map.metadata.namespace.clone().unwrap_or_default(),
                    name(map).to_owned(),
                    key.to_owned(),
                    bytes(size),
                    created.map(|at| span(now - at)).unwrap_or_default(),
                ];
                table.row(row.into_iter().skip(skip).collect());
            }
            out.data(table)
        }
    }
}

fn name(map: &ConfigMap) -> &str {
    map.metadata.name.as_deref().unwrap_or_default()
}

/// Under which key the module stands, and its size there.
fn module(map: &ConfigMap) -> Option<(&'static str, usize)> {
    let data = map.binary_data.as_ref()?;
    [POLICY_MODULE_KEY, POLICY_MODULE_GZIP_KEY]
        .into_iter()
        .find_map(|key| data.get(key).map(|module| (key, module.0.len())))
}
