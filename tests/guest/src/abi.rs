//! The raw side of the module: pointers and lengths in the caller's hands.
#![allow(
    unsafe_code,
    reason = "a wasm caller can pass only numbers, so memory crosses as pointer and length"
)]

use std::alloc::{Layout, alloc as allocate, dealloc as deallocate};
use std::slice;

/// `len` bytes of memory for the caller to fill, or 0 where there is no more memory.
#[unsafe(no_mangle)]
extern "C" fn alloc(len: usize) -> *mut u8 {
    let Some(layout) = layout(len) else {
        return std::ptr::null_mut();
    };
    // SAFETY: `layout` never has size 0.
    unsafe { allocate(layout) }
}

/// Gives back memory of `alloc` or an answer of `update`, with the length it had there.
///
/// # Safety
/// `ptr` and `len` must belong together as said above, and are given back once.
#[unsafe(no_mangle)]
unsafe extern "C" fn dealloc(ptr: *mut u8, len: usize) {
    if let (Some(layout), false) = (layout(len), ptr.is_null()) {
        // SAFETY: the caller promises that `ptr` came from `alloc(len)`, or from `update` as a boxed slice of `len` > 0
        // bytes; both have exactly this layout.
        unsafe { deallocate(ptr, layout) }
    }
}

/// Answers the request at `ptr`; the answer's address is in the high half of the result, its length in the low one.
///
/// # Safety
/// `ptr` must point to `len` bytes that were filled by the caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn update(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: the caller promises `len` filled bytes at `ptr`, and cannot touch them while this call runs.
    let request = unsafe { slice::from_raw_parts(ptr, len) };
    let answer = Box::leak(super::respond(request).into_bytes().into_boxed_slice());
    (answer.as_mut_ptr() as u64) << 32 | answer.len() as u64
}

/// The layout of a text; an empty one takes a byte, since the allocator has nothing to give for none.
fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), 1).ok()
}
