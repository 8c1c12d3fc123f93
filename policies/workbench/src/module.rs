//! Modules as they lie in files.

use std::sync::Arc;

use konductor_policy::{Host, Limits, Policy, Rejection, gunzip};

/// Loads a module, compressed or not.
///
/// # Errors
/// What [`Host::load`] and [`Host::load_gzip`] say.
pub fn load(host: &Host, stored: &[u8]) -> Result<Arc<Policy>, Rejection> {
    if is_gzip(stored) { host.load_gzip(stored) } else { host.load(stored) }
}

/// The bytes of a module that may be compressed, within what a host inflates.
///
/// # Errors
/// What [`gunzip`] says.
pub fn inflate(stored: Vec<u8>) -> Result<Vec<u8>, Rejection> {
    if is_gzip(&stored) { gunzip(&stored, &Limits::default()) } else { Ok(stored) }
}

/// Whether a file is compressed, by its first bytes.
pub(crate) fn is_gzip(stored: &[u8]) -> bool {
    stored.starts_with(&[0x1f, 0x8b])
}
