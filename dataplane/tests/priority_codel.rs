//! CoDel against the pseudo code of RFC 8289 section 5, written down plainly, over random arrivals.
use dataplane::clock::Nanos;
use dataplane::codel::{Codel, INTERVAL, Judgement, MAX_PACKET_BYTES, TARGET};
use proptest::prelude::*;
use std::collections::VecDeque;

type Packet = (u64, u64);

#[derive(Default)]
struct Reference {
    first_above: u64,
    drop_next: u64,
    count: u64,
    last_count: u64,
    dropping: bool,
}

impl Reference {
    fn dodequeue(&mut self, ring: &mut VecDeque<Packet>, now: u64) -> (Option<Packet>, bool) {
        let Some(packet) = ring.pop_front() else {
            self.first_above = 0;
            return (None, false);
        };
        let left: u64 = ring.iter().map(|packet| packet.1).sum();
        if now - packet.0 < TARGET.0 || left <= MAX_PACKET_BYTES {
            self.first_above = 0;
        } else if self.first_above == 0 {
            self.first_above = now + INTERVAL.0;
        } else if now >= self.first_above {
            return (Some(packet), true);
        }
        (Some(packet), false)
    }

    fn law(from: u64, count: u64) -> u64 {
        from + (INTERVAL.0 as f64 / (count as f64).sqrt()) as u64
    }

    fn dequeue(&mut self, ring: &mut VecDeque<Packet>, now: u64, dropped: &mut Vec<Packet>) -> Option<Packet> {
        let (mut packet, mut ok) = self.dodequeue(ring, now);
        if self.dropping {
            self.dropping = ok;
            while now >= self.drop_next && self.dropping {
                dropped.extend(packet);
                self.count += 1;
                (packet, ok) = self.dodequeue(ring, now);
                if ok {
                    self.drop_next = Self::law(self.drop_next, self.count);
                } else {
                    self.dropping = false;
                }
            }
        } else if ok {
            dropped.extend(packet);
            (packet, _) = self.dodequeue(ring, now);
            self.dropping = true;
            let delta = self.count as i64 - self.last_count as i64;
            let recent = (now as i64) - (self.drop_next as i64) < 16 * INTERVAL.0 as i64;
            self.count = if delta > 1 && recent { delta as u64 } else { 1 };
            self.drop_next = Self::law(now, self.count);
            self.last_count = self.count;
        }
        packet
    }
}

fn dequeue(codel: &mut Codel, ring: &mut VecDeque<Packet>, now: u64, dropped: &mut Vec<Packet>) -> Option<Packet> {
    while let Some(packet) = ring.pop_front() {
        let left = ring.iter().map(|packet| packet.1).sum();
        let judgement = codel.judge(Nanos(packet.0), left, false, Nanos(now));
        if ring.is_empty() {
            codel.emptied();
        }
        if judgement == Judgement::Pass {
            return Some(packet);
        }
        dropped.push(packet);
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn drops_what_the_rfc_drops(steps in prop::collection::vec((0u64..30, 0usize..4, 64u64..1514), 1..600)) {
        let (mut reference, mut codel) = (Reference::default(), Codel::default());
        let (mut left, mut right) = (VecDeque::new(), VecDeque::new());
        let (mut want, mut got) = (Vec::new(), Vec::new());
        let mut now = 1;
        for (step, (gap_ms, arrivals, bytes)) in steps.into_iter().enumerate() {
            // Fills for 40 steps and drains for 80, so that the dropping state is left and entered again.
            let arrivals = if step % 120 < 40 { arrivals } else { arrivals / 3 };
            now += gap_ms * 1_000_000;
            for _ in 0..arrivals {
                left.push_back((now, bytes));
                right.push_back((now, bytes));
            }
            if !left.is_empty() {
                let sent = reference.dequeue(&mut left, now, &mut want);
                prop_assert_eq!(sent, dequeue(&mut codel, &mut right, now, &mut got));
                prop_assert_eq!(want.len(), got.len());
            }
        }
        prop_assert_eq!(want, got);
    }
}

#[test]
fn marks_the_capable_and_never_drops_them() {
    let mut codel = Codel::default();
    let mut marks = Vec::new();
    for ms in 10..1000 {
        let now = Nanos(ms * 1_000_000);
        match codel.judge(Nanos(now.0 - 6_000_000), 10_000, true, now) {
            Judgement::Pass => {}
            Judgement::Mark => marks.push(ms),
            Judgement::Drop => panic!("dropped a capable packet"),
        }
    }
    assert_eq!(
        marks[..3],
        [110, 210, 281],
        "the control law steps by 100/sqrt(count) ms"
    );
}
