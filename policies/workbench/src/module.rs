//! Modules as they lie in files.

use std::sync::Arc;

use konductor_policy::{Host, Policy, Rejection};

/// Loads a module, compressed or not.
///
/// # Errors
/// What [`Host::load`] and [`Host::load_gzip`] say.
pub fn load(host: &Host, stored: &[u8]) -> Result<Arc<Policy>, Rejection> {
    if is_gzip(stored) { host.load_gzip(stored) } else { host.load(stored) }
}

/// Whether a file is compressed, by its first bytes.
pub(crate) fn is_gzip(stored: &[u8]) -> bool {
    stored.starts_with(&[0x1f, 0x8b])
}
