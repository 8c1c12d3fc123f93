//! What a module is, and every reason why a host would refuse it.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use konductor_policy::{Anatomy, Description, Host, Rejection};
use serde::Serialize;
use serde_json::Value;

use crate::module;

/// What there is to say about a module.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether a host would take it.
    pub accepted: bool,
    /// Why not: every reason.
    pub refusals: Vec<Refusal>,
    /// What can be seen from outside; `None` if it is no module.
    #[serde(flatten)]
    pub module: Option<Module>,
    /// What it says of itself, if it was taken and says something.
    pub description: Option<Says>,
}

/// A reason to refuse a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// What can be seen of a module from outside.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    /// `sha256:` and hexadecimal.
    pub digest: String,
    /// In bytes.
    pub size: usize,
    /// In bytes, compressed with gzip as `koncli policy upload` does.
    pub compressed_size: usize,
    /// Name and size of every section.
    pub sections: Vec<Section>,
    /// Name and type.
    pub imports: Vec<Typed>,
    /// Name and type.
    pub exports: Vec<Typed>,
    /// Its memory at first, in bytes.
    pub memory: Option<u64>,
    /// The most memory that it declares, in bytes.
    pub memory_max: Option<u64>,
    /// How many functions it has.
    pub functions: u32,
    /// The longest of them, in bytes.
    pub longest_function: usize,
    /// Whether code runs when it is instantiated.
    pub start_section: bool,
    /// Whether its functions have names.
    pub function_names: bool,
    /// What made it.
    pub producers: Vec<String>,
}

/// A section.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its name; a custom one's in quotes.
    pub name: String,
    /// In bytes.
    pub size: usize,
}

/// A name and a type.
#[derive(Debug, Clone, Serialize)]
pub struct Typed {
    /// The name.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub ty: String,
}

/// What a policy says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Says {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its params.
    pub params_schema: Option<Value>,
}

/// Looks at a module as it lies in a file, compressed or not.
#[must_use]
pub fn inspect(host: &Host, stored: &[u8]) -> Report {
    let loaded = module::load(host, stored);
    let inflated =
        if module::is_gzip(stored) { konductor_policy::gunzip(stored, host.limits()) } else { Ok(stored.to_vec()) };
    let anatomy = inflated.and_then(|bytes| Anatomy::of(&bytes, host.limits()).map(|anatomy| (anatomy, bytes)));
    let mut refusals: Vec<Rejection> = Vec::new();
    let module = match anatomy {
        Ok((mut anatomy, bytes)) => {
            refusals.append(&mut anatomy.refusals);
            Some(describe(anatomy, compressed_size(&bytes)))
        }
        Err(rejection) => {
            refusals.push(rejection);
            None
        }
    };
    let description = match loaded {
        Ok(policy) => {
            debug_assert!(refusals.is_empty(), "what a host takes has nothing to be refused for: {refusals:?}");
            refusals.clear();
            policy.describe().map(says)
        }
        Err(rejection) => {
            // A missing marker is told twice by its nature: as a missing version, and as a missing export.
            if !refusals.iter().any(|other| other.reason() == rejection.reason()) {
                refusals.push(rejection);
            }
            None
        }
    };
    let refusals: Vec<Refusal> =
        refusals.iter().map(|r| Refusal { reason: r.reason(), message: r.to_string() }).collect();
    Report { accepted: refusals.is_empty(), refusals, module, description }
}

/// Looks at the built-in policy.
#[must_use]
pub fn builtin(host: &Host) -> Report {
    inspect(host, Host::builtin_module())
}

fn describe(anatomy: Anatomy, compressed_size: usize) -> Module {
    const PAGE: u64 = 64 * 1024;
    let typed = |list: Vec<(String, String)>| list.into_iter().map(|(name, ty)| Typed { name, ty }).collect();
    Module {
        digest: anatomy.digest,
        size: anatomy.size,
        compressed_size,
        sections: anatomy.sections.into_iter().map(|(name, size)| Section { name, size }).collect(),
        imports: typed(anatomy.imports),
        exports: typed(anatomy.exports),
        memory: anatomy.memory.map(|(initial, _)| initial.saturating_mul(PAGE)),
        memory_max: anatomy.memory.and_then(|(_, most)| most).map(|most| most.saturating_mul(PAGE)),
        functions: anatomy.functions,
        longest_function: anatomy.longest_function,
        start_section: anatomy.starts,
        function_names: anatomy.names,
        producers: anatomy.producers,
    }
}

fn compressed_size(bytes: &[u8]) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to a vector does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().map_or(0, |compressed| compressed.len())
}

fn says(description: &Description) -> Says {
    Says {
        name: description.name.clone(),
        version: description.version.clone(),
        description: description.description.clone(),
        params_schema: description.params_schema.clone(),
    }
}
