//! The web page: files that are part of the binary, the same for everybody.
//!
//! They hold no secret, so they are served without a token; what they show they read from `/api/v1` like any other client.
//! The page runs no script and loads nothing but what is listed here: its policy forbids the browser the rest.

use axum::Router;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api::routes::App;
use crate::change::history::fnv1a;

/// A file of the page.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $media_type:expr, $file:literal) => {
        Asset {
            path: $path,
            media_type: $media_type,
            text: include_str!(concat!("../web/", $file)),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/web/style.css", CSS, "style.css"),
    asset!("/web/icon.svg", SVG, "icon.svg"),
    asset!("/web/main.js", SCRIPT, "main.js"),
    asset!("/web/api.js", SCRIPT, "api.js"),
    asset!("/web/series.js", SCRIPT, "series.js"),
    asset!("/web/map.js", SCRIPT, "map.js"),
    asset!("/web/chart.js", SCRIPT, "chart.js"),
    asset!("/web/tables.js", SCRIPT, "tables.js"),
    asset!("/web/text.js", SCRIPT, "text.js"),
];

/// Everything from here and nothing else; nobody may frame it, and nothing on it sends a form.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The router with the page.
pub(super) fn add_to(router: Router<App>) -> Router<App> {
    ASSETS.iter().fold(router, |router, asset| {
        router.route(
            asset.path,
            get(move |headers: HeaderMap| async move { asset.answer(&headers) }),
        )
    })
}

/// Whether this is a path of the page.
pub(super) fn is_asset(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

impl Asset {
    fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", fnv1a(self.text.as_bytes()));
        let known = asked.get_all(header::IF_NONE_MATCH).iter();
        let is_known = known
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().trim_start_matches("W/") == tag);
        // The browser asks each time, so that the parts of a page are always of one version.
        let headers: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, self.media_type),
            (header::ETAG, &tag),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        if is_known {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_file_names_is_served() {
        for asset in ASSETS {
            let quoted = asset.text.split(['"', '\'', '`']);
            for name in quoted.filter(|text| text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".svg"))
            {
                let path = format!("/web/{}", name.trim_start_matches("web/").trim_start_matches("./"));
                assert!(is_asset(&path), "{} names {name}", asset.path);
            }
        }
    }

    #[test]
    fn every_event_has_its_sign() {
        let chart = ASSETS.iter().find(|asset| asset.path == "/web/chart.js").unwrap();
        let schema = schemars::schema_for!(crate::events::EventKind).to_value();
        let kinds = schema["oneOf"].as_array().unwrap();
        assert!(kinds.len() > 15, "{kinds:?}");
        for kind in kinds {
            let name = kind["const"].as_str().unwrap();
            assert!(chart.text.contains(&format!(" {name}: \"")), "{name}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_nothing_is_inline() {
        for asset in ASSETS {
            // The name of a namespace is no address, though it looks like one.
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for foreign in [
                "http:",
                "https:",
                "url(//",
                "@import",
                "innerHTML",
                "eval(",
                " onclick=",
                "<style",
                " style=\"",
            ] {
                assert!(!text.contains(foreign), "{} has {foreign}", asset.path);
            }
        }
    }
}
