//! What a module is made of, for its author: all that can be seen from outside, also of a module
//! that is refused, and every reason to refuse it, where loading it stops at the first.

use konductor_policy_abi::exports;
use wasmtime::wasmparser::{
    self, BinaryReaderError, CompositeInnerType, ExternalKind, FuncType, KnownCustom, Name, Parser, Payload, TypeRef,
};

use crate::{
    limits::{
        Bytes, ENTRIES_MAX, FUNCTION_BODY_MAX, FUNCTIONS_MAX, IMPORTS_SHOWN_MAX, Limits, TABLE_ELEMENTS_MAX, TABLES_MAX,
    },
    module::{self, Rejection},
    text,
};

/// The longest name of an import, an export or a section that is shown.
const NAME_MAX: usize = 128;
/// The most entries of a list that are shown; a module may have more of them than anybody reads.
const SHOWN_MAX: usize = 1_000;

/// What a module is made of. Names are cleaned and bounded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Anatomy {
    /// `sha256:` and hexadecimal.
    pub digest: String,
    /// Its size in bytes, inflated.
    pub size: usize,
    /// Its sections in their order: their name, and their size in bytes. A custom one is called by
    /// its own name, in quotes.
    pub sections: Vec<(String, usize)>,
    /// What it imports: `module.name`, and the type.
    pub imports: Vec<(String, String)>,
    /// What it exports: the name, and the type.
    pub exports: Vec<(String, String)>,
    /// Its memory in pages of 64 KiB: at first, and at most if it says so.
    pub memory: Option<(u64, Option<u64>)>,
    /// How many functions it has of its own.
    pub functions: u32,
    /// The longest of them, in bytes of code.
    pub longest_function: usize,
    /// Whether it has a start section: code that runs before anything is asked.
    pub starts: bool,
    /// Whether its functions have names, which a trap's backtrace then shows.
    pub names: bool,
    /// What made it, as the tools themselves say.
    pub producers: Vec<String>,
    /// Why a host refuses it, as far as can be seen without compiling it. Loading it may find more.
    pub refusals: Vec<Rejection>,
}

impl Anatomy {
    /// Looks at a module, inflated.
    ///
    /// # Errors
    /// A [`Rejection`] for what is no module at all, or a broken one: there is nothing to look at.
    pub fn of(bytes: &[u8], limits: &Limits) -> Result<Self, Rejection> {
        module::check_magic(bytes)?;
        let mut look = Look {
            anatomy: Self { digest: module::digest(bytes), size: bytes.len(), ..Self::default() },
            limits,
            types: Vec::new(),
            functions: Vec::new(),
            versions: Vec::new(),
        };
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(invalid)?;
            if let Some((id, range)) = payload.as_section() {
                let name = match &payload {
                    Payload::CustomSection(custom) => format!("\"{}\"", text::cleaned(custom.name(), NAME_MAX)),
                    _ => section_name(id).to_owned(),
                };
                push(&mut look.anatomy.sections, (name, range.len()));
            }
            look.see(payload)?;
        }
        look.judge();
        Ok(look.anatomy)
    }
}

struct Look<'a> {
    anatomy: Anatomy,
    limits: &'a Limits,
    types: Vec<Option<FuncType>>,
    /// The type of every function, the imported ones first.
    functions: Vec<u32>,
    versions: Vec<String>,
}

