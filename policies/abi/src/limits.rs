//! The limits of the ABI, each with its reason. They are part of the contract: raising one is
//! compatible, lowering one is not.

/// The longest input in bytes. 512 requests with holders and labels of ordinary length are 60 to
/// 150 KiB; a guest that parses this much stays far inside its fuel.
pub const INPUT_MAX: usize = 256 * 1024;

/// The longest answer in bytes. Denying all 512 requests with a reason of 100 bytes each fits.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// The longest reason in bytes; the rest is cut off. It ends up in an object's status, in an Event
/// and on a terminal, where a sentence is read and a page is not.
pub const REASON_MAX: usize = 256;

/// The longest state in bytes. It is kept in the Lease's status, which every watcher receives with
/// every change.
pub const STATE_MAX: usize = 4 * 1024;

/// The most requests that a policy is shown: the first by priority, then arrival. None needs more
/// to choose one, and more would not fit [`INPUT_MAX`]. [`crate::v1::Input::waiting`] has the true count.
pub const REQUESTS_MAX: usize = 512;

/// The most memory in bytes that a policy may have: 60 times the longest input, and little enough
/// that filling it once takes a few milliseconds.
pub const MEMORY_MAX: usize = 16 * 1024 * 1024;
