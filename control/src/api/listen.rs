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
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
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
    tracing::warn!("the API cannot take a connection: {error}");
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
            let idle = open.list.iter().enumerate().filter(|(_, c)| !c.activity.get().busy);
            let oldest = idle.min_by_key(|(_, connection)| connection.activity.get().since);
            // Without an idle one the new one has to go: those before it are being answered.
            let Some((position, _)) = oldest else { return };
            open.list.remove(position).task.abort();
        }
        let activity = Arc::new(Activity::new(Instant::now()));
        let router = router
            .clone()
            .layer(middleware::from_fn_with_state(activity.clone(), note_activity));
        open.admitted += 1;
        let (number, connections) = (open.admitted, self.clone());
        let task = tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
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
            let Doing { busy, since } = connection.activity.get();
            let patience = if busy { ANSWER_PATIENCE } else { IDLE_PATIENCE };
            let keep = now.saturating_duration_since(since) <= patience;
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

/// What a connection is doing, and since when.
struct Activity(Mutex<Doing>);

#[derive(Clone, Copy)]
struct Doing {
    busy: bool,
    since: Instant,
}

impl Activity {
    fn new(since: Instant) -> Self {
        Self(Mutex::new(Doing { busy: false, since }))
    }

    fn get(&self) -> Doing {
        *self.0.lock()
    }

    fn set(&self, busy: bool) {
        *self.0.lock() = Doing {
            busy,
            since: Instant::now(),
        };
    }
}

/// Busy until it is dropped.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

async fn note_activity(State(activity): State<Arc<Activity>>, request: Request, next: Next) -> Response {
    activity.set(true);
    let busy = Busy(activity);
    let response = next.run(request).await;
    response.map(|body| axum::body::Body::new(Guarded::new(body, busy)))
}
