//! The history on disk: whole or not there after a crash, nothing lost when the disk is full, and damage is said.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::Scratch;
use config::Texts;
use control::change::history::{History, HistoryError, How, TrialRecord, VERSIONS_MAX, Version};
use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

fn version(number: u64) -> Version {
    Version {
        number,
        time: Timestamp::UNIX_EPOCH,
        how: How::Apply,
        author: "alice".into(),
        note: Some("a\nnote".into()),
        summary: "contracts +1".into(),
        generation: number,
        restores: None,
        trial: None,
    }
}

fn texts(content: &str) -> Texts {
    let base = (
        PathBuf::from("/etc/weir/weir.toml"),
        format!("# {content}\n").into_bytes(),
    );
    let drop_in = (
        PathBuf::from("/etc/weir/contracts.d/a.toml"),
        content.as_bytes().to_vec(),
    );
    Texts::new(vec![base, drop_in])
}

fn numbers(history: &History) -> Vec<u64> {
    history.versions().map(|version| version.number).collect()
}

fn file(state: &Path, number: u64) -> PathBuf {
    state.join(format!("history/{number:06}.version"))
}

#[test]
fn what_is_kept_comes_back() {
    let scratch = Scratch::new("history");
    let state = scratch.file("state");
    let mut history = History::open(&state).unwrap();
    assert_eq!((numbers(&history), history.next_number()), (vec![], 1));
    assert!(
        matches!(History::open(&state), Err(HistoryError::Taken(_))),
        "one process at a time writes"
    );
    for number in 1..=3 {
        history
            .append(version(number), &texts(&format!("text {number}")))
            .unwrap();
    }
    let on_trial = Version {
        trial: Some(TrialRecord {
            max_latency_us: None,
            previous: 3,
            until: Timestamp::UNIX_EPOCH,
            max_loss_ppm: 1_000,
            confirmed: false,
        }),
        ..version(4)
    };
    history.append(on_trial, &texts("text 4")).unwrap();
    history.confirm(4).unwrap();
    drop(history);
    let history = History::open(&state).unwrap();
    assert_eq!((numbers(&history), history.next_number()), (vec![1, 2, 3, 4], 5));
    assert_eq!(history.versions().next(), Some(&version(1)));
    assert!(history.newest().unwrap().trial.as_ref().unwrap().confirmed);
    assert_eq!(history.texts(2).unwrap(), texts("text 2"));
    let (now, before) = history.with_predecessor(3).unwrap();
    assert_eq!((now, before), (texts("text 3"), Some(texts("text 2"))));
    assert!(matches!(history.texts(9), Err(HistoryError::Missing { number: 9, .. })));
}

#[test]
fn going_back_again_and_again_goes_further_back() {
    let scratch = Scratch::new("back");
    let mut history = History::open(&scratch.file("state")).unwrap();
    for number in 1..=4 {
        history.append(version(number), &texts(&number.to_string())).unwrap();
    }
    // Each return is a version of its own: 5 is the text of 3, 6 that of 2, 7 that of 1.
    for (number, older) in [(5, 3), (6, 2), (7, 1)] {
        assert_eq!(history.before(number - 1).unwrap().number, older);
        let back = Version {
            restores: Some(older),
            ..version(number)
        };
        history.append(back, &texts(&older.to_string())).unwrap();
    }
    assert_eq!(history.before(7), None);
    // A new text on top of that: what was before it is version 1, not the return to it.
    history.append(version(8), &texts("8")).unwrap();
    assert_eq!(history.before(8).unwrap().number, 1);
}

#[test]
fn the_last_hundred_are_kept() {
    let scratch = Scratch::new("hundred");
    let mut history = History::open(&scratch.file("state")).unwrap();
    for number in 1..=VERSIONS_MAX as u64 + 20 {
        history.append(version(number), &texts("x")).unwrap();
    }
    let kept: Vec<u64> = (21..=VERSIONS_MAX as u64 + 20).collect();
    assert_eq!(numbers(&history), kept);
    assert_eq!(numbers(&History::read(&scratch.file("state")).unwrap()), kept);
}

