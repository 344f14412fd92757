//! Mixes against the published ones, and the notation.

use super::*;

fn parse(text: &str) -> FrameMix {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn means_are_those_of_the_published_mixes() {
    // Without FCS TRex's mean is 357.8; the published means count CSIT's sizes with FCS.
    let cases = [
        (
            "simple",
            361.833,
            "IP of 40:576:1500 padded to Ethernet's minimum; Ostinato's",
        ),
        ("trex", 357.833 + 4.0, "60:590:1514 and 4 bytes of FCS"),
        ("csit", 353.833, "CSIT's own average for IMIX_v4_1"),
        (
            "64:28,594:20,1518:4",
            375.692 + 4.0,
            "CSIT's older IMIX_v4, 60:590:1514 and the FCS",
        ),
        ("64:57,570:7,594:16,1518:20", 475.02, "four sizes in percent"),
        ("aaafg", 598.0, "RFC 6985's example"),
        ("1518", 1518.0, "one size"),
    ];
    for (text, mean, why) in cases {
        let mix = parse(text);
        assert!(
            (mix.mean_frame_bytes() - mean).abs() < 0.001,
            "{text} ({why}): {}",
            mix.mean_frame_bytes()
        );
        let (bytes, frames) = mix.pass();
        let sent: u64 = mix.sizes().take(frames as usize * 3).map(u64::from).sum();
        assert_eq!(sent, 3 * bytes, "{text}");
    }
    assert_eq!(parse("trex").sequence(), parse("simple").sequence());
}

#[test]
fn byte_shares_of_csit_are_as_published() {
    let mix = parse("csit");
    let (bytes, _) = mix.pass();
    for (size, share) in [(64, 10.6), (570, 53.7), (1518, 35.8)] {
        let own: u64 = mix
            .sequence()
            .iter()
            .filter(|&&s| s == size)
            .map(|&s| u64::from(s))
            .sum();
        assert!((own as f64 / bytes as f64 * 100.0 - share).abs() < 0.06, "{size}");
    }
}

#[test]
fn sizes_are_interleaved_evenly() {
    let simple = [64, 594, 64, 64, 594, 64, 1518, 594, 64, 64, 594, 64];
    assert_eq!(parse("simple").sequence(), simple);
    for text in [
        "csit",
        "64:57,570:7,594:16,1518:20",
        "64:1000,1518:1",
        "100:3,200:3,300:3",
    ] {
        let mix = parse(text);
        let sequence = mix.sequence();
        let mut sizes = sequence.to_vec();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let total = sequence.iter().filter(|&&s| s == size).count() as f64;
            let mut seen = 0.0;
            for (i, _) in sequence.iter().enumerate().filter(|(_, s)| **s == size) {
                seen += 1.0;
                let due = total * (i as f64 + 1.0) / sequence.len() as f64;
                assert!((seen - due).abs() < 1.5, "{text}: {size} at {i}: {seen} of {due}");
            }
        }
    }
}

#[test]
fn reports_state_the_exact_sequence() {
    assert_eq!(
        parse("aaafg").report().to_string(),
        "IMIX - aaafg; mean 598.00 bytes with FCS"
    );
    assert_eq!(parse("IMIX - aaafg").sequence(), [64, 64, 64, 1280, 1518]);
    assert_eq!(parse("aaz/z=1450").sequence(), [64, 64, 1450]);
    assert_eq!(parse("128").report().to_string(), "128 bytes");
    let csit = parse("csit/random=7").report();
    let text = csit.to_string();
    assert!(
        text.starts_with("IMIX - ") && text.contains("A = 64, B = 570, C = 1518"),
        "{text}"
    );
    assert!(text.contains("pseudo-random, seed 7"), "{text}");
    assert_eq!(csit.sequence.len(), 12);
    assert_eq!(parse("64:200,1518:1").report().genome, None);
}

#[test]
fn random_mixes_keep_the_shares_and_are_repeatable() {
    let mix = parse("csit/random=42");
    let sizes: Vec<u16> = mix.sizes().take(120_000).collect();
    let mean = sizes.iter().map(|&s| f64::from(s)).sum::<f64>() / sizes.len() as f64;
    assert!((mean / 353.833 - 1.0).abs() < 0.01, "seed 42: {mean}");
    assert!(sizes.iter().enumerate().all(|(k, &size)| mix.size(k as u64) == size));
    assert_ne!(sizes, parse("csit/random=43").sizes().take(120_000).collect::<Vec<_>>());
    let plain = parse("csit");
    assert!(
        plain
            .sizes()
            .take(100)
            .enumerate()
            .all(|(k, size)| plain.size(k as u64) == size)
    );
}

#[test]
fn text_and_json_round_trip() {
    for text in [
        "64",
        "simple",
        "csit/random=9",
        "AAB/A=570/B=78",
        "aaz/z=1450/random=1",
        "64:7,9000:2",
        "aaafg",
        "64,1518,65",
    ] {
        let mix = parse(text);
        assert_eq!(parse(&mix.to_string()), mix, "{text}");
        let json = serde_json::to_string(&mix).unwrap();
        assert_eq!(serde_json::from_str::<FrameMix>(&json).unwrap(), mix, "{json}");
    }
    let raised = parse("simple").raised_to(84);
    assert_eq!(raised.smallest(), 84);
    assert_eq!(parse(&raised.to_string()).sequence(), raised.sequence());
    assert_eq!(parse("simple").raised_to(64), parse("simple"));
    let long = parse("1518:1,64:200").raised_to(84);
    assert_eq!(
        parse(&long.to_string()),
        long,
        "a sequence that no genome states is stated frame by frame"
    );
    assert_eq!(FrameMix::from_sequence(&[64, 64, 1280]).unwrap().to_string(), "aaf");
    assert_eq!(
        parse(&FrameMix::from_sequence(&[64, 78]).unwrap().to_string()).sequence(),
        [64, 78]
    );
}

#[test]
fn bad_mixes_say_how_to_mend_them() {
    let cases = [
        ("", "no size"),
        ("63", "64 to 65535"),
        ("70000", "64 to 65535"),
        ("aaz", "/z=1450"),
        ("aak", "no genome"),
        ("imix", "simple, trex, csit"),
        ("64:7,594", "has no weight"),
        ("64:0", "1 or more"),
        ("64:1,40:1", "40 is out of range"),
        ("64:100000,65:1", "smaller weights"),
        ("csit/random=x", "seed"),
        ("csit/foo", "neither"),
        ("99999999999999999999999", "not a whole number"),
    ];
    for (text, part) in cases {
        let error = text.parse::<FrameMix>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(FrameMix::fixed(63).is_err() && FrameMix::from_sequence(&[]).is_err());
}
