//! Connections: how many, how long, and who gives way.
//!
//! | limit | value | then |
//! |---|---|---|
//! | connections, Unix and TCP together | [`CONNECTIONS_MAX`] | the one idle for longest is closed; if none is idle, the new one |
//! | a request's head | 16 KiB, 64 headers, `HEAD_PATIENCE` | 431, or closed |
//! | a request's body | none is read | 413 and closed, if it says it has more than 8 KiB or does not say how much |
//! | an answer | `ANSWER_PATIENCE` | closed |
//! | between requests | `IDLE_PATIENCE` | closed |

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::api::auth::Token;
use crate::api::bodies::Guarded;
use crate::api::health;
use crate::api::routes::{self, App, Door};

/// Connections at once. A monitoring system keeps one or two, a browser six, an operator's tools one each. They are as many
/// file descriptors, of the 1,024 that a service has by default.
pub const CONNECTIONS_MAX: usize = 64;
/// Time for the whole head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Time from a request to the end of its answer. The largest takes half a second where the client reads it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two requests: longer than the usual time between two scrapes, so that these keep their connection.
const IDLE_PATIENCE: Duration = Duration::from_secs(75);
/// Bytes of a request's head; hyper takes no less than 8 KiB.
const HEAD_MAX: usize = 16 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// Time between two looks at who has been too slow.
const SWEEP: Duration = Duration::from_millis(500);

/// Serves until `stopped`.
pub(super) async fn serve(
    unix: StdUnixListener,
    tcp: Option<StdTcpListener>,
    token: Option<Token>,
    app: App,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let unix = UnixListener::from_std(unix)?;
    let tcp = tcp.map(TcpListener::from_std).transpose()?;
    let connections = Arc::new(Connections::default());
    let open = routes::router(app.clone(), Door::Permissions);
    let guarded = routes::router(app.clone(), token.map_or(Door::Loopback, Door::Token));
    let accept_unix = async {
        loop {
            match unix.accept().await {
                Ok((stream, _)) => connections.admit(stream, &open),
                Err(error) => refused(&error).await,
            }
        }
    };
    let accept_tcp = async {
        let Some(tcp) = tcp else {
            return std::future::pending().await;
        };
        loop {
            match tcp.accept().await {
                Ok((stream, _)) => connections.admit(stream, &guarded),
                Err(error) => refused(&error).await,
            }
        }
    };
    let look = async {
        let mut looks = interval(health::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            app.look();
        }
    };
    let sweep = async {
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            sweeps.tick().await;
            connections.sweep(Instant::now());
        }
    };
    tokio::select! {
        () = accept_unix => {}
        () = accept_tcp => {}
        () = look => {}
        () = sweep => {}
        _ = stopped => {}
    }
    connections.close_all();
    Ok(())
}

/// Out of file descriptors, most likely: waiting is all that can help.
async fn refused(error: &io::Error) {
    tracing::warn!(event = "api", "the API cannot take a connection: {error}");
    sleep(Duration::from_millis(100)).await;
}

/// The connections that there are, in the order of their arrival.
#[derive(Default)]
struct Connections {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    admitted: u64,
    list: Vec<Connection>,
}

struct Connection {
    number: u64,
    activity: Arc<Activity>,
    task: AbortHandle,
}

impl Connections {
    fn admit<S>(self: &Arc<Self>, stream: S, router: &Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut open = self.open.lock();
        if open.list.len() >= CONNECTIONS_MAX {
            let idle = open.list.iter().enumerate();
            let idle = idle.filter(|(_, connection)| connection.activity.get().0 != Phase::Answer);
            let oldest = idle.min_by_key(|(_, connection)| connection.activity.get().1);
            // Without an idle one the new one has to go: those before it are being answered.
            let Some((position, _)) = oldest else { return };
            open.list.remove(position).task.abort();
        }
        let activity = Arc::new(Activity::default());
        let stream = Noted {
            stream,
            activity: activity.clone(),
        };
        let router = router
            .clone()
            .layer(middleware::from_fn_with_state(activity.clone(), note_activity));
        open.admitted += 1;
        let (number, connections) = (open.admitted, self.clone());
        let task = tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            // Its own limit for a head would also end who is quiet between two requests: the sweep tells them apart.
            builder
                .header_read_timeout(None)
                .max_buf_size(HEAD_MAX)
                .max_headers(HEADERS_MAX);
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            // What a client did wrong has been answered if it could be; it is its own affair.
            let _done = connection.await;
            connections.remove(number);
        });
        open.list.push(Connection {
            number,
            activity,
            task: task.abort_handle(),
        });
    }

    fn remove(&self, number: u64) {
        self.open.lock().list.retain(|connection| connection.number != number);
    }

    /// Closes what has been too slow.
    fn sweep(&self, now: Instant) {
        self.open.lock().list.retain(|connection| {
            let (phase, since) = connection.activity.get();
            let keep = now.saturating_duration_since(since) <= phase.patience();
            if !keep {
                connection.task.abort();
            }
            keep
        });
    }

    fn close_all(&self) {
        self.open
            .lock()
            .list
            .drain(..)
            .for_each(|connection| connection.task.abort());
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first head is to come, or another one is on its way.
    Head,
    /// A request is being answered.
    Answer,
    /// Between two requests.
    Idle,
}

impl Phase {
    fn patience(self) -> Duration {
        match self {
            Phase::Head => HEAD_PATIENCE,
            Phase::Answer => ANSWER_PATIENCE,
            Phase::Idle => IDLE_PATIENCE,
        }
    }
}

/// The phase of a connection, and since when it is in it.
struct Activity(Mutex<(Phase, Instant)>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new((Phase::Head, Instant::now())))
    }
}

impl Activity {
    fn get(&self) -> (Phase, Instant) {
        *self.0.lock()
    }

    fn set(&self, phase: Phase) {
        *self.0.lock() = (phase, Instant::now());
    }

    /// Bytes have come: between two requests they are the beginning of a head.
    fn heard(&self) {
        if self.get().0 == Phase::Idle {
            self.set(Phase::Head);
        }
    }
}

/// Answering until it is dropped.
struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Phase::Idle);
    }
}

async fn note_activity(State(activity): State<Arc<Activity>>, request: Request, next: Next) -> Response {
    activity.set(Phase::Answer);
    let answering = Answering(activity);
    let response = next.run(request).await;
    response.map(|body| axum::body::Body::new(Guarded::new(body, answering)))
}

/// A stream that notes when bytes come.
struct Noted<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
