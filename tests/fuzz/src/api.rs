//! HTTP requests to the API. The input: a byte that says over which door (even: the Unix socket, odd: TCP with a token), then the
//! bytes of the connection; `$TOKEN` in it stands for the token.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::live::{Live, TOKEN, live};

/// Sends it to the running gateway, as any client would.
///
/// # Panics
/// The answer is no HTTP, says that weir failed, or tells what the token guards; or the next client is not served.
pub fn run(input: &[u8]) {
    let Some((&door, bytes)) = input.split_first() else {
        return;
    };
    let Some(live) = live() else { return };
    let answer = if door % 2 == 0 {
        let mut stream = live.connect("api.sock");
        let _sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        read(stream)
    } else {
        let bytes = with_token(bytes);
        let mut stream = live.connect_tcp();
        let _sent = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let answer = read(stream);
        let shown = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        let tells = [
            "\"uptime_seconds\":",
            "\"ledger\":",
            "\"workers\":",
            "\"events\":",
            "# TYPE weir_",
        ]
        .iter()
        .any(|word| answer.contains(word));
        assert!(shown || !tells, "told without a token: {answer}");
        answer
    };
    assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
    assert!(!answer.starts_with("HTTP/1.1 500"), "{answer}");
    next_client(live);
}

fn read(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // It closes on what it has not read.
        assert!(
            matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{error}"
        );
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn next_client(live: &Live) {
    let mut stream = live.connect("api.sock");
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n")
        .expect("it is taken");
    let answer = read(stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "the next client gets {answer:?}");
}

fn with_token(bytes: &[u8]) -> Vec<u8> {
    let mark = b"$TOKEN";
    match bytes.windows(mark.len()).position(|window| window == mark) {
        Some(at) => [&bytes[..at], TOKEN.as_bytes(), &bytes[at + mark.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Each path, sound and not.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let mut seeds: Vec<(String, u8, String)> = Vec::new();
    let paths = [
        ("metrics", "/metrics"),
        ("livez", "/livez"),
        ("readyz", "/readyz"),
        ("status", "/api/v1/status"),
        (
            "contracts",
            "/api/v1/contracts?service=us&class=gold&direction=egress&search=G&sort=trouble&offset=0&limit=1",
        ),
        ("contracts-with-a-wrong-limit", "/api/v1/contracts?limit=0"),
        (
            "contracts-with-percent",
            "/api/v1/contracts?segment=%66%61%72&search=%ff%00",
        ),
        (
            "contracts-with-the-largest",
            "/api/v1/contracts?offset=18446744073709551615&limit=1000",
        ),
        ("ports", "/api/v1/ports"),
        ("workers", "/api/v1/workers"),
        ("history", "/api/v1/history"),
        ("events", "/api/v1/events?after=1"),
        ("nowhere", "/api/v2/../../etc/passwd"),
        ("page", "/"),
        ("absolute", "http://localhost/livez"),
    ];
    for (name, path) in paths {
        seeds.push((name.to_owned(), 0, get(path, "")));
        seeds.push((
            format!("{name}-with-a-token"),
            1,
            get(path, "Authorization: Bearer $TOKEN\r\n"),
        ));
    }
    for (name, door, text) in [
        ("no-token", 1, get("/api/v1/status", "")),
        (
            "half-a-token",
            1,
            get("/api/v1/status", "Authorization: Bearer 01234567\r\n"),
        ),
        (
            "openmetrics",
            0,
            get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n"),
        ),
        (
            "two-at-once",
            0,
            get("/livez", "") + &get("/readyz", "Connection: close\r\n"),
        ),
        ("body-announced", 0, get("/livez", "Content-Length: 99999999999\r\n")),
        ("body-small", 0, get("/livez", "Content-Length: 4\r\n") + "body"),
        (
            "chunks",
            0,
            get("/livez", "Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\n",
        ),
        ("upgrade", 0, get("/", "Upgrade: websocket\r\nConnection: Upgrade\r\n")),
        ("post", 0, "POST /livez HTTP/1.0\r\n\r\n".into()),
        ("no-host", 1, "HEAD /livez HTTP/1.1\r\n\r\n".into()),
        ("cut", 0, "GET /livez HT".into()),
        ("http-2", 0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("no-http", 0, "\u{16}\u{3}\u{1}".into()),
        ("many-headers", 0, get("/livez", &"X: y\r\n".repeat(70))),
        ("long-path", 0, get(&"/x".repeat(1_000), "")),
    ] {
        seeds.push((name.to_owned(), door, text));
    }
    let bytes = seeds
        .into_iter()
        .map(|(name, door, text)| (name, [&[door], text.as_bytes()].concat()));
    bytes.collect()
}
