//! What every contract was offered in each of the last [`SECONDS`] seconds, for `weir plan` to judge once more.
//!
//! Kept by the control thread, which reads every contract's counters once a second. Bytes are those of the counted layer, in
//! steps of [`UNIT`], so that a second at 400 Gbit/s fits 32 bits. Only contracts with traffic in the window have a series:
//! 240 bytes each, so a hundred thousand of them cost 24 MB, and 8 bytes each for the last reading.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dataplane::cells::{Cells, SlotId};
use serde::{Deserialize, Serialize};

/// Seconds that are kept: bursts of services that come once a minute are still in it.
pub const SECONDS: usize = 60;
/// Bytes in a step of a sample.
pub const UNIT: u64 = 16;

/// The last readings and what lies between them.
#[derive(Debug)]
pub struct Samples {
    /// Offered bytes in steps, as of the last reading, by slot.
    last: Vec<Option<u64>>,
    series: HashMap<SlotId, Box<[u32; SECONDS]>>,
    /// Milliseconds between a reading and the one before.
    lengths: [u32; SECONDS],
    /// Where the next sample goes.
    next: usize,
    taken: Option<Instant>,
}

/// Samples of one contract as they travel to `weir plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Service.
    pub service: String,
    /// Class of service.
    pub class: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Far segment.
    pub segment: Option<String>,
    /// Offered bytes in each sample, oldest first; as long as the lengths.
    pub bytes: Vec<u64>,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            last: Vec::new(),
            series: HashMap::new(),
            lengths: [0; SECONDS],
            next: 0,
            taken: None,
        }
    }
}

impl Samples {
    /// Takes a sample if a second has passed since the last. `slots` are those to read.
    pub fn tick(&mut self, now: Instant, cells: &Cells, slots: impl Iterator<Item = SlotId>) {
        let since = self.taken.map(|taken| now.saturating_duration_since(taken));
        if since.is_some_and(|since| since < Duration::from_secs(1)) {
            return;
        }
        let readings = slots.map(|slot| (slot, offered(cells, slot)));
        self.take(now, readings);
    }

    fn take(&mut self, now: Instant, readings: impl Iterator<Item = (SlotId, u64)>) {
        let since = self
            .taken
            .replace(now)
            .map(|taken| now.saturating_duration_since(taken));
        let at = self.next;
        // The first reading has nothing before it: it is no sample.
        let counts = since.is_some();
        for series in self.series.values_mut() {
            series[at] = 0;
        }
        for (slot, bytes) in readings {
            let index = slot.0 as usize;
            if index >= self.last.len() {
                self.last.resize(index + 1, None);
            }
            let steps = bytes / UNIT;
            // Of a contract that is new in the table, what it had before is not of this second.
            let delta = self.last[index]
                .replace(steps)
                .map_or(0, |last| steps.saturating_sub(last));
            if counts && delta > 0 {
                let series = self.series.entry(slot).or_insert_with(|| Box::new([0; SECONDS]));
                series[at] = u32::try_from(delta).unwrap_or(u32::MAX);
            }
        }
        if let Some(since) = since {
            self.lengths[at] = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
            self.next = (at + 1) % SECONDS;
            if self.next == 0 {
                // Once a minute is often enough to let go of those that have fallen silent.
                self.series.retain(|_, series| series.iter().any(|sample| *sample > 0));
            }
        }
    }

    /// Milliseconds of each sample, oldest first.
    #[must_use]
    pub fn lengths(&self) -> Vec<u32> {
        self.order().map(|at| self.lengths[at]).collect()
    }

    /// Bytes offered in each sample, oldest first; `None`: none at all.
    #[must_use]
    pub fn bytes(&self, slot: SlotId) -> Option<Vec<u64>> {
        let series = self.series.get(&slot)?;
        let bytes: Vec<u64> = self.order().map(|at| u64::from(series[at]) * UNIT).collect();
        bytes.iter().any(|bytes| *bytes > 0).then_some(bytes)
    }

    /// Bytes offered in the last sample.
    #[must_use]
    pub fn last_bytes(&self, slot: SlotId) -> u64 {
        let last = (self.next + SECONDS - 1) % SECONDS;
        self.series
            .get(&slot)
            .map_or(0, |series| u64::from(series[last]) * UNIT)
    }

    /// Places of the samples there are, oldest first.
    fn order(&self) -> impl Iterator<Item = usize> + '_ {
        let places = (0..SECONDS).map(move |n| (self.next + n) % SECONDS);
        places.filter(|&at| self.lengths[at] > 0)
    }
}

fn offered(cells: &Cells, slot: SlotId) -> u64 {
    let of_worker = |worker| {
        let cell = cells.of(worker).cell(slot);
        cell.conforming.get().bytes + cell.nonconforming.get().bytes
    };
    (0..cells.workers()).map(of_worker).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_kept_and_no_more() {
        let start = Instant::now();
        let mut samples = Samples::default();
        for second in 0..200_u64 {
            // One contract always sends, one only in the first seconds, one never.
            let readings = [
                (SlotId(3), 1_600 * second),
                (SlotId(0), 160 * second.min(5)),
                (SlotId(1), 0),
            ];
            samples.take(start + Duration::from_secs(second), readings.into_iter());
            let lengths = samples.lengths();
            assert_eq!(lengths.len(), SECONDS.min(second as usize));
            assert!(lengths.iter().all(|length| *length == 1_000));
        }
        assert_eq!(samples.bytes(SlotId(3)), Some(vec![1_600; SECONDS]));
        assert_eq!((samples.bytes(SlotId(0)), samples.bytes(SlotId(1))), (None, None));
        assert_eq!(samples.series.len(), 1, "a contract that fell silent is forgotten");
    }

    #[test]
    fn what_was_counted_before_the_first_reading_is_no_traffic() {
        let start = Instant::now();
        let mut samples = Samples::default();
        let at = |second| start + Duration::from_secs(second);
        samples.take(at(0), [(SlotId(0), 1 << 40)].into_iter());
        samples.take(at(1), [(SlotId(0), (1 << 40) + 32), (SlotId(9), 1 << 30)].into_iter());
        samples.take(
            at(3),
            [(SlotId(0), (1 << 40) + 32), (SlotId(9), (1 << 30) + 50_000_000_000)].into_iter(),
        );
        assert_eq!(samples.lengths(), [1_000, 2_000]);
        assert_eq!(samples.bytes(SlotId(0)), Some(vec![32, 0]));
        assert_eq!(samples.bytes(SlotId(9)), Some(vec![0, 50_000_000_000]), "400 Gbit/s");
    }
}
