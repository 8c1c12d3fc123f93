//! What a module must look like before any of its code is compiled or run.
//!
//! In this order, the cheap before the dear: its size, its first bytes, what a walk over its sections
//! shows (how much there is, its imports, its memory, its version of the ABI), whether it is valid,
//! its exports and their types, its digest. What has passed is a [`CheckedModule`], and only such a
//! one is compiled.

use std::{borrow::Cow, fmt, io::Read};

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Engine, InstancePre, Linker, Module, ModuleExport,
    wasmparser::{self, ExternalKind, FuncType, Parser, Payload, ValType},
};

use konductor_policy_abi::exports;

use crate::{
    call::{Exports, Tenant},
    compile::CompileFault,
    fault::Fault,
    limits::{
        Bytes, ENTRIES_MAX, FUNCTION_BODY_MAX, FUNCTIONS_MAX, IMPORTS_SHOWN_MAX, Limits, TABLE_ELEMENTS_MAX, TABLES_MAX,
    },
    text,
};

/// Why a module is not accepted. Its text says the whole: there is no source behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There are no bytes.
    #[error("the module is empty")]
    Empty,
    /// It is too large.
    #[error("the module has {bytes}; the limit is {limit}{}", if *compressed { "" } else { ", or more as policy.wasm.gz" })]
    TooLarge {
        /// Its size as it was uploaded.
        bytes: Bytes,
        /// The limit.
        limit: Bytes,
        /// Whether it was compressed.
        compressed: bool,
    },
    /// It inflates to too much. It was not inflated further.
    #[error("the module inflates to more than {limit}")]
    InflatesTooLarge {
        /// The limit.
        limit: Bytes,
    },
    /// It is not gzip, or broken.
    #[error("the module is not whole gzip data: {problem}")]
    NotGzip {
        /// Why.
        problem: String,
    },
    /// It is compressed where a plain module belongs.
    #[error("the module is compressed with gzip; its key must then be policy.wasm.gz, and once is enough")]
    Gzip,
    /// It is the text format.
    #[error("the module is WebAssembly text; upload the binary, as wat2wasm or wasm-tools parse make it")]
    Text,
    /// It is machine code: an ELF file, such as a `.cwasm` that wasmtime compiled.
    #[error("the module is compiled machine code (ELF); only WebAssembly is accepted, and compiled here")]
    Precompiled,
    /// It is a component, not a core module.
    #[error(
        "the module is a WebAssembly component; a policy is a core module (for Rust: the target wasm32-unknown-unknown)"
    )]
    Component,
    /// It is something else.
    #[error("this is not a WebAssembly module: it does not begin with \\0asm")]
    NotWasm,
    /// It is not valid, or uses what is switched off.
    #[error("the module is not valid here: {problem}")]
    Invalid {
        /// Where and why, as the validator says it.
        problem: String,
    },
    /// There is too much of something in it.
    #[error("the module has {count} {what}; the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// A function of it is too long.
    #[error("a function of the module has {bytes} of code; the limit is {limit}")]
    FunctionTooLarge {
        /// How long.
        bytes: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// It wants more memory to begin with than it may ever have.
    #[error("the module wants a memory of {wanted}; the limit is {limit}")]
    MemoryTooLarge {
        /// What it wants.
        wanted: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// It has imports.
    #[error("the module imports {}; a policy may import nothing", Names(names, *more))]
    ForbiddenImports {
        /// The imports as `module.name`, cleaned and bounded in number and length.
        names: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// It lacks an export.
    #[error("the module does not export {name}")]
    MissingExport {
        /// Which.
        name: &'static str,
    },
    /// An export has another type.
    #[error("the module's export {name} is {found}; it must be {expected}")]
    WrongType {
        /// Which.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It speaks no version of the ABI that this host speaks.
    #[error("the module speaks {}; this host speaks konductor_policy_v1", Versions(found))]
    UnsupportedAbi {
        /// The markers that it has; empty if it has none.
        found: Vec<String>,
    },
    /// The compiler has refused it, or it does not fit the sandbox.
    #[error("the module cannot be compiled: {problem}")]
    Uncompilable {
        /// Why.
        problem: String,
    },
    /// The compiler has failed: it took too long, wanted too much memory, or broke.
    #[error("the module was not compiled: {0}")]
    Compiler(CompileFault),
    /// Its first instance failed, before it was asked anything.
    #[error("the module cannot be started: {0}")]
    Unstartable(Fault),
}

impl Rejection {
    /// The rejection in one word, for a condition's reason or a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::TooLarge { .. } => "TooLarge",
            Self::InflatesTooLarge { .. } => "InflatesTooLarge",
            Self::NotGzip { .. } => "NotGzip",
            Self::Gzip => "Gzip",
            Self::Text => "Text",
            Self::Precompiled => "Precompiled",
            Self::Component => "Component",
            Self::NotWasm => "NotWasm",
            Self::Invalid { .. } => "Invalid",
            Self::TooMany { .. } => "TooMany",
            Self::FunctionTooLarge { .. } => "FunctionTooLarge",
            Self::MemoryTooLarge { .. } => "MemoryTooLarge",
            Self::ForbiddenImports { .. } => "ForbiddenImports",
            Self::MissingExport { .. } => "MissingExport",
            Self::WrongType { .. } => "WrongType",
            Self::UnsupportedAbi { .. } => "UnsupportedAbi",
            Self::Uncompilable { .. } => "Uncompilable",
            Self::Compiler(fault) => fault.reason(),
            Self::Unstartable(_) => "Unstartable",
        }
    }

    /// Whether this says something of the machine as well as of the module, so that trying again may
    /// help. Everything else is a verdict: the same bytes get it again.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::Compiler(_) => true,
            Self::Unstartable(fault) => fault.is_infrastructure(),
            _ => false,
        }
    }
}

