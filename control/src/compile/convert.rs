//! From the words of the configuration to those of the dataplane, one by one.

use config::{Config, Meter as MeterConfig};
use dataplane::contract::{Action, ClassId, ClassMap, Layer, Marking};
use dataplane::meter::{Color, Profile, ProfileError};
use dataplane::packet::{Dscp, Family, Pcp};
use dataplane::priority::{ClassOrder, Half, Order};

pub(super) fn prefix(net: &ipnet::IpNet) -> (Family, u128, u8) {
    match net {
        ipnet::IpNet::V4(net) => (Family::Ipv4, u128::from(u32::from(net.network())), net.prefix_len()),
        ipnet::IpNet::V6(net) => (Family::Ipv6, u128::from(net.network()), net.prefix_len()),
    }
}

pub(super) fn class_map(config: &Config, ids: &[ClassId]) -> ClassMap {
    let default = config
        .classes
        .iter()
        .position(|class| class.default)
        .map_or(ids[0], |default| ids[default]);
    let mut map = ClassMap {
        by_dscp: [None; 64],
        by_pcp: [None; 8],
        default,
    };
    for (class, &id) in config.classes.iter().zip(ids) {
        let colored = [
            (&class.dscp, Color::Green),
            (&class.yellow_dscp, Color::Yellow),
            (&class.red_dscp, Color::Red),
        ];
        for (list, color) in colored {
            for &dscp in list {
                map.by_dscp[usize::from(dscp)] = Some((id, color));
            }
        }
        for &pcp in &class.pcp {
            map.by_pcp[usize::from(pcp)] = Some(id);
        }
    }
    map
}

pub(super) fn order(config: &Config, ids: &[ClassId]) -> Order {
    let class = |(class, id): (&config::Class, &ClassId)| ClassOrder {
        ring: id.0,
        priority: u16::from(class.priority),
        weight: class.weight,
        // A share too small for a thousandth still keeps the ring from starving.
        min_share_permille: class
            .min_share_ppm
            .map_or(0, |ppm| (ppm / 1_000).clamp(1, 1_000) as u16),
    };
    let classes: Vec<ClassOrder> = config.classes.iter().zip(ids).map(class).collect();
    Order::new(&classes)
}

pub(super) fn profile(meter: &MeterConfig) -> Result<Profile, ProfileError> {
    match *meter {
        MeterConfig::TokenBucket { rate_bps, burst_bytes } => Profile::token_bucket(rate_bps, burst_bytes),
        MeterConfig::SrTcm { cir_bps, cbs, ebs } => Profile::sr_tcm(cir_bps, cbs, ebs),
        MeterConfig::TrTcm {
            cir_bps,
            cbs,
            pir_bps,
            pbs,
        } => Profile::tr_tcm(cir_bps, cbs, pir_bps, pbs),
        MeterConfig::TrTcm4115 {
            cir_bps,
            cbs,
            eir_bps,
            ebs,
        } => Profile::tr_tcm_4115(cir_bps, cbs, eir_bps, ebs),
    }
}

pub(super) fn marking(class: &config::Class) -> Marking {
    Marking {
        dscp: class.nonconforming_dscp.and_then(Dscp::new),
        pcp: class.nonconforming_pcp.and_then(Pcp::new),
    }
}

pub(super) fn action(action: config::Action) -> Action {
    match action {
        config::Action::Remark => Action::Remark,
        config::Action::Queue => Action::Queue,
        config::Action::Drop => Action::Drop,
    }
}

pub(super) fn half(conformance: config::Conformance) -> Half {
    match conformance {
        config::Conformance::Conforming => Half::Conforming,
        config::Conformance::Nonconforming => Half::Nonconforming,
    }
}

pub(super) fn layer(layer: config::Layer) -> Layer {
    match layer {
        config::Layer::L3 => Layer::L3,
        config::Layer::L2 => Layer::L2,
        config::Layer::L1 => Layer::L1,
    }
}
