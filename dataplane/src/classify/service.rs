//! Whose traffic it is: endpoints (a prefix, maybe with protocol and ports) to services.

use super::prefix::PrefixTable;
use crate::packet::Family;

/// A service, by a number that stays the same for the life of the process: fragments remember it over a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceId(pub u32);

/// Transport ports that narrow an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
}

/// The endpoints of all services.
#[derive(Clone, Debug)]
pub struct ServiceTable {
    ipv4: PrefixTable<AtPrefix>,
    ipv6: PrefixTable<AtPrefix>,
}

/// What is known at one prefix. Rules with ports come before the service of the bare prefix.
#[derive(Clone, Debug, Default)]
struct AtPrefix {
    by_port: Vec<(PortRange, ServiceId)>,
    bare: Option<ServiceId>,
}

impl AtPrefix {
    #[inline]
    fn find(&self, transport: Option<(u8, u16)>) -> Option<ServiceId> {
        if let Some((protocol, port)) = transport {
            let matches = |range: &PortRange| range.protocol == protocol && (range.first..=range.last).contains(&port);
            if let Some((_, service)) = self.by_port.iter().find(|(range, _)| matches(range)) {
                return Some(*service);
            }
        }
        self.bare
    }
}

impl ServiceTable {
    /// No endpoints.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ipv4: PrefixTable::new(32),
            ipv6: PrefixTable::new(128),
        }
    }

    /// Adds an endpoint. Two services with the same endpoint are refused by the configuration; here the first one stays.
    pub fn insert(&mut self, family: Family, address: u128, length: u8, ports: Option<PortRange>, service: ServiceId) {
        let at = self.family_mut(family).entry(address, length, AtPrefix::default);
        match ports {
            Some(range) => at.by_port.push((range, service)),
            None => at.bare = at.bare.or(Some(service)),
        }
    }

    /// The service of a site-side address, with the site-side port when the packet has one. The longest prefix that
    /// matches with its ports wins; at the same prefix one with ports beats one without.
    #[inline]
    #[must_use]
    pub fn find(&self, family: Family, address: u128, transport: Option<(u8, u16)>) -> Option<ServiceId> {
        let table = match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        };
        table.covering(address).find_map(|at| at.find(transport))
    }

    fn family_mut(&mut self, family: Family) -> &mut PrefixTable<AtPrefix> {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

impl Default for ServiceTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    fn table() -> ServiceTable {
        let mut table = ServiceTable::new();
        let https = Some(PortRange {
            protocol: TCP,
            first: 443,
            last: 443,
        });
        table.insert(Family::Ipv4, 0x0a00_0000, 8, None, ServiceId(0));
        table.insert(Family::Ipv4, 0x0a01_0000, 16, https, ServiceId(1));
        table.insert(Family::Ipv4, 0x0a01_0000, 16, None, ServiceId(2));
        table.insert(Family::Ipv4, 0x0a01_0200, 24, https, ServiceId(3));
        table
    }

    #[test]
    fn the_longest_prefix_that_matches_wins() {
        let table = table();
        let find = |address, transport| table.find(Family::Ipv4, address, transport).map(|s| s.0);
        assert_eq!(find(0x0a02_0000, Some((TCP, 443))), Some(0));
        assert_eq!(find(0x0a01_0000, Some((TCP, 443))), Some(1));
        assert_eq!(find(0x0a01_0000, Some((TCP, 80))), Some(2));
        assert_eq!(find(0x0a01_0201, Some((TCP, 443))), Some(3));
        // The longer prefix has only ports that do not match: the shorter one decides.
        assert_eq!(find(0x0a01_0201, Some((17, 443))), Some(2));
        assert_eq!(find(0x0a01_0201, None), Some(2));
        assert_eq!(find(0x0b00_0000, Some((TCP, 443))), None);
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(table().find(Family::Ipv6, 0x0a01_0000, Some((TCP, 443))), None);
    }
}
