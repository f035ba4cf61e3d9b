//! An allocator that knows the peak of what the current thread holds, to prove that a refused file
//! costs no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Both cells are constants without destructors, so this neither allocates nor fails at thread end.
fn count(taken: usize, freed: usize) {
    let held = HELD.get().wrapping_add(taken).saturating_sub(freed);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is passed on to `System` unchanged; the counters do not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: `ptr` came from `System` through `alloc` above, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// The most bytes that `f` held at once on this thread, beyond those held before.
pub fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get().saturating_sub(before))
}

#[test]
fn the_peak_is_seen() {
    let (_, bytes) = peak(|| drop(vec![1u8; 1 << 20]));
    assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
}
