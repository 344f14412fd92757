//! Contracts: who, how much, when.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::Offset;

use super::class::share;
use super::port::rate;
use super::{grain, sub_table, word_or_default};
use crate::diagnostic::{At, Log, Problem};
use crate::document::Documents;
use crate::schema::keys;
use crate::table::{Names, Table, Value};
use crate::types::{Contract, Direction, Layer, Meter, MeterKind, Word};
use crate::units::{Burst, parse_burst};

/// What contracts refer to.
pub(super) struct Scope<'a, 't> {
    pub(super) classes: &'a Names<'t>,
    pub(super) segments: &'a Names<'t>,
    pub(super) services: &'a Names<'t>,
    pub(super) defaults: (Layer, MeterKind),
}

/// The contracts, and where each stands.
pub(super) fn contracts(files: &Documents<'_>, scope: &Scope<'_, '_>, log: &mut Log) -> (Vec<Contract>, Vec<At>) {
    let count = files.count("contract");
    let (mut contracts, mut places) = (Vec::<Contract>::with_capacity(count), Vec::with_capacity(count));
    files.each("contract", "[[contract]]", log, |table, log| {
        table.refuse_unknown(keys::CONTRACT, log);
        let before = contracts.last().map(|before| &before.region);
        if let Some(contract) = read(table, scope, before, log) {
            contracts.push(contract);
            places.push(table.at);
        }
    });
    refuse_overlaps(&contracts, &places, log);
    (contracts, places)
}

/// A contract; one of the same region as the one `before` it shares the name.
fn read(table: &Table<'_>, scope: &Scope<'_, '_>, before: Option<&Arc<str>>, log: &mut Log) -> Option<Contract> {
    let named = |key, example, names: &Names<'_>, log: &mut Log| {
        let value = table.require(key, example, log)?;
        names.find(value, value.string(log)?, log)
    };
    let service = named("service", "\"ads\"", scope.services, log);
    let class = named("class", "\"gold\"", scope.classes, log);
    let region = table
        .require("region", "\"atn\"", log)
        .and_then(|value| value.name(log))
        .map(|name| {
            before
                .filter(|before| ***before == *name)
                .map_or_else(|| name.into(), Arc::clone)
        });
    let direction = table
        .require("direction", "\"egress\" or \"ingress\"", log)
        .and_then(|value| value.word(log));
    // Some(None) is a contract without a segment, None one whose segment is wrong.
    let segment = match table.get("segment") {
        Some(value) => value
            .string(log)
            .and_then(|name| scope.segments.find(value, name, log))
            .map(Some),
        None => Some(None),
    };
    let meter = meter(table, scope, log);
    let color_aware = table
        .get("color_aware")
        .and_then(|value| value.boolean(log))
        .unwrap_or(false);
    let excess = sub_table(table, "excess", "[contract.excess]", keys::EXCESS, log);
    let action = excess
        .map(|excess| word_or_default(&excess, "action", log))
        .unwrap_or_default();
    let grain = excess
        .and_then(|excess| grain(excess.get("grain")?, log))
        .unwrap_or_default();
    let slo_ppm = table.get("slo").and_then(|value| slo(value, log));
    let from = table.get("from").and_then(|value| instant(value, log));
    let until = table.get("until").and_then(|value| instant(value, log));
    if let (Some(from), Some(until), Some(value)) = (from, until, table.get("until"))
        && from >= until
    {
        let problem = Problem::new(value.at, "`until` is not after `from`").label("the end");
        let problem = table
            .get("from")
            .map(|from| from.at)
            .into_iter()
            .fold(problem, |problem, at| problem.also(at, "the beginning"));
        log.error(problem.help("`from` is the first instant of the period, `until` the first one after it"));
    }
    let owner = table
        .get("owner")
        .and_then(|value| value.string(log))
        .map(str::to_owned);
    Some(Contract {
        service: service?,
        class: class?,
        region: region?,
        direction: direction?,
        segment: segment?,
        meter: meter?,
        color_aware,
        action,
        grain,
        slo_ppm,
        from,
        until,
        owner,
        place: log.place(table.at),
    })
}

