//! The answers, and their forms.

use std::cmp::Reverse;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane::clock::{Clock, MonotonicClock};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alarms::Alarm;
use crate::api::bodies::pieces;
use crate::api::health::{Health, Watcher};
use crate::api::routes::App;
use crate::events::Event;
use crate::metrics::text::{self, PlainText};
use crate::metrics::{self, Observed, Scrape};
use crate::observe::{Rate, Windows};
use crate::report::{ContractReport, LedgerReport, OtherReport, UncontractedReport};
use crate::status::{ChangeStatus, PortStatus, WorkerStatus};

/// What `weir status --json` prints, but for the contracts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Overview {
    /// Version of the running weir.
    pub version: String,
    /// Region of the box.
    pub region: String,
    /// Generation of the current table; each worker says in `workers` which one it runs.
    pub generation: u64,
    /// When this was read, by the appliance's clock.
    pub time: Timestamp,
    /// Seconds since the appliance started.
    pub uptime_seconds: f64,
    /// Seconds since the current table was published.
    pub table_seconds: f64,
    /// What is not as it should be, most grave first; at most 100.
    pub alarms: Vec<Alarm>,
    /// How many alarms there are beside these.
    pub alarms_left_out: usize,
    /// How long the windows are that rates and sojourns are of.
    pub windows: Windows,
    /// Hash of the texts that run.
    pub config_hash: String,
    /// Error of the last reload, apply or rollback, if it was refused.
    pub last_reload_error: Option<String>,
    /// Versions, trial, disk.
    #[serde(flatten)]
    pub change: ChangeStatus,
    /// Packets that the ledgers cannot explain: anything but 0 is an error in weir.
    pub unaccounted: i64,
    /// How many contracts the table has.
    pub contracts: usize,
    /// Traffic that no contract covers, by class and direction.
    pub uncontracted: Vec<UncontractedReport>,
    /// Packets that are not IP, by direction.
    pub other: Vec<OtherReport>,
    /// By receiving port and queue.
    pub ledger: Vec<LedgerReport>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Ports.
    pub ports: Vec<PortStatus>,
}

/// A page of contracts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Contracts {
    /// When this was read, by the appliance's clock.
    pub time: Timestamp,
    /// Seconds since the appliance started: smaller than before means that all counters began anew.
    pub uptime_seconds: f64,
    /// How many contracts match.
    pub total: usize,
    /// How many of them were skipped.
    pub offset: usize,
    /// The next ones.
    pub contracts: Vec<ContractReport>,
}

/// Which contracts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractsQuery {
    /// Of this service.
    service: Option<String>,
    /// Of this class.
    class: Option<String>,
    /// `egress` or `ingress`.
    direction: Option<String>,
    /// Towards this segment.
    segment: Option<String>,
    /// With this text in `service/class/direction[/segment]`; upper and lower case are the same.
    search: Option<String>,
    /// In which order; default `configuration`.
    #[serde(default)]
    sort: Sort,
    /// How many to skip; default 0.
    #[serde(default)]
    offset: usize,
    /// How many to show, 1 to 1000; default 100.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "page")]
    limit: usize,
}

/// An order of contracts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Sort {
    /// As in the files.
    #[default]
    Configuration,
    /// By the last minute: first those that lost conforming packets, then by the share of what they offered that was
    /// dropped, then by the share that did not conform, then by what they offered.
    Trouble,
}

/// Ports with their ledgers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ports {
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// By receiving port and queue.
    pub ledger: Vec<LedgerReport>,
}

/// Workers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Workers {
    /// Generation of the current table.
    pub generation: u64,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
}

/// Events, oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Events {
    /// Some hundred are kept.
    pub events: Vec<Event>,
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only those with a larger number; default 0.
    #[serde(default)]
    after: u64,
}

/// What is answered when something is wrong with a request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Error {
    /// Why, and how to mend it.
    pub error: String,
}

/// Contracts of a page, if the client does not say.
fn page() -> usize {
    100
}

/// Most contracts of a page: half a megabyte.
const PAGE_MAX: usize = 1000;
/// Most alarms of an answer: more than anybody reads, and 100,000 contracts may have one each.
const ALARMS_MAX: usize = 100;
/// Time that a scrape waits for others to end.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(5);

