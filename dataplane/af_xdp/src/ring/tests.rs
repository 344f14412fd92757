//! The rings on ordinary memory: against a model by random operations, and (with `--cfg loom`) under every interleaving.

use super::*;

/// The shared part of a ring as the kernel would lay it out, with all positions at `start`.
struct Shared {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[Entry<u64>]>,
}

impl Shared {
    fn new(size: u32, start: u32) -> Arc<Self> {
        Arc::new(Self {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| Entry::new(0)).collect(),
        })
    }

    fn ring(self: &Arc<Self>) -> RingMemory<u64> {
        let entries = NonNull::from(&*self.entries).cast::<Entry<u64>>();
        let size = self.entries.len() as u32;
        // SAFETY: words and entries lie in the Arc, which the ring keeps; each test makes one Producer and one Consumer
        // at most, or plays the other side by the protocol.
        unsafe {
            RingMemory::new(
                NonNull::from(&self.producer),
                NonNull::from(&self.consumer),
                NonNull::from(&self.flags),
                entries,
                size,
                self.clone(),
            )
        }
    }
}

// SAFETY: the entries are handed over through the positions, as RingMemory promises for itself.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[cfg(not(loom))]
mod model {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// The other side, written apart from the code under test: it counts in u64 from `start` and only truncates when it
    /// stores.
    struct Kernel {
        shared: Arc<Shared>,
        position: u64,
    }

    impl Kernel {
        fn size(&self) -> u64 {
            self.shared.entries.len() as u64
        }

        fn entry(&self) -> &Entry<u64> {
            &self.shared.entries[((self.position & 0xffff_ffff) % self.size()) as usize]
        }

        /// Consumes up to `count` entries.
        fn consume(&mut self, count: u64) -> Vec<u64> {
            let mut taken = Vec::new();
            while (taken.len() as u64) < count && self.shared.producer.load(Ordering::Acquire) != self.position as u32 {
                // SAFETY: single-threaded, and the entry was submitted.
                taken.push(self.entry().with(|slot| unsafe { slot.read() }));
                self.position += 1;
            }
            self.shared.consumer.store(self.position as u32, Ordering::Release);
            taken
        }

        /// Produces the values, as many as there is room for by the reader's position `released`.
        fn produce(&mut self, values: &mut impl Iterator<Item = u64>, count: u64, released: u64) -> Vec<u64> {
            assert_eq!(self.shared.consumer.load(Ordering::Acquire), released as u32);
            let room = self.size() - (self.position - released);
            let mut written = Vec::new();
            for value in values.take(count.min(room) as usize) {
                // SAFETY: single-threaded, and the entry was released.
                self.entry().with_mut(|slot| unsafe { slot.write(value) });
                self.position += 1;
                written.push(value);
            }
            self.shared.producer.store(self.position as u32, Ordering::Release);
            written
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Ours: reserve or peek this many.
        Ask(u32),
        /// Ours: write or read this many.
        Touch(u32),
        /// Ours: submit or release.
        Show,
        /// The kernel consumes or produces this many.
        Kernel(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u32..40).prop_map(Step::Ask),
            (0u32..40).prop_map(Step::Touch),
            Just(Step::Show),
            (0u64..40).prop_map(Step::Kernel),
        ];
        prop::collection::vec(step, 1..300)
    }

