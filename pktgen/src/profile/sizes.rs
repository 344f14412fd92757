//! Sizes of messages: cumulative distributions as published, and the pieces a message is sent in.
//!
//! A distribution is a list of points (bytes, percent of messages that have as many or fewer). Between points it is a
//! straight line, as the generators that the lists come with read them (`custom_rand.py` of the HPCC repository, `cdf.c` of
//! HKUST's TrafficGenerator). They approximate plots of papers: they are not the data.

use serde::Serialize;

/// A cumulative distribution of message sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution {
    /// (size in units, percent), both rising, from 0 to 100 %. Two points of one size are a step.
    points: &'static [(f64, f64)],
    /// Bytes of a unit.
    unit_bytes: f64,
}

impl Distribution {
    pub(super) const fn of_bytes(points: &'static [(f64, f64)]) -> Self {
        Self {
            points,
            unit_bytes: 1.0,
        }
    }

    pub(super) const fn of_segments(points: &'static [(f64, f64)]) -> Self {
        Self {
            points,
            unit_bytes: SEGMENT_BYTES,
        }
    }

    /// The size below which this fraction (0 to 1) of messages lies, in bytes: the inverse of the distribution.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> f64 {
        let percent = fraction * 100.0;
        let above = self
            .points
            .partition_point(|point| point.1 < percent)
            .clamp(1, self.points.len() - 1);
        let ((x0, y0), (x1, y1)) = (self.points[above - 1], self.points[above]);
        (x0 + (x1 - x0) * ((percent - y0) / (y1 - y0)).clamp(0.0, 1.0)) * self.unit_bytes
    }

    /// The size at this fraction as a whole number of bytes, 1 or more: rounded up, so that messages need as many packets
    /// as [`mean_packets`](Self::mean_packets) says.
    #[must_use]
    pub fn sample(&self, fraction: f64) -> u64 {
        (self.quantile(fraction).ceil() as u64).max(1)
    }

    /// Mean bytes of a message: each line's middle, weighted.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        let lines = self.points.windows(2);
        lines
            .map(|line| (line[0].0 + line[1].0) / 2.0 * (line[1].1 - line[0].1) / 100.0)
            .sum::<f64>()
            * self.unit_bytes
    }

    /// Mean packets of a message when one carries `payload_bytes` (1 or more): the sum over n of the fraction of messages
    /// longer than n packets hold.
    #[must_use]
    pub fn mean_packets(&self, payload_bytes: u16) -> f64 {
        let payload = f64::from(payload_bytes.max(1));
        let longest = self.quantile(1.0);
        let packets = (longest / payload).ceil() as u64;
        (0..packets).map(|n| 1.0 - self.fraction(n as f64 * payload)).sum()
    }

    /// Mean bytes by which the last frame of a message is padded to the smallest there is. Messages of more than 16
    /// packets are not looked at: their last frame is rarely that small, and a byte of it is lost among the others.
    pub(super) fn mean_padding(&self, framing: Framing) -> f64 {
        let payload = f64::from(framing.payload_bytes());
        let unpadded = framing
            .frame_bytes_min
            .saturating_sub(framing.header_bytes + 18 + 4 * u16::from(framing.vlan_tags));
        let padded = |n: i32| {
            let full = self.fraction(f64::from(n) * payload);
            // A rest of r bytes is padded by the number of j from r to one less than what needs none.
            (1..unpadded)
                .map(move |j| self.fraction(f64::from(n) * payload + f64::from(j)) - full)
                .sum::<f64>()
        };
        (0..16).map(padded).sum()
    }

    /// Which fraction of messages has `bytes` or fewer.
    #[must_use]
    pub fn fraction(&self, bytes: f64) -> f64 {
        let x = bytes / self.unit_bytes;
        let above = self.points.partition_point(|point| point.0 <= x);
        let percent = match (above.checked_sub(1).map(|i| self.points[i]), self.points.get(above)) {
            (None, _) => 0.0,
            (Some((_, y)), None) => y,
            (Some((x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        };
        percent / 100.0
    }
}

/// What headers leave of a frame, and how small a frame can be. Sizes of frames are with FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Framing {
    /// Bytes of the largest IP packet, its header included; above `header_bytes`.
    pub mtu: u16,
    /// Bytes of IP and transport headers: 28 for UDP over IPv4, 48 over IPv6, 40 and 60 for TCP.
    pub header_bytes: u16,
    /// 0 to 2, 4 bytes each.
    pub vlan_tags: u8,
    /// The smallest frame with FCS: 64, or what a header of one's own needs.
    pub frame_bytes_min: u16,
}

impl Framing {
    /// UDP over IPv4, untagged, an MTU of 1500: 64 to 1518 bytes.
    pub const UDP_IPV4: Framing = Framing {
        mtu: 1500,
        header_bytes: 28,
        vlan_tags: 0,
        frame_bytes_min: 64,
    };

    /// Bytes of a message that one packet carries; 1 or more.
    #[must_use]
    pub fn payload_bytes(&self) -> u16 {
        self.mtu.saturating_sub(self.header_bytes).max(1)
    }

    /// Bytes with FCS of the frame that carries `payload` bytes of a message.
    #[must_use]
    pub fn frame_bytes(&self, payload: u16) -> u16 {
        let ethernet = 18 + 4 * u16::from(self.vlan_tags);
        payload
            .saturating_add(self.header_bytes)
            .saturating_add(ethernet)
            .max(self.frame_bytes_min)
    }
}

/// The frames (bytes with FCS) of a message of `bytes`: full ones, and the rest in a last one. No bytes make no frame.
#[must_use]
pub fn segment(bytes: u64, framing: Framing) -> Segments {
    Segments { left: bytes, framing }
}

/// See [`segment`].
#[derive(Clone, Debug)]
pub struct Segments {
    left: u64,
    framing: Framing,
}

impl Iterator for Segments {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        if self.left == 0 {
            return None;
        }
        let payload = self.framing.payload_bytes();
        let taken = u16::try_from(self.left).map_or(payload, |left| left.min(payload));
        self.left -= u64::from(taken);
        Some(self.framing.frame_bytes(taken))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let packets = self.left.div_ceil(u64::from(self.framing.payload_bytes()));
        (packets as usize, Some(packets as usize))
    }
}

