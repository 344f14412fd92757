//! Requests on the control socket: a line of JSON, from anybody who may open it.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;

use control::socket::{Request, Response};

use crate::live::live;

/// Asks the running gateway, as any client would.
///
/// # Panics
/// It does not answer with a line of JSON; or a request that is understood is not what is written of it.
pub fn run(input: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(input) {
        let again = serde_json::to_vec(&request).expect("it has just been read");
        assert_eq!(serde_json::from_slice::<Request>(&again).ok(), Some(request));
    }
    let Some(live) = live() else { return };
    let mut stream = live.connect("control.sock");
    // It reads 4 KiB and answers; what is not read makes the rest of this fail, and the answer may be lost with it.
    let wrote_all = input.len() <= READ_MAX;
    let _sent = stream.write_all(input).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(0) => panic!("closed without an answer"),
        Ok(_) => drop(serde_json::from_str::<Response>(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))),
        Err(error) => assert!(!wrote_all && error.kind() == ErrorKind::ConnectionReset, "{error}"),
    }
}

/// What is read of a line.
const READ_MAX: usize = 4_096;

/// Each kind of request, sound and not.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let frame = "0200000000010200000000020800450000240000400040110000 0a010203c6336407 9c4001bb00100000 7061796c6f6164";
    let frame = frame.replace(' ', "");
    let explain = |frame: &str, more: &str| {
        format!(r#"{{"command":"explain","question":{{"frame":"{frame}","wire_len":60{more}}}}}"#)
    };
    let show = |kind: &str| format!(r#"{{"command":"show","kind":"{kind}"}}"#);
    let capture = |more: &str| format!(r#"{{"command":"capture","dropped":true,"rate":10,"snaplen":96{more}}}"#);
    let mut seeds: Vec<(String, String)> = [
        "status", "summary", "reload", "running", "confirm", "rollback", "history",
    ]
    .map(|command| (command.to_owned(), format!(r#"{{"command":"{command}"}}"#)))
    .into();
    let named: [(&str, String); 19] = [
        ("show-contract", show("contract")),
        ("show-service", show("service")),
        ("show-class", show("class")),
        ("show-port", show("port")),
        ("show-worker", show("worker")),
        (
            "show-one",
            r#"{"command":"show","kind":"contract","name":"us/gold/egress"}"#.into(),
        ),
        (
            "show-nobody",
            r#"{"command":"show","kind":"worker","name":"-1"}"#.into(),
        ),
        (
            "top",
            r#"{"command":"top","wish":{"rows":5,"text":"W","direction":"egress","class":"gold"}}"#.into(),
        ),
        (
            "top-of-all",
            r#"{"command":"top","wish":{"rows":18446744073709551615}}"#.into(),
        ),
        ("explain", explain(&frame, "")),
        ("explain-at-a-port", explain(&frame, r#","port":"uplink""#)),
        ("explain-nothing", explain("", "")),
        ("explain-half-a-byte", explain("020", "")),
        ("apply", r#"{"command":"apply","wish":{},"by":"noc"}"#.into()),
        (
            "rollback-to",
            r#"{"command":"rollback","version":1,"note":"back"}"#.into(),
        ),
        ("version", r#"{"command":"version","number":1}"#.into()),
        ("capture", capture("")),
        (
            "capture-of",
            capture(
                r#","every":1,"remarked":true,"service":"us","class":"gold","direction":"egress","port":"lan","count":1"#,
            ),
        ),
        (
            "two-lines",
            "{\"command\":\"history\"}\n{\"command\":\"status\"}\n".into(),
        ),
    ];
    seeds.extend(named.map(|(name, text)| (name.to_owned(), text)));
    for (name, text) in [
        ("nothing", ""),
        ("not-json", "status\n"),
        ("unknown", "{\"command\":\"quit\"}"),
        ("an-array", "[[[[[[[["),
    ] {
        seeds.push((name.to_owned(), text.to_owned()));
    }
    seeds
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect()
}