impl Look<'_> {
    fn see(&mut self, payload: Payload<'_>) -> Result<(), Rejection> {
        match payload {
            Payload::TypeSection(section) => {
                self.at_most("types", section.count(), ENTRIES_MAX);
                for group in section {
                    for ty in group.map_err(invalid)?.into_types() {
                        self.types.push(match ty.composite_type.inner {
                            CompositeInnerType::Func(func) => Some(func),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                if let Err(refusal) = module::imports(section.clone()) {
                    self.anatomy.refusals.push(refusal);
                }
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    let ty = match import.ty {
                        TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                            self.functions.push(index);
                            self.signature(index)
                        }
                        TypeRef::Memory(_) => "a memory".to_owned(),
                        TypeRef::Global(_) => "a global".to_owned(),
                        TypeRef::Table(_) => "a table".to_owned(),
                        TypeRef::Tag(_) => "a tag".to_owned(),
                    };
                    let name = text::cleaned(format!("{}.{}", import.module, import.name), NAME_MAX);
                    push(&mut self.anatomy.imports, (name, ty));
                }
            }
            Payload::FunctionSection(section) => {
                self.anatomy.functions = section.count();
                self.at_most("functions", section.count(), FUNCTIONS_MAX);
                for index in section {
                    self.functions.push(index.map_err(invalid)?);
                }
            }
            Payload::TableSection(section) => {
                self.at_most("tables", section.count(), TABLES_MAX);
                for table in section {
                    let initial = u32::try_from(table.map_err(invalid)?.ty.initial).unwrap_or(u32::MAX);
                    self.at_most("elements in a table", initial, TABLE_ELEMENTS_MAX);
                }
            }
            Payload::MemorySection(section) => {
                self.at_most("memories", section.count(), 1);
                for memory in section {
                    let memory = memory.map_err(invalid)?;
                    self.anatomy.memory.get_or_insert((memory.initial, memory.maximum));
                    if let Err(refusal) = module::memory_size(&memory, self.limits) {
                        self.anatomy.refusals.push(refusal);
                    }
                }
            }
            Payload::GlobalSection(section) => self.at_most("globals", section.count(), ENTRIES_MAX),
            Payload::ExportSection(section) => {
                self.at_most("exports", section.count(), ENTRIES_MAX);
                for export in section {
                    let export = export.map_err(invalid)?;
                    let ty = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => {
                            let index = self.functions.get(export.index as usize).copied();
                            index.map_or_else(|| "a function".to_owned(), |index| self.signature(index))
                        }
                        ExternalKind::Memory => "a memory".to_owned(),
                        ExternalKind::Global => "a global".to_owned(),
                        ExternalKind::Table => "a table".to_owned(),
                        ExternalKind::Tag => "a tag".to_owned(),
                    };
                    if export.name.starts_with(exports::MARKER_PREFIX) && self.versions.len() < IMPORTS_SHOWN_MAX {
                        self.versions.push(text::cleaned(export.name, 64));
                    }
                    push(&mut self.anatomy.exports, (text::cleaned(export.name, NAME_MAX), ty));
                }
            }
            Payload::StartSection { .. } => self.anatomy.starts = true,
            Payload::ElementSection(section) => self.at_most("element segments", section.count(), ENTRIES_MAX),
            Payload::DataSection(section) => self.at_most("data segments", section.count(), ENTRIES_MAX),
            Payload::CodeSectionStart { count, .. } => self.at_most("function bodies", count, FUNCTIONS_MAX),
            Payload::CodeSectionEntry(body) => {
                self.anatomy.longest_function = self.anatomy.longest_function.max(body.range().len());
            }
            Payload::CustomSection(custom) => match custom.as_known() {
                KnownCustom::Name(names) => {
                    // A broken name section is the tool's affair: it says nothing, and nothing depends on it.
                    self.anatomy.names |= names.into_iter().any(|name| matches!(name, Ok(Name::Function(_))));
                }
                KnownCustom::Producers(fields) => {
                    for field in fields.into_iter().flatten() {
                        for value in field.values.into_iter().flatten() {
                            let said = format!("{} {} {}", field.name, value.name, value.version);
                            push(&mut self.anatomy.producers, text::cleaned(said.trim_end(), NAME_MAX));
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// What only the whole shows.
    fn judge(&mut self) {
        let longest = Bytes(self.anatomy.longest_function);
        if longest > FUNCTION_BODY_MAX {
            self.anatomy.refusals.push(Rejection::FunctionTooLarge { bytes: longest, limit: FUNCTION_BODY_MAX });
        }
        if !self.versions.iter().any(|version| version == exports::MARKER_V1) {
            self.anatomy.refusals.push(Rejection::UnsupportedAbi { found: self.versions.clone() });
        }
        let with_input = "(i32, i32) -> (i64)";
        for (name, expected, required) in [
            (exports::MEMORY, "a memory", true),
            (exports::MARKER_V1, "() -> ()", false),
            (exports::ALLOC, "(i32) -> (i32)", true),
            (exports::DECIDE, with_input, true),
            (exports::VALIDATE, with_input, false),
            (exports::DESCRIBE, "() -> (i64)", false),
            (exports::INITIALIZE, "() -> ()", false),
        ] {
            match self.anatomy.exports.iter().find(|(export, _)| export == name) {
                Some((_, found)) if found == expected => {}
                Some((_, found)) => {
                    let (expected, found) = (expected.to_owned(), found.clone());
                    self.anatomy.refusals.push(Rejection::WrongType { name, expected, found });
                }
                None if required => self.anatomy.refusals.push(Rejection::MissingExport { name }),
                None => {}
            }
        }
    }

    fn at_most(&mut self, what: &'static str, count: u32, limit: u32) {
        if count > limit {
            self.anatomy.refusals.push(Rejection::TooMany { what, count, limit });
        }
    }

    /// `(i32, i32) -> (i64)`, bounded: a function may have a thousand params.
    fn signature(&self, index: u32) -> String {
        let Some(Some(ty)) = self.types.get(index as usize) else { return "a function".to_owned() };
        let list = |types: &[wasmparser::ValType]| {
            types.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        format!("({}) -> ({})", list(ty.params()), list(ty.results()))
    }
}

fn invalid(error: BinaryReaderError) -> Rejection {
    Rejection::Invalid { problem: text::cleaned(error.to_string(), 512) }
}

fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.len() < SHOWN_MAX {
        list.push(entry);
    }
}

/// The sections of the binary format, by their number.
fn section_name(id: u8) -> &'static str {
    const NAMES: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    NAMES.get(usize::from(id)).copied().unwrap_or("unknown")
}
