//! What would have become of the traffic of the last minute under other entitlements. An estimate: within a sample traffic is
//! taken to come evenly, so bursts shorter than a second are not seen, and a meter of two rates is judged by its committed one.

use std::collections::HashMap;

use config::{Config, Contract};
use foldhash::fast::RandomState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::diff::{ContractName, Granted};
use crate::change::samples::Series;

/// A contract whose traffic would have been judged differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The contract, in words.
    pub name: String,
    /// Bytes offered in the window.
    pub offered_bytes: u64,
    /// Mean of that in bit/s.
    pub offered_bps: u64,
    /// Share of it above the entitlement that runs, 0 to 1.
    pub nonconforming_before: f64,
    /// Share above the one planned, 0 to 1; `None`: no contract would have covered it.
    pub nonconforming_after: Option<f64>,
}

/// Judges each series by both configurations as they hold `now`; what comes out the same is left out. Largest change first.
#[must_use]
pub fn judge(old: &Config, new: &Config, now: Timestamp, lengths: &[u32], series: &[Series]) -> Vec<Judged> {
    if series.is_empty() {
        return Vec::new();
    }
    let (before, after) = (granted(old, now), granted(new, now));
    let seconds = lengths.iter().map(|ms| f64::from(*ms)).sum::<f64>() / 1_000.0;
    let mut found: Vec<Judged> = series
        .iter()
        .filter_map(|series| {
            let name = ContractName {
                service: &series.service,
                class: &series.class,
                direction: &series.direction,
                segment: series.segment.as_deref(),
                region: &new.region,
            };
            let old = *before.get(&name)?;
            let planned = after.get(&name).copied();
            if planned == Some(old) {
                return None;
            }
            let offered_bytes: u64 = series.bytes.iter().sum();
            let share = |granted| nonconforming_share(granted, lengths, &series.bytes);
            let (nonconforming_before, nonconforming_after) = (share(old), planned.map(share));
            let same = nonconforming_after.is_some_and(|after| (after - nonconforming_before).abs() < SHARE_MIN);
            (offered_bytes > 0 && !same).then(|| Judged {
                name: name.text(&new.region),
                offered_bytes,
                offered_bps: (offered_bytes as f64 * 8.0 / seconds.max(0.001)) as u64,
                nonconforming_before,
                nonconforming_after,
            })
        })
        .collect();
    let change = |judged: &Judged| (judged.nonconforming_after.unwrap_or(1.0) - judged.nonconforming_before).abs();
    found.sort_by(|a, b| change(b).total_cmp(&change(a)).then_with(|| a.name.cmp(&b.name)));
    found
}

/// Shares that differ by less are shown alike.
const SHARE_MIN: f64 = 0.000_5;

/// Share of the bytes that do not fit a bucket which starts full: a fluid in place of packets.
#[must_use]
pub fn nonconforming_share(granted: Granted, lengths_ms: &[u32], bytes: &[u64]) -> f64 {
    let burst = granted.burst_bytes as f64;
    let mut tokens = burst;
    let (mut offered, mut over) = (0.0, 0.0);
    for (&bytes, &ms) in bytes.iter().zip(lengths_ms) {
        let bytes = bytes as f64;
        let filled = granted.rate_bps as f64 / 8.0 * f64::from(ms) / 1_000.0;
        // An RFC 2697 meter may have no committed burst, and then nothing is green.
        let fits = if burst == 0.0 { 0.0 } else { bytes.min(tokens + filled) };
        offered += bytes;
        over += bytes - fits;
        tokens = (tokens + filled - fits).clamp(0.0, burst);
    }
    if offered == 0.0 { 0.0 } else { over / offered }
}

/// What holds at `now` in the box's region, by name.
fn granted(config: &Config, now: Timestamp) -> HashMap<ContractName<'_>, Granted, RandomState> {
    let holds = |contract: &&Contract| contract.region == config.region && contract.valid_at(now);
    let contracts = config.contracts.iter().filter(holds);
    contracts
        .map(|contract| (ContractName::of(config, contract), Granted::of(contract)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 1_000;

    #[test]
    fn shares_of_a_bucket() {
        let granted = Granted {
            rate_bps: 8_000,
            burst_bytes: 2_000,
        };
        // A rate of 1,000 bytes a second and 2,000 in hand: (bytes each second, share over)
        let cases: [(&[u64], f64); 7] = [
            (&[], 0.0),
            (&[0, 0], 0.0),
            (&[1_000, 1_000, 1_000, 1_000], 0.0),
            (&[3_000], 0.0),
            (&[4_000], 0.25),
            (&[3_000, 2_000], 0.2),
            // The bucket fills again, and no further than its depth.
            (&[3_000, 0, 0, 0, 0, 6_000], 3_000.0 / 9_000.0),
        ];
        for (bytes, expected) in cases {
            let share = nonconforming_share(granted, &vec![SECOND; bytes.len()], bytes);
            assert!(
                (share - expected).abs() < 1e-9,
                "{bytes:?}: {share} instead of {expected}"
            );
        }
        let none = Granted {
            burst_bytes: 0,
            ..granted
        };
        assert_eq!(nonconforming_share(none, &[SECOND], &[10]), 1.0);
    }
}