fn meter(table: &Table<'_>, scope: &Scope<'_, '_>, log: &mut Log) -> Option<Meter> {
    let (layer, default) = scope.defaults;
    let kind = match table.get("meter") {
        Some(value) => value.word(log)?,
        None => default,
    };
    for (key, kinds) in KEYS_OF_METERS {
        if let Some(value) = table.get(key).filter(|_| !kinds.contains(&kind)) {
            let word = |kind: &MeterKind| {
                MeterKind::WORDS
                    .iter()
                    .find(|(_, known)| known == kind)
                    .map_or("", |(word, _)| *word)
            };
            let owners = kinds
                .iter()
                .map(|kind| format!("meter = \"{}\"", word(kind)))
                .collect::<Vec<_>>()
                .join(" or ");
            let problem =
                Problem::new(value.at, format!("meter \"{}\" has no `{key}`", word(&kind))).label("of another meter");
            log.error(problem.help(format!("remove it, or write {owners}")));
        }
    }
    let rate_of = |key, log: &mut Log| rate(table.require(key, "\"2 Gbit/s\"", log)?, CONTRACT_RATE_MAX, log);
    let cir_bps = rate_of("rate", log);
    let second = match kind {
        MeterKind::TrTcm => rate_of("peak_rate", log),
        MeterKind::TrTcm4115 => rate_of("excess_rate", log),
        _ => None,
    };
    let frame = layer.full_frame_bytes();
    let smallest = if kind == MeterKind::SrTcm {
        Smallest::FrameOrNone(frame)
    } else {
        Smallest::Frame(frame)
    };
    let cbs = burst(table, "burst", cir_bps, smallest, frame, log);
    match kind {
        MeterKind::TokenBucket => Some(Meter::TokenBucket {
            rate_bps: cir_bps?,
            burst_bytes: cbs?,
        }),
        MeterKind::SrTcm => {
            let ebs = burst(table, "excess_burst", cir_bps, smallest, frame, log);
            let (cir_bps, cbs, ebs) = (cir_bps?, cbs?, ebs?);
            // RFC 2697 section 2: "The CBS and EBS must be configured so that at least one of them is larger than 0."
            if cbs == 0 && ebs == 0 {
                let problem =
                    Problem::new(table.at, "`burst` and `excess_burst` are both 0").label("nothing would conform");
                log.error(problem.help(format!("give one of them at least a full frame, {frame} bytes")));
                return None;
            }
            Some(Meter::SrTcm { cir_bps, cbs, ebs })
        }
        MeterKind::TrTcm => {
            let pbs = burst(table, "peak_burst", second, smallest, frame, log);
            let (cir_bps, cbs, pir_bps, pbs) = (cir_bps?, cbs?, second?, pbs?);
            // RFC 2698 section 2: "The PIR must be equal to or greater than the CIR."
            if pir_bps < cir_bps {
                let at = table.get("peak_rate").map_or(table.at, |value| value.at);
                let problem = Problem::new(at, "`peak_rate` is below `rate`").label("too low");
                log.error(problem.help(
                    "the peak rate of a trtcm is at least its rate; for a rate on top of it use meter = \"trtcm-4115\"",
                ));
                return None;
            }
            Some(Meter::TrTcm {
                cir_bps,
                cbs,
                pir_bps,
                pbs,
            })
        }
        MeterKind::TrTcm4115 => {
            let ebs = burst(table, "excess_burst", second, smallest, frame, log);
            Some(Meter::TrTcm4115 {
                cir_bps: cir_bps?,
                cbs: cbs?,
                eir_bps: second?,
                ebs: ebs?,
            })
        }
    }
}

/// The smallest burst that is accepted, bytes.
#[derive(Clone, Copy)]
enum Smallest {
    Frame(u64),
    FrameOrNone(u64),
}

/// A burst in bytes at its rate. An unreadable rate has been reported: the burst is then looked at, and `None`.
fn burst(
    table: &Table<'_>,
    key: &str,
    rate_bps: Option<u64>,
    smallest: Smallest,
    frame: u64,
    log: &mut Log,
) -> Option<u64> {
    let Some(value) = table.get(key) else {
        return Some(Burst::Nanos(DEFAULT_BURST_NS).bytes_at(rate_bps?).max(10 * frame));
    };
    let burst = if value.is_integer() {
        Burst::Bytes(value.integer(0, BURST_MAX, log)?)
    } else if let Some(text) = value.as_str() {
        value.parsed(parse_burst(text), log)?
    } else {
        return value.wrong_type("a burst", "write \"256 kB\", \"5 ms\" or an integer of bytes", log);
    };
    let bytes = match (burst, rate_bps) {
        (Burst::Bytes(bytes), _) => bytes,
        (Burst::Nanos(_), rate_bps) => burst.bytes_at(rate_bps?),
    };
    let low = match smallest {
        Smallest::Frame(frame) => bytes < frame,
        Smallest::FrameOrNone(frame) => bytes != 0 && bytes < frame,
    };
    if low {
        let problem =
            Problem::new(value.at, format!("`{key}` is {bytes} bytes, less than a full frame")).label("too small");
        log.error(problem.help(format!(
            "a full frame could never conform: give it at least {frame} bytes"
        )));
    } else if bytes > BURST_MAX {
        let problem = Problem::new(value.at, format!("`{key}` is {bytes} bytes")).label("too large");
        log.error(problem.help(format!("a burst is at most {BURST_MAX} bytes")));
    }
    Some(bytes)
}

