//! Clients that mean no good, or are broken, while a gateway forwards: they get a clear answer or none, everybody else is
//! served, and no packet is lost. Needs root and curl.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use weir_tests::gateway::http::{ADDRESS, TOKEN, get, get_tcp, with_tcp};
use weir_tests::gateway::{Config, Gateway, Layout, Weir, contract};

fn start(gateway: &Gateway) -> Weir {
    let contracts = contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "20 Mbit/s", "100 kB");
    let config = Config {
        contracts,
        ..Config::default()
    };
    let weir = gateway.start(&with_tcp(gateway, config));
    gateway.warm();
    weir
}

fn connect(gateway: &Gateway) -> TcpStream {
    let stream = gateway
        .gw
        .run(|| TcpStream::connect(ADDRESS))
        .expect("a thread in the namespace");
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// What comes back for these bytes until the other end closes; nothing if it just closes.
fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = connect(gateway);
    // It may have closed already: that is an answer too.
    let _written = stream.write_all(bytes);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error} after {answer:?}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn only_the_token_opens_tcp() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = start(&gateway);
    let running = gateway.traffic(4000, 2);
    let header = |token: &str| format!("Authorization: Bearer {token}");
    let (right, wrong, short) = (header(TOKEN), header(&TOKEN.replace('f', "e")), header("x"));
    for path in ["/metrics", "/api/v1/status", "/api/v1/contracts", "/nothing"] {
        for arguments in [
            &[][..],
            &["-H", &wrong],
            &["-H", &short],
            &["-H", "Authorization: Basic eDp5"],
        ] {
            let (status, body) = get_tcp(&gateway, arguments, path);
            assert!(
                status == 401 && body.contains("token"),
                "{path} {arguments:?}: {status} {body}"
            );
            assert!(!body.contains(TOKEN));
        }
        let (status, _) = get_tcp(&gateway, &["-H", &right], path);
        assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get_tcp(&gateway, &[], path).0, 200, "{path}");
    }
    assert_eq!(
        get(&gateway, &[], "/api/v1/status").0,
        200,
        "files' permissions guard the Unix socket"
    );
    gateway.check_nothing_lost(&running.finish(), &weir);
}

#[test]
fn malformed_requests_and_huge_bodies_are_refused() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = start(&gateway);
    let running = gateway.traffic(4000, 4);
    let long = format!("GET /{} HTTP/1.1\r\nHost: w\r\n\r\n", "x".repeat(100_000));
    let wide = format!("GET /livez HTTP/1.1\r\nHost: w\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let cases: [(&[u8], &str); 7] = [
        (b"\0\0\0\0\r\n\r\n", "400"),
        (b"GET\r\n\r\n", "400"),
        (b"GET /livez HTTP/9.9\r\n\r\n", "400"),
        (b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (long.as_bytes(), "41"),
        (wide.as_bytes(), "431"),
    ];
    for (bytes, status) in cases {
        let answer = exchange(&gateway, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let refused =
            answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.contains(" 431 ");
        assert!(refused, "{shown:?}: {answer}");
    }
    // A gigabyte that is announced, and one that is not: refused before it is sent.
    for header in ["Content-Length: 1073741824", "Transfer-Encoding: chunked"] {
        let head = format!("GET /livez HTTP/1.1\r\nHost: w\r\n{header}\r\n\r\n");
        let (mut stream, start) = (connect(&gateway), Instant::now());
        stream.write_all(head.as_bytes()).unwrap();
        let sent = send_gigabyte(&mut stream);
        assert!(sent < 64 << 20, "{header}: {sent} bytes were taken");
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{header}: {:?}",
            start.elapsed()
        );
        let answer = exchange(&gateway, head.as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("takes a request body"),
            "{answer}"
        );
    }
    assert_eq!(get(&gateway, &["-d", "small"], "/livez").0, 405);
    assert_eq!(get(&gateway, &["-X", "GET", "-d", "small"], "/livez").0, 200);
    gateway.check_nothing_lost(&running.finish(), &weir);
}

/// Sends as much of a gigabyte as the other end takes, and says how much that was.
fn send_gigabyte(stream: &mut TcpStream) -> usize {
    let (piece, mut sent) = ([b'0'; 64 << 10], 0);
    while sent < 1 << 30 {
        match stream.write(&piece) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn a_thousand_connections_keep_nobody_out() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = start(&gateway);
    let running = gateway.traffic(4000, 5);
    let before = weir.open_files();
    let idle: Vec<TcpStream> = (0..500).map(|_| connect(&gateway)).collect();
    let path = gateway.directory.path().join("api.sock");
    let idle_unix: Vec<UnixStream> = (0..500).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let (start, header) = (Instant::now(), format!("Authorization: Bearer {TOKEN}"));
    assert_eq!(get(&gateway, &[], "/metrics").0, 200);
    assert_eq!(get_tcp(&gateway, &["-H", &header], "/metrics").0, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let open = weir.open_files();
    assert!(
        open < before + 80,
        "{before} files open before, {open} with a thousand connections"
    );
    assert!(weir.ask(&["reload"]).status.success(), "the control socket is served");
    drop((idle, idle_unix));
    gateway.check_nothing_lost(&running.finish(), &weir);
}

#[test]
fn slow_clients_are_let_go() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = start(&gateway);
    let running = gateway.traffic(4000, 8);
    let (start, mut slow) = (Instant::now(), connect(&gateway));
    slow.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // A header line now and then never ends the head.
    let closed = loop {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "still open after {:?}",
            start.elapsed()
        );
        let written = slow.write_all(b"X: y\r\n");
        let mut answer = [0; 512];
        match slow.read(&mut answer) {
            Ok(0) => break start.elapsed(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && written.is_ok() => {}
            Err(_) => break start.elapsed(),
        }
    };
    assert!(closed > Duration::from_secs(4), "closed after {closed:?} already");
    assert_eq!(get(&gateway, &[], "/readyz").0, 200);
    gateway.check_nothing_lost(&running.finish(), &weir);
}

/// Scrapes come every fifteen seconds or so, on one connection.
#[test]
fn who_comes_back_after_a_while_keeps_the_connection() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = start(&gateway);
    let mut stream = UnixStream::connect(gateway.directory.path().join("api.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ask = || {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: w\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            let mut piece = [0; 512];
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(answer).unwrap()
    };
    assert!(ask().starts_with("HTTP/1.1 200"));
    // Longer than a head may take.
    std::thread::sleep(Duration::from_secs(7));
    assert!(ask().starts_with("HTTP/1.1 200"));
    weir.stop();
}
