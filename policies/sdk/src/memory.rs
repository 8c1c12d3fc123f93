//! The guest's memory: an allocator that never frees, and bytes across the boundary.
//!
//! An instance lives for one call, so freeing would only cost time. The allocator hands out memory
//! upwards from the end of the module's data, which keeps what a call touches together: every page
//! that a fresh instance touches costs the host a fault or a copy.

use alloc::vec::Vec;
use core::{
    alloc::{GlobalAlloc, Layout},
    arch::wasm32,
    ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use konductor_policy_abi::exports::pack;

const WASM_PAGE: usize = 64 * 1024;

/// An allocator that never frees.
struct Bump {
    /// Where the next allocation may begin; 0 before the first one.
    next: AtomicUsize,
}

#[global_allocator]
static BUMP: Bump = Bump { next: AtomicUsize::new(0) };

impl Bump {
    fn next(&self) -> usize {
        match self.next.load(Relaxed) {
            0 => heap_base(),
            next => next,
        }
    }

    /// Makes memory up to `end` usable; whether there was room.
    fn reach(&self, end: usize) -> bool {
        let have = wasm32::memory_size(0) * WASM_PAGE;
        if end > have && wasm32::memory_grow(0, (end - have).div_ceil(WASM_PAGE)) == usize::MAX {
            return false;
        }
        self.next.store(end, Relaxed);
        true
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; a wasm32 instance has one thread")]
// SAFETY: blocks never overlap, because `next` only rises, to the end of each block handed out;
// each is aligned and inside the memory, or null.
unsafe impl GlobalAlloc for Bump {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(start) = self.next().checked_next_multiple_of(layout.align()) else { return ptr::null_mut() };
        match start.checked_add(layout.size()) {
            Some(end) if self.reach(end) => ptr::with_exposed_provenance_mut(start),
            _ => ptr::null_mut(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The last block grows where it stands, which is what a vector that is being filled does.
        let start = block.expose_provenance();
        if start + layout.size() == self.next() {
            return match start.checked_add(new_size) {
                Some(end) if self.reach(end) => block,
                _ => ptr::null_mut(),
            };
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the caller vouches for layout and size as for this function; old and new block do
        // not overlap, and both have at least the old size.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size());
            }
            new
        }
    }
}

/// The end of the module's data and stack.
fn heap_base() -> usize {
    #[expect(unsafe_code, reason = "the linker's symbol for it is an extern static; only its address is taken")]
    unsafe extern "C" {
        static __heap_base: u8;
    }
    ptr::addr_of!(__heap_base).expose_provenance()
}

/// The export `konductor_alloc`; null, which is 0, when there is no room.
#[must_use]
pub fn alloc(len: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(len, 8) else { return ptr::null_mut() };
    #[expect(unsafe_code, reason = "calls the allocator as the export's contract says")]
    // SAFETY: a block of size zero is fine with this allocator.
    unsafe {
        BUMP.alloc(layout)
    }
}

/// Runs a function from bytes to bytes on what the host has written to an address.
#[inline]
pub fn call(address: usize, len: usize, f: impl FnOnce(&[u8]) -> Vec<u8>) -> i64 {
    let input = ptr::with_exposed_provenance(address);
    #[expect(unsafe_code, reason = "the host has written the bytes here")]
    // SAFETY: the host got the address from `alloc(len)`, wrote all `len` bytes, and nothing else refers to them.
    let input = unsafe { core::slice::from_raw_parts(input, len) };
    give(f(input).leak())
}

/// Bytes for the host to read. They must stay where they are until it has, so they are leaked or static.
#[must_use]
pub fn give(bytes: &'static [u8]) -> i64 {
    // Addresses and lengths have 32 bits on wasm32.
    pack(bytes.as_ptr().expose_provenance() as u32, bytes.len() as u32)
}

/// A guest cannot report a panic but by a trap.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