fn slo(value: Value<'_>, log: &mut Log) -> Option<u32> {
    let ppm = share(value, log)?;
    if ppm == 0 {
        log.error(
            Problem::new(value.at, "an `slo` of 0 % promises nothing")
                .label("zero")
                .help("leave it out, or write such as \"99.98 %\""),
        );
    }
    Some(ppm)
}

/// A TOML date or date-time; without an offset it is UTC.
fn instant(value: Value<'_>, log: &mut Log) -> Option<Timestamp> {
    let Some(datetime) = value.as_datetime() else {
        return value.wrong_type(
            "a date or date-time",
            "write 2026-10-01 or 2026-10-01T08:00:00Z without quotes",
            log,
        );
    };
    let found = to_timestamp(datetime);
    if found.is_none() {
        let problem = Problem::new(value.at, format!("`{}` is not an instant", value.key)).label("no such instant");
        log.error(problem.help("write a date such as 2026-10-01, or a date with a time such as 2026-10-01T08:00:00Z"));
    }
    found
}

fn to_timestamp(datetime: &toml::value::Datetime) -> Option<Timestamp> {
    let date = datetime.date?;
    let small = |number: u8| i8::try_from(number).ok();
    let date = civil::Date::new(i16::try_from(date.year).ok()?, small(date.month)?, small(date.day)?).ok()?;
    let time = match datetime.time {
        Some(time) => {
            let nanosecond = i32::try_from(time.nanosecond.unwrap_or(0)).ok()?;
            civil::Time::new(
                small(time.hour)?,
                small(time.minute)?,
                small(time.second.unwrap_or(0))?,
                nanosecond,
            )
            .ok()?
        }
        None => civil::Time::midnight(),
    };
    let minutes = match datetime.offset {
        Some(toml::value::Offset::Custom { minutes }) => minutes,
        _ => 0,
    };
    Offset::from_seconds(i32::from(minutes) * 60)
        .ok()?
        .to_timestamp(date.to_datetime(time))
        .ok()
}

/// What two contracts of overlapping periods must not share.
fn identity(contract: &Contract) -> (usize, usize, &str, bool, Option<usize>) {
    let Contract {
        service,
        class,
        region,
        direction,
        segment,
        ..
    } = contract;
    (*service, *class, region, *direction == Direction::Egress, *segment)
}

fn refuse_overlaps(contracts: &[Contract], places: &[At], log: &mut Log) {
    let begin = |index: usize| contracts[index].from.unwrap_or(Timestamp::MIN);
    let end = |index: usize| contracts[index].until.unwrap_or(Timestamp::MAX);
    let mut order: Vec<usize> = (0..contracts.len()).collect();
    order.sort_unstable_by_key(|&index| (identity(&contracts[index]), begin(index), index));
    let mut found = Vec::new();
    for group in order.chunk_by(|&a, &b| identity(&contracts[a]) == identity(&contracts[b])) {
        let mut latest: Option<usize> = None;
        for &index in group {
            if let Some(before) = latest.filter(|&before| begin(index) < end(before)) {
                found.push((before.max(index), before.min(index)));
            }
            latest = Some(latest.map_or(index, |before| if end(before) >= end(index) { before } else { index }));
        }
    }
    found.sort_unstable();
    for (second, first) in found {
        let problem = Problem::new(
            places[second],
            "two contracts of the same service, class, region, direction and segment overlap in time",
        );
        log.error(
            problem
                .label("this one")
                .also(places[first], "and this one")
                .help("remove one, or give them `from` and `until` that do not overlap"),
        );
    }
}

/// Keys that only some meters have.
const KEYS_OF_METERS: [(&str, &[MeterKind]); 4] = [
    ("excess_burst", &[MeterKind::SrTcm, MeterKind::TrTcm4115]),
    ("peak_rate", &[MeterKind::TrTcm]),
    ("peak_burst", &[MeterKind::TrTcm]),
    ("excess_rate", &[MeterKind::TrTcm4115]),
];
const CONTRACT_RATE_MAX: u64 = 400_000_000_000;
/// A level counts bit-nanoseconds in 64 bits: 2^64 / 8e9 is 2.3e9 bytes.
const BURST_MAX: u64 = 2_000_000_000;
const DEFAULT_BURST_NS: u64 = 10_000_000;