    /// Any start, and often one whose positions wrap during the test.
    fn start() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), (0u32..200).prop_map(|before| u32::MAX - before)]
    }

    proptest! {
        #[test]
        fn a_producer_behaves_like_a_queue(start in start(), bits in 0u32..6, steps in steps()) {
            let size = 1u32 << bits;
            let shared = Shared::new(size, start);
            let mut ours = Producer::new(shared.ring());
            let mut kernel = Kernel { shared, position: u64::from(start) };
            let (mut written, mut submitted) = (VecDeque::new(), VecDeque::new());
            let mut values = 0u64..;
            for step in steps {
                let room = size - (written.len() + submitted.len()) as u32;
                match step {
                    Step::Ask(want) => prop_assert_eq!(ours.reserve(want), room.min(want)),
                    Step::Touch(count) => for i in 0..count {
                        let value = values.next().unwrap();
                        let expected = i < room;
                        prop_assert_eq!(ours.write(value), expected);
                        if expected { written.push_back(value); }
                    },
                    Step::Show => {
                        ours.submit();
                        submitted.append(&mut written);
                    }
                    Step::Kernel(count) => {
                        let expected: Vec<u64> = submitted.drain(..submitted.len().min(count as usize)).collect();
                        prop_assert_eq!(kernel.consume(count), expected);
                    }
                }
                prop_assert_eq!(ours.pending() as usize, submitted.len());
            }
        }

        #[test]
        fn a_consumer_behaves_like_a_queue(start in start(), bits in 0u32..6, steps in steps()) {
            let size = 1u32 << bits;
            let shared = Shared::new(size, start);
            let mut ours = Consumer::new(shared.ring());
            let mut kernel = Kernel { shared, position: u64::from(start) };
            let mut available = VecDeque::new();
            let (mut read, mut released) = (u64::from(start), u64::from(start));
            let mut values = 0u64..;
            for step in steps {
                match step {
                    Step::Ask(max) => prop_assert_eq!(ours.peek(max), max.min(available.len() as u32)),
                    Step::Touch(count) => for _ in 0..count {
                        let expected = available.pop_front();
                        prop_assert_eq!(ours.read(), expected);
                        read += u64::from(expected.is_some());
                    },
                    Step::Show => {
                        ours.release();
                        released = read;
                    }
                    Step::Kernel(count) => available.extend(kernel.produce(&mut values, count, released)),
                }
            }
        }

        #[test]
        fn a_broken_other_side_yields_nothing(start in start(), position in any::<u32>()) {
            let shared = Shared::new(8, start);
            let (mut producer, mut consumer) = (Producer::new(shared.ring()), Consumer::new(shared.ring()));
            shared.consumer.store(position, Ordering::Release);
            prop_assert!(producer.reserve(u32::MAX) <= 8);
            shared.producer.store(position, Ordering::Release);
            prop_assert!(consumer.peek(u32::MAX) <= 8);
        }
    }

    #[test]
    fn the_flags_word_is_read() {
        let shared = Shared::new(2, 0);
        let ours = Producer::new(shared.ring());
        assert_eq!((ours.flags(), ours.size()), (0, 2));
        shared.flags.store(1, Ordering::Relaxed);
        assert_eq!(ours.flags(), 1);
    }
}

#[cfg(loom)]
mod interleavings {
    use super::*;
    use loom::thread;

    /// Three entries through a ring of two, over the wrap of the positions, so that each entry is reused while the other
    /// side works. Loom's cells fail the test if both sides ever touch one at once, or without an ordering between.
    #[test]
    fn loom_producer_and_consumer_never_meet_in_an_entry() {
        loom::model(|| {
            let shared = Shared::new(2, u32::MAX);
            let (mut producer, mut consumer) = (Producer::new(shared.ring()), Consumer::new(shared.ring()));
            let writer = thread::spawn(move || {
                for value in [11, 22, 33] {
                    while !producer.write(value) {
                        thread::yield_now();
                    }
                    producer.submit();
                }
            });
            let mut read = Vec::new();
            while read.len() < 3 {
                match consumer.read() {
                    Some(value) => read.push(value),
                    None => thread::yield_now(),
                }
                consumer.release();
            }
            writer.join().unwrap();
            assert_eq!(read, [11, 22, 33]);
        });
    }

    /// As above, in batches: two entries submitted and released at a time.
    #[test]
    fn loom_batches_arrive_whole_and_in_order() {
        loom::model(|| {
            let shared = Shared::new(2, u32::MAX - 1);
            let (mut producer, mut consumer) = (Producer::new(shared.ring()), Consumer::new(shared.ring()));
            let writer = thread::spawn(move || {
                for batch in [[1, 2], [3, 4]] {
                    while producer.reserve(2) < 2 {
                        thread::yield_now();
                    }
                    for value in batch {
                        assert!(producer.write(value));
                    }
                    producer.submit();
                }
            });
            let mut expected = 1;
            while expected < 5 {
                let waiting = consumer.peek(2);
                assert_ne!(waiting, 1, "half a batch is visible");
                for _ in 0..waiting {
                    assert_eq!(consumer.read(), Some(expected));
                    expected += 1;
                }
                consumer.release();
                thread::yield_now();
            }
            writer.join().unwrap();
        });
    }
}
