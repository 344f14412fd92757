//! The rules. Each table is read and checked even where another failed, so that all errors come at once; the names of
//! broken tables count as known, so that one error does not cause another.

mod api;
mod class;
mod contract;
mod lint;
mod port;
mod service;

use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{At, Log, Problem};
use crate::document::Documents;
use crate::schema::keys;
use crate::table::{Names, Table, Value};
use crate::types::{Api, Config, Conformance, Control, Defaults, OtherRing, Poll, Word, Workers};
use crate::units::parse_time;

/// The configuration, or `None` with errors in the log.
pub(crate) fn check(documents: &Documents<'_>, whole: bool, log: &mut Log) -> Option<Config> {
    for drop_in in &documents.drop_ins {
        refuse_box_keys(drop_in, log);
    }
    let mut classes = class::Classes {
        names: Names::new("class", whole),
        classes: Vec::new(),
        mark_places: Vec::new(),
    };
    let mut boxed = None;
    if let Some(base) = &documents.base {
        base.refuse_unknown(keys::FILE, log);
        boxed = check_box(base, whole, &mut classes, log);
    }
    let (segments, segment_names) = service::segments(documents, whole, log);
    let (services, service_names) = service::services(documents, whole, log);
    let scope = contract::Scope {
        classes: &classes.names,
        segments: &segment_names,
        services: &service_names,
        defaults: boxed
            .as_ref()
            .map(|found: &Boxed| (found.defaults.layer, found.defaults.meter))
            .unwrap_or_default(),
    };
    let (contracts, places) = contract::contracts(documents, &scope, log);
    let found = boxed?;
    if log.has_errors() {
        return None;
    }
    let config = Config {
        region: found.region,
        fail: found.fail,
        defaults: found.defaults,
        workers: found.workers,
        control: found.control,
        api: found.api,
        ports: found.ports,
        wires: found.wires,
        classes: classes.classes,
        segments,
        services,
        contracts,
    };
    lint::lint(
        &config,
        &lint::Places {
            contracts: places,
            ports: found.port_places,
            marks: classes.mark_places,
        },
        log,
    );
    Some(config)
}

/// What only the base file holds, but for the classes.
struct Boxed {
    region: Arc<str>,
    fail: crate::types::Fail,
    defaults: Defaults,
    workers: Workers,
    control: Control,
    api: Api,
    ports: Vec<crate::types::Port>,
    port_places: Vec<At>,
    wires: Vec<crate::types::Wire>,
}

fn check_box<'t>(base: &Table<'t>, whole: bool, classes: &mut class::Classes<'t>, log: &mut Log) -> Option<Boxed> {
    let region = base.require("region", "\"atn\"", log).and_then(|value| value.name(log));
    let fail = word_or_default(base, "fail", log);
    class::classes(base, classes, log);
    let defaults = check_defaults(base, classes, log);
    let workers = check_workers(base, log);
    let control = check_control(base, log);
    let api = api::api(base, log);
    let (ports, port_names, port_places) = port::ports(base, whole, log);
    let wires = port::wires(base, &ports, &port_names, log);
    let ports = ports.into_iter().collect::<Option<Vec<_>>>();
    Some(Boxed {
        region: region?.into(),
        fail,
        defaults,
        workers,
        control,
        api,
        ports: ports?,
        port_places,
        wires,
    })
}

/// The value of a key of words, or its default.
fn word_or_default<W: Word + Default>(table: &Table<'_>, key: &str, log: &mut Log) -> W {
    table.get(key).and_then(|value| value.word(log)).unwrap_or_default()
}

fn sub_table<'t>(
    table: &Table<'t>,
    key: &str,
    title: &'static str,
    known: &[&str],
    log: &mut Log,
) -> Option<Table<'t>> {
    let table = table.get(key)?.table(title, log)?;
    table.refuse_unknown(known, log);
    Some(table)
}

fn check_defaults(base: &Table<'_>, classes: &class::Classes<'_>, log: &mut Log) -> Defaults {
    let class = classes.classes.iter().position(|class| class.default).unwrap_or(0);
    let mut defaults = Defaults {
        uncontracted: Conformance::Nonconforming,
        other: OtherRing {
            class,
            conformance: Conformance::Conforming,
        },
        layer: Default::default(),
        meter: Default::default(),
        grain: Default::default(),
        places: Default::default(),
    };
    let Some(table) = sub_table(base, "defaults", "[defaults]", keys::DEFAULTS, log) else {
        return defaults;
    };
    if let Some(value) = table.get("uncontracted").and_then(|value| value.word(log)) {
        defaults.uncontracted = value;
    }
    if let Some(other) = table.get("other").and_then(|value| other_ring(value, classes, log)) {
        defaults.other = other;
    }
    defaults.layer = word_or_default(&table, "layer", log);
    defaults.places = table.places(&["uncontracted", "other", "layer"], log);
    defaults.meter = word_or_default(&table, "meter", log);
    defaults.grain = table
        .get("grain")
        .and_then(|value| grain(value, log))
        .unwrap_or_default();
    defaults
}

