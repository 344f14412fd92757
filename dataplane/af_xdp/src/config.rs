//! What a UMEM and a socket are made of, and which values the kernel accepts.

use crate::error::Error;

/// How much memory the packets get. The default is 4096 frames of 2048 bytes (8 MiB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Number of frames, 1 or more; `frame_count * frame_size` is at most 4 GiB.
    pub frame_count: u32,
    /// Bytes of one frame: a power of two from 2048 to 1 MiB, of which sockets take 2048 and 4096 only; larger ones are for
    /// memory without a socket. The first 256 (`XDP_PACKET_HEADROOM`) and `headroom` are not for the packet, so 2048 takes
    /// packets up to 1792 bytes.
    pub frame_size: u32,
    /// Bytes kept free before each packet, after the 256 of the kernel. 0 to `frame_size - 512`.
    pub headroom: u32,
    /// Registers room for TX metadata, which [`Umem::request_checksum`](crate::Umem::request_checksum) needs. Linux 6.11
    /// or later.
    pub tx_metadata: bool,
    /// Maps the memory in huge pages of 2 MiB, which the administrator must have set aside in
    /// `/proc/sys/vm/nr_hugepages`.
    pub huge_pages: bool,
    /// Touches all memory now, so that no packet waits for a page later. Without it only what is used is taken.
    pub prefault: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self {
            frame_count: 4096,
            frame_size: 2048,
            headroom: 0,
            tx_metadata: false,
            huge_pages: false,
            prefault: true,
        }
    }
}

impl UmemConfig {
    /// The kernel takes powers of two from 2048 to the page size only, in aligned mode (xdp_umem_reg).
    pub(crate) fn validate_for_socket(frame_size: u32) -> Result<(), Error> {
        if matches!(frame_size, 2048 | 4096) {
            return Ok(());
        }
        Err(Error::config(
            "frame_size",
            frame_size,
            "2048 or 4096 for memory with sockets",
        ))
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !self.frame_size.is_power_of_two() || !(2048..=1 << 20).contains(&self.frame_size) {
            return Err(Error::config(
                "frame_size",
                self.frame_size,
                "a power of two from 2048 to 1048576",
            ));
        }
        let bytes = u64::from(self.frame_count) * u64::from(self.frame_size);
        if self.frame_count == 0 || bytes > 1 << 32 {
            return Err(Error::config(
                "frame_count",
                self.frame_count,
                "1 to 4 GiB / frame_size",
            ));
        }
        if self.headroom > self.frame_size - 512 {
            return Err(Error::config("headroom", self.headroom, "0 to frame_size - 512"));
        }
        Ok(())
    }
}

/// Whether packets are copied between driver memory and the UMEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy where the driver can, copy mode otherwise. [`Socket::is_zero_copy`](crate::Socket::is_zero_copy) tells.
    #[default]
    Auto,
    /// Copy mode, which every driver can.
    Copy,
    /// Zero-copy or an error.
    ZeroCopy,
}

/// Preferred busy polling (`SO_PREFER_BUSY_POLL`): the worker's own wake-ups run the driver's NAPI, instead of interrupts.
/// Needs CAP_NET_ADMIN. Veth accepts it without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// `SO_BUSY_POLL`: microseconds to poll when nothing has come, 1 or more; 20 is customary.
    pub usecs: u32,
    /// `SO_BUSY_POLL_BUDGET`: packets to take at most in one poll, 1 to 65535; 64 is customary.
    pub budget: u16,
}

/// Rings and modes of one socket. Ring sizes are in descriptors, each a power of two.
///
/// The defaults are 2048 descriptors a ring, need-wakeup on, and everything else off. A larger fill ring than that
/// costs more cache than it saves drops; a smaller one than the NIC's RX ring starves the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// RX ring: a power of two, 1 to 2^20.
    pub rx_size: u32,
    /// TX ring: a power of two, 1 to 2^20.
    pub tx_size: u32,
    /// Fill ring: a power of two, 1 to 2^20; at least the NIC's own RX ring plus `rx_size` never starves.
    pub fill_size: u32,
    /// Completion ring: a power of two from `tx_size` to 2^20, so that a full TX ring can always complete.
    pub completion_size: u32,
    /// Copy or zero-copy. Only the first socket of a UMEM chooses; later ones inherit.
    pub bind: BindMode,
    /// Lets the driver sleep and say so (`XDP_USE_NEED_WAKEUP`). Only the first socket of a UMEM chooses.
    pub need_wakeup: bool,
    /// Packets longer than one frame come as chains (`XDP_USE_SG`). The XDP program must then have been loaded with
    /// `BPF_F_XDP_HAS_FRAGS`. Only the first socket of a UMEM chooses. Linux 6.6 or later.
    pub multi_buffer: bool,
    /// Packets one wake-up sends in copy mode (`XDP_MAX_TX_SKB_BUDGET`): 32 to `tx_size`; the kernel's own is 32. A
    /// kernel that does not know the option (before 6.17) keeps 32: see [`Socket::tx_budget`](crate::Socket::tx_budget).
    pub tx_budget: Option<u32>,
    /// Preferred busy polling, or interrupts as usual.
    pub busy_poll: Option<BusyPoll>,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            rx_size: 2048,
            tx_size: 2048,
            fill_size: 2048,
            completion_size: 2048,
            bind: BindMode::Auto,
            need_wakeup: true,
            multi_buffer: false,
            tx_budget: None,
            busy_poll: None,
        }
    }
}