/// "a.b, c.d and 3 more"
struct Names<'a>(&'a [String], usize);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))?;
        if self.1 > 0 { write!(f, " and {} more", self.1) } else { Ok(()) }
    }
}

struct Versions<'a>(&'a [String]);

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("no version of the policy ABI (it exports no konductor_policy_v…)")
        } else {
            f.write_str(&self.0.join(", "))
        }
    }
}

/// The SHA-256 of a module: what makes one policy another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    /// `sha256:` and the digest in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A module that was looked at from outside and found good. Nothing of it was compiled, nothing has run.
///
/// It owns the bytes that were looked at, and there is no way to change them: what is compiled is
/// what was checked, and the digest is of that.
pub struct CheckedModule<'a> {
    bytes: Cow<'a, [u8]>,
    digest: Digest,
    name: String,
}

impl fmt::Debug for CheckedModule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedModule").field("digest", &self.name).field("size", &self.bytes.len()).finish()
    }
}

impl CheckedModule<'_> {
    /// Its digest, `sha256:` and hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.name
    }

    /// Its size in bytes, inflated.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn raw_digest(&self) -> Digest {
        self.digest
    }
}

/// Inflates a module.
///
/// # Errors
/// A [`Rejection`] for data that is larger than [`Limits::module_stored`], is not gzip, or inflates
/// to more than [`Limits::module_inflated`]; it is never inflated further than that.
pub fn gunzip(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::Empty);
    }
    if bytes.len() > limits.module_stored.0 {
        let (bytes, limit) = (Bytes(bytes.len()), limits.module_stored);
        return Err(Rejection::TooLarge { bytes, limit, compressed: true });
    }
    let mut inflated = Vec::new();
    // One byte more than the limit tells "at it" from "above it".
    let cap = limits.module_inflated.0 as u64 + 1;
    flate2::read::MultiGzDecoder::new(bytes)
        .take(cap)
        .read_to_end(&mut inflated)
        .map_err(|error| Rejection::NotGzip { problem: text::cleaned(error.to_string(), 256) })?;
    if inflated.len() > limits.module_inflated.0 {
        return Err(Rejection::InflatesTooLarge { limit: limits.module_inflated });
    }
    Ok(inflated)
}

/// Checks the size of a module that is not compressed.
pub(crate) fn check_size(bytes: &[u8], limits: &Limits) -> Result<(), Rejection> {
    if bytes.len() > limits.module_stored.0 {
        let (bytes, limit) = (Bytes(bytes.len()), limits.module_stored);
        return Err(Rejection::TooLarge { bytes, limit, compressed: false });
    }
    Ok(())
}

/// Looks at a module without compiling it: its first bytes, its sections, whether it is valid with
/// the features that are on, its exports.
pub(crate) fn check<'a>(
    engine: &Engine,
    limits: &Limits,
    bytes: impl Into<Cow<'a, [u8]>>,
) -> Result<CheckedModule<'a>, Rejection> {
    let bytes = bytes.into();
    check_magic(&bytes)?;
    check_sections(&bytes, limits)?;
    Module::validate(engine, &bytes)
        .map_err(|error| Rejection::Invalid { problem: text::cleaned(format!("{error:#}"), 512) })?;
    check_exports(&bytes)?;
    let digest = Digest::of(&bytes);
    Ok(CheckedModule { bytes, digest, name: digest.to_string() })
}

