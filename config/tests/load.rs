//! Good files load; every rule is broken once, and its message stands at the right place.

use std::path::{Path, PathBuf};

use config::{Meter, Report, Severity, load, load_texts};

/// Fifteen lines that are in order; what a case adds begins on line 16.
const BASE: &str = "region = \"atn\"
[[port]]
name = \"lan\"
interface = \"eth1\"
side = \"site\"
[[port]]
name = \"uplink\"
interface = \"eth2\"
side = \"wan\"
[[wire]]
ports = [\"lan\", \"uplink\"]
[[class]]
name = \"gold\"
priority = 1
dscp = [\"EF\"]
";
const SERVICE: &str = "[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\"]\n";
const CONTRACT: &str = "[[contract]]\nservice = \"ads\"\nclass = \"gold\"\nregion = \"atn\"\ndirection = \"egress\"\n";

fn one(text: &str) -> Result<config::Loaded, Report> {
    load_texts((Path::new("weir.toml"), text), &[])
}

#[test]
fn examples_load_and_show_every_key() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let loaded = load(&examples.join("full/weir.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((loaded.config.contracts.len(), loaded.files.len()), (4, 2));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    assert_eq!(
        loaded.config.contracts[0].meter,
        Meter::TokenBucket {
            rate_bps: 2_000_000_000,
            burst_bytes: 1_250_000
        }
    );
    let minimal = std::fs::read_to_string(examples.join("minimal/weir.toml")).unwrap();
    assert_eq!(one(&minimal).unwrap().config.default_class(), 0);

    let text: String = loaded
        .files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let schema = config::json_schema();
    let tables = schema["definitions"].as_object().unwrap().values().chain([&schema]);
    for key in tables
        .filter_map(|table| table["properties"].as_object())
        .flat_map(|keys| keys.keys())
    {
        let shown = text.lines().any(|line| {
            line.starts_with(&format!("{key} = "))
                || line == format!("[[{key}]]")
                || line == format!("[{key}]")
                || line.starts_with(&format!("[contract.{key}]"))
        });
        assert!(shown, "no example of {key}");
    }
}

#[test]
fn every_rule_names_its_place() {
    let contract = |rest: &str| format!("{SERVICE}{CONTRACT}{rest}");
    let class = |rest: &str| format!("[[class]]\nname = \"silver\"\npriority = 2\n{rest}");
    let cases: &[(String, usize, usize, &str)] = &[
        ("colour = 1".into(), 16, 1, "unknown key `colour`"),
        ("weight = \"x\"".into(), 16, 10, "must be an integer"),
        ("weight = -1".into(), 16, 10, "out of range"),
        ("weight = 99999999999999999999999999".into(), 16, 10, "out of range"),
        ("weight = 1\nweight = 2".into(), 17, 1, "duplicate key"),
        ("name".into(), 16, 5, "not TOML"),
        ("nonconforming_dscp = 64".into(), 16, 22, "out of range"),
        ("nonconforming_dscp = \"AF44\"".into(), 16, 22, "not the name of a DSCP"),
        ("pcp = [8]".into(), 16, 8, "out of range"),
        ("min_share = \"101 %\"".into(), 16, 13, "not between"),
        ("[control]\nstate = \"var\"".into(), 17, 9, "not an absolute path"),
        ("[control]\nwatch = \"aply\"".into(), 17, 9, "cannot be \"aply\""),
        (
            "[control]\nhistory = 1".into(),
            17,
            1,
            "unknown key `history` in [control]",
        ),
        ("[api]\nsocket = \"api.sock\"".into(), 17, 10, "not an absolute path"),
        (
            format!("[api]\nsocket = \"/{}\"", "x".repeat(107)),
            17,
            10,
            "too long for a Unix socket",
        ),
        (
            "[api]\nlisten = \"localhost\"".into(),
            17,
            10,
            "not an address with a port",
        ),
        (
            "[api]\nlisten = \"127.0.0.1:0\"".into(),
            17,
            10,
            "not an address with a port",
        ),
        ("[api]\nlisten = 9469".into(), 17, 10, "must be a string"),
        ("[api]\nlisten = \"[::]:9469\"".into(), 17, 10, "there is no token"),
        (
            "[api]\nlisten = \"[::]:9469\"\ntoken_file = \"token\"".into(),
            18,
            14,
            "not an absolute path",
        ),
        (
            "[api]\ntoken_file = \"/etc/weir/api.token\"".into(),
            17,
            14,
            "there is no `listen`",
        ),
        ("[api]\nport = 1".into(), 17, 1, "unknown key `port` in [api]"),
        (class("dscp = [46]"), 19, 9, "in class \"gold\" and in class \"silver\""),
        (
            "default = true\n".to_owned() + &class("default = true"),
            20,
            11,
            "two classes are the default",
        ),
        (
            "min_share = 0.6\n".to_owned() + &class("min_share = 0.6"),
            20,
            13,
            "more than 100 %",
        ),
        (
            "[[port]]\nname = \"lan\"\ninterface = \"eth3\"\nside = \"wan\"".into(),
            17,
            8,
            "two ports have the name",
        ),
        (
            "[[port]]\nname = \"x\"\ninterface = \"eth1\"\nside = \"wan\"".into(),
            18,
            13,
            "two ports have the interface",
        ),
        (
            "[[port]]\nname = \"x\"\ninterface = \"e\"\nside = \"won\"".into(),
            19,
            8,
            "`side` cannot be \"won\"",
        ),
        (
            "[[wire]]\nports = [\"lan\", \"uplink\"]".into(),
            17,
            10,
            "already in a wire",
        ),
        ("[[wire]]\nports = [\"lam\"]".into(), 17, 10, "there is no port \"lam\""),
        (
            "[defaults]\nother = \"golt\"".into(),
            17,
            9,
            "there is no class \"golt\"",
        ),
        ("[defaults]\ngrain = \"flow\"".into(), 17, 9, "packet grain only"),
        (
            "[[port]]\nname = \"x\"\ninterface = \"eth9\"\nside = \"site\"\nrate = \"401 Gbit/s\"".into(),
            20,
            8,
            "out of range",
        ),
        (
            "[[port]]\nname = \"x\"\ninterface = \"eth9\"\nside = \"site\"\nzero_copy = \"no\"".into(),
            20,
            13,
            "zero_copy",
        ),
        ("[workers]\nbatch = 65".into(), 17, 9, "out of range"),
        ("[workers]\ncpus = [1, 1]".into(), 17, 12, "listed twice"),
        ("[workers]\nstale_after = \"4 ms\"".into(), 17, 15, "out of range"),
        ("[workers]\nstale_after = \"20 m\"".into(), 17, 15, "unit"),
        (
            "[[service]]\nname = \"a\"\nendpoints = [\"10.1.2.3/8\"]".into(),
            18,
            14,
            "bits set",
        ),
        (
            "[[service]]\nname = \"a\"\nendpoints = []".into(),
            18,
            13,
            "at least one endpoint",
        ),
        (
            format!("{SERVICE}[[service]]\nname = \"b\"\nendpoints = [\"10.1.0.0/16\"]"),
            21,
            14,
            "overlaps an endpoint of service \"ads\"",
        ),
        (
            "[[segment]]\nname = \"a\"\nprefixes = [\"10.0.0.0/8\", \"10.0.0.0/8\"]".into(),
            18,
            27,
            "listed twice",
        ),
        (contract(""), 19, 1, "has no `rate`"),
        (contract("rate = 0"), 24, 8, "out of range"),
        (contract("rate = \"401 Gbit/s\""), 24, 8, "out of range"),
        (contract("rate = \"1.5 bit/s\""), 24, 8, "whole number of bit/s"),
        (
            contract("rate = \"1 Mbit/s\"\nburst = 1499"),
            25,
            9,
            "less than a full frame",
        ),
        (
            contract("rate = \"400 Gbit/s\"\nburst = \"1 s\""),
            25,
            9,
            "50000000000 bytes",
        ),
        (
            contract("rate = \"1 Mbit/s\"\npeak_rate = 9000"),
            25,
            13,
            "has no `peak_rate`",
        ),
        (
            contract("meter = \"trtcm\"\nrate = \"1 Mbit/s\"\npeak_rate = \"900 kbit/s\""),
            26,
            13,
            "below `rate`",
        ),
        (
            contract("meter = \"srtcm\"\nrate = \"1 Mbit/s\"\nburst = 0\nexcess_burst = 0"),
            19,
            1,
            "both 0",
        ),
        (
            contract("rate = \"1 Mbit/s\"\nslo = \"0 %\""),
            25,
            7,
            "promises nothing",
        ),
        (
            contract("rate = \"1 Mbit/s\"\nfrom = \"2026-10-01\""),
            25,
            8,
            "must be a date",
        ),
        (
            contract("rate = \"1 Mbit/s\"\nfrom = 07:00:00"),
            25,
            8,
            "not an instant",
        ),
        (
            contract("rate = \"1 Mbit/s\"\nfrom = 2027-01-01\nuntil = 2026-01-01"),
            26,
            9,
            "not after `from`",
        ),
        (
            contract(&format!("rate = \"1 Mbit/s\"\n{CONTRACT}rate = 9000")),
            25,
            1,
            "overlap in time",
        ),
        (
            format!("{SERVICE}{}rate = 9000", CONTRACT.replace("ads", "asd")),
            20,
            11,
            "there is no service \"asd\"",
        ),
    ];
    for (text, line, column, part) in cases {
        let report = one(&format!("{BASE}{text}\n")).expect_err(text);
        let found = report.diagnostics().iter().any(|found| {
            (found.line, found.column) == (*line, *column) && found.message.contains(part) && found.help.is_some()
        });
        assert!(found, "{text}\nwanted {line}:{column} {part}\n{report}");
        assert!(!report.to_json().as_array().unwrap().is_empty());
    }
}

#[test]
fn all_errors_of_all_files_come_at_once() {
    let drop_ins = [
        (
            PathBuf::from("a.toml"),
            "fail = \"open\"\n[[service]]\nname = 1\n".to_owned(),
        ),
        (PathBuf::from("b.toml"), "[[contract]]\nservice = \"x\"\n".to_owned()),
    ];
    let report = load_texts((Path::new("weir.toml"), "region = 4\n"), &drop_ins).unwrap_err();
    for part in [
        "`region`",
        "two ports",
        "one wire",
        "one class",
        "base file",
        "`name`",
        "`endpoints`",
        "\"x\"",
        "`rate`",
    ] {
        assert!(
            report.diagnostics().iter().any(|found| found.message.contains(part)),
            "{part}\n{report}"
        );
    }
    assert!(
        report
            .diagnostics()
            .iter()
            .all(|found| found.severity == Severity::Error)
    );
}

#[test]
fn plain_rendering_is_stable() {
    let report = one(&format!("{BASE}weigth = 2\n")).unwrap_err();
    let text = report.render(false);
    assert!(
        text.contains("weir.toml:16:1")
            && text.contains("did you mean `weight`?")
            && text.starts_with("error: ")
            && text.is_ascii()
            && !text.contains('\u{1b}'),
        "{text}"
    );
    assert!(report.render(true).contains('\u{1b}'));
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("weir.toml");
    assert!(load(&base).unwrap_err().render(false).contains("cannot read the file"));
    std::fs::write(&base, b"region = \"a\xff\"").unwrap();
    assert_eq!(load(&base).unwrap_err().diagnostics()[0].column, 12);
    std::fs::write(directory.path().join("contracts.d"), "").unwrap();
    assert!(
        load(&base)
            .unwrap_err()
            .render(false)
            .contains("cannot read the directory")
    );
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(one(&deep).is_err());
}

#[test]
fn ten_thousand_contracts_are_quick() {
    let mut text = String::from(BASE);
    for index in 0..10_000 {
        let (high, low) = (index / 256, index % 256);
        text += &format!("[[service]]\nname = \"s{index}\"\nendpoints = [\"10.{high}.{low}.0/24\"]\n");
        text += &CONTRACT.replace("ads", &format!("s{index}"));
        text += "rate = \"1 Mbit/s\"\n";
    }
    let start = std::time::Instant::now();
    let loaded = one(&text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.config.contracts.len(), 10_000);
    assert!(loaded.warnings.render(false).lines().count() < 60);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    println!("{:?}", start.elapsed());
}

proptest::proptest! {
    #[test]
    fn mutated_text_never_panics(at in 0_usize..2_000, cut in 0_usize..40, put in "\\PC{0,12}") {
        let text = format!("{BASE}{SERVICE}{CONTRACT}rate = \"1 Mbit/s\"\nburst = \"5 ms\"\nfrom = 2026-01-01\n");
        let characters: Vec<char> = text.chars().collect();
        let at = at % characters.len();
        let mutated: String = characters[..at].iter().copied().chain(put.chars()).chain(characters[(at + cut).min(characters.len())..].iter().copied()).collect();
        if let Err(report) = one(&mutated) {
            proptest::prop_assert!(!report.is_empty() && !report.render(false).is_empty());
        }
    }
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let base = BASE.replace("side = \"wan\"\n", "side = \"wan\"\nrate = \"1 Mbit/s\"\n");
    let unused = "nonconforming_dscp = \"EF\"\n[[port]]\nname = \"spare\"\ninterface = \"eth3\"\nside = \"site\"\n";
    let text =
        format!("{base}{unused}{SERVICE}{CONTRACT}rate = \"2 Mbit/s\"\ncolor_aware = true\nuntil = 2020-01-01\n");
    let loaded = one(&text).unwrap_or_else(|report| panic!("{report}"));
    let wanted = [
        "in no wire",
        "without `slo`",
        "whole period",
        "expired",
        "colour-aware",
        "re-marks excess",
        "promise up to",
    ];
    for part in wanted {
        let found = loaded
            .warnings
            .diagnostics()
            .iter()
            .any(|found| found.message.contains(part));
        assert!(found, "{part}\n{}", loaded.warnings);
    }
    assert_eq!(loaded.warnings.len(), wanted.len(), "{}", loaded.warnings);
}

/// Large files are read in parts, cut at lines such as `[[service]]`; what such a line stands in must not matter.
#[test]
fn cuts_through_something_change_nothing() {
    let inside =
        |owner: &str| format!("{BASE}[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\"]\nowner = {owner}\n");
    let text = "\"\"\"\n[[service]]\nname = \"b\"\n[[contract]]\n\"\"\"";
    let loaded = one(&inside(text)).unwrap();
    assert_eq!(loaded.config.services.len(), 1);
    assert!(
        loaded.config.services[0]
            .owner
            .as_deref()
            .unwrap()
            .starts_with("[[service]]")
    );
    // With blanks or a comment the line is no cut, and a table of the box may follow.
    let text = format!(
        "{BASE}{SERVICE}[[ contract ]] # one\n{}[defaults]\nlayer = \"l2\"\n",
        &CONTRACT[13..]
    )
    .replace("\"egress\"\n", "\"egress\"\nrate = 8000\n");
    let loaded = one(&text).unwrap();
    assert_eq!(loaded.config.contracts.len(), 1);
    assert_eq!(loaded.config.defaults.layer, config::Layer::L2);
    // Places are those of the whole file.
    let text = format!("{BASE}{SERVICE}{CONTRACT}rate = 8000\n");
    let place = one(&text).unwrap().config.contracts[0].place.clone();
    assert_eq!((place.line, place.column), (19, 1));
    // What is wrong only in the whole is still found.
    assert!(one(&format!("{BASE}service = []\n{SERVICE}")).is_err());
    assert!(one(&format!("{BASE}{SERVICE}[service]\n")).is_err());
}
