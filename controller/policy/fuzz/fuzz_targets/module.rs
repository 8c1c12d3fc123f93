//! libFuzzer's entry for the target `module`.
#![no_main]

use konductor_policy_fuzz::{PeakAlloc, Target};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fuzz_target!(|bytes: &[u8]| {
    // How it ended is counted when the corpus is gone through.
    let _ = Target::Module.run(bytes);
});
