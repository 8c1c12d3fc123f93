//! The names that a policy module exports, and how it returns bytes.

/// The linear memory, at most [`crate::limits::MEMORY_MAX`].
pub const MEMORY: &str = "memory";
/// `() -> ()`, never called: that the module speaks version 1 of this ABI, checked before any of its code runs.
pub const MARKER_V1: &str = "konductor_policy_v1";
/// How the markers of all versions begin, to tell "another version" from "not a policy".
pub const MARKER_PREFIX: &str = "konductor_policy_v";
/// `(len: i32) -> i32`: where the host may write `len` bytes of input; 0 means that there is no room.
pub const ALLOC: &str = "konductor_alloc";
/// `(ptr: i32, len: i32) -> i64`: an [`crate::v1::Input`] in, an [`crate::v1::Output`] out.
pub const DECIDE: &str = "konductor_decide";
/// `(ptr: i32, len: i32) -> i64`, optional: the params in, a [`crate::v1::Validation`] out.
pub const VALIDATE: &str = "konductor_validate";
/// `() -> i64`, optional: a [`crate::v1::Description`] out.
pub const DESCRIBE: &str = "konductor_describe";
/// `() -> ()`, optional: called once per instance before anything else, under its own budget.
pub const INITIALIZE: &str = "_initialize";

/// The `i64` by which a guest returns bytes: `ptr << 32 | len`, both unsigned.
#[must_use]
pub const fn pack(ptr: u32, len: u32) -> i64 {
    (((ptr as u64) << 32) | len as u64).cast_signed()
}

/// The pointer and the length in an `i64` that a guest returned.
#[must_use]
pub const fn unpack(packed: i64) -> (u32, u32) {
    let bits = packed.cast_unsigned();
    // Both halves are 32 bits wide by construction.
    ((bits >> 32) as u32, (bits & 0xffff_ffff) as u32)
}
