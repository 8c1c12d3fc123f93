//! `koncli policy upload`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use konductor_crds::{DEFAULT_POLICY, Lease, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY, POLICY_MODULE_LABEL};
use konductor_workbench::probe::{self, Probe};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, Patch, PatchParams},
};
use serde_json::json;

use super::{config_maps, files, is_policy};
use crate::{
    client::{Access, Connection, Error, FIELD_MANAGER, Problem, Result, call},
    output::Output,
    text::bytes,
};

/// What a ConfigMap can hold.
const LIMIT: usize = 1024 * 1024;
/// From this size on a module is compressed. In a request it is base64, a third larger, and API
/// servers and their admission webhooks have limits of their own.
const COMPRESS_FROM: usize = 700 * 1024;

/// A module as it is uploaded.
#[derive(Debug)]
pub(super) struct Module {
    named: PathBuf,
    digest: String,
    size: usize,
    key: &'static str,
    stored: Vec<u8>,
}

/// Reads a module and makes it fit.
pub(super) fn read(name: &str, file: &Path) -> Result<Module> {
    let doing = || format!("upload {} as policy \"{name}\"", file.display());
    let invalid = |why: String| Error::new(doing(), Problem::Invalid(why));
    if name == DEFAULT_POLICY {
        return Err(invalid(format!("\"{DEFAULT_POLICY}\" is the built-in policy; choose another name")));
    }
    let bytes = files::contents(file).map_err(|why| invalid(format!("it cannot be read: {why}")))?;
    if bytes.is_empty() {
        return Err(invalid("the file is empty".to_owned()));
    }
    let raw = konductor_workbench::inflate(bytes).map_err(|rejection| {
        invalid(rejection.to_string())
            .with_note("name the .wasm file itself: what is large is compressed when it is uploaded")
    })?;
    pack(file, raw).map_err(invalid)
}

/// Does here what the controller will do with the module: loads it, and asks it the questions that it
/// will be asked there, with the params of the leases that use it. What fails here would be refused there.
fn check(name: &str, module: &Module, params: Vec<String>) -> Result<Vec<String>> {
    let doing = || format!("upload {} as policy \"{name}\"", module.named.display());
    let host = files::host()?;
    let failed = |what: &str, why: String| {
        let look = format!("everything about it: koncli policy inspect {}", module.named.display());
        let force = "--no-check uploads it nonetheless; the controller refuses it then, and keeps the one before";
        Error::new(doing(), Problem::Invalid(format!("{what}: {why}"))).with_note(look).with_note(force)
    };
    let policy = konductor_workbench::load(&host, &module.stored)
        .map_err(|rejection| failed(rejection.reason(), rejection.to_string()))?;
    let probe = Probe { params, ..Probe::default() };
    let probed = probe::probe(&policy, &probe).map_err(|failure| failed(failure.reason(), failure.to_string()))?;
    Ok(probed.warning().into_iter().collect())
}

