//! The example policy, built as its README says, uploaded as a user would.

use std::{env, path::Path, process::Command};

use crate::common::{host, question};

#[test]
fn the_example_grants_to_the_last_that_came() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    let built = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--locked", "-p", "konductor-policy-newest-first", "--profile", "guest"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target_dir)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let module = target_dir.join("wasm32-unknown-unknown/guest/konductor_policy_newest_first.wasm");
    let policy = host().load(&std::fs::read(module).expect("the module")).expect("loads");

    let decided = policy.decide(&question(&[("a", 9), ("b", 0), ("c", 5)]), "{}").expect("decides");
    assert_eq!(decided.decision.grant.map(|grant| grant.request), Some(2));
    assert_eq!(decided.decision.reason, "newest first");
    assert_eq!(policy.describe().map(|description| description.name.as_str()), Some("newest-first"));
    assert_eq!(policy.validate(r#"{"order": "oldest"}"#).map(|errors| errors.len()), Ok(1));
}
