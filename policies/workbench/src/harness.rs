//! The same case natively and in the sandbox: for a policy in Rust whose rules are tested natively,
//! so that nobody has to believe that the module does the same.

use konductor_policy::{Host, Policy};

use crate::{fixture, load};

/// Asks a module for what the same rules have answered natively, and says how they differ.
///
/// # Errors
/// Both answers in a sentence, or how the module has failed.
pub fn agree(policy: &Policy, input: &str, native: &str) -> Result<(), String> {
    let answer = policy.answer(input.as_bytes()).map_err(|fault| {
        format!("natively it answers {native}, and in the sandbox it fails, {}: {fault}", fault.reason())
    })?;
    if answer.output == native.as_bytes() {
        return Ok(());
    }
    Err(format!("natively it answers {native}, and in the sandbox {}", String::from_utf8_lossy(&answer.output)))
}

/// Runs every case of a file in the sandbox, and those that expect a decision natively too: `native`
/// gets the input's bytes, as `konductor_policy_sdk::testing::answer` does.
///
/// # Errors
/// Everything that is not as expected, a line each.
pub fn check(module: &[u8], fixtures: &str, native: impl Fn(&[u8]) -> String) -> Result<(), String> {
    let host = Host::new().map_err(|error| format!("there is no sandbox: {error}"))?;
    let policy = load(&host, module).map_err(|rejection| rejection.to_string())?;
    let mut found = Vec::new();
    for case in fixture::parse(fixtures).map_err(|mistake| mistake.to_string())? {
        let mut failures = fixture::run(&case, &policy).failures;
        // What traps panics natively: there is no answer to compare.
        if let Some(input) = case.input().filter(|_| case.expects_a_decision()) {
            let input = String::from_utf8_lossy(&input.json()).into_owned();
            failures.extend(agree(&policy, &input, &native(input.as_bytes())).err());
        }
        found.extend(failures.into_iter().map(|line| format!("{}: {line}", case.name)));
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}
