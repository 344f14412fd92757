//! What is served where. One list: the router is made of it, and so is the OpenAPI document. The files of the web page are
//! beside it, in [`page`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use parking_lot::Mutex;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tokio::sync::Semaphore;

use crate::api::auth::Token;
use crate::api::board::Board;
use crate::api::handlers::{self, error};
use crate::api::health::{Health, Watcher};
use crate::api::page;
use crate::change::messages::HistoryReport;

/// Scrapes written at once; others wait for [`handlers`] to be free, and are told to come again if that takes long.
pub const SCRAPES_MAX: usize = 4;

/// Most bytes of a request's body that are let pass; nothing here reads one.
const BODY_MAX: u64 = 8 << 10;

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    pub(super) board: Arc<Board>,
    pub(super) watcher: Arc<Mutex<Watcher>>,
    pub(super) scrapes: Arc<Semaphore>,
}

impl App {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            watcher: Arc::default(),
            scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        }
    }

    pub(super) fn look(&self) {
        self.watcher.lock().look(&self.board);
    }
}

/// One path.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// In a sentence.
    pub(super) summary: &'static str,
    /// Whether TCP clients are served without a token.
    pub(super) is_open: bool,
    /// Parameters of the query.
    pub(super) parameters: Option<SchemaOf>,
    pub(super) answer: Answer,
    /// Other statuses than 200 that come with the same form of answer.
    pub(super) also: &'static [(u16, &'static str)],
    method: MethodRouter<App>,
}

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What is answered.
pub(super) enum Answer {
    /// JSON of this form.
    Json(SchemaOf),
    /// Text of these media types, as the client accepts.
    Text(&'static [&'static str]),
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    fn json<T: JsonSchema>(path: &'static str, summary: &'static str, method: MethodRouter<App>) -> Self {
        Self {
            path,
            summary,
            is_open: false,
            parameters: None,
            answer: Answer::Json(schema_of::<T>),
            also: &[],
            method,
        }
    }

    fn health(path: &'static str, summary: &'static str, method: MethodRouter<App>) -> Self {
        Self {
            is_open: true,
            also: &[(503, "There is a reason against it.")],
            ..Self::json::<Health>(path, summary, method)
        }
    }

    fn asked_with<P: JsonSchema>(self) -> Self {
        Self {
            parameters: Some(schema_of::<P>),
            ..self
        }
    }
}

/// Every path there is.
pub(super) fn routes() -> Vec<Route> {
    use handlers as h;
    vec![
        Route {
            answer: Answer::Text(&[crate::metrics::CONTENT_TYPE, crate::metrics::text::CONTENT_TYPE]),
            ..Route::json::<()>("/metrics", "All figures, for Prometheus.", get(h::metrics))
        },
        Route::health("/livez", "Whether weir goes round; if not, restart it.", get(h::livez)),
        Route::health(
            "/readyz",
            "Whether packets are judged and forwarded as the current table says.",
            get(h::readyz),
        ),
        Route::json::<h::Overview>(
            "/api/v1/status",
            "What `weir status --json` prints, with the number of contracts instead of the contracts.",
            get(h::status),
        ),
        Route::json::<h::Contracts>("/api/v1/contracts", "Contracts with their counters.", get(h::contracts))
            .asked_with::<h::ContractsQuery>(),
        Route::json::<h::Ports>(
            "/api/v1/ports",
            "Ports, their queues, and their ledgers.",
            get(h::ports),
        ),
        Route::json::<h::Workers>("/api/v1/workers", "The worker threads.", get(h::workers)),
        Route::json::<HistoryReport>("/api/v1/history", "The versions that were applied.", get(h::history)),
        Route::json::<h::Events>(
            "/api/v1/events",
            "What happened lately: swaps, refusals, trials, links, workers.",
            get(h::events),
        )
        .asked_with::<h::EventsQuery>(),
    ]
}

/// What keeps others out.
pub(super) enum Door {
    /// The permissions of a Unix socket.
    Permissions,
    /// A token that every client shows.
    Token(Token),
    /// That only this host can connect. A browser on it can be sent here by any page whose name is made to mean this address,
    /// so the client must have meant it.
    Loopback,
}

/// All of it, for those whom `door` lets in.
pub(super) fn router(app: App, door: Door) -> Router {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.method));
    let router = page::add_to(router)
        .fallback(|| async {
            error(
                StatusCode::NOT_FOUND,
                "there is nothing at this path: see `weir schema --api`",
            )
        })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "everything here is read with GET or HEAD",
            )
        });
    let router = match door {
        Door::Token(token) => {
            let open = routes().into_iter().filter(|route| route.is_open);
            let open = open.map(|route| route.path).collect();
            router.layer(middleware::from_fn_with_state(Lock { token, open }, ask_for_token))
        }
        Door::Loopback => router.layer(middleware::from_fn(ask_for_own_name)),
        Door::Permissions => router,
    };
    router.layer(middleware::from_fn(refuse_body)).with_state(app)
}

/// What a door with a token knows.
#[derive(Clone)]
struct Lock {
    token: Token,
    /// Paths that need none.
    open: Arc<[&'static str]>,
}

async fn ask_for_token(State(lock): State<Lock>, request: Request, next: Next) -> Response {
    let Lock { token, open } = &lock;
    let path = request.uri().path();
    let is_open = page::is_asset(path) || open.contains(&path);
    let shown = request.headers().get(header::AUTHORIZATION);
    if is_open || shown.is_some_and(|header| token.is_shown_by(header.as_bytes())) {
        return next.run(request).await;
    }
    let why = match shown {
        None => "show the token of `[api] token_file`: Authorization: Bearer TOKEN",
        Some(_) => "this is not the token of `[api] token_file`",
    };
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (challenge, error(StatusCode::UNAUTHORIZED, why)).into_response()
}

async fn ask_for_own_name(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    if host.and_then(|host| host.to_str().ok()).is_some_and(is_own_name) {
        return next.run(request).await;
    }
    let why =
        "without a token this answers to its address or to localhost only: check the URL, or set `[api] token_file`";
    error(StatusCode::MISDIRECTED_REQUEST, why)
}

/// Whether `Host` is an address or `localhost`, with or without a port.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Nothing here takes a body. One that is large, or of unknown length, is refused before any of it is read.
async fn refuse_body(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    if length <= BODY_MAX && !headers.contains_key(header::TRANSFER_ENCODING) {
        return next.run(request).await;
    }
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    let refusal = error(StatusCode::PAYLOAD_TOO_LARGE, "nothing here takes a request body");
    (close, refusal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_somebody_else_may_have_made_are_not_ours() {
        for own in [
            "localhost",
            "LOCALHOST:9469",
            "127.0.0.1",
            "127.0.0.1:9469",
            "[::1]",
            "[::1]:9469",
        ] {
            assert!(is_own_name(own), "{own}");
        }
        for other in [
            "",
            "weir",
            "localhost.example.org",
            "127.0.0.1.example.org:9469",
            "evil.example",
            "a b",
            "[::1",
            ":9469",
        ] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
