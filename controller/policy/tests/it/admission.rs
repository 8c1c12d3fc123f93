//! What a module must look like.

use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use konductor_policy::Rejection;

use crate::common::{host, load, testdata, wasm};

#[test]
fn modules_that_are_no_policies_are_refused() {
    for (name, reason, says) in [
        (
            "wants_wasi",
            "ForbiddenImports",
            "wasi_snapshot_preview1.fd_write, wasi_snapshot_preview1.random_get, env.now",
        ),
        ("wants_memory", "ForbiddenImports", "env.memory"),
        ("no_memory", "MissingExport", "memory"),
        ("memory_is_a_function", "WrongType", "it must be a memory"),
        ("memory_too_large", "MemoryTooLarge", "1024 MiB; the limit is 16 MiB"),
        ("no_alloc", "MissingExport", "konductor_alloc"),
        ("no_decide", "MissingExport", "konductor_decide"),
        ("wrong_signature", "WrongType", "(i64, i64) -> (i64); it must be (i32, i32) -> (i64)"),
        ("wrong_alloc_signature", "WrongType", "(i32) -> (); it must be (i32) -> (i32)"),
        ("decide_is_a_global", "WrongType", "a global"),
        ("no_marker", "UnsupportedAbi", "no version of the policy ABI"),
        ("only_v2", "UnsupportedAbi", "konductor_policy_v2"),
        ("marker_is_a_global", "WrongType", "konductor_policy_v1"),
        ("table_too_large", "TooMany", "10000000 elements in a table"),
        ("two_memories", "TooMany", "2 memories"),
        ("memory64", "Invalid", "memory64"),
        ("shared_memory", "Invalid", "threads"),
        ("tail_call", "Invalid", "tail calls"),
        ("relaxed_simd", "Invalid", "relaxed SIMD"),
    ] {
        let rejection = load(name).expect_err(name);
        assert_eq!(rejection.reason(), reason, "{name}: {rejection}");
        assert!(rejection.to_string().contains(says), "{name}: {rejection}");
    }
}

#[test]
fn what_is_not_a_module_is_told_apart() {
    let good = wasm("good");
    let bom = [b"\xef\xbb\xbf".as_slice(), &good].concat();
    let cases: [(&[u8], &str); 13] = [
        (b"", "Empty"),
        (b"(module)", "Text"),
        (b"  \n;; a comment\n(module)", "Text"),
        (b"\xef\xbb\xbf(module)", "Text"),
        (b"\x7fELF\x02\x01\x01\0", "Precompiled"),
        (b"\0asm\x0d\0\x01\0", "Component"),
        (b"\0asm\x02\0\0\0", "Invalid"),
        (b"\0asm", "Invalid"),
        (b"\x1f\x8b\x08\0", "Gzip"),
        (b"#!/bin/sh\n", "NotWasm"),
        (b"apiVersion: v1\n", "NotWasm"),
        (&bom, "NotWasm"),
        (&good[..good.len() - 3], "Invalid"),
    ];
    for (bytes, reason) in cases {
        let rejection = host().load(bytes).expect_err(reason);
        assert_eq!(rejection.reason(), reason, "{rejection}");
    }
}

#[test]
fn every_import_is_counted_though_not_every_one_is_named() {
    let imports: String = (0..50).map(|i| format!("(import \"env\" \"f{i}\\1b\" (func))")).collect();
    let text = format!("(module {imports} (func (export \"konductor_policy_v1\")))");
    let rejection = host().load(&wat::parse_str(text).expect("wat")).expect_err("imports");
    let Rejection::ForbiddenImports { names, more } = &rejection else { panic!("{rejection}") };
    assert_eq!((names.len(), *more, names[3].as_str()), (20, 30, "env.f3"));
}

#[test]
fn sizes_are_bounded_before_anything_is_compiled() {
    let limits = host().limits();
    let functions = "(func)".repeat(10_001);
    let body = "(drop (i64.const 0x7fff_ffff_ffff_ffff))".repeat(20_000);
    for (text, reason) in [
        (format!("(module {functions})"), "TooMany"),
        (format!("(module (func {body}))"), "FunctionTooLarge"),
        (format!("(module {})", "(global i32 (i32.const 0))".repeat(10_001)), "TooMany"),
    ] {
        let rejection = host().load(&wat::parse_str(text).expect("wat")).expect_err(reason);
        assert_eq!(rejection.reason(), reason, "{rejection}");
    }
    let large = vec![0; limits.module_stored.0 + 1];
    assert_eq!(host().load(&large).expect_err("large").reason(), "TooLarge");
    assert_eq!(host().load_gzip(&large).expect_err("large").reason(), "TooLarge");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}

#[test]
fn a_compressed_module_is_the_same_module() {
    let good = wasm("good");
    let (plain, compressed) = (host().load(&good).expect("plain"), host().load_gzip(&gzip(&good)).expect("gzip"));
    assert_eq!(plain.digest(), compressed.digest());
    assert!(plain.digest().starts_with("sha256:") && plain.digest().len() == 7 + 64);
    assert_eq!(plain.size(), good.len());
}

#[test]
fn a_compressed_module_is_inflated_with_care() {
    let good = wasm("good");
    let compressed = gzip(&good);
    // 64 MiB of zeros in 64 KiB.
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    for (bytes, reason) in [
        (bomb.as_slice(), "InflatesTooLarge"),
        (&compressed[..compressed.len() - 4], "NotGzip"),
        (&good, "NotGzip"),
        (b"", "Empty"),
        (&gzip(&compressed), "Gzip"),
        (&gzip(b""), "Empty"),
    ] {
        let rejection = host().load_gzip(bytes).expect_err(reason);
        assert_eq!(rejection.reason(), reason, "{rejection}");
    }
}

/// Each file says in its first line what it stands for, and each is used by a test.
#[test]
fn the_corpus_is_documented_and_used() {
    let tests: String = ["admission.rs", "faults.rs", "determinism.rs", "probe.rs"]
        .iter()
        .map(|file| fs::read_to_string(testdata().join("../tests/it").join(file)).expect("a test's source"))
        .collect();
    for entry in fs::read_dir(testdata()).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&path).expect("a module");
        assert!(text.starts_with(";; ") && text.contains("."), "{name} does not say what it stands for");
        assert!(tests.contains(&format!("\"{name}\"")), "{name} is not used by any test");
    }
}