/// The digest of a module that is not compressed, as it stands in a Lease's status: `sha256:` and hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Finds the exports of a compiled module and makes it ready to be started.
pub(crate) fn link(engine: &Engine, module: &Module) -> Result<(InstancePre<Tenant>, Exports), Rejection> {
    let exports = Exports {
        memory: index(module, exports::MEMORY)?,
        alloc: index(module, exports::ALLOC)?,
        decide: index(module, exports::DECIDE)?,
        validate: module.get_export_index(exports::VALIDATE),
        describe: module.get_export_index(exports::DESCRIBE),
        initialize: module.get_export_index(exports::INITIALIZE),
    };
    let pre = Linker::new(engine).instantiate_pre(module).map_err(|error| uncompilable(&error))?;
    Ok((pre, exports))
}

pub(crate) fn uncompilable(error: &wasmtime::Error) -> Rejection {
    Rejection::Uncompilable { problem: text::cleaned(format!("{error:#}"), 512) }
}

/// Tells by the first bytes what people upload by mistake.
pub(crate) fn check_magic(bytes: &[u8]) -> Result<(), Rejection> {
    match bytes {
        [] => Err(Rejection::Empty),
        // Version 1 of the core format.
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(()),
        // The layer, 1, in the upper half: a component of whatever version.
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Err(Rejection::Component),
        [0, b'a', b's', b'm', ..] => {
            Err(Rejection::Invalid { problem: "the header is cut off or of another version".to_owned() })
        }
        [0x7f, b'E', b'L', b'F', ..] => Err(Rejection::Precompiled),
        [0x1f, 0x8b, ..] => Err(Rejection::Gzip),
        _ if looks_like_text(bytes) => Err(Rejection::Text),
        _ => Err(Rejection::NotWasm),
    }
}

/// The text format begins with a parenthesis or a comment, perhaps after white space and a byte order mark.
fn looks_like_text(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    bytes.starts_with(b"(") || bytes.starts_with(b";;")
}

/// Walks over the sections without validating what is in them: that is the compiler's business, and
/// what this refuses is what the compiler should not be given.
fn check_sections(bytes: &[u8], limits: &Limits) -> Result<(), Rejection> {
    let at_most =
        |what, count, limit| if count > limit { Err(Rejection::TooMany { what, count, limit }) } else { Ok(()) };
    let mut versions = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::TypeSection(section) => at_most("types", section.count(), ENTRIES_MAX)?,
            Payload::ImportSection(section) => imports(section)?,
            Payload::FunctionSection(section) => at_most("functions", section.count(), FUNCTIONS_MAX)?,
            Payload::TableSection(section) => {
                at_most("tables", section.count(), TABLES_MAX)?;
                for table in section {
                    let initial = u32::try_from(table.map_err(invalid)?.ty.initial).unwrap_or(u32::MAX);
                    at_most("elements in a table", initial, TABLE_ELEMENTS_MAX)?;
                }
            }
            Payload::MemorySection(section) => {
                at_most("memories", section.count(), 1)?;
                for memory in section {
                    memory_size(&memory.map_err(invalid)?, limits)?;
                }
            }
            Payload::GlobalSection(section) => at_most("globals", section.count(), ENTRIES_MAX)?,
            Payload::ExportSection(section) => {
                at_most("exports", section.count(), ENTRIES_MAX)?;
                for export in section {
                    let name = export.map_err(invalid)?.name;
                    if name.starts_with(exports::MARKER_PREFIX) && versions.len() < IMPORTS_SHOWN_MAX {
                        versions.push(text::cleaned(name, 64));
                    }
                }
            }
            Payload::ElementSection(section) => at_most("element segments", section.count(), ENTRIES_MAX)?,
            Payload::DataSection(section) => at_most("data segments", section.count(), ENTRIES_MAX)?,
            Payload::CodeSectionStart { count, .. } => at_most("function bodies", count, FUNCTIONS_MAX)?,
            Payload::CodeSectionEntry(body) => {
                let bytes = Bytes(body.range().len());
                if bytes > FUNCTION_BODY_MAX {
                    return Err(Rejection::FunctionTooLarge { bytes, limit: FUNCTION_BODY_MAX });
                }
            }
            _ => {}
        }
    }
    if versions.iter().any(|version| version == exports::MARKER_V1) {
        Ok(())
    } else {
        Err(Rejection::UnsupportedAbi { found: versions })
    }
}

