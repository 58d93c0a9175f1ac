//! The words every station shares: signals, protocols, tables, seal and writer ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of OpenTelemetry's three signals, as OTLP divides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Metric data points of every kind.
    Metrics,
}

impl Signal {
    /// Every signal, in the order they are listed to users.
    pub const ALL: [Signal; 3] = [Signal::Logs, Signal::Traces, Signal::Metrics];

    /// The signal's name in paths and messages: `logs`, `traces` or `metrics`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
        }
    }

    /// What one record of the signal is called: `log record`, `span` or `data point`.
    #[must_use]
    pub fn record_name(self) -> &'static str {
        match self {
            Signal::Logs => "log record",
            Signal::Traces => "span",
            Signal::Metrics => "data point",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The transport that carried a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// OTLP/gRPC unary `Export`.
    Grpc,
    /// OTAP: a gRPC stream of Arrow record batches.
    Otap,
    /// OTLP/HTTP, whatever its encoding.
    Http,
}

impl Protocol {
    /// Every protocol, in the order they are listed to users.
    pub const ALL: [Protocol; 3] = [Protocol::Grpc, Protocol::Otap, Protocol::Http];

    /// The protocol's name in `otlake status`: `grpc`, `otap` or `http`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Otap => "otap",
            Protocol::Http => "http",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A table of the lake that telemetry rows go to. Its columns are in [`crate::rows::schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// One row a log record.
    Logs,
    /// One row a span.
    Traces,
    /// One row a gauge's data point.
    Gauge,
    /// One row a sum's data point.
    Sum,
    /// One row an explicit-bucket histogram's data point.
    Histogram,
    /// One row an exponential histogram's data point.
    ExpHistogram,
    /// One row a summary's data point.
    Summary,
}

impl Table {
    /// Every table, in the order they are created and published.
    pub const ALL: [Table; 7] = [
        Table::Logs,
        Table::Traces,
        Table::Gauge,
        Table::Sum,
        Table::Histogram,
        Table::ExpHistogram,
        Table::Summary,
    ];

    /// The table's name in the lake.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Logs => "otlp_logs",
            Table::Traces => "otlp_traces",
            Table::Gauge => "otlp_metrics_gauge",
            Table::Sum => "otlp_metrics_sum",
            Table::Histogram => "otlp_metrics_histogram",
            Table::ExpHistogram => "otlp_metrics_exp_histogram",
            Table::Summary => "otlp_metrics_summary",
        }
    }

    /// The table with this name in the lake, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The table's place in [`Table::ALL`], for arrays with one entry a table.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The column a row is dated by: the second sort key of the table.
    #[must_use]
    pub fn time_column(self) -> &'static str {
        match self {
            Table::Traces => "start_time_unix_nano",
            _ => "time_unix_nano",
        }
    }

    /// The signal whose records fill the table.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Table::Logs => Signal::Logs,
            Table::Traces => Signal::Traces,
            _ => Signal::Metrics,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number of a seal: counts up from 1 over the whole life of a data folder, never used twice.
///
/// Together with the [`WriterId`] it names the seal in `otlake_seals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealId(pub u64);

impl SealId {
    /// The seal that follows.
    #[must_use]
    pub fn next(self) -> SealId {
        SealId(self.0 + 1)
    }
}

impl fmt::Display for SealId {
    /// Sixteen digits, so that file names sort as the seals do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}", self.0)
    }
}

/// Why a seal was cut from the open buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutCause {
    /// The buffer reached the target size.
    Size,
    /// Its oldest row reached the maximum age.
    Age,
    /// Somebody asked for a flush.
    Flush,
    /// The journal had no room for more while its rows were in it.
    Room,
    /// The server stops.
    Stop,
}

impl CutCause {
    /// The cause in one word, as `otlake seals` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CutCause::Size => "size",
            CutCause::Age => "age",
            CutCause::Flush => "flush",
            CutCause::Room => "room",
            CutCause::Stop => "stop",
        }
    }

    /// The cause that this word stands for, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<CutCause> {
        let causes = [
            CutCause::Size,
            CutCause::Age,
            CutCause::Flush,
            CutCause::Room,
            CutCause::Stop,
        ];
        causes.into_iter().find(|cause| cause.name() == name)
    }
}

/// When a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once its rows are in memory: fast, and a crash loses up to a seal's worth of what was acknowledged.
    Memory,
    /// Once its rows are in the journal, synced to disk.
    #[default]
    Journal,
    /// Once its rows are in the lake.
    Lake,
}

impl Durability {
    /// The word in settings and in `otlake status`: `memory`, `journal` or `lake`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Journal => "journal",
            Durability::Lake => "lake",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one data folder for ever: made when the folder is made, kept in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WriterId(pub String);

impl WriterId {
    /// The last eight characters: enough to tell the files of several writers of one lake apart.
    #[must_use]
    pub fn short(&self) -> &str {
        let start = self.0.len().saturating_sub(8);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
