//! Services, their endpoints, and segments. No packet may match two of them equally well.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::diagnostic::{At, Log, Problem};
use crate::endpoint::{parse_endpoint, parse_prefix};
use crate::schema::keys;
use crate::table::{Names, Table};
use crate::types::{Endpoint, Protocol, Segment, Service};

pub(super) fn segments<'t>(files: &[Table<'t>], whole: bool, log: &mut Log) -> (Vec<Segment>, Names<'t>) {
    let mut names = Names::new("segment", whole);
    let mut taken: HashMap<IpNet, At> = HashMap::new();
    let mut segments = Vec::new();
    for table in files
        .iter()
        .flat_map(|file| file.tables("segment", "[[segment]]", log))
        .collect::<Vec<_>>()
    {
        table.refuse_unknown(keys::SEGMENT, log);
        let name = name(&table, "\"emea\"", &mut names, segments.len(), log);
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
        segments.push(Segment { name, prefixes });
    }
    (segments, names)
}

pub(super) fn services<'t>(files: &[Table<'t>], whole: bool, log: &mut Log) -> (Vec<Service>, Names<'t>) {
    let mut names = Names::new("service", whole);
    let mut taken = Taken::default();
    let mut services: Vec<Service> = Vec::new();
    for table in files
        .iter()
        .flat_map(|file| file.tables("service", "[[service]]", log))
        .collect::<Vec<_>>()
    {
        table.refuse_unknown(keys::SERVICE, log);
        let name = name(&table, "\"ads\"", &mut names, services.len(), log);
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
            for item in items {
                let Some(text) = item.string(log) else { continue };
                let Some(endpoint) = item.parsed(parse_endpoint(text), log) else {
                    continue;
                };
                if let Some((first, at)) = taken.take(&endpoint, services.len(), item.at) {
                    let other = services.get(first).map_or(name.as_str(), |service| &service.name);
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
        services.push(Service { name, endpoints, owner });
    }
    (services, names)
}

fn name<'t>(table: &Table<'t>, example: &str, names: &mut Names<'t>, index: usize, log: &mut Log) -> String {
    let value = table
        .require("name", example, log)
        .and_then(|value| Some((value, value.name(log)?)));
    let Some((value, name)) = value else {
        return String::new();
    };
    names.add(value, name, index, log);
    name.to_owned()
}

/// Which endpoint holds which ports of which prefix: by first port, the last port, the service and the place.
#[derive(Default)]
struct Taken(HashMap<(IpNet, Option<Protocol>), Held>);

type Held = BTreeMap<u16, (u16, usize, At)>;

impl Taken {
    /// Takes the ports of an endpoint; answers with the service and place that already has some of them.
    fn take(&mut self, endpoint: &Endpoint, service: usize, at: At) -> Option<(usize, At)> {
        let whole = [0..=u16::MAX];
        let (protocol, ranges) = match &endpoint.ports {
            Some(ports) => (Some(ports.protocol), ports.ranges.as_slice()),
            None => (None, whole.as_slice()),
        };
        let held = self.0.entry((endpoint.prefix, protocol)).or_default();
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
