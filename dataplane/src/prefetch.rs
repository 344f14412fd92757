//! Asking for a cache line before it is needed. The one exception to this package's ban on unsafe code: the instruction
//! has no safe form in `core::arch`, and a batch that waits for its cache misses one after the other takes twice as long.
#![allow(unsafe_code)]

/// Begins to load the line that holds the first byte of `value`. A hint: it changes nothing and cannot fault.
#[inline(always)]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is without effect on memory; this one is valid anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = value;
}