impl SocketConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let rings = [
            ("rx_size", self.rx_size),
            ("tx_size", self.tx_size),
            ("fill_size", self.fill_size),
            ("completion_size", self.completion_size),
        ];
        for (field, size) in rings {
            if !size.is_power_of_two() || size > RING_SIZE_MAX {
                return Err(Error::config(field, size, "a power of two, 1 to 1048576"));
            }
        }
        if self.completion_size < self.tx_size {
            return Err(Error::config(
                "completion_size",
                self.completion_size,
                "at least tx_size",
            ));
        }
        if let Some(budget) = self.tx_budget
            && !(TX_BUDGET_MIN..=self.tx_size).contains(&budget)
        {
            return Err(Error::config("tx_budget", budget, "32 to tx_size"));
        }
        if let Some(poll) = self.busy_poll {
            if poll.usecs == 0 || poll.usecs > i32::MAX as u32 {
                return Err(Error::config("busy_poll.usecs", poll.usecs, "1 to 2147483647"));
            }
            if poll.budget == 0 {
                return Err(Error::config("busy_poll.budget", 0, "1 to 65535"));
            }
        }
        Ok(())
    }
}

/// 16 MiB of descriptors: far past any use, and keeps every size calculation within 32 bits.
const RING_SIZE_MAX: u32 = 1 << 20;
/// `TX_BATCH_SIZE` of net/xdp/xsk.c: the kernel refuses less with EACCES.
pub(crate) const TX_BUDGET_MIN: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(result: Result<(), Error>) -> &'static str {
        match result {
            Err(Error::Config { field, .. }) => field,
            other => panic!("expected a configuration error, got {other:?}"),
        }
    }

    #[test]
    fn defaults_are_valid() {
        UmemConfig::default().validate().unwrap();
        SocketConfig::default().validate().unwrap();
    }

    #[test]
    fn umem_errors_name_the_field() {
        let umem = UmemConfig::default();
        for (config, field) in [
            (
                UmemConfig {
                    frame_size: 1024,
                    ..umem.clone()
                },
                "frame_size",
            ),
            (
                UmemConfig {
                    frame_size: 3072,
                    ..umem.clone()
                },
                "frame_size",
            ),
            (
                UmemConfig {
                    frame_count: 0,
                    ..umem.clone()
                },
                "frame_count",
            ),
            (
                UmemConfig {
                    frame_count: (1 << 21) + 1,
                    ..umem.clone()
                },
                "frame_count",
            ),
            (
                UmemConfig {
                    headroom: 1537,
                    ..umem.clone()
                },
                "headroom",
            ),
        ] {
            assert_eq!(field_of(config.validate()), field, "{config:?}");
        }
        // Fine as memory, but not for a socket.
        assert_eq!(field_of(UmemConfig::validate_for_socket(8192)), "frame_size");
        UmemConfig {
            frame_count: 1 << 21,
            headroom: 1536,
            ..umem
        }
        .validate()
        .unwrap();
    }

    #[test]
    fn socket_errors_name_the_field() {
        let socket = SocketConfig::default();
        let poll = |usecs, budget| Some(BusyPoll { usecs, budget });
        for (config, field) in [
            (
                SocketConfig {
                    rx_size: 0,
                    ..socket.clone()
                },
                "rx_size",
            ),
            (
                SocketConfig {
                    tx_size: 511,
                    ..socket.clone()
                },
                "tx_size",
            ),
            (
                SocketConfig {
                    fill_size: 1 << 21,
                    ..socket.clone()
                },
                "fill_size",
            ),
            (
                SocketConfig {
                    completion_size: 1024,
                    ..socket.clone()
                },
                "completion_size",
            ),
            (
                SocketConfig {
                    tx_budget: Some(31),
                    ..socket.clone()
                },
                "tx_budget",
            ),
            (
                SocketConfig {
                    tx_budget: Some(2049),
                    ..socket.clone()
                },
                "tx_budget",
            ),
            (
                SocketConfig {
                    busy_poll: poll(0, 64),
                    ..socket.clone()
                },
                "busy_poll.usecs",
            ),
            (
                SocketConfig {
                    busy_poll: poll(20, 0),
                    ..socket.clone()
                },
                "busy_poll.budget",
            ),
        ] {
            assert_eq!(field_of(config.validate()), field, "{config:?}");
        }
        SocketConfig {
            tx_budget: Some(2048),
            busy_poll: poll(20, 64),
            ..socket
        }
        .validate()
        .unwrap();
    }
}
