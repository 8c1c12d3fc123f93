//! The bytes of hostile modules.

use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataSection, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, Instruction, MemorySection, MemoryType, Module, TypeSection, ValType,
};

use super::SABOTEUR;
use crate::{
    policies::{always, rules},
    repo,
};

/// Where modules are that are text.
const FOLDERS: [&str; 2] = ["controller/policy/testdata", "tests/hostile"];

/// The names of the files of the corpus.
#[cfg(test)]
pub(super) fn files() -> Vec<String> {
    let mut names: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| fs::read_dir(repo::path(folder)).unwrap_or_else(|e| panic!("no {folder}: {e}")))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn text(name: &str) -> String {
    let mut paths = FOLDERS.iter().map(|folder| repo::path(&format!("{folder}/{name}.wat")));
    let path = paths.find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {name}.wat in {FOLDERS:?}"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    // Of the corpus each has room for the input of a unit test; the probe asks about 512 requests.
    text.replacen("(memory (export \"memory\") 2)", "(memory (export \"memory\") 8)", 1)
}

/// The first lines of a file: what it stands for.
pub(super) fn about(name: &str) -> String {
    let lines = text(name);
    lines.lines().map_while(|line| line.strip_prefix(";; ")).collect::<Vec<_>>().join(" ")
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

pub(super) fn wat(name: &str) -> Vec<u8> {
    parse(name, &text(name))
}

/// The module of a file with another `konductor_decide` before its own: it answers `{}` until the input has the
/// saboteur in it.
pub(super) fn sleeper(name: &str) -> Vec<u8> {
    const EXPORT: &str = " (export \"konductor_decide\")";
    let text = text(name);
    assert_eq!(text.matches(EXPORT).count(), 1, "{name} exports konductor_decide once");
    assert!(text.contains(&format!("(func $decide{EXPORT}")), "{name} calls its function $decide");
    let text = text.replacen(EXPORT, "", 1);
    let wake = u64::from_le_bytes(SABOTEUR.as_bytes().try_into().expect("eight bytes"));
    let before = format!(
        r#"
  (func (export "konductor_decide") (param $at i32) (param $size i32) (result i64)
    (local $last i32) (local $here i32)
    (local.set $here (local.get $at))
    (local.set $last (i32.sub (i32.add (local.get $at) (local.get $size)) (i32.const 8)))
    (loop $next
      (if (i64.eq (i64.load align=1 (local.get $here)) (i64.const {wake}))
        (then (return (call $decide (local.get $at) (local.get $size)))))
      (local.set $here (i32.add (local.get $here) (i32.const 1)))
      (br_if $next (i32.le_u (local.get $here) (local.get $last))))
    ;; 2 bytes at 16: braces
    (i32.store16 (i32.const 16) (i32.const 0x7d7b))
    (i64.const 0x10_0000_0002))
)"#
    );
    let end = text.trim_end().strip_suffix(')').unwrap_or_else(|| panic!("{name} does not end with a bracket"));
    parse(name, &format!("{end}{before}"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written")
}

/// A module with functions of 112 KB that take the compiler many seconds each: loops in loops, sixty deep, and every
/// value may come from any of them.
#[must_use]
pub fn slow_to_compile(functions: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for n in 0..5_000u32 {
        body.extend([
            Instruction::Loop(BlockType::Empty),
            Instruction::LocalGet(n * 13 % 60),
            Instruction::LocalGet(n % 60),
            Instruction::I64Add,
            Instruction::LocalSet(n * 5 % 60),
            Instruction::LocalGet(n * 3 % 60),
            Instruction::I64Eqz,
            Instruction::BrIf(0),
        ]);
        if n % 60 == 59 {
            body.extend(std::iter::repeat_n(Instruction::End, 60));
        }
    }
    body.extend(std::iter::repeat_n(Instruction::End, 5_000 % 60));
    Parts { functions: vec![body; functions], ..Parts::default() }.module()
}

/// What would be large in a repository, or is no WebAssembly.
pub(super) fn made(name: &str) -> Vec<u8> {
    let honest = || always(r#"{"grant":{"request":0,"ttlMs":60000}}"#);
    match name {
        "empty" => Vec::new(),
        "text" => b"(module (func (export \"konductor_policy_v1\")))".to_vec(),
        // Where a .cwasm begins: wasmtime would load it without a look.
        "machineCode" => [b"\x7fELF\x02\x01\x01\0".as_slice(), &[0; 4096]].concat(),
        "component" => b"\0asm\x0d\0\x01\0".to_vec(),
        "noise" => (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        "truncated" => {
            let honest = honest();
            honest[..honest.len() / 2].to_vec()
        }
        "byteOrderMark" => [b"\xef\xbb\xbf".as_slice(), &honest()].concat(),
        "gzipAsPlain" => gzip(&honest()),
        "gzipTwice" => gzip(&gzip(&honest())),
        "gzipBroken" => {
            let compressed = gzip(&honest());
            compressed[..compressed.len() - 4].to_vec()
        }
        // 256 MiB of zeros in 256 KiB.
        "gzipBomb" => gzip(&vec![0; 256 << 20]),
        "manyFunctions" => gzip(&Parts { functions: vec![Vec::new(); 250_000], ..Parts::default() }.module()),
        "longFunction" => {
            let body = std::iter::repeat_n([Instruction::I64Const(i64::MAX), Instruction::Drop], 80_000).flatten();
            gzip(&Parts { functions: vec![body.collect()], ..Parts::default() }.module())
        }
        "manyGlobals" => gzip(&Parts { globals: 500_000, ..Parts::default() }.module()),
        "longName" => Parts { export: Some("x".repeat(100_000)), ..Parts::default() }.module(),
        "manySections" => Parts { customs: 100_000, ..Parts::default() }.module(),
        "manySegments" => gzip(&Parts { segments: vec![(0, 0); 100_000], ..Parts::default() }.module()),
        // One byte at either end of all the memory there may be: an image of 16 MiB for two bytes.
        "sparseSegments" => {
            Parts { pages: 256, segments: vec![(0, 1), ((16 << 20) - 1, 1)], ..Parts::default() }.module()
        }
        "segmentBeyond" => Parts { segments: vec![(1 << 30, 1)], ..Parts::default() }.module(),
        // Ten times as deep, 40 KB, the compiler takes seconds: its time grows with the square. That one would be ended
        // as slowToCompile is.
        "deepNesting" => {
            let open = std::iter::repeat_n(Instruction::Block(BlockType::Empty), 2_000);
            let body = open.chain(std::iter::repeat_n(Instruction::End, 2_000)).collect();
            Parts { functions: vec![body], ..Parts::default() }.module()
        }
        "jumpTables" => {
            // 64 tables of 300 targets each, in 64 blocks.
            let mut body: Vec<Instruction<'_>> = vec![Instruction::Block(BlockType::Empty); 64];
            for depth in (1..=64u32).rev() {
                body.push(Instruction::I32Const(i32::try_from(depth).expect("small")));
                body.push(Instruction::BrTable((0..300).map(|n| n % depth).collect::<Vec<_>>().into(), 0));
                body.push(Instruction::End);
            }
            Parts { functions: vec![body], ..Parts::default() }.module()
        }
        "slowToCompile" => slow_to_compile(1),
        "largeState" => {
            let state = "s".repeat(5_000);
            rules(&[(SABOTEUR, &format!(r#"{{"grant":{{"request":0,"ttlMs":60000}},"state":"{state}"}}"#))])
        }
        "longReason" => {
            let reason = "never ends ".repeat(2_000);
            always(&format!(r#"{{"grant":{{"request":0,"ttlMs":60000}},"reason":"{reason}"}}"#))
        }
        other => panic!("there is no generator {other}"),
    }
}

/// A policy that answers `{}`, and what else is in its module.
#[derive(Default)]
struct Parts<'a> {
    /// Its memory, if more than eight.
    pages: u64,
    /// The bodies of functions that nobody calls, each with sixty locals.
    functions: Vec<Vec<Instruction<'a>>>,
    globals: u32,
    /// Where data segments are, and how long.
    segments: Vec<(i32, usize)>,
    /// Custom sections that say nothing.
    customs: u32,
    /// One more export of the marker.
    export: Option<String>,
}

impl Parts<'_> {
    fn module(&self) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        types.ty().function([ValType::I32], [ValType::I32]);
        types.ty().function([ValType::I32, ValType::I32], [ValType::I64]);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut add = |ty: u32, locals: u32, body: &[Instruction<'_>]| {
            functions.function(ty);
            let mut function = Function::new((locals > 0).then_some((locals, ValType::I64)));
            body.iter().for_each(|instruction| _ = function.instruction(instruction));
            code.function(function.instruction(&Instruction::End));
        };
        add(0, 0, &[]);
        add(1, 0, &[Instruction::I32Const(4096)]);
        add(2, 0, &[Instruction::I64Const(1024 << 32 | 2)]);
        self.functions.iter().for_each(|body| add(0, if body.is_empty() { 0 } else { 60 }, body));
        let mut memories = MemorySection::new();
        let minimum = self.pages.max(8);
        memories.memory(MemoryType { minimum, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let mut globals = GlobalSection::new();
        for _ in 0..self.globals {
            globals
                .global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(0));
        }
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0).export("konductor_policy_v1", ExportKind::Func, 0);
        exports.export("konductor_alloc", ExportKind::Func, 1).export("konductor_decide", ExportKind::Func, 2);
        self.export.iter().for_each(|name| _ = exports.export(name, ExportKind::Func, 0));
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(1024), *b"{}");
        for (at, size) in &self.segments {
            data.active(0, &ConstExpr::i32_const(*at), vec![0x5a; *size]);
        }
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&memories).section(&globals);
        module.section(&exports).section(&code).section(&data);
        for _ in 0..self.customs {
            module.section(&CustomSection { name: "x".into(), data: (&[]).into() });
        }
        module.finish()
    }
}
