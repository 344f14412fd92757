//! Commands and files that go into a bundle.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time that one command has.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of one file or command: a log, interrupts of a machine of hundreds of cores.
pub(super) const MOST: u64 = 4 << 20;

/// Most bytes of metrics: 100,000 contracts are some 100 MB, of which the beginning will do.
const METRICS_MOST: u64 = 16 << 20;

/// What a command prints, errors after the rest, or why there is nothing.
pub(super) fn command(line: &[&str]) -> Result<String, String> {
    let mut child = Command::new(line[0])
        .args(&line[1..])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let readers = [
        child.stdout.take().map(|pipe| reader(Box::new(pipe))),
        child.stderr.take().map(|pipe| reader(Box::new(pipe))),
    ];
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                // Gone in the meantime is as good.
                let _killed = child.kill();
                let _reaped = child.wait();
                return Err(format!("no end after {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let texts = readers.into_iter().flatten().filter_map(|reader| reader.join().ok());
    let text = texts.collect::<String>();
    if status.success() {
        Ok(text)
    } else {
        Err(format!(
            "{status}: {}",
            text.lines().next_back().unwrap_or("no message")
        ))
    }
}

fn reader(pipe: Box<dyn Read + Send>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = pipe;
        // What was read until an error is still worth having.
        let _read = pipe.by_ref().take(MOST).read_to_end(&mut bytes);
        // The rest is thrown away, so that the command is not held up.
        let _rest = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The body of `GET path` at a Unix socket.
pub(super) fn http(socket: &Path, path: &str) -> Result<String, String> {
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // 1.0: the answer ends with the connection, in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: weir\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(METRICS_MOST).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(status.to_owned())
    }
}

/// The text of a file, as far as it is not too long.
pub(super) fn file(path: &Path) -> Result<String, String> {
    let open = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    open.take(MOST)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of the machine: (name in the bundle, path).
pub(super) const FILES: [(&str, &str); 15] = [
    ("machine/os-release", "/etc/os-release"),
    ("machine/version", "/proc/version"),
    ("machine/cmdline", "/proc/cmdline"),
    ("machine/cpuinfo", "/proc/cpuinfo"),
    ("machine/meminfo", "/proc/meminfo"),
    ("machine/interrupts", "/proc/interrupts"),
    ("machine/softirqs", "/proc/softirqs"),
    ("machine/softnet_stat", "/proc/net/softnet_stat"),
    ("machine/net_dev", "/proc/net/dev"),
    ("machine/loadavg", "/proc/loadavg"),
    ("machine/limits", "/proc/self/limits"),
    (
        "machine/clocksource",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    ),
    ("machine/cpu_isolated", "/sys/devices/system/cpu/isolated"),
    ("machine/cpu_online", "/sys/devices/system/cpu/online"),
    ("machine/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"),
];

/// The same of commands.
pub(super) const COMMANDS: [(&str, &[&str]); 6] = [
    (
        "log/journal.txt",
        &[
            "journalctl",
            "-u",
            "weir",
            "-n",
            "2000",
            "--no-pager",
            "-o",
            "short-iso-precise",
        ],
    ),
    ("log/kernel.txt", &["dmesg", "--ctime"]),
    ("machine/links.txt", &["ip", "-d", "-s", "link", "show"]),
    ("machine/bridges.txt", &["bridge", "-d", "link", "show"]),
    (
        "machine/unit.txt",
        &["systemctl", "status", "weir", "--no-pager", "--lines=0"],
    ),
    ("machine/bpf.txt", &["bpftool", "net", "show"]),
];

/// Of each interface of a port: (name in the bundle, letters for ethtool).
pub(super) const ETHTOOL: [(&str, &str); 6] = [
    ("driver", "-i"),
    ("features", "-k"),
    ("channels", "-l"),
    ("rings", "-g"),
    ("coalescing", "-c"),
    ("statistics", "-S"),
];
