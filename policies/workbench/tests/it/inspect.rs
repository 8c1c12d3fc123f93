//! What is said of a module, and every reason to refuse it.

use std::io::Write as _;

use konductor_workbench::inspect::{self, Report};

use crate::host;

fn report(text: &str) -> Report {
    inspect::inspect(host(), &wat::parse_str(text).expect("WebAssembly text"))
}

fn reasons(report: &Report) -> Vec<&'static str> {
    report.refusals.iter().map(|refusal| refusal.reason).collect()
}

#[test]
fn the_built_in_policy_is_described_from_outside_and_by_itself() {
    let report = inspect::builtin(host());
    assert!(report.accepted, "{:?}", report.refusals);
    let module = report.module.expect("a module");
    assert_eq!(module.digest, host().builtin().digest());
    assert!(module.imports.is_empty() && module.function_names && !module.start_section);
    assert!(module.compressed_size < module.size && module.longest_function > 1_000 && module.functions > 10);
    assert_eq!(module.memory, Some(128 * 1024));
    let decide = module.exports.iter().find(|export| export.name == "konductor_decide").expect("exported");
    assert_eq!(decide.ty, "(i32, i32) -> (i64)");
    let sum: usize = module.sections.iter().map(|section| section.size).sum();
    assert!(sum <= module.size && sum > module.size - 100, "{sum} of {}", module.size);
    assert!(module.sections.iter().any(|section| section.name == "\"name\""));
    assert!(report.description.expect("it describes itself").params_schema.is_some());
}

#[test]
fn every_reason_for_a_refusal_is_told_and_the_rest_is_still_shown() {
    let report = report(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "env" "seed" (global i32))
            (memory (export "memory") 400)
            (func (export "konductor_policy_v2"))
            (func (export "konductor_decide") (param i32) (result i32) (i32.const 0))
            (func (export "konductor_describe") (result i32) (i32.const 0)))"#,
    );
    assert!(!report.accepted);
    assert_eq!(
        reasons(&report),
        ["ForbiddenImports", "MemoryTooLarge", "UnsupportedAbi", "MissingExport", "WrongType", "WrongType"]
    );
    let all: Vec<&str> = report.refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    for said in [
        "wasi_snapshot_preview1.fd_write, env.seed",
        "konductor_policy_v2",
        "does not export konductor_alloc",
        "konductor_decide is (i32) -> (i32); it must be (i32, i32) -> (i64)",
    ] {
        assert!(all.iter().any(|message| message.contains(said)), "{said}: {all:#?}");
    }
    let module = report.module.expect("it is a module");
    let types: Vec<&str> = module.imports.iter().map(|import| import.ty.as_str()).collect();
    assert_eq!(types, ["(i32, i32, i32, i32) -> (i32)", "a global"]);
    assert!(!module.function_names);
    assert!(report.description.is_none());
}

#[test]
fn what_only_compiling_or_running_shows_is_told_too() {
    let sound = |memory: &str, more: &str| {
        report(&format!(
            r#"(module {memory} {more}
                (func (export "konductor_policy_v1"))
                (func (export "konductor_alloc") (param i32) (result i32) (i32.const 1024))
                (func (export "konductor_decide") (param i32 i32) (result i64) (i64.const 0)))"#
        ))
    };
    let memory = r#"(memory (export "memory") 1 2)"#;
    let plain = sound(memory, "");
    assert!(plain.accepted && plain.description.is_none(), "{:?}", plain.refusals);
    let module = plain.module.expect("a module");
    assert_eq!((module.memory, module.memory_max), (Some(65_536), Some(131_072)));
    assert_eq!(reasons(&sound(memory, "(func $s unreachable) (start $s)")), ["Unstartable"]);
    assert_eq!(reasons(&sound(r#"(memory (export "memory") i64 1)"#, "")), ["Invalid"]);
    assert_eq!(reasons(&sound("", "")), ["MissingExport"]);
}

#[test]
fn what_is_no_module_is_refused_for_what_it_is() {
    for (bytes, reason) in [
        (&b""[..], "Empty"),
        (b"(module)", "Text"),
        (b"\x7fELF....", "Precompiled"),
        (b"\0asm\x0d\0\x01\0", "Component"),
        (b"\0asm\x01\0\0\0\x01\x7f", "Invalid"),
        (b"hello", "NotWasm"),
        (b"\x1f\x8bnot gzip", "NotGzip"),
    ] {
        let report = inspect::inspect(host(), bytes);
        assert_eq!(reasons(&report), [reason]);
        assert!(!report.accepted && report.module.is_none());
    }
}

#[test]
fn a_compressed_module_is_inflated_and_inspected() {
    let module = crate::module("{}", "(i64.const 68719476738)");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&module).expect("memory");
    let report = inspect::inspect(host(), &encoder.finish().expect("memory"));
    assert!(report.accepted, "{:?}", report.refusals);
    assert_eq!(report.module.expect("a module").size, module.len());
}
