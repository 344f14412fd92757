//! DSCP names of the IANA registry ("Differentiated Services Field Codepoints").

/// The code point of an IANA name, in any case; `None` for no such name.
pub fn dscp_from_name(name: &str) -> Option<u8> {
    NAMES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|&(_, value)| value)
}

/// The IANA name of a code point, where it has one.
pub fn dscp_name(value: u8) -> Option<&'static str> {
    NAMES.iter().find(|&&(_, known)| known == value).map(|&(name, _)| name)
}

/// Aliases come after the name that is printed.
pub(crate) const NAMES: &[(&str, u8)] = &[
    ("CS0", 0),
    ("CS1", 8),
    ("CS2", 16),
    ("CS3", 24),
    ("CS4", 32),
    ("CS5", 40),
    ("CS6", 48),
    ("CS7", 56),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("EF", 46),
    ("VOICE-ADMIT", 44),
    ("VA", 44),
    ("LE", 1),
    ("NQB", 45),
    ("DF", 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_agree() {
        for (name, value) in NAMES {
            assert_eq!(dscp_from_name(&name.to_lowercase()), Some(*value));
            assert!(dscp_name(*value).is_some() && *value < 64);
        }
        assert_eq!(
            (dscp_from_name("AF44"), dscp_name(3), dscp_name(0)),
            (None, None, Some("CS0"))
        );
    }
}
