//! `koncli policy upload`.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use konductor_crds::{DEFAULT_POLICY, POLICY_MODULE_GZIP_KEY, POLICY_MODULE_KEY, POLICY_MODULE_LABEL};
use kube::api::{ObjectMeta, Patch, PatchParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{config_maps, is_policy};
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
/// Nothing that could be uploaded is larger than this, compressed or not; more is not even read.
const READ_MAX: u64 = 64 * 1024 * 1024;
/// The first bytes of every WebAssembly module.
const MAGIC: &[u8] = b"\0asm";
/// The version of a core module; a component has another one.
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];

/// A module as it is uploaded.
#[derive(Debug)]
pub(super) struct Module {
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
    let mut raw = Vec::new();
    let opened = std::fs::File::open(file).and_then(|opened| opened.take(READ_MAX + 1).read_to_end(&mut raw));
    opened.map_err(|error| invalid(format!("it cannot be read: {error}")))?;
    pack(raw).map_err(invalid)
}

fn pack(raw: Vec<u8>) -> Result<Module, String> {
    match raw.strip_prefix(MAGIC) {
        None if raw.starts_with(b"(module") => {
            return Err("it is WebAssembly text; translate it first, for instance with wat2wasm".to_owned());
        }
        None => return Err("it is not a WebAssembly module: it does not begin with \\0asm".to_owned()),
        Some(rest) if !rest.starts_with(CORE_VERSION) => {
            return Err("it is not a core WebAssembly module of version 1; a component cannot be a policy".to_owned());
        }
        Some(_) => {}
    }
    let size = raw.len();
    let digest =
        format!("sha256:{}", Sha256::digest(&raw).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    if size <= COMPRESS_FROM {
        return Ok(Module { digest, size, key: POLICY_MODULE_KEY, stored: raw });
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
    Ok(Module { digest, size, key: POLICY_MODULE_GZIP_KEY, stored })
}

pub(super) async fn run(connection: &Connection, out: Output, name: &str, module: &Module) -> Result<()> {
    let doing = format!("upload policy \"{name}\" to namespace \"{}\"", connection.namespace);
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
        let mut raw = [MAGIC, CORE_VERSION].concat();
        raw.extend((raw.len()..size).map(fill));
        raw
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
    fn what_is_no_module_or_too_large_is_refused_with_its_reason() {
        for (raw, problem) in [
            (b"".to_vec(), "does not begin with \\0asm"),
            (b"(module)".to_vec(), "WebAssembly text"),
            (b"\0asm\x0d\0\x01\0".to_vec(), "component cannot be a policy"),
            (module(2 * LIMIT, noise), "a ConfigMap holds at most 1.0 MiB"),
        ] {
            let error = pack(raw).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
        let error = read("p", Path::new("/no/such/file")).expect_err("missing");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        assert!(read("default", Path::new("x")).expect_err("built in").to_string().contains("built-in"));
    }
}