/// A module under the key that says how it is stored. Its digest is that of the raw bytes, as the controller computes it.
fn pack(named: &Path, raw: Vec<u8>) -> Result<Module, String> {
    let named = named.to_owned();
    let size = raw.len();
    let digest = konductor_workbench::digest(&raw);
    if size <= COMPRESS_FROM {
        return Ok(Module { named, digest, size, key: POLICY_MODULE_KEY, stored: raw });
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let stored = encoder
        .write_all(&raw)
        .and_then(|()| encoder.finish())
        .map_err(|error| format!("it cannot be compressed: {error}"))?;
    if stored.len() > LIMIT {
        return Err(format!(
            "it has {}, compressed {}; a ConfigMap holds at most {}: build it with opt-level, lto and strip, or run wasm-opt on it",
            bytes(size),
            bytes(stored.len()),
            bytes(LIMIT)
        ));
    }
    Ok(Module { named, digest, size, key: POLICY_MODULE_GZIP_KEY, stored })
}

pub(super) async fn run(
    connection: &Connection,
    out: Output,
    name: &str,
    module: &Module,
    is_checked: bool,
) -> Result<()> {
    let doing = format!("upload policy \"{name}\" to namespace \"{}\"", connection.namespace);
    if is_checked {
        for warning in check(name, module, params(connection, name).await)? {
            out.say(format_args!("warning: {warning}"));
        }
    }
    let maps = config_maps(connection);
    match call(Access::config_maps("get"), || maps.get(name)).await {
        Ok(found) if !is_policy(&found) => {
            let why = format!(
                "there is a ConfigMap of that name without the label {POLICY_MODULE_LABEL}=true, so it is something else"
            );
            return Err(Error::new(doing, Problem::AlreadyExists(why)));
        }
        Ok(_) => {}
        Err(failure) if failure.is_object_missing() => {}
        Err(failure) => return Err(Error::from_call(doing, failure)),
    }
    let patch = Patch::Apply(config_map(name, module));
    // Forced: an upload means that this is the policy now, whoever made the one before.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = call(Access::config_maps("patch"), || maps.patch(name, &params, &patch)).await;
    let applied = applied.map_err(|failure| Error::from_call(&doing, failure))?;
    // Under the other key there may still be an older module, which somebody else has put there.
    let other = if module.key == POLICY_MODULE_KEY { POLICY_MODULE_GZIP_KEY } else { POLICY_MODULE_KEY };
    let is_left = applied.binary_data.as_ref().is_some_and(|data| data.contains_key(other));
    let applied = match is_left {
        false => applied,
        true => {
            let patch = Patch::Merge(json!({ "binaryData": { other: null } }));
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let cleared = call(Access::config_maps("patch"), || maps.patch(name, &params, &patch)).await;
            cleared.map_err(|failure| Error::from_call(&doing, failure))?
        }
    };
    let stored = if module.key == POLICY_MODULE_GZIP_KEY {
        format!("{}, compressed {}", bytes(module.size), bytes(module.stored.len()))
    } else {
        bytes(module.size)
    };
    let data = json!({
        "policy": name,
        "namespace": connection.namespace,
        "digest": module.digest,
        "size": module.size,
        "key": module.key,
        "resourceVersion": applied.metadata.resource_version,
    });
    out.done(&format!("configmap/{name}"), format_args!("{name} uploaded, {stored}, {}", module.digest), &data)
}

/// The params of the leases that name the policy, as far as they may be seen: the controller has all of them.
async fn params(connection: &Connection, name: &str) -> Vec<String> {
    let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
    let all = ListParams::default();
    let Ok(listed) = call(Access::leases("list"), || leases.list(&all)).await else { return Vec::new() };
    let policies = listed.items.into_iter().filter_map(|lease| lease.spec.policy);
    let named = policies.filter(|policy| policy.name.as_deref() == Some(name));
    let params = named.filter_map(|policy| Some(serde_json::Value::Object(policy.params?).to_string()));
    params.collect::<BTreeSet<_>>().into_iter().collect()
}

fn config_map(name: &str, module: &Module) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(POLICY_MODULE_LABEL.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        binary_data: Some(BTreeMap::from([(module.key.to_owned(), ByteString(module.stored.clone()))])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(size: usize, fill: impl Fn(usize) -> u8) -> Vec<u8> {
        let mut raw = b"\0asm\x01\0\0\0".to_vec();
        raw.extend((raw.len()..size).map(fill));
        raw
    }

    fn pack(raw: Vec<u8>) -> Result<Module, String> {
        super::pack(Path::new("policy.wasm"), raw)
    }

    /// Bytes that do not compress.
    fn noise(i: usize) -> u8 {
        let x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
    }

    #[test]
    fn a_module_is_stored_as_it_is_or_compressed() {
        let small = pack(module(1_000, |_| 0)).expect("small");
        assert_eq!((small.key, small.stored.len()), (POLICY_MODULE_KEY, 1_000));
        assert!(small.digest.starts_with("sha256:") && small.digest.len() == 71, "{}", small.digest);
        let large = pack(module(2 * LIMIT, |_| 0)).expect("compresses well");
        assert_eq!((large.key, large.size), (POLICY_MODULE_GZIP_KEY, 2 * LIMIT));
        assert!(large.stored.starts_with(&[0x1f, 0x8b]) && large.stored.len() < LIMIT);
        let map = config_map("p", &large);
        assert!(is_policy(&map));
        assert_eq!(map.binary_data.expect("data").keys().collect::<Vec<_>>(), [POLICY_MODULE_GZIP_KEY]);
    }

    #[test]
    fn a_module_that_is_compressed_already_is_stored_as_if_it_was_not() {
        let gzip = |raw: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(raw).and_then(|()| encoder.finish()).expect("compressed")
        };
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("p.wasm.gz");
        for raw in [module(1_000, |_| 0), module(2 * LIMIT, |_| 0)] {
            std::fs::write(&file, gzip(&raw)).expect("written");
            let (read, packed) = (read("p", &file).expect("read"), pack(raw).expect("packed"));
            let all = |module: &Module| (module.digest.clone(), module.size, module.key, module.stored.clone());
            assert!(all(&read) == all(&packed), "{} {} {}", read.digest, read.size, read.key);
        }
        for (bytes, problem) in
            [(gzip(&module(5 * LIMIT, |_| 0)), "inflates to more than"), (b"\x1f\x8bcut".to_vec(), "gzip")]
        {
            std::fs::write(&file, bytes).expect("written");
            let error = read("p", &file).expect_err(problem);
            assert!(error.to_string().contains(problem) && error.exit_code() == 2, "{error}");
        }
    }

    #[test]
    fn what_is_no_module_or_too_large_is_refused_with_its_reason() {
        for (raw, problem) in [
            (b"".to_vec(), "Empty"),
            (b"(module)".to_vec(), "text"),
            (b"\0asm\x0d\0\x01\0".to_vec(), "component"),
            (module(1_000, |_| 0), "Invalid"),
        ] {
            let module = pack(raw).expect("small");
            let error = check("p", &module, Vec::new()).expect_err(problem);
            assert!(error.to_string().contains(problem), "{problem}: {error}");
        }
        let error = pack(module(2 * LIMIT, noise)).expect_err("large");
        assert!(error.contains("a ConfigMap holds at most 1.0 MiB"), "{error}");
        let error = read("p", Path::new("/no/such/file")).expect_err("missing");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        assert!(read("default", Path::new("x")).expect_err("built in").to_string().contains("built-in"));
    }
}
