//! Endpoints and prefixes: `10.1.0.0/16`, `2001:db8::/32 tcp/443,8000-8100`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::types::{Endpoint, Ports, Protocol};
use crate::units::UnitError;

/// An endpoint from its text.
pub(crate) fn parse_endpoint(text: &str) -> Result<Endpoint, UnitError> {
    let mut words = text.split_whitespace();
    let prefix = parse_prefix(words.next().unwrap_or_default())?;
    let ports = words.next().map(parse_ports).transpose()?;
    match words.next() {
        Some(more) => Err(error(
            format!("nothing may follow the ports, but \"{more}\" does"),
            ENDPOINT_HELP,
        )),
        None => Ok(Endpoint { prefix, ports, line: 0 }),
    }
}

/// A prefix without host bits; an address alone is a prefix of one address.
pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, UnitError> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .map_err(|_| error(format!("\"{text}\" is not an IPv4 or IPv6 prefix"), ENDPOINT_HELP))?,
    };
    if net != net.trunc() {
        let masked = net.trunc();
        return Err(error(
            format!("{net} has bits set behind the prefix"),
            &format!("did you mean \"{masked}\"?"),
        ));
    }
    Ok(net)
}

fn parse_ports(text: &str) -> Result<Ports, UnitError> {
    let (protocol, list) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(error(format!("\"{protocol}\" is neither tcp nor udp"), ENDPOINT_HELP)),
    };
    let mut ranges = list.split(',').map(parse_range).collect::<Result<Vec<_>, _>>()?;
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    Ok(Ports {
        protocol,
        ranges: merged,
    })
}

fn parse_range(text: &str) -> Result<RangeInclusive<u16>, UnitError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let bad = || error(format!("\"{text}\" is not a port between 0 and 65535"), ENDPOINT_HELP);
        if digits {
            text.parse::<u16>().map_err(|_| bad())
        } else {
            Err(bad())
        }
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(error(
            format!("the range {text} runs backwards"),
            &format!("write {last}-{first}"),
        ));
    }
    Ok(first..=last)
}

fn error(message: String, help: &str) -> UnitError {
    UnitError {
        message,
        help: help.to_owned(),
    }
}

const ENDPOINT_HELP: &str =
    "write PREFIX or PREFIX tcp|udp/PORTS, such as \"10.1.0.0/16\" or \"2001:db8::/48 tcp/443,8000-8100\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let endpoint = parse_endpoint("2001:db8:1::/48 tcp/8000-8100,443,8101").unwrap();
        assert_eq!(endpoint.ports.unwrap().ranges, vec![443..=443, 8000..=8101]);
        assert_eq!(parse_endpoint("10.0.0.1").unwrap().prefix.prefix_len(), 32);
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/8 sctp/1",
            "10.0.0.0/8 tcp",
            "10.0.0.0/8 tcp/",
            "10.0.0.0/8 tcp/65536",
            "10.0.0.0/8 tcp/2-1",
            "10.0.0.0/8 tcp/1 x",
            "10.0.0.0/8 tcp/+1",
        ] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
        assert!(parse_prefix("10.1.2.3/8").unwrap_err().help.contains("10.0.0.0/8"));
    }
}
