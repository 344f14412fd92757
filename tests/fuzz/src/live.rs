//! A real `weir run` inside this process, so that what it does is seen: on veth links of its own network namespace, with its
//! control socket, its HTTP API on a Unix socket and over TCP, its confinement, and two ports that nobody sends to.
//!
//! It is started by the first input that needs it and goes with the process. Takes root.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use control::run::{RunOptions, run};
use pktgen::lab::{self, LabError, Namespace, VethEnd, links};
use tempfile::TempDir;
use weir_tests::memory::CONFIG;

/// What TCP clients show.
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// A running gateway.
pub(crate) struct Live {
    namespace: Namespace,
    directory: TempDir,
}

/// The gateway of this process; `None`, and said so once, without the privileges for it.
pub(crate) fn live() -> Option<&'static Live> {
    static LIVE: OnceLock<Option<Live>> = OnceLock::new();
    LIVE.get_or_init(|| {
        if let Err(missing) = lab::privileged() {
            // Not by eprintln, which the test harness hides when a test passes.
            let _written = writeln!(std::io::stderr(), "SKIPPED (needs root): a running gateway: {missing}");
            return None;
        }
        Some(Live::start().unwrap_or_else(|error| panic!("no gateway: {error}")))
    })
    .as_ref()
}

impl Live {
    fn start() -> Result<Self, LabError> {
        let live = Self {
            namespace: Namespace::new()?,
            directory: tempfile::Builder::new()
                .prefix("weir-fuzz-")
                .tempdir()
                .expect("a directory"),
        };
        for (port, far) in [("a", "a-far"), ("b", "b-far")] {
            let end = |name| VethEnd::new(&live.namespace, name);
            lab::create_veth(&end(port), &end(far))?;
            live.namespace.try_run(|| links::set_up(far))?;
        }
        live.namespace.try_run(|| links::set_up("lo"))?;
        let (token, state) = (live.file("token"), live.file("state"));
        std::fs::write(&token, TOKEN).expect("room for a file");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("our own file");
        let (token, state) = (token.display(), state.display());
        let more = format!(
            "[api]\nlisten = \"{ADDRESS}\"\ntoken_file = \"{token}\"\n[control]\nstate = \"{state}\"\n[[port]]"
        );
        std::fs::write(live.file("weir.toml"), CONFIG.replacen("[[port]]", &more, 1)).expect("room for a file");
        let options = RunOptions {
            config: live.file("weir.toml"),
            socket: live.file("control.sock"),
            die_with_parent: false,
        };
        live.namespace.spawn_thread("weir", move || {
            // Nobody asks it to stop, so whatever ends it is a bug.
            let ended = run(&options);
            eprintln!("the gateway has ended: {ended:?}");
            std::process::abort();
        })?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(live.file("api.sock")).is_err() {
            assert!(Instant::now() < deadline, "the gateway does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(live)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client of the Unix socket `name`.
    pub(crate) fn connect(&self, name: &str) -> UnixStream {
        let stream = UnixStream::connect(self.file(name)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// A client of the API over TCP.
    pub(crate) fn connect_tcp(&self) -> TcpStream {
        let address: SocketAddr = ADDRESS.parse().expect("an address");
        let stream = self.namespace.run(|| TcpStream::connect(address)).expect("a thread");
        let stream = stream.expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }
}

/// In the namespace, so that no other is in the way.
const ADDRESS: &str = "127.0.0.1:9469";
/// Longer than weir lets a client wait for anything that it is asked here.
const PATIENCE: Duration = Duration::from_secs(8);
