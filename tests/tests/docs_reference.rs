//! The reference pages are what the program says. `WEIR_DOCS_WRITE=1` writes them anew. Needs root, curl and python3.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use weir_tests::documents::repository;
use weir_tests::gateway::{Config, Gateway, Layout, SITE, Stream, WAN, contract, text};
use weir_tests::weir_binary;

const PAGES: [&str; 4] = ["cli.md", "configuration.md", "api.md", "metrics.md"];

#[test]
fn reference_pages_are_what_the_program_says() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    // A contract that drops, because a reason is in a scrape only once it has happened.
    let policed = contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "100 kbit/s", "15 kB");
    let weir = gateway.start(&Config {
        contracts: policed + "[contract.excess]\naction = \"drop\"\n",
        wan_rate: "50 Mbit/s",
        ..Config::default()
    });
    gateway.warm();
    let stream = Stream {
        from: SocketAddr::new(SITE.parse().unwrap(), 0),
        to: SocketAddr::new(WAN.parse().unwrap(), 7000),
        packets: 500,
        per_second: 1000,
        payload: 1000,
        tos: 0,
    };
    let _score = stream.start(&gateway.site, &gateway.wan).finish();
    let scrape = gateway.directory.path().join("scrape");
    let mut curl = Command::new("curl");
    curl.args(["-sf", "http://weir/metrics", "--unix-socket"])
        .arg(weir.socket.with_file_name("api.sock"));
    let answer = curl.arg("-o").arg(&scrape).output().expect("curl");
    assert!(answer.status.success(), "{}", text(&answer));

    let docs = repository().join("docs/reference");
    let wanted = tempfile::tempdir().unwrap();
    let directory = match std::env::var_os("WEIR_DOCS_WRITE") {
        Some(_) => docs.as_path(),
        None => wanted.path(),
    };
    let mut generate = Command::new("python3");
    generate
        .arg(docs.join("generate.py"))
        .arg(weir_binary())
        .arg(directory)
        .arg("--metrics")
        .arg(&scrape);
    let made = generate.output().expect("python3");
    assert!(made.status.success(), "{}", text(&made));
    for page in PAGES {
        let (is, should_be) = (
            fs::read_to_string(docs.join(page)),
            fs::read_to_string(directory.join(page)),
        );
        let (is, should_be) = (is.unwrap(), should_be.unwrap());
        let first = is
            .lines()
            .zip(should_be.lines())
            .find(|(is, should_be)| is != should_be);
        assert!(
            is == should_be,
            "docs/reference/{page}: {first:?}: write it anew: WEIR_DOCS_WRITE=1 cargo test -p weir-tests --test docs_reference"
        );
    }
}
