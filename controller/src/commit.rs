//! Commit: one conditional write.

mod cas;
mod status;

pub use cas::{
    API_TIMEOUT, CommitError, FIELD_MANAGER, Outcome, compare_and_swap, confirm, find_lease, pod_is_over, policy_exists,
};
pub use status::next_status;
