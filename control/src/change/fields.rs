//! What each thing of a configuration consists of, and how a property that became another is put in words.

use std::collections::HashSet;
use std::path::PathBuf;

use config::units::format_rate;
use config::{Config, Contract, Meter, Word};
use jiff::Timestamp;

/// A property of a thing.
#[derive(Debug, PartialEq)]
pub(crate) enum Field {
    Rate(Option<u64>),
    Bytes(Option<u64>),
    Text(Option<String>),
    Set(Vec<String>),
}

/// In the order in which they are shown; a label always in the same place.
pub(crate) type Fields = Vec<(&'static str, Field)>;

/// What a thing is, for one that appears or goes; what is not there, or as always, is not said.
pub(crate) fn describe(fields: Fields) -> Vec<String> {
    let said = |(label, field): (&str, Field)| {
        let text = match field {
            Field::Set(items) if items.is_empty() => return None,
            Field::Set(items) => items.join(", "),
            field => field.text()?,
        };
        Some(format!("{label} {text}"))
    };
    fields.into_iter().filter_map(said).collect()
}

/// What became another. Both have the same labels in the same order.
pub(crate) fn changed(old: Fields, new: Fields) -> Vec<String> {
    let pairs = old.into_iter().zip(new).filter(|((_, old), (_, new))| old != new);
    pairs.map(|((label, old), (_, new))| change(label, old, new)).collect()
}

fn change(label: &str, old: Field, new: Field) -> String {
    if let (Field::Set(old), Field::Set(new)) = (&old, &new) {
        let without = |these: &[String], those: &[String], sign: char| -> Vec<String> {
            let those: HashSet<&String> = those.iter().collect();
            these
                .iter()
                .filter(|item| !those.contains(item))
                .map(|item| format!("{sign}{item}"))
                .collect()
        };
        let mut items = without(new, old, '+');
        items.extend(without(old, new, '-'));
        return format!("{label} {}", items.join(" "));
    }
    let percent = match (&old, &new) {
        (Field::Rate(Some(old)), Field::Rate(Some(new))) => format!(" ({})", percent_change(*old, *new)),
        _ => String::new(),
    };
    let text = |field: Field| field.text().unwrap_or_else(|| "none".to_owned());
    format!("{label} {} -> {}{percent}", text(old), text(new))
}

impl Field {
    fn text(&self) -> Option<String> {
        match self {
            Field::Rate(rate) => rate.map(format_rate),
            Field::Bytes(bytes) => bytes.map(format_bytes),
            Field::Text(text) => text.as_ref().map(|text| text.escape_debug().to_string()),
            Field::Set(items) => Some(items.join(", ")),
        }
    }
}

/// `+100 %`, `-33.3 %`; from 0 there is no percentage.
#[must_use]
pub fn percent_change(old: u64, new: u64) -> String {
    if old == 0 {
        return "from nothing".to_owned();
    }
    let percent = (new as f64 / old as f64 - 1.0) * 100.0;
    let text = format!("{percent:+.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    // What rounds to nothing has changed nevertheless.
    if text.trim_start_matches(['+', '-']) == "0" {
        return format!("{}<0.1 %", if new > old { '+' } else { '-' });
    }
    format!("{text} %")
}

/// Bytes with the largest unit that leaves at most three digits behind the point: exact, as rates are shown.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (unit, factor) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)] {
        if bytes >= factor && bytes.is_multiple_of(factor / 1_000) {
            let thousandths = format!("{:03}", bytes % factor / (factor / 1_000));
            let number = format!("{}.{thousandths}", bytes / factor);
            return format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    format!("{bytes} B")
}

/// Depth of the bucket that says what conforms.
#[must_use]
pub fn burst_bytes(meter: &Meter) -> u64 {
    match *meter {
        Meter::TokenBucket { burst_bytes, .. } => burst_bytes,
        Meter::SrTcm { cbs, .. } | Meter::TrTcm { cbs, .. } | Meter::TrTcm4115 { cbs, .. } => cbs,
    }
}

/// A point in time as a configuration has it: a date, where it is one.
#[must_use]
pub fn format_time(time: Timestamp) -> String {
    let text = time.to_string();
    text.strip_suffix("T00:00:00Z").map_or(text.clone(), str::to_owned)
}

/// Whether two contracts of one name are the same but for their places.
pub(crate) fn same(a: &Contract, b: &Contract) -> bool {
    (a.meter, a.color_aware, a.action, a.grain) == (b.meter, b.color_aware, b.action, b.grain)
        && (a.slo_ppm, a.from, a.until, &a.owner) == (b.slo_ppm, b.from, b.until, &b.owner)
}

pub(crate) fn contract_fields(contract: &Contract) -> Fields {
    let (peak_rate, peak_burst, excess_rate, excess_burst) = match contract.meter {
        Meter::TokenBucket { .. } => (None, None, None, None),
        Meter::SrTcm { ebs, .. } => (None, None, None, Some(ebs)),
        Meter::TrTcm { pir_bps, pbs, .. } => (Some(pir_bps), Some(pbs), None, None),
        Meter::TrTcm4115 { eir_bps, ebs, .. } => (None, None, Some(eir_bps), Some(ebs)),
    };
    let slo = contract.slo_ppm.map(|ppm| format!("{} %", f64::from(ppm) / 10_000.0));
    vec![
        ("rate", Field::Rate(Some(contract.meter.rate_bps()))),
        ("burst", Field::Bytes(Some(burst_bytes(&contract.meter)))),
        ("meter", word(contract.meter.kind())),
        ("peak rate", Field::Rate(peak_rate)),
        ("peak burst", Field::Bytes(peak_burst)),
        ("excess rate", Field::Rate(excess_rate)),
        ("excess burst", Field::Bytes(excess_burst)),
        (
            "colour-aware",
            Field::Text(contract.color_aware.then(|| "yes".to_owned())),
        ),
        ("action", word(contract.action)),
        ("grain", word(contract.grain)),
        ("slo", Field::Text(slo)),
        ("from", Field::Text(contract.from.map(format_time))),
        ("until", Field::Text(contract.until.map(format_time))),
        ("owner", Field::Text(contract.owner.clone())),
    ]
}

pub(crate) fn box_fields(config: &Config) -> Fields {
    let other = &config.defaults.other;
    let other = format!("{} {}", config.classes[other.class].name, other.conformance.word());
    vec![
        ("region", Field::Text(Some(config.region.to_string()))),
        ("fail", word(config.fail)),
        ("uncontracted", word(config.defaults.uncontracted)),
        ("other", Field::Text(Some(other))),
        ("layer", word(config.defaults.layer)),
        ("cpus", Field::Text(Some(format!("{:?}", config.workers.cpus)))),
        ("batch", Field::Text(Some(config.workers.batch.to_string()))),
        ("poll", word(config.workers.poll)),
        (
            "stale_after",
            Field::Text(Some(milliseconds(config.workers.stale_after_ns))),
        ),
        ("state", Field::Text(Some(config.control.state.display().to_string()))),
        ("watch", word(config.control.watch)),
        ("api socket", path(config.api.socket.as_ref())),
        (
            "api listen",
            Field::Text(config.api.listen.map(|address| address.to_string())),
        ),
        ("api token_file", path(config.api.token_file.as_ref())),
    ]
}

fn milliseconds(ns: u64) -> String {
    format!("{} ms", ns as f64 / 1e6)
}

fn path(path: Option<&PathBuf>) -> Field {
    Field::Text(path.map(|path| path.display().to_string()))
}

pub(crate) fn port_fields(port: &config::Port) -> Fields {
    let zero_copy = if port.zero_copy { "yes" } else { "no" };
    vec![
        ("rate", Field::Rate(port.rate_bps)),
        ("interface", Field::Text(Some(port.interface.clone()))),
        ("side", word(port.side)),
        ("xdp", word(port.xdp)),
        ("zero-copy", Field::Text(Some(zero_copy.to_owned()))),
    ]
}

pub(crate) fn wire_name(config: &Config, wire: &config::Wire) -> String {
    format!("{}-{}", config.ports[wire.site].name, config.ports[wire.wan].name)
}

pub(crate) fn wire_fields(wire: &config::Wire) -> Fields {
    vec![("bridge", Field::Text(wire.bridge.clone()))]
}

pub(crate) fn class_fields(class: &config::Class) -> Fields {
    let dscps = |list: &[u8]| Field::Set(list.iter().map(|dscp| dscp_text(*dscp)).collect());
    let share = class
        .min_share_ppm
        .map(|ppm| format!("{} %", f64::from(ppm) / 10_000.0));
    vec![
        ("priority", Field::Text(Some(class.priority.to_string()))),
        ("weight", Field::Text(Some(class.weight.to_string()))),
        ("dscp", dscps(&class.dscp)),
        ("yellow dscp", dscps(&class.yellow_dscp)),
        ("red dscp", dscps(&class.red_dscp)),
        ("pcp", Field::Set(strings(&class.pcp))),
        (
            "nonconforming dscp",
            Field::Text(class.nonconforming_dscp.map(dscp_text)),
        ),
        (
            "nonconforming pcp",
            Field::Text(class.nonconforming_pcp.map(|pcp| pcp.to_string())),
        ),
        ("default", Field::Text(class.default.then(|| "yes".to_owned()))),
        ("min_share", Field::Text(share)),
    ]
}

fn dscp_text(dscp: u8) -> String {
    config::dscp_name(dscp).map_or_else(|| dscp.to_string(), |name| name.to_string())
}

fn word<W: Word>(value: W) -> Field {
    Field::Text(Some(value.word().to_owned()))
}

pub(crate) fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
