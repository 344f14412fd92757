//! Configuration files. The input: the base file, and drop-ins behind lines that begin with `#file`.

use std::path::PathBuf;
use std::sync::OnceLock;

use config::{Config, Texts};
use control::compile::Compiler;
use dataplane::clock::Nanos;
use jiff::Timestamp;
use weir_tests::memory::{CONFIG, checked};

/// Reads, checks and compiles them.
///
/// # Panics
/// Neither valid nor an error that says anything; or a valid one leaves the compiler in a state that refuses what it took before.
pub fn run(input: &[u8]) {
    let files = files(input);
    let texts = Texts::new(files);
    let (report, config) = match texts.load() {
        Ok(loaded) => (loaded.warnings, Some(loaded.config)),
        Err(report) => {
            assert!(!report.render(false).is_empty(), "refused without a reason");
            (report, None)
        }
    };
    let _text = (report.render(true), report.to_json().to_string());
    let Some(config) = config else { return };
    let mut compiler = Compiler::new(2, Nanos(100_000));
    static USUAL: OnceLock<Config> = OnceLock::new();
    let usual = USUAL.get_or_init(|| checked(CONFIG));
    let mut compile = |config| compiler.compile(config, Timestamp::UNIX_EPOCH);
    compile(usual).expect("it has always compiled");
    match compile(&config) {
        Ok(compiled) => {
            let _names: Vec<String> = compiled.contracts().map(|(name, _)| name.service.to_owned()).collect();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // Numbers once given stay: whatever came between, the first configuration is still good.
    compile(usual).expect("it has compiled before");
}

fn files(input: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![(PathBuf::from("weir.toml"), Vec::new())];
    for line in input.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b"#file") && files.len() < 8 {
            files.push((PathBuf::from(format!("contracts.d/{}.toml", files.len())), Vec::new()));
        } else if let Some((_, text)) = files.last_mut() {
            text.extend_from_slice(line);
        }
    }
    files
}

/// The examples, each as it is and without its comments, and short ones about every value that is not just a word.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let example = |path: &str| {
        let path = format!("{}/../../config/examples/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let bare = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let minimal = bare(&example("minimal/weir.toml"));
    let mut seeds = vec![
        ("minimal".to_owned(), minimal.clone()),
        ("full".to_owned(), bare(&example("full/weir.toml"))),
        ("every-meter".to_owned(), CONFIG.to_owned()),
    ];
    let contract = "[[service]]\nname = \"a\"\nendpoints = [\"10.0.0.0/8\"]\n[[contract]]\nservice = \"a\"\nregion = \"atn\"\n\
                    class = \"best-effort\"\ndirection = \"egress\"\nrate = \"1 Gbit/s\"\n";
    for (name, line) in [
        ("rate-too-large", "peak_rate = \"999999999999 Tbit/s\""),
        ("burst-as-time", "burst = \"5 ms\""),
        ("burst-too-large", "burst = 18446744073709551615"),
        ("burst-negative", "burst = -1"),
        ("dates", "from = 2026-10-01\nuntil = 2027-01-01T00:00:00Z"),
        ("dates-the-wrong-way-round", "from = 9999-12-31\nuntil = 0000-01-01"),
        ("slo", "slo = \"99.98 %\"\nowner = \"noc\""),
        ("excess", "[contract.excess]\naction = \"drop\"\ngrain = \"flow\""),
        ("float-for-a-rate", "excess_rate = nan"),
        ("unknown-key", "colour = \"green\""),
        ("not-utf-8-in-a-drop-in", "\u{0}\n"),
        (
            "in-a-drop-in",
            "#file\n[[segment]]\nname = \"far\"\nprefixes = [\"::/0\", \"0.0.0.0/0\"]",
        ),
        ("deep", &"a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[".repeat(4)),
        (
            "wide-ports",
            "[[service]]\nname = \"b\"\nendpoints = [\"10.0.0.1 tcp/0-65535,1,2\", \"::1/129\", \"1.2.3.4/33\"]",
        ),
    ] {
        seeds.push((name.to_owned(), format!("{minimal}{contract}{line}\n")));
    }
    seeds
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect()
}
