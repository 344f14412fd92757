//! Packets at instants that no constant rate gives: schedules (ramps, steps, bursts) and traffic profiles.

use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

use dataplane::clock::Nanos;

use crate::pace::CATCH_UP_MAX;
use crate::profile::Traffic;
use crate::rota::Rota;
use crate::schedule::Schedule;

/// One packet of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// When it is due, from the start of the timeline; never before the one before it.
    pub at: Nanos,
    /// Index of its stream.
    pub stream: usize,
    /// Its size without FCS; `None`: the stream's next.
    pub frame_bytes: Option<u16>,
    /// Number of its flow, of which the stream's are taken in turn; `None`: the stream's next.
    pub flow: Option<u64>,
}

/// What makes the same packets each time it is asked.
#[derive(Clone)]
pub struct Timeline(Arc<dyn Fn() -> Packets + Send + Sync>);

/// The packets of a timeline, in order of time.
pub type Packets = Box<dyn Iterator<Item = Timed> + Send>;

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timeline")
    }
}

impl Timeline {
    /// Packets at the instants of a schedule, of streams in proportion to `shares`, by index. Nothing if nobody has a share.
    #[must_use]
    pub fn scheduled(schedule: Schedule, shares: &[u32]) -> Self {
        let rota = Rota::new(shares, shares.len());
        Self(Arc::new(move || {
            let mut rota = rota.clone();
            let timed = move |at| {
                Some(Timed {
                    at,
                    stream: rota.as_mut()?.next(),
                    frame_bytes: None,
                    flow: None,
                })
            };
            Box::new(schedule.instants().map_while(timed))
        }))
    }

    /// The packets of a profile. Its sources take turns among `streams` streams.
    #[must_use]
    pub fn profile(traffic: Traffic, streams: usize) -> Self {
        let sources = u64::from(traffic.settings().sources);
        let streams = streams.max(1);
        Self(Arc::new(move || {
            let timed = move |(source, packet): (u32, crate::profile::Packet)| Timed {
                at: packet.at,
                stream: source as usize % streams,
                frame_bytes: Some(packet.frame_bytes - FCS),
                flow: Some(packet.flow.wrapping_mul(sources).wrapping_add(u64::from(source))),
            };
            Box::new(traffic.packets().map(timed))
        }))
    }

    /// The packets, from the first.
    #[must_use]
    pub fn packets(&self) -> Packets {
        (self.0)()
    }

    /// How many packets are due before `end`.
    #[must_use]
    pub fn count_before(&self, end: Nanos) -> u64 {
        self.packets().take_while(|packet| packet.at < end).count() as u64
    }

    /// The part of sender `number` of `senders`: they take packets in turn.
    pub(crate) fn part(&self, number: usize, senders: usize) -> Packets {
        Box::new(self.packets().skip(number).step_by(senders.max(1)))
    }
}

/// A timeline that runs.
pub(crate) struct Running {
    start: Nanos,
    packets: Peekable<Packets>,
}

impl Running {
    pub(crate) fn new(start: Nanos, packets: Packets) -> Self {
        Self {
            start,
            packets: packets.peekable(),
        }
    }

    /// The next packet that is due at `now` or before, with its instant. Those that are late by more than [`CATCH_UP_MAX`] are
    /// told to `skipped` instead.
    pub(crate) fn next(&mut self, now: Nanos, mut skipped: impl FnMut(usize)) -> Option<(Timed, Nanos)> {
        loop {
            let start = self.start;
            let packet = self.packets.next_if(|packet| start.plus(packet.at) <= now)?;
            let at = start.plus(packet.at);
            if now.since(at) <= CATCH_UP_MAX {
                return Some((packet, at));
            }
            skipped(packet.stream);
        }
    }

    /// When the next packet is due.
    pub(crate) fn next_due(&mut self) -> Option<Nanos> {
        let start = self.start;
        self.packets.peek().map(|packet| start.plus(packet.at))
    }
}

/// Bytes of the frame check sequence, which profiles count and packets in memory have not.
const FCS: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_share_a_timeline_and_late_packets_are_counted() {
        let timeline = Timeline::scheduled(Schedule::constant(1_000.0).unwrap(), &[3, 1]);
        let second = Nanos(1_000_000_000);
        assert_eq!(timeline.count_before(second), 1_000);
        let mut both: Vec<Timed> = timeline
            .part(0, 2)
            .take(500)
            .chain(timeline.part(1, 2).take(500))
            .collect();
        both.sort_by_key(|packet| packet.at);
        assert_eq!(both, timeline.packets().take(1_000).collect::<Vec<_>>());
        assert_eq!(both.iter().filter(|packet| packet.stream == 0).count(), 750);

        let mut running = Running::new(second, timeline.packets());
        let (mut sent, mut skipped) = (0, 0);
        // 100 ms late: half of what is due is too old.
        while let Some((_, at)) = running.next(second.plus(Nanos(99_500_000)), |_| skipped += 1) {
            assert!(at >= second.plus(Nanos(49_500_000)));
            sent += 1;
        }
        assert_eq!((sent, skipped), (50, 50));
        assert_eq!(running.next_due(), Some(second.plus(Nanos(100_000_000))));
    }
}