type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let permit = tokio::time::timeout(SCRAPE_PATIENCE, app.scrapes.clone().acquire_owned()).await;
    let Ok(Ok(permit)) = permit else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once: come again");
    };
    let observed = {
        let watcher = app.watcher.lock();
        Observed {
            ready: watcher.readyz(&app.board).ok,
            turn_ages: watcher.turn_ages(),
            links: watcher.links().clone(),
        }
    };
    // Prometheus names it first; whoever does not know it does not name it.
    let accepted = headers.get_all(header::ACCEPT).iter();
    let is_openmetrics = accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"));
    let (mut pieces, body) = pieces();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let scrape = Scrape::read(&app.board, observed);
        // It fails when the client has gone, and then there is nothing to do about it.
        let _written = if is_openmetrics {
            scrape.write(&mut pieces).and_then(|()| pieces.finish())
        } else {
            let mut text = PlainText::new(pieces);
            scrape.write(&mut text).and_then(|()| text.into_inner().finish())
        };
    });
    let content_type = if is_openmetrics {
        metrics::CONTENT_TYPE
    } else {
        text::CONTENT_TYPE
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

pub(super) async fn livez(State(app): State<App>) -> Response {
    health(&Watcher::livez(&app.board))
}

pub(super) async fn readyz(State(app): State<App>) -> Response {
    health(&app.watcher.lock().readyz(&app.board))
}

pub(super) async fn status(State(app): State<App>) -> Response {
    let time = Timestamp::now();
    let (mut status, change) = (app.board.status_with_alarms(), app.board.change());
    let alarms_left_out = status.alarms.len().saturating_sub(ALARMS_MAX);
    status.alarms.truncate(ALARMS_MAX);
    let unaccounted = status.unaccounted();
    json(&Overview {
        time,
        table_seconds: status.table_seconds,
        alarms: status.alarms,
        alarms_left_out,
        windows: status.windows,
        unaccounted,
        contracts: app.board.view().compiled().numbered().count(),
        config_hash: change.config_hash.clone(),
        version: status.version,
        region: status.region,
        generation: status.generation,
        uptime_seconds: status.uptime_seconds,
        last_reload_error: status.last_reload_error,
        change: status.change,
        uncontracted: status.traffic.uncontracted,
        other: status.traffic.other,
        ledger: status.traffic.ledger,
        workers: status.workers,
        ports: status.ports,
    })
}

pub(super) async fn contracts(State(app): State<App>, query: Asked<ContractsQuery>) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    if !(1..=PAGE_MAX).contains(&query.limit) {
        return error(StatusCode::BAD_REQUEST, "`limit` is from 1 to 1000: page with `offset`");
    }
    let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == found);
    let search = query.search.as_ref().map(|text| text.to_lowercase());
    let view = app.board.view();
    let observer = view.observer();
    let mut matching: Vec<usize> = view
        .compiled()
        .numbered()
        .filter(|(_, name)| {
            is(&query.service, Some(name.service))
                && is(&query.class, Some(name.class))
                && is(&query.direction, Some(name.direction))
                && is(&query.segment, name.segment)
                && search
                    .as_ref()
                    .is_none_or(|text| name.path().to_lowercase().contains(text))
        })
        .map(|(number, _)| number)
        .collect();
    if query.sort == Sort::Trouble {
        let rates = |number: &usize| observer.rates(view.compiled().contract(*number).slot);
        matching.sort_by_cached_key(|number| Reverse(trouble(rates(number).last_minute)));
    }
    let (time, now) = (Timestamp::now(), Some(MonotonicClock.now()));
    let page = matching.iter().skip(query.offset).take(query.limit);
    json(&Contracts {
        time,
        uptime_seconds: view.uptime().as_secs_f64(),
        total: matching.len(),
        offset: query.offset,
        contracts: page
            .filter_map(|&number| view.compiled().contract_report(number, now, Some(&observer)))
            .collect(),
    })
}

/// How much somebody should look at a contract: conforming packets lost, parts per million of the offered dropped and not
/// conforming, and bit/s offered.
fn trouble(minute: Rate) -> (u64, u64, u64, u64) {
    let ppm = |part: u64| {
        part.saturating_mul(1_000_000)
            .checked_div(minute.offered_bps)
            .unwrap_or(0)
    };
    (
        minute.conforming_dropped_packets,
        ppm(minute.dropped_bps),
        ppm(minute.nonconforming_bps),
        minute.offered_bps,
    )
}

pub(super) async fn ports(State(app): State<App>) -> Response {
    let status = app.board.status_without_contracts();
    json(&Ports {
        ports: status.ports,
        ledger: status.traffic.ledger,
    })
}

pub(super) async fn workers(State(app): State<App>) -> Response {
    let status = app.board.status_without_contracts();
    json(&Workers {
        generation: status.generation,
        workers: status.workers,
    })
}

pub(super) async fn history(State(app): State<App>) -> Response {
    json(&*app.board.history())
}

pub(super) async fn events(State(app): State<App>, query: Asked<EventsQuery>) -> Response {
    match query {
        Ok(Query(query)) => json(&Events {
            events: app.board.events.after(query.after),
        }),
        Err(rejection) => error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

fn health(health: &Health) -> Response {
    let status = if health.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, json(health)).into_response()
}

/// An answer that says what is wrong with the request.
pub(super) fn error(status: StatusCode, why: &str) -> Response {
    (status, json(&Error { error: why.to_owned() })).into_response()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            (
                [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                Body::from(text),
            )
                .into_response()
        }
        // A map with keys that are no strings: none of the forms above has one.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_goes_by_loss_then_drops_then_excess_then_size() {
        let rate = |offered_bps, nonconforming_bps, dropped_bps, conforming_dropped_packets| Rate {
            offered_bps,
            nonconforming_bps,
            dropped_bps,
            conforming_dropped_packets,
            ..Rate::default()
        };
        let worst_first = [
            rate(1_000, 0, 8, 1),
            rate(1_000, 500, 500, 0),
            rate(9_000_000, 900_000, 900_000, 0),
            rate(1_000, 500, 0, 0),
            rate(u64::MAX, 0, 0, 0),
            rate(1_000, 0, 0, 0),
            rate(0, 0, 0, 0),
        ];
        let keys = worst_first.map(trouble);
        assert!(keys.is_sorted_by(|worse, better| worse > better), "{keys:?}");
    }
}
