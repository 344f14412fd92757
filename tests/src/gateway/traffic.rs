//! Senders and receivers in the hosts' namespaces: plain UDP sockets, raw frames, tcpdump.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use pktgen::lab::Namespace;

use crate::capture::{self, Packet};

/// A stream of numbered UDP packets at a constant rate.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Source: an address of the sending host; port 0 lets the kernel choose.
    pub from: SocketAddr,
    /// Destination: an address of the receiving host.
    pub to: SocketAddr,
    /// Packets in all.
    pub packets: u32,
    /// Packets per second.
    pub per_second: u32,
    /// Bytes of UDP payload, at least 4.
    pub payload: usize,
    /// The whole traffic class byte: DSCP and ECN.
    pub tos: u8,
}

/// A stream on its way.
pub struct Running {
    sender: JoinHandle<u32>,
    receiver: JoinHandle<Vec<Arrival>>,
    enough: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

/// A packet of a stream at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u32,
    /// When the receiver read it.
    pub at: Instant,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Packets sent.
    pub sent: u32,
    /// Packets that arrived, each counted once.
    pub received: u32,
    /// Packets that arrived more than once.
    pub duplicates: u32,
    /// Packets that arrived after one of a higher number.
    pub reordered: u32,
}

impl Score {
    /// Packets that never arrived.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }

    /// What became of a stream whose packets arrived so.
    #[must_use]
    pub fn of(sent: u32, arrivals: &[Arrival]) -> Self {
        let mut seen = vec![false; sent as usize];
        let mut score = Self {
            sent,
            received: 0,
            duplicates: 0,
            reordered: 0,
        };
        let mut highest = None;
        for &Arrival { number, .. } in arrivals {
            let first = !std::mem::replace(&mut seen[number as usize], true);
            score.received += u32::from(first);
            score.duplicates += u32::from(!first);
            score.reordered += u32::from(highest.is_some_and(|highest| number < highest));
            highest = highest.max(Some(number));
        }
        score
    }
}

/// Time without a packet after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);
/// How far behind its rate a sender may be before it gives up to catch up.
const BEHIND_MAX: Duration = Duration::from_millis(10);
/// Receive buffer: a receiver that loses its core for a moment must not look like a gateway that loses packets.
const RECEIVE_BUFFER: usize = 32 << 20;

impl Stream {
    /// Packets of 228 bytes from the site's host to the WAN's.
    #[must_use]
    pub fn to_wan(per_second: u32, seconds: u32) -> Self {
        let address = |text: &str, port| SocketAddr::new(text.parse().expect("an address"), port);
        Self {
            from: address(super::SITE, 0),
            to: address(super::WAN, 7000),
            packets: per_second * seconds,
            per_second,
            payload: 200,
            tos: 0,
        }
    }

