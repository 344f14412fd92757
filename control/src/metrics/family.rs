//! One metric family at a time: its description, and then its samples.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Writes the samples of a counter: `sample(labels, value)` for each.
pub(super) fn counter<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&str>,
    samples: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    with_family(encoder, name, help, unit, MetricType::Counter, |family| {
        for (labels, value) in samples {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    })
}

/// Writes the samples of a gauge.
pub(super) fn gauge<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&str>,
    samples: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    with_family(encoder, name, help, unit, MetricType::Gauge, |family| {
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    })
}

/// Writes a gauge that has no labels.
pub(super) fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&str>,
    value: f64,
) -> fmt::Result {
    with_family(encoder, name, help, unit, MetricType::Gauge, |family| {
        family.encode_gauge(&value)
    })
}

/// Writes facts as labels; the value is 1. The name gets `_info`.
pub(super) fn info<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    facts: impl IntoIterator<Item = L>,
) -> fmt::Result {
    with_family(encoder, name, help, None, MetricType::Info, |family| {
        for labels in facts {
            family.encode_info(&labels)?;
        }
        Ok(())
    })
}

fn with_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&str>,
    kind: MetricType,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    write(&mut family)
}
