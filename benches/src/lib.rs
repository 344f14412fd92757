//! What the benches measure with.
//!
//! ```text
//! pipeline   in memory, one thread:   prepared packets ─► MemoryPort ─► Worker::turn ─► MemoryPort
//! veth       three namespaces:        flood ─► veth ─► bare forwarder or weir ─► veth ─► sink
//! swaps      in memory, two threads:  the same in a circle, checked ─► MemoryPort ─► Worker::turn, tables swapped under it
//! latency    three namespaces:        pktgen ─► veth ─► weir with a port rate ─► veth ─► pktgen
//! generate   in memory, one thread; two namespaces:   bare transmitter or pktgen ─► veth ─► sink or receiver
//! ```
//!
//! - [`workload`]: 1,000 services with a contract each, 4,096 flows of them, the packets of those flows
//! - [`live`]: the flood, live frames made inside the kernel; [`sink`]: the program that counts and drops them
//! - [`bare`]: the forwarder that does nothing but forward, the yardstick of the veth bench
//! - [`sender`]: the transmitter that does nothing but transmit, the yardstick of the generator
//! - [`many`]: 100,000 contracts, in two variants, and flows of them
//! - [`checked`]: a worker on memory ports whose packets are checked as they leave
//! - [`lane`]: a worker on memory ports; [`allocation`]: the allocator that counts
//! - [`summary`]: medians and tables; [`machine`]: pinning, and what state the machine is in; [`precedence`]: over other
//!   processes
//!
//! README.md tells how to run them and what the numbers mean.
#![deny(unsafe_code)]

pub mod allocation;
pub mod bare;
pub mod checked;
pub mod lane;
pub mod live;
pub mod machine;
pub mod many;
pub mod precedence;
pub mod sender;
pub mod sink;
pub mod summary;
pub mod workload;

/// What stopped a bench: a sentence for the person who started it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
