//! The workbench on the real sandbox.

mod fixtures;
mod inspect;
mod native;
mod replay;
mod scenarios;

use std::sync::{Arc, OnceLock};

use konductor_workbench::{Host, Policy, load};

/// One sandbox for all tests: making one compiles the built-in policy.
fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new().expect("a sandbox"))
}

/// A module that decides as this body of WebAssembly text says, with this text in its memory at 16.
fn module(data: &str, decide: &str) -> Vec<u8> {
    let data = data.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!(
        r#"(module
            (memory (export "memory") 4)
            (data (i32.const 16) "{data}")
            (func (export "konductor_policy_v1"))
            (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "konductor_decide") (param i32 i32) (result i64) {decide}))"#
    );
    wat::parse_str(text).expect("WebAssembly text")
}

/// A policy that always gives the same answer.
fn always(answer: &str) -> Arc<Policy> {
    let module = module(answer, &format!("(i64.const {})", (16_i64 << 32) | answer.len() as i64));
    load(host(), &module).expect("a policy")
}

/// A policy that gives up.
fn never() -> Arc<Policy> {
    load(host(), &module("", "unreachable")).expect("a policy")
}