/// The payload of a TCP segment over IPv4 in 1500 bytes: the unit of HKUST's lists.
const SEGMENT_BYTES: f64 = 1460.0;

/// HPCC `traffic_gen/WebSearch_distribution.txt`: the flows of DCTCP's search cluster.
pub(super) const WEB_SEARCH: Distribution = Distribution::of_bytes(&[
    (0.0, 0.0),
    (10_000.0, 15.0),
    (20_000.0, 20.0),
    (30_000.0, 30.0),
    (50_000.0, 40.0),
    (80_000.0, 53.0),
    (200_000.0, 60.0),
    (1_000_000.0, 70.0),
    (2_000_000.0, 80.0),
    (5_000_000.0, 90.0),
    (10_000_000.0, 97.0),
    (30_000_000.0, 100.0),
]);

/// HPCC `traffic_gen/FbHdp_distribution.txt`.
pub(super) const HADOOP: Distribution = Distribution::of_bytes(&[
    (0.0, 0.0),
    (100.0, 1.0),
    (200.0, 2.0),
    (300.0, 5.0),
    (350.0, 15.0),
    (400.0, 20.0),
    (500.0, 30.0),
    (600.0, 40.0),
    (700.0, 50.0),
    (1_000.0, 60.0),
    (2_000.0, 67.0),
    (7_000.0, 70.0),
    (30_000.0, 72.0),
    (50_000.0, 82.0),
    (80_000.0, 87.0),
    (120_000.0, 90.0),
    (300_000.0, 95.0),
    (1_000_000.0, 97.5),
    (2_000_000.0, 99.0),
    (10_000_000.0, 100.0),
]);

/// HPCC `traffic_gen/AliStorage2019.txt`.
pub(super) const STORAGE: Distribution = Distribution::of_bytes(&[
    (0.0, 0.0),
    (4_000.0, 22.93),
    (8_000.0, 69.21),
    (16_000.0, 80.61),
    (32_000.0, 90.47),
    (64_000.0, 93.53),
    (128_000.0, 96.77),
    (256_000.0, 97.53),
    (2_000_000.0, 100.0),
]);

