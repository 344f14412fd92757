//! Whose turn it is when nobody waits for a clock: streams in given proportions, as evenly mixed as whole packets allow.

/// An endless sequence of indices of streams.
#[derive(Clone, Debug)]
pub(crate) struct Rota {
    turns: Box<[u32]>,
    at: usize,
}

/// Turns until it repeats: proportions are met to about one in so many.
const TURNS: u64 = 4096;

impl Rota {
    /// Streams `0..streams` in proportion to `shares`; streams past the end of the list have none. `None` if nobody has.
    pub(crate) fn new(shares: &[u32], streams: usize) -> Option<Self> {
        let shares = &shares[..shares.len().min(streams)];
        let total: u64 = shares.iter().map(|&share| u64::from(share)).sum();
        if total == 0 {
            return None;
        }
        // Each turn goes to the stream that is furthest behind: credit grows by the share and a turn costs the total.
        let mut credits = vec![0i64; shares.len()];
        let turns = (0..TURNS.min(total)).map(|_| {
            for (credit, &share) in credits.iter_mut().zip(shares) {
                *credit += i64::from(share);
            }
            let next = (0..credits.len())
                .max_by_key(|&i| (credits[i], std::cmp::Reverse(i)))
                .unwrap_or(0);
            credits[next] -= total as i64;
            next as u32
        });
        Some(Self {
            turns: turns.collect(),
            at: 0,
        })
    }

    /// The next stream.
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        let turn = self.turns[self.at];
        self.at += 1;
        if self.at == self.turns.len() {
            self.at = 0;
        }
        turn as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_his_share_and_nobody_waits_long() {
        let mut rota = Rota::new(&[5, 0, 1, 4], 4).unwrap();
        let turns: Vec<usize> = (0..40).map(|_| rota.next()).collect();
        for (stream, share) in [(0, 20), (1, 0), (2, 4), (3, 16)] {
            assert_eq!(
                turns.iter().filter(|&&turn| turn == stream).count(),
                share,
                "stream {stream}"
            );
        }
        assert!(!turns.windows(3).any(|three| three.iter().all(|&turn| turn == three[0])));
        assert!(Rota::new(&[0, 0], 2).is_none());
        assert!(Rota::new(&[7], 0).is_none());
    }
}