#[test]
fn half_written_and_damaged_files_are_said_and_left_alone() {
    let scratch = Scratch::new("damage");
    let state = scratch.file("state");
    let mut history = History::open(&state).unwrap();
    for number in 1..=6 {
        history
            .append(version(number), &texts(&format!("text {number}")))
            .unwrap();
    }
    drop(history);
    // A process killed while it wrote leaves its temporary file.
    let leftover = state.join("history/000007.tmp");
    fs::write(&leftover, "{\"format\":1,").unwrap();
    let cut = |number: u64, keep: usize| {
        let bytes = fs::read(file(&state, number)).unwrap();
        fs::write(file(&state, number), &bytes[..keep.min(bytes.len() - 1)]).unwrap();
    };
    cut(2, usize::MAX);
    cut(3, 40);
    cut(6, 0);
    let mut flipped = fs::read(file(&state, 4)).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(file(&state, 4), flipped).unwrap();
    fs::copy(file(&state, 1), file(&state, 9)).unwrap();
    fs::write(state.join("history/notes.txt"), "not ours").unwrap();

    let mut history = History::open(&state).unwrap();
    assert!(!leftover.exists());
    assert_eq!(numbers(&history), [1, 4, 5]);
    assert_eq!(history.damaged().len(), 4, "{:?}", history.damaged());
    let error = history.texts(4).unwrap_err().to_string();
    assert!(error.contains("000004.version is damaged"), "{error}");
    assert_eq!(history.texts(5).unwrap(), texts("text 5"));
    // A damaged file is evidence: its number is not given again.
    assert_eq!(history.next_number(), 10);
    history.append(version(10), &texts("text 10")).unwrap();
    for number in [2, 3, 6, 9] {
        assert!(file(&state, number).exists());
    }
}

#[test]
fn every_cut_of_a_file_is_noticed() {
    let scratch = Scratch::new("cuts");
    let state = scratch.file("state");
    History::open(&state)
        .unwrap()
        .append(version(1), &texts("text"))
        .unwrap();
    let whole = fs::read(file(&state, 1)).unwrap();
    for length in 0..whole.len() {
        fs::write(file(&state, 1), &whole[..length]).unwrap();
        let history = History::read(&state).unwrap();
        assert_eq!(
            (numbers(&history), history.damaged().len()),
            (vec![], 1),
            "cut at {length}"
        );
    }
    // And one that says of itself that it is larger than the world.
    let header = String::from_utf8_lossy(&whole).replacen("\"bytes\":4}", "\"bytes\":18446744073709551615}", 1);
    fs::write(file(&state, 1), header).unwrap();
    assert_eq!(History::read(&state).unwrap().damaged().len(), 1);
}

/// Runs `inside` with a tmpfs of `bytes` over `directory`, in a mount namespace of its own thread. False: not allowed to.
fn on_a_small_disk(directory: &Path, bytes: usize, inside: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none: Option<&str> = None;
            let size = format!("size={bytes}");
            let mounted = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
                .and_then(|()| {
                    mount(
                        Some("small"),
                        directory,
                        Some("tmpfs"),
                        MsFlags::empty(),
                        Some(size.as_str()),
                    )
                });
            if let Err(error) = mounted {
                // Not by eprintln, which the test harness hides when a test passes.
                let _written = writeln!(std::io::stderr(), "SKIPPED (needs root): a full disk: {error}");
                return false;
            }
            inside();
            true
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_full_disk_costs_the_new_version_and_no_old_one() {
    let scratch = Scratch::new("full");
    on_a_small_disk(&scratch.file(""), 256 << 10, || {
        let state = scratch.file("state");
        let mut history = History::open(&state).unwrap();
        let large = |number: u64| texts(&number.to_string().repeat(50_000));
        let mut failed = None;
        for number in 1..=9 {
            match history.append(version(number), &large(number)) {
                Ok(()) => {}
                Err(error) => {
                    failed = Some((number, error.to_string()));
                    break;
                }
            }
        }
        let (number, error) = failed.expect("the disk is small");
        assert!(
            number > 1 && error.contains("No space left on device"),
            "{number}: {error}"
        );
        let kept: Vec<u64> = (1..number).collect();
        assert_eq!(numbers(&history), kept);
        assert!(
            kept.iter()
                .all(|&number| history.texts(number).unwrap() == large(number))
        );
        assert!(history.confirm(1).unwrap_err().to_string().contains("No space"));
        drop(history);
        // What half a file left of the room is free again, and a small version fits.
        let mut history = History::open(&state).unwrap();
        assert_eq!((numbers(&history), history.damaged().len()), (kept, 0));
        history.append(version(number), &texts("small")).unwrap();
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_name() {
    let scratch = Scratch::new("read-only");
    fs::write(scratch.file("state"), "a file").unwrap();
    let error = History::open(&scratch.file("state")).unwrap_err().to_string();
    assert!(error.contains("create") && error.contains("state/history"), "{error}");
    assert!(numbers(&History::read(&scratch.file("nowhere")).unwrap()).is_empty());
}
