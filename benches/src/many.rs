//! A configuration of 100,000 contracts, in variants that a reload goes back and forth between, and flows of its services.
//!
//! Every service owns a /28 and has one contract. As in [`workload`], every second contract is so wide that its traffic
//! conforms, and the others so narrow that nearly all of theirs does not. The variants name the same services, so every
//! contract lives on over a swap; they list them from different places and grant different narrow rates, so its place in
//! the table and its numbers do not.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use config::Loaded;

use crate::Error;
use crate::workload::{self, CLASSES, Flow, Random};

/// Services, and contracts.
pub const CONTRACTS: usize = 100_000;

/// How many configurations there are.
pub const VARIANTS: usize = 2;

/// Variant 0 to [`VARIANTS`] - 1 as text, base and drop-in: ports on the interfaces `site` and `wan`.
#[must_use]
pub fn texts(variant: usize) -> [String; 2] {
    let first = variant * CONTRACTS / VARIANTS;
    let mut contracts = String::new();
    for service in (0..CONTRACTS).map(|number| (first + number) % CONTRACTS) {
        let class = CLASSES[service % CLASSES.len()].0;
        let grant = if is_wide(service) {
            "rate = \"10 Gbit/s\"".to_owned()
        } else {
            format!("rate = \"{} kbit/s\"\nburst = 1500", 8 * (variant + 1))
        };
        let [a, b, c, d] = first_address(service).to_be_bytes();
        // Writing to a string cannot fail.
        let _written = write!(
            contracts,
            "[[service]]\nname = \"service-{service}\"\nendpoints = [\"{a}.{b}.{c}.{d}/28\"]\n\
             [[contract]]\nservice = \"service-{service}\"\nclass = \"{class}\"\nregion = \"here\"\ndirection = \"egress\"\n\
             {grant}\n"
        );
    }
    [workload::base("site", "wan", 0), contracts]
}

/// Reads and checks what [`texts`] made.
///
/// # Errors
/// Whatever the checks of the configuration find.
pub fn load([base, contracts]: &[String; 2]) -> Result<Loaded, Error> {
    let drop_ins = [(PathBuf::from("contracts.d/services.toml"), contracts.clone())];
    config::load_texts((Path::new("weir.toml"), base), &drop_ins).map_err(|report| report.render(false).into())
}

/// `count` flows, each of another service while there are services, spread over all of them.
#[must_use]
pub fn flows(count: usize, random: &mut Random) -> Vec<Flow> {
    let flow = |number: usize| {
        // A stride without a factor in common with the services comes by each of them, and by all classes and widths.
        let service = number * STRIDE % CONTRACTS;
        Flow {
            source: (first_address(service) + 1 + random.below(14)).to_be_bytes(),
            source_port: 1024 + (number % 60_000) as u16,
            dscp: CLASSES[service % CLASSES.len()].2,
        }
    };
    (0..count).map(flow).collect()
}

fn first_address(service: usize) -> u32 {
    u32::from_be_bytes([10, 0, 0, 0]) + 16 * service as u32
}

/// Both kinds occur in every class.
fn is_wide(service: usize) -> bool {
    (service / CLASSES.len()).is_multiple_of(2)
}

/// A prime.
const STRIDE: usize = 7_919;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_of_many_services_in_all_classes() {
        let flows = flows(4_096, &mut Random::new(1));
        let mut services: Vec<u32> = flows.iter().map(|flow| u32::from_be_bytes(flow.source) / 16).collect();
        services.sort_unstable();
        services.dedup();
        assert_eq!(services.len(), flows.len());
        for (_, _, dscp) in CLASSES {
            let share = flows.iter().filter(|flow| flow.dscp == dscp).count();
            assert!((1_000..=1_050).contains(&share), "{share} flows of DSCP {dscp}");
        }
    }

    #[test]
    fn variants_name_the_same_services() {
        let services = |variant| {
            let mut names: Vec<String> = texts(variant)[1]
                .lines()
                .filter(|line| line.starts_with("name = "))
                .map(str::to_owned)
                .collect();
            let first = names[0].clone();
            names.sort();
            (first, names)
        };
        let (one, other) = (services(0), services(1));
        assert_ne!(one.0, other.0);
        assert_eq!(one.1, other.1);
        assert_eq!(one.1.len(), CONTRACTS);
    }
}
