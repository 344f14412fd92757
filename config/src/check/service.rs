//! Services, their endpoints, and segments. No packet may match two of them equally well.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use crate::diagnostic::{At, Log, Problem};
use crate::document::Documents;
use crate::endpoint::{parse_endpoint, parse_prefix};
use crate::schema::keys;
use crate::table::{Names, Table};
use crate::types::{Endpoint, Ports, Protocol, Segment, Service};

pub(super) fn segments(files: &Documents<'_>, whole: bool, log: &mut Log) -> (Vec<Segment>, Names<'static>) {
    let mut names = Names::new("segment", whole);
    let mut taken: HashMap<IpNet, At> = HashMap::new();
    let mut segments = Vec::new();
    files.each("segment", "[[segment]]", log, |table, log| {
        table.refuse_unknown(keys::SEGMENT, log);
        let name = name(table, "\"emea\"", &mut names, segments.len(), log);
        let mut prefixes = Vec::new();
        if let Some(value) = table.require("prefixes", "[\"10.128.0.0/10\"]", log)
            && let Some(items) = value.array(log)
        {
            if items.is_empty() {
                log.error(
                    Problem::new(value.at, "a segment has at least one prefix")
                        .label("empty")
                        .help("add one"),
                );
            }
            for item in items {
                let Some(text) = item.string(log) else { continue };
                let Some(prefix) = item.parsed(parse_prefix(text), log) else {
                    continue;
                };
                if let Some(first) = taken.insert(prefix, item.at) {
                    let problem = Problem::new(item.at, format!("{prefix} is listed twice")).label("again");
                    log.error(
                        problem
                            .also(first, "first here")
                            .help("a prefix belongs to one segment: remove one of the two"),
                    );
                }
                prefixes.push(prefix);
            }
        }
        segments.push(Segment {
            name,
            prefixes,
            place: log.place(table.at),
        });
    });
    (segments, names)
}

pub(super) fn services(files: &Documents<'_>, whole: bool, log: &mut Log) -> (Vec<Service>, Names<'static>) {
    let count = files.count("service");
    let mut names = Names::with_capacity("service", whole, count);
    let mut taken = Taken::default();
    taken.whole.reserve(count);
    let mut services: Vec<Service> = Vec::with_capacity(count);
    files.each("service", "[[service]]", log, |table, log| {
        table.refuse_unknown(keys::SERVICE, log);
        let name = name(table, "\"ads\"", &mut names, services.len(), log);
        let owner = table
            .get("owner")
            .and_then(|value| value.string(log))
            .map(str::to_owned);
        let mut endpoints = Vec::new();
        if let Some(value) = table.require("endpoints", "[\"10.1.0.0/16\"]", log)
            && let Some(items) = value.array(log)
        {
            if items.is_empty() {
                log.error(
                    Problem::new(value.at, "a service has at least one endpoint")
                        .label("empty")
                        .help("add one"),
                );
            }
            endpoints.reserve_exact(items.len());
            for item in items {
                let Some(text) = item.string(log) else { continue };
                let Some(mut endpoint) = item.parsed(parse_endpoint(text), log) else {
                    continue;
                };
                endpoint.line = u32::try_from(log.line_column(item.at).0).unwrap_or(u32::MAX);
                if let Some((first, at)) = taken.take(&endpoint, services.len() as u32, item.at) {
                    let other = services
                        .get(first as usize)
                        .map_or(name.as_str(), |service| &service.name);
                    let message = format!("\"{text}\" overlaps an endpoint of service \"{other}\" of equal prefix");
                    let problem = Problem::new(item.at, message).label(format!("in service \"{name}\""));
                    log.error(
                        problem
                            .also(at, format!("in service \"{other}\""))
                            .help("remove it from one, or tell them apart by ports or a longer prefix"),
                    );
                }
                endpoints.push(endpoint);
            }
        }
        endpoints.shrink_to_fit();
        services.push(Service {
            name,
            endpoints,
            owner,
            place: log.place(table.at),
        });
    });
    (services, names)
}

fn name(table: &Table<'_>, example: &str, names: &mut Names<'static>, index: usize, log: &mut Log) -> String {
    let value = table
        .require("name", example, log)
        .and_then(|value| Some((value, value.name(log)?)));
    let Some((value, name)) = value else {
        return String::new();
    };
    names.add(value, name.to_owned(), index, log);
    name.to_owned()
}

/// Which endpoint holds which prefix, and which ports of it.
#[derive(Default)]
struct Taken {
    whole: HashMap<IpNet, (u32, At), RandomState>,
    ports: HashMap<(IpNet, Protocol), Held, RandomState>,
}

/// By first port, the last port, the service and the place.
type Held = BTreeMap<u16, (u16, u32, At)>;

impl Taken {
    /// Takes the ports of an endpoint; answers with the service and place that already has some of them.
    fn take(&mut self, endpoint: &Endpoint, service: u32, at: At) -> Option<(u32, At)> {
        let Some(Ports { protocol, ranges }) = &endpoint.ports else {
            return match self.whole.entry(endpoint.prefix) {
                Entry::Occupied(before) => Some(*before.get()),
                Entry::Vacant(free) => {
                    free.insert((service, at));
                    None
                }
            };
        };
        let held = self.ports.entry((endpoint.prefix, *protocol)).or_default();
        // Held ranges never overlap, so only the last that begins within or before ours can reach into it.
        for range in ranges {
            if let Some((_, &(last, first_service, first))) = held.range(..=*range.end()).next_back()
                && last >= *range.start()
            {
                return Some((first_service, first));
            }
        }
        held.extend(ranges.iter().map(|range| (*range.start(), (*range.end(), service, at))));
        None
    }
}
