//! Metrics, health and the read-only API over HTTP/1.1: on a Unix socket, and over TCP where the operator asked for it.
//!
//! ```text
//!  control thread ─► Board ─► API thread ─► /metrics /livez /readyz /api/v1/...  and / with /web/..., the web page
//!  workers ─ counters, ledgers ──┘ (read only)
//! ```
//!
//! One thread of its own with a runtime of one thread: not the control thread, which may be compiling, and never a worker.
//! A scrape is written by a thread beside it, piece by piece as the client takes it. Whatever a client does, it costs this
//! thread time and a bounded amount of memory, and nothing else; see [`listen`] for the limits.
//!
//! System calls: socket, bind, listen, accept4, read, write, epoll, getsockopt(XDP_STATISTICS), bpf(BPF_MAP_LOOKUP_ELEM),
//! ioctl for flags, MTU and channels of interfaces. Privileges: none of its own.

pub mod auth;
pub mod board;
pub mod bodies;
pub mod handlers;
pub mod health;
pub mod listen;
pub mod openapi;
pub mod page;
pub mod routes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::api::auth::{Token, TokenError};
use crate::api::board::Board;
use crate::api::routes::App;
use crate::socket;

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The Unix socket cannot be had.
    #[error("API socket {path}: {cause}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The address cannot be listened on.
    #[error("`[api] listen` {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The thread or its runtime could not be started.
    #[error("cannot start the API thread: {0}")]
    Thread(io::Error),
}

/// The thread that serves. Dropping it ends that, and takes the socket away.
pub struct Api {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Name of the Unix socket beside the control socket.
const SOCKET_NAME: &str = "api.sock";
/// Time that scrapes in progress get when weir stops.
const STOPPING: Duration = Duration::from_millis(500);
/// Threads that write scrapes; more of them wait.
const WRITERS: usize = routes::SCRAPES_MAX;

/// What it will serve on, before there is a thread: binding and reading the token may need privileges, serving does not.
pub struct BoundApi {
    path: PathBuf,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    token: Option<Token>,
}

impl BoundApi {
    /// Binds where `config` says, for a gateway whose control socket is at `control`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn bind(config: &config::Api, control: &Path) -> Result<Self, ApiError> {
        let path = config
            .socket
            .clone()
            .unwrap_or_else(|| control.with_file_name(SOCKET_NAME));
        let token = config.token_file.as_deref().map(Token::read).transpose()?;
        let tcp = config.listen.map(|address| {
            let listen = || {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            listen().map_err(|cause| ApiError::Listen { address, cause })
        });
        let tcp = tcp.transpose()?;
        let unix = socket::bind(&path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let unix = unix.map_err(|cause| ApiError::Socket {
            path: path.clone(),
            cause,
        })?;
        Ok(Self { path, unix, tcp, token })
    }

    /// Serves what the board has.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(self, board: Arc<Board>) -> Result<Api, ApiError> {
        let Self { path, unix, tcp, token } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WRITERS)
            .thread_name("weir-scrape")
            .build()
            .map_err(ApiError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("weir-api".into()).spawn(move || {
            runtime.block_on(async {
                if let Err(error) = listen::serve(unix, tcp, token, App::new(board), stopped).await {
                    tracing::error!(event = "api", "the API ends: {error}");
                }
            });
            runtime.shutdown_timeout(STOPPING);
        });
        Ok(Api {
            path,
            stop: Some(stop),
            thread: Some(thread.map_err(ApiError::Thread)?),
        })
    }
}

impl Api {
    /// Path of the Unix socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If nobody listens the thread has ended already.
            let _told = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        // The next start replaces the file if this fails.
        let _gone = std::fs::remove_file(&self.path);
    }
}
