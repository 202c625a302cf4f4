//! The memory of array buffers, which a heap limit does not count.
#![expect(unsafe_code, reason = "the engine calls its allocator through a table of C functions")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deno_core::v8;

/// The alignment that engines expect of array buffers.
const ALIGN: usize = 16;

/// The array buffers of one isolate, which its heap limit does not count.
pub(crate) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    refused: AtomicBool,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let limit = AtomicUsize::new(limit);
        Arc::new(Self { limit, used: AtomicUsize::new(0), refused: AtomicBool::new(false) })
    }

    /// What is there stays, but no buffer is added that goes beyond this.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether a buffer was refused since this was last asked.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    fn take(&self, len: usize) -> bool {
        let fits = |used: usize| used.checked_add(len).filter(|sum| *sum <= self.limit());
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if !taken {
            self.refused.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn allocate(&self, len: usize, allocator: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
        let Ok(layout) = Layout::from_size_align(len.max(1), ALIGN) else {
            return ptr::null_mut();
        };
        if !self.take(len) {
            return ptr::null_mut();
        }
        // SAFETY: the layout is not empty.
        let data = unsafe { allocator(layout) };
        if data.is_null() {
            self.used.fetch_sub(len, Ordering::Relaxed);
        }
        data.cast()
    }
}

unsafe extern "C" fn zeroed(budget: &Budget, len: usize) -> *mut c_void {
    budget.allocate(len, alloc_zeroed)
}

unsafe extern "C" fn uninitialized(budget: &Budget, len: usize) -> *mut c_void {
    budget.allocate(len, alloc)
}

unsafe extern "C" fn free(budget: &Budget, data: *mut c_void, len: usize) {
    let Ok(layout) = Layout::from_size_align(len.max(1), ALIGN) else {
        return;
    };
    if !data.is_null() {
        // SAFETY: the engine hands back what `allocate` returned, with the same length.
        unsafe {
            dealloc(data.cast(), layout);
        }
        budget.used.fetch_sub(len, Ordering::Relaxed);
    }
}

unsafe extern "C" fn drop_budget(budget: *const Budget) {
    // SAFETY: the pointer came from `Arc::into_raw` and is dropped once.
    unsafe {
        drop(Arc::from_raw(budget));
    }
}

static ALLOCATOR: v8::RustAllocatorVtable<Budget> = v8::RustAllocatorVtable {
    allocate: zeroed,
    allocate_uninitialized: uninitialized,
    free,
    drop: drop_budget,
};

/// The engine's parameters for a budget.
pub(crate) fn create_params(budget: &Arc<Budget>) -> v8::CreateParams {
    let handle = Arc::into_raw(Arc::clone(budget));
    // SAFETY: the handle is a live Arc that the table's `drop` gives back.
    let allocator = unsafe { v8::new_rust_allocator(handle, &ALLOCATOR) };
    v8::CreateParams::default().heap_limits(0, budget.limit()).array_buffer_allocator(allocator)
}
