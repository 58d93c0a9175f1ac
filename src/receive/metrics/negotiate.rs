//! Which format a scraper asks for.

use http::{HeaderMap, header};

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// OpenMetrics' media type.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The media type of Prometheus' text.
const TEXT: &str = "text/plain";

impl Format {
    /// What `accept` prefers. OpenMetrics asks to be the answer to a simple GET, so it is unless text is what is wanted more, or
    /// is all that is wanted.
    pub(super) fn asked_for(headers: &HeaderMap) -> Format {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let ranges = || accepted.iter().flat_map(|value| value.split(','));
        let weight = |kind: &str| ranges().filter_map(|range| weight_of(range, kind)).max();
        match (weight(OPEN_METRICS), weight(TEXT)) {
            (Some(open_metrics), Some(text)) if text > open_metrics => Format::Text,
            (Some(0) | None, Some(1..)) => Format::Text,
            _ => Format::OpenMetrics,
        }
    }

    /// The `content-type` of an answer.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The weight, in thousandths, of a media range of this type; `None` for other types, and versions that are not spoken.
///
/// Source: RFC 9110, section 12.5.1.
fn weight_of(range: &str, kind: &str) -> Option<u16> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(kind) {
        return None;
    }
    let mut weight = 1000;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => weight = thousandths(value)?,
            "version" if kind == TEXT && value != "0.0.4" => return None,
            // 0.0.1 is what OpenMetrics was called before it was 1.0.0.
            "version" if kind == OPEN_METRICS && !["1.0.0", "0.0.1"].contains(&value) => {
                return None;
            }
            _ => {}
        }
    }
    Some(weight)
}

fn thousandths(weight: &str) -> Option<u16> {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{part:0<3}");
    let part: u16 = digits.get(..3)?.parse().ok()?;
    let whole: u16 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Format::asked_for(&headers)
    }

    /// Scenario: what Prometheus of several ages, the collector, Telegraf, curl and a browser send, and nothing at all.
    /// Guarantees: whoever can read OpenMetrics gets it; those that ask for text alone, or more, get text.
    #[test]
    fn scrapers_get_what_they_ask_for() {
        for accept in [
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;q=0",
            "text/plain;version=1.0.0",
            "nonsense;;=,q",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
             text/plain;version=0.0.4;q=0.3",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "text/plain",
            "TEXT/PLAIN; Version=0.0.4",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-text;version=2.0.0,text/plain;q=0.1",
            "application/openmetrics-text;q=0,text/plain;q=0.001",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
        assert_eq!(Format::asked_for(&HeaderMap::new()), Format::OpenMetrics);
    }
}