/// A policy has no imports. Every one of them is named, so that its author need not ask twice.
pub(crate) fn imports(section: wasmparser::ImportSectionReader<'_>) -> Result<(), Rejection> {
    let mut names = Vec::new();
    let mut more = 0;
    for import in section.into_imports() {
        let import = import.map_err(invalid)?;
        if names.len() < IMPORTS_SHOWN_MAX {
            names.push(text::cleaned(format!("{}.{}", import.module, import.name), 128));
        } else {
            more += 1;
        }
    }
    if names.is_empty() { Ok(()) } else { Err(Rejection::ForbiddenImports { names, more }) }
}

pub(crate) fn memory_size(memory: &wasmparser::MemoryType, limits: &Limits) -> Result<(), Rejection> {
    let page = 1u64 << memory.page_size_log2.unwrap_or(16).min(16);
    let wanted = Bytes(usize::try_from(memory.initial.saturating_mul(page)).unwrap_or(usize::MAX));
    if wanted > limits.memory { Err(Rejection::MemoryTooLarge { wanted, limit: limits.memory }) } else { Ok(()) }
}

/// Checks the exports and their types. The module is valid and has no imports, so the indexes of its
/// functions begin with its own.
fn check_exports(bytes: &[u8]) -> Result<(), Rejection> {
    let mut types: Vec<FuncType> = Vec::new();
    let mut functions: Vec<u32> = Vec::new();
    let mut found: Vec<(&'static str, ExternalKind, u32)> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    types.push(ty.map_err(invalid)?);
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    functions.push(ty.map_err(invalid)?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    if let Some(name) = EXPORTS.into_iter().find(|name| *name == export.name) {
                        found.push((name, export.kind, export.index));
                    }
                }
            }
            _ => {}
        }
    }
    let find = |wanted: &'static str| found.iter().find(|(name, ..)| *name == wanted);
    let missing = |name| Rejection::MissingExport { name };
    let (_, kind, _) = find(exports::MEMORY).ok_or(missing(exports::MEMORY))?;
    if !matches!(kind, ExternalKind::Memory) {
        return Err(wrong(exports::MEMORY, "a memory".to_owned(), *kind, None));
    }
    let function = |name: &'static str, params: &[ValType], results: &[ValType]| {
        let Some((_, kind, index)) = find(name) else { return Err(missing(name)) };
        let index = usize::try_from(*index).unwrap_or(usize::MAX);
        let ty = functions.get(index).and_then(|ty| types.get(usize::try_from(*ty).unwrap_or(usize::MAX)));
        let right =
            matches!(kind, ExternalKind::Func) && ty.is_some_and(|ty| ty.params() == params && ty.results() == results);
        if right { Ok(()) } else { Err(wrong(name, signature(params, results), *kind, ty)) }
    };
    let optional = |name, params: &[ValType], results: &[ValType]| match function(name, params, results) {
        Err(Rejection::MissingExport { .. }) => Ok(()),
        other => other,
    };
    use ValType::{I32, I64};
    function(exports::MARKER_V1, &[], &[])?;
    function(exports::ALLOC, &[I32], &[I32])?;
    function(exports::DECIDE, &[I32, I32], &[I64])?;
    optional(exports::VALIDATE, &[I32, I32], &[I64])?;
    optional(exports::DESCRIBE, &[], &[I64])?;
    optional(exports::INITIALIZE, &[], &[])
}

/// The exports that mean something here.
const EXPORTS: [&str; 7] = [
    exports::MEMORY,
    exports::MARKER_V1,
    exports::ALLOC,
    exports::DECIDE,
    exports::VALIDATE,
    exports::DESCRIBE,
    exports::INITIALIZE,
];

fn index(module: &Module, name: &'static str) -> Result<ModuleExport, Rejection> {
    module.get_export_index(name).ok_or(Rejection::MissingExport { name })
}

fn wrong(name: &'static str, expected: String, found: ExternalKind, ty: Option<&FuncType>) -> Rejection {
    let found = match found {
        ExternalKind::Func | ExternalKind::FuncExact => {
            ty.map_or_else(|| "a function".to_owned(), |ty| signature(ty.params(), ty.results()))
        }
        ExternalKind::Memory => "a memory".to_owned(),
        ExternalKind::Global => "a global".to_owned(),
        ExternalKind::Table => "a table".to_owned(),
        ExternalKind::Tag => "a tag".to_owned(),
    };
    Rejection::WrongType { name, expected, found }
}

/// `(i32, i32) -> (i64)`, bounded: a function may have a thousand params.
fn signature(params: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| types.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(params), list(results))
}

fn invalid(error: wasmparser::BinaryReaderError) -> Rejection {
    Rejection::Invalid { problem: text::cleaned(error.to_string(), 512) }
}