fn other_ring(value: Value<'_>, classes: &class::Classes<'_>, log: &mut Log) -> Option<OtherRing> {
    let text = value.string(log)?;
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let half = words.next().unwrap_or("conforming");
    let half = Conformance::WORDS
        .iter()
        .find(|(word, _)| *word == half)
        .map(|&(_, value)| value);
    match (half, words.next()) {
        (Some(conformance), None) => Some(OtherRing {
            class: classes.names.find(value, name, log)?,
            conformance,
        }),
        _ => {
            let problem = Problem::new(value.at, "`other` names a class and perhaps its half").label("not understood");
            log.error(problem.help("write \"gold\" for its conforming ring or \"gold nonconforming\""));
            None
        }
    }
}

/// The grain; the two that this version lacks are refused.
fn grain(value: Value<'_>, log: &mut Log) -> Option<crate::types::Grain> {
    let grain = value.word(log)?;
    if grain != crate::types::Grain::Packet {
        let word = value.as_str().unwrap_or_default();
        let problem = Problem::new(
            value.at,
            format!("grain \"{word}\" is not in this version: it implements packet grain only"),
        );
        log.error(
            problem
                .label("not implemented")
                .help("write grain = \"packet\", or leave it out"),
        );
        return None;
    }
    Some(grain)
}

fn check_workers(base: &Table<'_>, log: &mut Log) -> Workers {
    let mut workers = Workers {
        cpus: Vec::new(),
        batch: 64,
        poll: Default::default(),
        stale_after_ns: Poll::default().stale_after_ns(),
    };
    let Some(table) = sub_table(base, "workers", "[workers]", keys::WORKERS, log) else {
        return workers;
    };
    for value in table.get("cpus").and_then(|value| value.array(log)).unwrap_or_default() {
        // The kernel's largest NR_CPUS on x86-64 is 8192.
        let Some(cpu) = value.integer(0, 8191, log).and_then(|cpu| usize::try_from(cpu).ok()) else {
            continue;
        };
        if workers.cpus.contains(&cpu) {
            log.error(
                Problem::new(value.at, format!("CPU {cpu} is listed twice"))
                    .label("again")
                    .help("remove it"),
            );
        }
        workers.cpus.push(cpu);
    }
    if let Some(batch) = table.get("batch").and_then(|value| value.integer(1, 64, log)) {
        workers.batch = usize::try_from(batch).unwrap_or(64);
    }
    workers.poll = word_or_default(&table, "poll", log);
    workers.stale_after_ns = check_stale_after(&table, workers.poll, log);
    workers
}

/// An adaptive worker sleeps for up to 10 ms: less than twice that would take every idle one for dead.
fn check_stale_after(table: &Table<'_>, poll: Poll, log: &mut Log) -> u64 {
    let default = poll.stale_after_ns();
    let Some(value) = table.get("stale_after") else {
        return default;
    };
    let parsed = value.string(log).and_then(|text| value.parsed(parse_time(text), log));
    let Some(nanos) = parsed else { return default };
    let (least, named) = match poll {
        Poll::Busy => (5_000_000, "5 ms"),
        Poll::Adaptive => (20_000_000, "20 ms"),
    };
    if !(least..=10_000_000_000).contains(&nanos) {
        log.error(
            Problem::new(value.at, "`stale_after` is out of range")
                .label(format!("here it is {named} to 10 s"))
                .help("with poll = \"busy\" it is at least 5 ms; with \"adaptive\", where workers sleep for up to 10 ms, at least 20 ms"),
        );
    }
    nanos
}

fn check_control(base: &Table<'_>, log: &mut Log) -> Control {
    let mut control = Control::default();
    let Some(table) = sub_table(base, "control", "[control]", keys::CONTROL, log) else {
        return control;
    };
    let help = "write a directory from the root on: state = \"/var/lib/weir\"";
    if let Some(state) = table.get("state").and_then(|value| absolute_path(value, help, log)) {
        control.state = state;
    }
    control.watch = word_or_default(&table, "watch", log);
    control
}

fn absolute_path(value: Value<'_>, help: &str, log: &mut Log) -> Option<PathBuf> {
    let text = value.string(log)?;
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        return Some(path);
    }
    let problem = Problem::new(value.at, format!("`{}` is not an absolute path", value.key));
    log.error(problem.label("not an absolute path").help(help));
    None
}

fn refuse_box_keys(drop_in: &Table<'_>, log: &mut Log) {
    for key in keys::FILE.iter().filter(|key| !keys::DROP_IN.contains(key)) {
        if let Some(value) = drop_in.get(key) {
            let problem = Problem::new(value.at, format!("`{key}` belongs in the base file")).label("not in a drop-in");
            log.error(
                problem.help("move it to weir.toml: a drop-in holds [[service]], [[contract]] and [[segment]] only"),
            );
        }
    }
    drop_in.refuse_unknown(keys::FILE, log);
}
