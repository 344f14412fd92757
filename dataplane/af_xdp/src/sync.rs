//! The shared-memory primitives of the rings, imported in one place so that loom can stand in for them.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell as Entry,
    sync::atomic::{AtomicU32, Ordering},
};

/// One entry of a ring, owned by whichever side the positions say. Same calls as loom's `UnsafeCell`, which checks them.
#[cfg(not(loom))]
#[repr(transparent)]
pub(crate) struct Entry<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> Entry<T> {
    /// Only tests make entries; in production they lie in memory the kernel has mapped.
    #[cfg(test)]
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