/// HKUST `conf/CDF_vl2.txt`, in segments.
pub(super) const DATA_MINING: Distribution = Distribution::of_segments(&[
    (1.0, 0.0),
    (1.0, 50.0),
    (2.0, 60.0),
    (3.0, 70.0),
    (7.0, 80.0),
    (267.0, 90.0),
    (2_107.0, 95.0),
    (66_667.0, 99.0),
    (666_667.0, 100.0),
]);

/// HKUST `conf/CDF_cache.txt`, in segments.
pub(super) const CACHE: Distribution = Distribution::of_segments(&[
    (1.0, 0.0),
    (1.0, 36.0),
    (2.0, 40.0),
    (7.0, 46.0),
    (13.0, 50.0),
    (67.0, 60.0),
    (133.0, 70.0),
    (667.0, 78.0),
    (1_333.0, 80.0),
    (2_000.0, 90.0),
    (2_667.0, 99.0),
    (33_333.0, 100.0),
]);

/// Google's RPC requests: smallest 64 B, median 1530 B, p90 11.8 KB, p99 196 KB as read from the paper; the largest is our
/// assumption ([`RPC_BYTES_MAX`]), and half of the mean hangs on it.
pub(super) const RPC_REQUEST: Distribution = Distribution::of_bytes(&[
    (64.0, 0.0),
    (1_530.0, 50.0),
    (11_800.0, 90.0),
    (196_000.0, 99.0),
    (RPC_BYTES_MAX, 100.0),
]);

/// The same of responses: p10 188 B, median 315 B, p90 10 KB, p99 563 KB.
pub(super) const RPC_RESPONSE: Distribution = Distribution::of_bytes(&[
    (64.0, 0.0),
    (188.0, 10.0),
    (315.0, 50.0),
    (10_000.0, 90.0),
    (563_000.0, 99.0),
    (RPC_BYTES_MAX, 100.0),
]);

/// HPCC `traffic_gen/GoogleRPC2008.txt`, one or two of its points for each doubling.
pub(super) const RPC_2008: Distribution = Distribution::of_bytes(&[
    (0.0, 0.0),
    (3.0, 6.48826),
    (32.0, 9.73239),
    (64.0, 15.5271),
    (96.0, 28.6139),
    (128.0, 35.1573),
    (186.0, 44.3028),
    (256.0, 49.7901),
    (375.0, 68.055),
    (512.0, 78.4921),
    (717.0, 82.9652),
    (1_024.0, 86.32),
    (1_418.0, 88.8568),
    (2_048.0, 90.8862),
    (2_891.0, 92.4083),
    (4_096.0, 93.4955),
    (5_772.0, 95.1999),
    (8_192.0, 96.4309),
    (11_582.0, 97.6242),
    (16_384.0, 98.4694),
    (23_156.0, 98.8033),
    (32_768.0, 99.0402),
    (46_143.0, 99.2056),
    (65_536.0, 99.3256),
    (92_160.0, 99.5494),
    (131_072.0, 99.7129),
    (185_227.0, 99.7903),
    (262_144.0, 99.8453),
    (371_371.0, 99.9068),
    (524_288.0, 99.9498),
    (1_027_982.0, 99.9753),
    (2_034_108.0, 99.9884),
    (4_135_977.0, 99.9952),
    (8_231_141.0, 99.9985),
    (15_158_197.0, 100.0),
]);

/// What gRPC receives at most unless told otherwise: 4 MiB.
const RPC_BYTES_MAX: f64 = 4_194_304.0;

/// Tokens of a chat answer: the median of 129 is from Splitwise's conversation trace, "bimodal" too; the rest of the shape
/// is our assumption.
pub(super) const CHAT_TOKENS: Distribution = Distribution::of_bytes(&[
    (0.0, 0.0),
    (40.0, 35.0),
    (129.0, 50.0),
    (250.0, 65.0),
    (450.0, 95.0),
    (1_000.0, 100.0),
]);

/// Bytes of a token's message: with headers 100 to 300, as derived, not sourced.
pub(super) const TOKEN_BYTES: Distribution = Distribution::of_bytes(&[(49.0, 0.0), (250.0, 100.0)]);