    /// Starts sending from one namespace and receiving in another.
    ///
    /// # Panics
    ///
    /// When an address cannot be bound.
    #[must_use]
    pub fn start(self, sender: &Namespace, receiver: &Namespace) -> Running {
        let done = Arc::new(AtomicBool::new(false));
        let into = udp_socket(receiver, self.to);
        into.set_read_timeout(Some(QUIET)).expect("a timeout");
        let from = udp_socket(sender, self.from);
        set_traffic_class(&from, self.tos);
        let (ended, enough) = (done.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = enough.clone();
        Running {
            receiver: std::thread::spawn(move || receive(&into, &ended)),
            sender: std::thread::spawn(move || self.send(&from, &stopped)),
            enough,
            done,
        }
    }

    /// As [`start`](Self::start), and waits for the end.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    #[must_use]
    pub fn run(self, sender: &Namespace, receiver: &Namespace) -> Score {
        self.start(sender, receiver).finish()
    }

    fn send(&self, socket: &UdpSocket, enough: &AtomicBool) -> u32 {
        let mut payload = vec![0x5a; self.payload];
        let mut start = Instant::now();
        let mut sent = 0;
        while sent < self.packets && !enough.load(Ordering::Relaxed) {
            // A sender that lost its core does not make up for it: that would be a burst nobody asked for.
            let on_time = Duration::from_secs_f64(f64::from(sent) / f64::from(self.per_second));
            start = start.max(Instant::now().checked_sub(on_time + BEHIND_MAX).unwrap_or(start));
            let elapsed = start.elapsed().as_secs_f64();
            let due = ((elapsed * f64::from(self.per_second)) as u32).min(self.packets);
            while sent < due {
                payload[..4].copy_from_slice(&sent.to_be_bytes());
                match socket.send_to(&payload, self.to) {
                    Ok(_) => sent += 1,
                    // The device's queue is full for the moment.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("send to {}: {error}", self.to),
                }
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    }
}

impl Running {
    /// Waits until all is sent and nothing more arrives.
    ///
    /// # Panics
    ///
    /// When a socket failed.
    #[must_use]
    pub fn finish(self) -> Score {
        let (sent, arrivals) = self.arrivals();
        Score::of(sent, &arrivals)
    }

    /// As [`finish`](Self::finish): how many were sent, and what arrived, in order of arrival.
    ///
    /// # Panics
    ///
    /// When a socket failed.
    #[must_use]
    pub fn arrivals(self) -> (u32, Vec<Arrival>) {
        let sent = self.sender.join().expect("the sender goes through");
        self.done.store(true, Ordering::Release);
        let arrivals = self.receiver.join().expect("the receiver goes through");
        (sent, arrivals)
    }

    /// Sends no more, and then as [`arrivals`](Self::arrivals).
    ///
    /// # Panics
    ///
    /// When a socket failed.
    #[must_use]
    pub fn stop(self) -> (u32, Vec<Arrival>) {
        self.enough.store(true, Ordering::Relaxed);
        self.arrivals()
    }

    /// Whether the sender has still something to send.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        !self.sender.is_finished()
    }
}

fn receive(socket: &UdpSocket, done: &AtomicBool) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut packet = vec![0; 65_536];
    loop {
        let ending = done.load(Ordering::Acquire);
        match socket.recv(&mut packet) {
            Ok(_) => arrivals.push(Arrival {
                number: u32::from_be_bytes(packet[..4].try_into().expect("four bytes")),
                at: Instant::now(),
            }),
            Err(_) if ending => return arrivals,
            Err(_) => {}
        }
    }
}

/// A UDP socket in a namespace, with a large receive buffer.
///
/// # Panics
///
/// When the address cannot be bound.
#[must_use]
pub fn udp_socket(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = namespace
        .run(|| UdpSocket::bind(address))
        .expect("a thread in the namespace")
        .unwrap_or_else(|error| panic!("bind {address}: {error}"));
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("a receive buffer");
    socket
}

fn set_traffic_class(socket: &UdpSocket, tos: u8) {
    let tos = i32::from(tos);
    let is_v6 = socket.local_addr().expect("a bound socket").is_ipv6();
    let set = if is_v6 {
        setsockopt(socket, sockopt::Ipv6TClass, &tos)
    } else {
        setsockopt(socket, sockopt::Ipv4Tos, &tos)
    };
    set.expect("a traffic class");
}

/// Sends whole Ethernet frames from an interface, as they are.
///
/// # Panics
///
/// When the kernel refuses one.
pub fn send_frames(namespace: &Namespace, interface: &str, frames: &[Vec<u8>]) {
    let send = || -> nix::Result<()> {
        let to = link_address(interface)?;
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        for frame in frames {
            sendto(raw.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        }
        Ok(())
    };
    namespace
        .run(send)
        .expect("a thread in the namespace")
        .unwrap_or_else(|errno| panic!("send from {interface}: {errno}"));
}

fn link_address(interface: &str) -> nix::Result<LinkAddr> {
    let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|found| found.interface_name == interface);
    let link = addresses.find_map(|found| {
        let address = found.address?;
        (address.family() == Some(AddressFamily::Packet)).then(|| address.as_link_addr().copied())?
    });
    link.ok_or(nix::errno::Errno::ENODEV)
}

/// What arrives at an interface, by tcpdump.
pub struct Capture {
    tcpdump: Child,
    path: PathBuf,
}

impl Capture {
    /// Starts capturing what comes in and matches `filter` (`tcpdump` syntax) into `path`.
    ///
    /// # Panics
    ///
    /// When tcpdump cannot be started.
    #[must_use]
    pub fn start(namespace: &Namespace, interface: &str, filter: &str, path: &Path) -> Self {
        let mut command = Command::new("tcpdump");
        command
            .args(["-i", interface, "-Q", "in", "-n", "-U", "-B", "32768", "-s", "65535"])
            .args(["--immediate-mode", "--nano", "-Z", "root", "-w"])
            .arg(path)
            .arg(filter)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut tcpdump = namespace.spawn(&mut command).expect("tcpdump starts");
        let stderr = tcpdump.stderr.take().expect("a pipe");
        let mut said = String::new();
        let mut lines = BufReader::new(stderr);
        // It says so when the socket is open; the rest of what it says fits the pipe.
        while !said.contains("listening on") {
            let read = lines.read_line(&mut said).expect("tcpdump speaks");
            assert!(read > 0, "tcpdump: {said}");
        }
        tcpdump.stderr = Some(lines.into_inner());
        Self {
            tcpdump,
            path: path.to_owned(),
        }
    }

    /// Waits a moment for the last packets, ends tcpdump and reads what it wrote.
    ///
    /// # Panics
    ///
    /// When the file is no capture.
    #[must_use]
    pub fn finish(mut self) -> Vec<Packet> {
        std::thread::sleep(QUIET);
        let pid = Pid::from_raw(i32::try_from(self.tcpdump.id()).expect("a process id"));
        kill(pid, Signal::SIGINT).expect("tcpdump is there");
        self.tcpdump.wait().expect("tcpdump ends");
        capture::read(&self.path).expect("a capture")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Ended already in the usual case.
        let _killed = self.tcpdump.kill();
        let _reaped = self.tcpdump.wait();
    }
}
