//! The one shared 128-bit atomic word under every bucket and port rate, and the model checker's stand-in for it.
//!
//! `portable_atomic` compiles it to `cmpxchg16b` on `x86_64` and `casp` or `ldxp`/`stxp` on `aarch64`; a CPU without either (`x86_64`
//! before 2006) gets locks inside `portable_atomic`. Loom has no 128-bit atomic, so under `cfg(loom)` each
//! operation is one step on a loom counter beside a plain value: loom then tries every order of these operations.
//!
//! Memory ordering: a word holds all that is known about its bucket, a compare-and-exchange always acts on its newest
//! value, and so for one bucket relaxed would do: a take that fails on an old value is an under-grant of nanoseconds, one
//! that would succeed on an old value fails in the exchange and tries again. Acquire and release are for RFC 2697's two
//! buckets: who sees C as another worker has left it must see E no older than that worker has left it, or an overflow
//! could be thrown away at an E that only looks full. They cost nothing on `x86_64`.

#[cfg(not(loom))]
mod cell {
    use portable_atomic::{AtomicU128, Ordering};

    #[derive(Debug)]
    pub(crate) struct Word(AtomicU128);

    impl Word {
        pub(crate) fn new(value: u128) -> Self {
            Self(AtomicU128::new(value))
        }

        #[inline]
        pub(crate) fn load(&self) -> u128 {
            self.0.load(Ordering::Acquire)
        }

        /// Stores `new` whatever the word holds: for setting up, not for taking.
        pub(crate) fn store(&self, new: u128) {
            self.0.store(new, Ordering::Release);
        }

        /// Stores `new` if the word still holds `current`; otherwise the error is what it holds. Never fails
        /// spuriously, so a failure means that another worker has got on: the loops above are lock-free.
        #[inline]
        pub(crate) fn compare_exchange(&self, current: u128, new: u128) -> Result<(), u128> {
            self.0
                .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
                .map(|_| ())
        }
    }
}

#[cfg(loom)]
mod cell {
    use loom::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Loom switches threads at its own operations only, so what follows `turn` up to the next of them is one step. The
    /// mutex is never contended; it is there to change a `u128` through `&self`.
    #[derive(Debug)]
    pub(crate) struct Word {
        turn: AtomicU64,
        value: Mutex<u128>,
    }

    impl Word {
        pub(crate) fn new(value: u128) -> Self {
            Self {
                turn: AtomicU64::new(0),
                value: Mutex::new(value),
            }
        }

        fn step(&self) -> MutexGuard<'_, u128> {
            self.turn.fetch_add(1, Ordering::AcqRel);
            self.value.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn load(&self) -> u128 {
            *self.step()
        }

        pub(crate) fn store(&self, new: u128) {
            *self.step() = new;
        }

        pub(crate) fn compare_exchange(&self, current: u128, new: u128) -> Result<(), u128> {
            let mut held = self.step();
            if *held == current {
                *held = new;
                Ok(())
            } else {
                Err(*held)
            }
        }
    }
}

pub(crate) use cell::Word;

/// Levels count bit-nanoseconds: one byte is 8 bits × 10^9 of them.
pub(crate) const UNITS_PER_BYTE: u64 = 8_000_000_000;
