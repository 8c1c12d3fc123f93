//! The checks of a spec that the controller makes itself, because old API servers ignore CEL.

use std::fmt;

use super::{LeaseRequestSpec, LeaseSpec};
use crate::time::{parse_duration, parse_ttl};

/// The longest holder, in characters: the longest name that a Kubernetes object can have.
pub const HOLDER_MAX: usize = 253;

/// Which field of a spec is not understood, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// The field, as a path from the object: `spec.ttl`.
    pub field: &'static str,
    /// What is wrong with it and what to write.
    pub problem: String,
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for InvalidField {}

fn invalid(field: &'static str) -> impl FnOnce(crate::time::DurationError) -> InvalidField {
    move |error| InvalidField { field, problem: error.to_string() }
}

/// Checks a holder: 1 to 253 printable ASCII characters without spaces, so that it can stand in
/// a table, a log line, a label selector of jq or awk, and an environment variable.
///
/// # Errors
/// What is wrong with it.
pub fn validate_holder(holder: &str) -> Result<(), InvalidField> {
    let refuse = |problem: String| Err(InvalidField { field: "spec.holder", problem });
    if holder.is_empty() {
        return refuse("is empty; name the holder, for instance with the Pod's name".to_owned());
    }
    let length = holder.chars().count();
    if length > HOLDER_MAX {
        return refuse(format!("has {length} characters; the limit is {HOLDER_MAX}"));
    }
    match holder.chars().find(|c| !c.is_ascii_graphic()) {
        None => Ok(()),
        Some(c) => refuse(format!("contains {:?}; only printable ASCII characters without spaces are allowed", c)),
    }
}

impl LeaseSpec {
    /// The ttl in milliseconds.
    ///
    /// # Errors
    /// What is wrong with `spec.ttl`.
    pub fn ttl_ms(&self) -> Result<i64, InvalidField> {
        parse_ttl(&self.ttl).map_err(invalid("spec.ttl"))
    }
}

impl LeaseRequestSpec {
    /// The ttl in milliseconds, if one is asked for.
    ///
    /// # Errors
    /// What is wrong with `spec.ttl`.
    pub fn ttl_ms(&self) -> Result<Option<i64>, InvalidField> {
        self.ttl.as_deref().map(parse_ttl).transpose().map_err(invalid("spec.ttl"))
    }

    /// The timeout in milliseconds, if there is one.
    ///
    /// # Errors
    /// What is wrong with `spec.timeout`.
    pub fn timeout_ms(&self) -> Result<Option<i64>, InvalidField> {
        self.timeout.as_deref().map(parse_duration).transpose().map_err(invalid("spec.timeout"))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not understood.
    pub fn validate(&self) -> Result<(), InvalidField> {
        validate_holder(&self.holder)?;
        self.ttl_ms()?;
        self.timeout_ms()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_refused_with_their_reason() {
        for (holder, problem) in [
            (String::new(), "is empty"),
            ("x".repeat(254), "has 254 characters"),
            ("pod a".to_owned(), "contains ' '"),
            ("pod\na".to_owned(), "contains '\\n'"),
            ("pod-🦀".to_owned(), "contains '🦀'"),
        ] {
            let error = validate_holder(&holder).expect_err("refused").to_string();
            assert!(error.contains(problem), "{error}");
        }
        for holder in ["pod-xyz-123", "%", "host/4242", "a@b:c", &"x".repeat(253)] {
            validate_holder(holder).expect(holder);
        }
    }
}
