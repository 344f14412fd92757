//! Every input of the corpus through its target, without any tool for fuzzing: what was once found stays mended. `api` and
//! `control` ask a running gateway, which takes root.

use std::path::Path;
use std::time::Instant;

use weir_fuzz::{TARGETS, corpus, find};

fn replay(name: &str) {
    let target = find(name).expect("a target of this name");
    let mut seen = 0;
    let began = Instant::now();
    for file in std::fs::read_dir(corpus(target)).expect("its corpus") {
        let path = file.expect("a file").path();
        let input = std::fs::read(&path).expect("a file that can be read");
        let failed = std::panic::catch_unwind(|| (target.run)(&input)).is_err();
        assert!(!failed, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 12, "{name}: {seen} inputs are no corpus");
    println!("{name}: {seen} inputs in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn frame() {
    replay("frame");
}

#[test]
fn path() {
    replay("path");
}

#[test]
fn configuration() {
    replay("configuration");
}

#[test]
fn capture() {
    replay("capture");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn api() {
    replay("api");
}

#[test]
fn words() {
    replay("words");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    for target in &TARGETS {
        for (name, bytes) in (target.seeds)() {
            let kept = std::fs::read(corpus(target).join(&name)).ok();
            let is_kept = kept.is_some_and(|kept| kept == bytes);
            assert!(
                is_kept,
                "{} {name}: run `cargo run -p weir-fuzz --bin fuzz-corpus`",
                target.name
            );
        }
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names = std::fs::read_dir(directory).expect("the corpora");
    for name in names {
        let name = name.expect("a directory").file_name();
        assert!(find(&name.to_string_lossy()).is_some(), "{name:?} has no target");
    }
}
