//! Clients that the control socket must outlive: none of them keeps a later, decent one from its answer.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Chance, Scratch};
use control::socket::{Call, ControlSocket, Request, Response, ask, ask_status_text};
use control::status::Status;
use control::top::selection::TopWish;
use crossbeam::channel::unbounded;

/// A control thread that answers every request by a refusal of `answer_len` bytes.
fn serve(scratch: &Scratch, answer_len: usize) -> (ControlSocket, PathBuf) {
    serve_answer(
        scratch,
        Response::Refused {
            reason: "x".repeat(answer_len),
        },
    )
}

fn serve_answer(scratch: &Scratch, answer: Response) -> (ControlSocket, PathBuf) {
    let path = scratch.file("control.sock");
    let (sender, calls) = unbounded::<Call>();
    let socket = ControlSocket::bind(&path).unwrap().listen(sender).unwrap();
    std::thread::spawn(move || {
        for call in calls {
            let _gone = call.answer.send(answer.clone());
        }
    });
    (socket, path)
}

fn decent(path: &Path) -> bool {
    matches!(ask(path, &Request::Status), Ok(Response::Refused { .. }))
}

/// Waits until a decent client is served again; a full house may turn it away for as long as its guests are suffered.
fn decent_within(path: &Path, patience: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        if decent(path) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn garbage_is_answered_and_forgotten() {
    let scratch = Scratch::new("garbage");
    let (_socket, path) = serve(&scratch, 10);
    let mut chance = Chance::seeded("socket", 3);
    for _ in 0..200 {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut garbage: Vec<u8> = (0..chance.below(600)).map(|_| chance.next() as u8).collect();
        garbage.push(b'\n');
        let _gone = client.write_all(&garbage);
        let mut answer = Vec::new();
        let _reset = client.read_to_end(&mut answer);
        let text = String::from_utf8(answer).unwrap();
        assert!(text.is_empty() || text.contains("invalid"), "{text}");
    }
    assert!(decent(&path));
}

#[test]
fn a_huge_line_costs_four_kilobytes() {
    let scratch = Scratch::new("huge");
    let (_socket, path) = serve(&scratch, 10);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let written = (0..1_000)
        .take_while(|_| client.write_all(&[b'a'; 65_536]).is_ok())
        .count();
    assert!(written < 1_000, "64 MB of one line were taken");
    assert!(decent(&path));
}

#[test]
fn a_hundred_silent_clients_are_suffered_for_two_seconds() {
    let scratch = Scratch::new("silent");
    let (_socket, path) = serve(&scratch, 10);
    let silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert!(decent_within(&path, Duration::from_secs(8)));
    drop(silent);
}

#[test]
fn a_request_that_is_too_long_is_told_so() {
    let scratch = Scratch::new("long");
    let (_socket, path) = serve(&scratch, 10);
    let wish = TopWish {
        text: "x".repeat(5_000),
        ..TopWish::default()
    };
    let Ok(Response::Invalid { reason }) = ask(&path, &Request::Top { wish }) else {
        panic!("another answer");
    };
    assert!(reason.contains("at most 4096 bytes"), "{reason}");
}

#[test]
fn a_client_that_is_turned_away_is_told_why() {
    let scratch = Scratch::new("full");
    let (_socket, path) = serve(&scratch, 10);
    let silent: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&path).unwrap()).collect();
    // Those before it are being waited for, two seconds each.
    let error = ask(&path, &Request::Status).unwrap_err().to_string();
    assert!(error.contains("16 at once") && error.contains("try again"), "{error}");
    drop(silent);
    assert!(decent_within(&path, Duration::from_secs(8)));
}

#[test]
fn a_request_that_nobody_takes_has_failed_and_was_not_wrong() {
    let scratch = Scratch::new("nobody");
    let path = scratch.file("control.sock");
    let (sender, calls) = unbounded::<Call>();
    let _socket = ControlSocket::bind(&path).unwrap().listen(sender).unwrap();
    drop(calls);
    let Ok(Response::Failed { reason }) = ask(&path, &Request::Status) else {
        panic!("another answer");
    };
    assert_eq!(reason, "weir is stopping");
}

#[test]
fn clients_that_trickle_are_suffered_for_two_seconds() {
    let scratch = Scratch::new("trickle");
    let (_socket, path) = serve(&scratch, 10);
    let mut slow: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        for client in &mut slow {
            let _gone = client.write(b" ");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(decent(&path), "the slow ones are still being read");
}

#[test]
fn clients_that_read_slowly_or_vanish_hold_nobody_up() {
    let scratch = Scratch::new("vanish");
    let (_socket, path) = serve(&scratch, 4 << 20);
    for _ in 0..50 {
        let mut client = UnixStream::connect(&path).unwrap();
        let _gone = client.write_all(b"{\"command\":\"status\"}\n");
    }
    // These read a little now and then, so that no single write of the answer waits for long.
    let mut slow: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for client in &mut slow {
        let _gone = client.write_all(b"{\"command\":\"status\"}\n");
    }
    let start = Instant::now();
    let mut chunk = [0; 64 << 10];
    while start.elapsed() < Duration::from_secs(5) {
        for client in &mut slow {
            client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _some = client.read(&mut chunk);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(
        decent_within(&path, Duration::from_secs(4)),
        "slow readers hold all places"
    );
}

#[test]
fn a_status_is_passed_on_as_it_was_written() {
    let scratch = Scratch::new("text");
    let mut status = Status {
        region: "line\nbreak, \"quotes\" and ü".repeat(10_000),
        ..Status::default()
    };
    status.traffic.contracts.push(Default::default());
    let (_socket, path) = serve_answer(&scratch, Response::Status(Box::new(status.clone())));
    let text = ask_status_text(&path).unwrap().unwrap();
    assert_eq!(text, serde_json::to_string(&status).unwrap());
    assert!(matches!(ask(&path, &Request::Status), Ok(Response::Status(same)) if *same == status));

    let scratch = Scratch::new("refused-text");
    let (_socket, path) = serve(&scratch, 10);
    assert!(matches!(ask_status_text(&path), Ok(Err(Response::Refused { .. }))));
}

/// The appliance may end while it answers.
#[test]
fn half_an_answer_is_none() {
    let scratch = Scratch::new("half");
    let path = scratch.file("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let halves = [
        "",
        "{\"answer\":\"status\",",
        "{\"answer\":\"status\",\"version\":\"1\"}",
        "\n",
        "{}\n",
    ];
    let served = std::thread::spawn(move || {
        for half in halves {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _read = stream.read(&mut request).unwrap();
            stream.write_all(half.as_bytes()).unwrap();
        }
    });
    for half in halves {
        assert!(ask_status_text(&path).is_err(), "{half:?}");
    }
    served.join().unwrap();
}

#[test]
fn only_a_socket_is_replaced() {
    let scratch = Scratch::new("file");
    let path = scratch.file("precious.toml");
    std::fs::write(&path, "precious").unwrap();
    assert!(ControlSocket::bind(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
