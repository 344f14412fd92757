//! What sent what to what.

use serde::{Deserialize, Serialize};

use super::interface::Interface;
use super::or_nan;

/// The bench apart from the computer: ports, sockets, traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// What makes the packets: `af_xdp` or `live`.
    pub engine: String,
    /// What lies between the ports, with its version and configuration: "weir 0.1.0, contracts.toml", "a bridge".
    pub between: String,
    /// The ports, in the order the operator gave.
    pub interfaces: Vec<Interface>,
    /// The rate of the line in bits per second at layer 1, if the operator stated one.
    pub line_rate_bps: Option<f64>,
    /// The sockets' memory and rings; `None` for an engine that has none.
    pub sockets: Option<SocketSetup>,
    /// Cores that transmitters were pinned to, one each.
    pub transmit_cores: Vec<u32>,
    /// Cores that receivers were pinned to, one each.
    pub receive_cores: Vec<u32>,
    /// The traffic.
    pub streams: Vec<StreamRow>,
}

/// Each AF_XDP socket's memory and rings, in frames and descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSetup {
    /// Frames of the UMEM.
    pub umem_frames: u32,
    /// Bytes of a frame.
    pub frame_bytes: u32,
    /// Descriptors of the fill ring.
    pub fill_ring: u32,
    /// Descriptors of the completion ring.
    pub completion_ring: u32,
    /// Descriptors of the receive ring.
    pub rx_ring: u32,
    /// Descriptors of the transmit ring.
    pub tx_ring: u32,
}

/// One stream as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamRow {
    /// Its name, or that of its service.
    pub name: String,
    /// UDP, TCP, ICMP; with the VLAN tags if it has any.
    pub protocol: String,
    /// A frame size with FCS, or a mix and its RFC 6985 genome.
    pub frames: String,
    /// Mean bytes of a frame with FCS.
    #[serde(deserialize_with = "or_nan")]
    pub mean_frame_bytes: f64,
    /// Distinct combinations of addresses and ports.
    pub flows: u64,
    /// 0 to 63.
    pub dscp: u8,
    /// Offered as so many times what its contract grants; `None` without a contract.
    pub multiple: Option<f64>,
    /// Its share of all packets, 0 to 1.
    #[serde(deserialize_with = "or_nan")]
    pub share: f64,
}
