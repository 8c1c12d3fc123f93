//! Policies for tests: modules that answer by rules, and how any module is uploaded.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::Namespace;

/// An answer of [`rules`] that is none: the module traps.
pub const TRAP: &str = "unreachable";

/// What an input has in it that is about a free lease that somebody wants.
pub const WANTED: &str = r#""hold":null,"requests":[{"#;

/// A module that gives the answer of the first rule whose text is in its input, else `{}`. The answer [`TRAP`]
/// means what it says.
///
/// # Panics
/// If the texts and answers do not fit below 64 KiB.
#[must_use]
pub fn rules(rules: &[(&str, &str)]) -> Vec<u8> {
    let mut at = 1024;
    let mut data = String::new();
    let mut place = |text: &str| {
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data.push_str(&format!("  (data (i32.const {at}) \"{bytes}\")\n"));
        let place = (at, text.len());
        at += text.len();
        assert!(at < 65_536, "too much text for one page");
        place
    };
    let mut code = String::new();
    for (text, answer) in rules {
        let (text, size) = place(text);
        let then = match *answer {
            TRAP => TRAP.to_owned(),
            answer => {
                let (answer, size) = place(answer);
                format!("(return (i64.const {}))", (answer as u64) << 32 | size as u64)
            }
        };
        code.push_str(&format!(
            "    (if (call $has (i32.const {text}) (i32.const {size}) (local.get $ptr) (local.get $len)) (then {then}))\n"
        ));
    }
    let (nothing, size) = place("{}");
    let nothing = (nothing as u64) << 32 | size as u64;
    let text = format!(
        r#"(module
  (memory (export "memory") 8)
{data}
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) (i32.const 65536))
  (func $has (param $text i32) (param $size i32) (param $ptr i32) (param $len i32) (result i32)
    (local $end i32) (local $n i32)
    (local.set $end (i32.sub (i32.add (local.get $ptr) (local.get $len)) (local.get $size)))
    (loop $next
      (local.set $n (i32.const 0))
      (block $differs
        (loop $same
          (br_if $differs (i32.ne (i32.load8_u (i32.add (local.get $ptr) (local.get $n)))
                                  (i32.load8_u (i32.add (local.get $text) (local.get $n)))))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $same (i32.lt_u (local.get $n) (local.get $size))))
        (return (i32.const 1)))
      (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
      (br_if $next (i32.le_s (local.get $ptr) (local.get $end))))
    (i32.const 0))
  (func (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
{code}
    (i64.const {nothing})))"#
    );
    wat::parse_str(&text).unwrap_or_else(|problem| panic!("{problem}:\n{text}"))
}

/// A module that gives this answer about a free lease that somebody wants, and leaves every other alone.
#[must_use]
pub fn always(answer: &str) -> Vec<u8> {
    rules(&[(WANTED, answer)])
}

/// Creates or changes a policy's ConfigMap: `{key: module}`.
///
/// # Panics
/// If the server refuses.
pub async fn upload(team: &Namespace<'_>, name: &str, key: &str, module: &[u8]) {
    let maps: Api<ConfigMap> = Api::namespaced(team.leases().into_client(), team.name());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"konductor.io/policy-module": "true"}},
        "binaryData": {key: BASE64.encode(module)}});
    let how = PatchParams::apply("konductor-tests").force();
    maps.patch(name, &how, &Patch::Apply(&map)).await.unwrap_or_else(|e| panic!("cannot upload {name}: {e}"));
}
