//! `GET /metrics`: everything that is counted, for Prometheus and what reads its formats. docs/METRICS.md lists it.
//!
//! Nothing is kept here: each scrape asks the [`Overview`] and writes what it says as OpenMetrics text. Those that ask for
//! Prometheus' older text get the same, rewritten.
//!
//! Source: OpenMetrics 1.0; Prometheus, "Exposition formats", text format 0.0.4.

mod families;
mod negotiate;
mod page;
mod process;
mod text;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use self::negotiate::Format;
use super::overview::Overview;

/// Where the metrics are.
pub const PATH: &str = "/metrics";

/// The route of the metrics. It needs a token for `query`, where one is asked for: the gate sees to that.
pub fn routes(overview: &Arc<Overview>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scraped(Arc::clone(overview))));
    let route = get(scrape).fallback(only_get);
    Router::new()
        .route(PATH, route)
        .with_state(Arc::new(registry))
}

/// The running server as the library wants it: written anew by each scrape.
struct Scraped(Arc<Overview>);

impl Collector for Scraped {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::write(&self.0, encoder)
    }
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scraped")
    }
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let format = Format::asked_for(&headers);
    let mut page = String::new();
    // Writing to a string cannot fail.
    if encode(&mut page, &registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let page = match format {
        Format::OpenMetrics => page,
        Format::Text => text::from_open_metrics(&page),
    };
    let headers: [(HeaderName, HeaderValue); 2] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, page).into_response()
}

async fn only_get() -> Response {
    let allow = [(header::ALLOW, HeaderValue::from_static("GET, HEAD"))];
    let words = "/metrics takes GET; OTLP/HTTP's metrics go to /v1/metrics\n";
    (StatusCode::METHOD_NOT_ALLOWED, allow, words).into_response()
}
