//! Classes of service: every code point leads to one class at most, and exactly one class is the default.

use crate::diagnostic::{At, Log, Problem};
use crate::dscp::{dscp_from_name, dscp_name};
use crate::schema::keys;
use crate::table::{Names, Table, Value};
use crate::types::Class;
use crate::units::{parse_fraction, parse_percent};

/// The classes read so far.
pub(super) struct Classes<'t> {
    pub(super) names: Names<'t>,
    pub(super) classes: Vec<Class>,
    /// Of what excess is re-marked to, or else the header; one for each class.
    pub(super) mark_places: Vec<At>,
}

/// Who took a code point first: the class's name and the place.
type Taken = [Option<(String, At)>; 64];

pub(super) fn classes<'t>(base: &Table<'t>, out: &mut Classes<'t>, log: &mut Log) {
    let mut dscps: Taken = [const { None }; 64];
    let mut pcps: Taken = [const { None }; 64];
    let mut default: Option<At> = None;
    let mut share_ppm = 0_u64;
    for table in base.tables("class", "[[class]]", log) {
        table.refuse_unknown(keys::CLASS, log);
        let mut class = read(&table, out, log);
        let mut take = |key: &str, pcp: bool, log: &mut Log| {
            let taken = if pcp { &mut pcps } else { &mut dscps };
            points(&table, key, &class.name, pcp, taken, log)
        };
        let dscp = take("dscp", false, log);
        let yellow_dscp = take("yellow_dscp", false, log);
        let red_dscp = take("red_dscp", false, log);
        let pcp = take("pcp", true, log);
        (class.dscp, class.yellow_dscp, class.red_dscp, class.pcp) = (dscp, yellow_dscp, red_dscp, pcp);
        if let Some(value) = table.get("default").filter(|_| class.default)
            && let Some(first) = default.replace(value.at)
        {
            let problem = Problem::new(value.at, "two classes are the default")
                .label("again")
                .also(first, "first here");
            log.error(problem.help("leave `default = true` in one class"));
        }
        share_ppm += u64::from(class.min_share_ppm.unwrap_or(0));
        if let Some(value) = table.get("min_share").filter(|_| share_ppm > 1_000_000) {
            let problem = Problem::new(
                value.at,
                "the minimum shares of the classes are more than 100 % together",
            );
            log.error(problem.label("too much with this one").help("lower some of them"));
        }
        out.classes.push(class);
        out.mark_places
            .push(table.get("nonconforming_dscp").map_or(table.at, |value| value.at));
    }
    if out.classes.is_empty() {
        let problem = Problem::new(base.at, "a box has at least one class, here is none");
        log.error(problem.help("add [[class]] with name = \"gold\" and priority = 1"));
    }
    if default.is_none()
        && let Some(last) = out.classes.iter_mut().rev().max_by_key(|class| class.priority)
    {
        last.default = true;
    }
}

fn read<'t>(table: &Table<'t>, out: &mut Classes<'t>, log: &mut Log) -> Class {
    let value = table.require("name", "\"gold\"", log);
    let mut name = "";
    if let Some((value, text)) = value.and_then(|value| Some((value, value.name(log)?))) {
        if text.contains(char::is_whitespace) {
            let problem = Problem::new(value.at, "the name of a class holds no blanks").label("has a blank");
            log.error(problem.help("join its words with `-`"));
        }
        out.names.add(value, text, out.classes.len(), log);
        name = text;
    }
    let priority = table
        .require("priority", "1", log)
        .and_then(|value| value.integer(0, 255, log));
    let weight = table.get("weight").and_then(|value| value.integer(1, 1000, log));
    Class {
        name: name.to_owned(),
        priority: priority.and_then(|priority| u8::try_from(priority).ok()).unwrap_or(0),
        weight: weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1),
        dscp: Vec::new(),
        yellow_dscp: Vec::new(),
        red_dscp: Vec::new(),
        pcp: Vec::new(),
        nonconforming_dscp: table.get("nonconforming_dscp").and_then(|value| dscp(value, log)),
        nonconforming_pcp: table.get("nonconforming_pcp").and_then(|value| pcp(value, log)),
        default: table
            .get("default")
            .and_then(|value| value.boolean(log))
            .unwrap_or(false),
        min_share_ppm: table.get("min_share").and_then(|value| share(value, log)),
        place: log.place(value.map_or(table.at, |value| value.at)),
        places: table.places(
            &[
                "dscp",
                "yellow_dscp",
                "red_dscp",
                "pcp",
                "default",
                "nonconforming_dscp",
                "nonconforming_pcp",
            ],
            log,
        ),
    }
}

/// The code points of a list, each taken once over all classes.
fn points(table: &Table<'_>, key: &str, class: &str, is_pcp: bool, taken: &mut Taken, log: &mut Log) -> Vec<u8> {
    let mut found = Vec::new();
    for value in table.get(key).and_then(|value| value.array(log)).unwrap_or_default() {
        let Some(point) = (if is_pcp { pcp(value, log) } else { dscp(value, log) }) else {
            continue;
        };
        let what = if is_pcp {
            format!("PCP {point}")
        } else {
            show_dscp(point)
        };
        let Some(slot) = taken.get_mut(usize::from(point)) else {
            continue;
        };
        if let Some((first_class, first)) = slot {
            let message = if first_class == class {
                format!("{what} is listed twice in class \"{class}\"")
            } else {
                format!("{what} is in class \"{first_class}\" and in class \"{class}\"")
            };
            let problem = Problem::new(value.at, message)
                .label("again")
                .also(*first, "first here");
            log.error(problem.help("a code point leads to one class and one colour: remove it from one of the two"));
            continue;
        }
        *slot = Some((class.to_owned(), value.at));
        found.push(point);
    }
    found
}

/// A DSCP as people know it.
pub(super) fn show_dscp(dscp: u8) -> String {
    dscp_name(dscp).map_or_else(|| format!("DSCP {dscp}"), |name| format!("DSCP {dscp} ({name})"))
}

fn dscp(value: Value<'_>, log: &mut Log) -> Option<u8> {
    let Some(text) = value.as_str() else {
        return value.integer(0, 63, log).and_then(|dscp| u8::try_from(dscp).ok());
    };
    let found = dscp_from_name(text);
    if found.is_none() {
        let problem = Problem::new(
            value.at,
            format!("`{}`: \"{}\" is not the name of a DSCP", value.key, text.escape_debug()),
        );
        log.error(
            problem
                .label("unknown")
                .help("write 0 to 63 without quotes, or one of CS0-CS7, AF11-AF43, EF, VA, LE, NQB, DF"),
        );
    }
    found
}

fn pcp(value: Value<'_>, log: &mut Log) -> Option<u8> {
    value.integer(0, 7, log).and_then(|pcp| u8::try_from(pcp).ok())
}

/// A share in parts per million: a percentage as text, or a fraction as a float.
pub(super) fn share(value: Value<'_>, log: &mut Log) -> Option<u32> {
    if let Some(text) = value.as_str() {
        return value.parsed(parse_percent(text), log);
    }
    match value.as_float() {
        Some(text) => value.parsed(parse_fraction(text), log),
        None => value.wrong_type("a percentage", "write it in quotes with its sign, such as \"5 %\"", log),
    }
}
