//! Slots to names, and names to slots.

use dataplane::cells::SlotId;

use super::{CaptureError, Options};
use crate::compile::{Compiled, SlotName};

/// The names of a table by its slots; those of earlier tables are gone with their contracts.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Option<SlotName>>);

impl Names {
    pub(super) fn new(compiled: &Compiled) -> Self {
        let mut names = Vec::new();
        for (slot, name) in compiled.slots() {
            let position = slot.0 as usize;
            if names.len() <= position {
                names.resize(position + 1, None);
            }
            names[position] = Some(name);
        }
        Self(names)
    }

    pub(super) fn get(&self, slot: SlotId) -> Option<&SlotName> {
        self.0.get(slot.0 as usize)?.as_ref()
    }

    /// The slots that the options ask for; `None`: all there are and will be.
    pub(super) fn matching(&self, options: &Options) -> Option<Vec<SlotId>> {
        if options.service.is_none() && options.class.is_none() && options.contract.is_none() {
            return None;
        }
        let is = |wanted: &Option<String>, name: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == name);
        let words = options.contract.as_deref().map(words);
        let matches = |name: &SlotName| {
            let service = name.service.as_deref();
            let by_words = words.as_ref().is_none_or(|words| {
                service.is_some_and(|service| {
                    has_words(words, service, &name.class, name.direction, name.segment.as_deref())
                })
            });
            by_words && is(&options.service, service) && is(&options.class, Some(&name.class))
        };
        let named = self.0.iter().enumerate();
        let slots = named.filter(|(_, name)| name.as_ref().is_some_and(matches));
        Some(slots.map(|(slot, _)| SlotId(slot as u32)).collect())
    }
}

/// The words by which a contract is asked for: `web gold egress to eu`, or with slashes.
pub(super) fn words(contract: &str) -> Vec<&str> {
    let words = contract.split(|c: char| c.is_whitespace() || c == '/');
    words.filter(|word| !word.is_empty() && *word != "to").collect()
}

/// Whether a contract has these words, in this order; those that are left out match anything.
pub(super) fn has_words(words: &[&str], service: &str, class: &str, direction: &str, segment: Option<&str>) -> bool {
    let name = [Some(service), Some(class), Some(direction), segment];
    !words.is_empty() && words.len() <= name.len() && words.iter().zip(name).all(|(word, name)| Some(*word) == name)
}

/// Refuses a name that is none, with those there are.
pub(super) fn is_known<'c>(
    what: &str,
    name: Option<&str>,
    known: impl Iterator<Item = &'c str>,
) -> Result<(), CaptureError> {
    const SHOWN: usize = 10;
    let Some(name) = name else { return Ok(()) };
    let known: Vec<&str> = known.collect();
    if known.contains(&name) {
        return Ok(());
    }
    let more = known.len().saturating_sub(SHOWN);
    let shown = known[..known.len() - more].join(", ");
    let and = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Err(CaptureError::Invalid(format!(
        "no {what} `{name}`: there is {shown}{and}"
    )))
}
