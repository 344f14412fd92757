//! What the appliance sends to a screen: of 100,000 contracts the few hundred that there is room for.
//!
//! Runs on the control thread, once a second for each screen. Which contracts are busiest is known from the samples that this
//! thread takes anyway (bytes offered in the last second), so only the counters of those that are sent are read: no cache
//! line of a worker is touched for a contract that nobody looks at.

use std::collections::HashSet;

use dataplane::cells::SlotId;
use serde::{Deserialize, Serialize};

use crate::appliance::Appliance;
use crate::change::diff::ContractName;
use crate::status::Status;

/// Most contracts that one answer holds: about 2 MB.
pub const ROWS_MAX: usize = 5_000;

/// Which contracts a screen wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopWish {
    /// At most so many; never more than [`ROWS_MAX`].
    pub rows: usize,
    /// Only those whose service, class or segment holds this text, in whatever case; empty: all.
    #[serde(default)]
    pub text: String,
    /// Only `egress` or only `ingress`.
    #[serde(default)]
    pub direction: Option<String>,
    /// Only this class.
    #[serde(default)]
    pub class: Option<String>,
}

/// A status with those contracts only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopStatus {
    /// Everything else is whole.
    #[serde(flatten)]
    pub status: Status,
    /// How many contracts there are.
    pub contracts_in_all: usize,
    /// How many of them match the wish; more than were sent when there was no room for all.
    pub contracts_matching: usize,
    /// The classes, in the order of the configuration.
    pub classes: Vec<String>,
    /// The ports of each wire: site, wan.
    pub wires: Vec<[String; 2]>,
    /// `l3`, `l2` or `l1`: which bytes rates count.
    pub layer: String,
}

impl TopWish {
    /// Says of a contract's name whether it is wanted, if there is room. Made once for many names.
    pub fn matcher(&self) -> impl Fn(&ContractName<'_>) -> bool {
        let text = self.text.to_lowercase();
        move |name| {
            let is = |wanted: &Option<String>, found| wanted.as_deref().is_none_or(|wanted| wanted == found);
            let holds = |part: &str| part.to_lowercase().contains(&text);
            is(&self.direction, name.direction)
                && is(&self.class, name.class)
                && (text.is_empty() || holds(name.service) || holds(name.class) || name.segment.is_some_and(holds))
        }
    }
}

/// The answer to `wish`; `recent` gives the bytes that a contract was offered in the last second.
pub(crate) fn select(wish: &TopWish, appliance: &Appliance, recent: impl Fn(SlotId) -> u64) -> TopStatus {
    let compiled = appliance.compiled();
    let (mut in_all, mut matching) = (0, Vec::new());
    let matches = wish.matcher();
    for (name, slot) in compiled.contracts() {
        in_all += 1;
        if matches(&name) {
            matching.push((std::cmp::Reverse(recent(slot)), matching.len(), slot));
        }
    }
    let contracts_matching = matching.len();
    let room = wish.rows.min(ROWS_MAX);
    if room < matching.len() {
        // Of equals the first of the configuration stay, so that an idle screen does not flicker.
        matching.select_nth_unstable(room);
        matching.truncate(room);
    }
    let chosen: HashSet<SlotId> = matching.into_iter().map(|(.., slot)| slot).collect();
    let status = if chosen.len() == in_all {
        appliance.status()
    } else {
        appliance.status_of(|slot| chosen.contains(&slot))
    };
    let config = appliance.config();
    let port = |number: usize| config.ports[number].name.clone();
    TopStatus {
        status,
        contracts_in_all: in_all,
        contracts_matching,
        classes: config.classes.iter().map(|class| class.name.clone()).collect(),
        wires: config
            .wires
            .iter()
            .map(|wire| [port(wire.site), port(wire.wan)])
            .collect(),
        layer: config::Word::word(config.defaults.layer).to_owned(),
    }
}
