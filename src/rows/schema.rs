//! The columns of the seven tables, as Arrow schemas and as SQL.
//!
//! One list a table is the single source: the builders, the Parquet files and `CREATE TABLE` all follow it.
//! The first columns of the first six tables are, name by name and in order, those of duckdb-otlp's live
//! tables; ours come after. docs/TABLES.md describes every column for users.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::signal::Table;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text, null when empty.
    Text,
    /// Nanoseconds since the Unix epoch, UTC, without a zone.
    Time,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE 754 double.
    F64,
    /// Boolean.
    Bool,
    /// List of unsigned 64-bit integers.
    U64List,
    /// List of doubles.
    F64List,
}

impl Kind {
    /// The Arrow type of the column.
    #[must_use]
    pub fn arrow(self) -> DataType {
        let list = |item| DataType::List(Arc::new(Field::new("element", item, true)));
        match self {
            Kind::Text => DataType::Utf8View,
            Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Kind::I64 => DataType::Int64,
            Kind::I32 => DataType::Int32,
            Kind::U32 => DataType::UInt32,
            Kind::U64 => DataType::UInt64,
            Kind::F64 => DataType::Float64,
            Kind::Bool => DataType::Boolean,
            Kind::U64List => list(DataType::UInt64),
            Kind::F64List => list(DataType::Float64),
        }
    }

    /// The DuckDB type of the column.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Kind::Text => "VARCHAR",
            Kind::Time => "TIMESTAMP_NS",
            Kind::I64 => "BIGINT",
            Kind::I32 => "INTEGER",
            Kind::U32 => "UINTEGER",
            Kind::U64 => "UBIGINT",
            Kind::F64 => "DOUBLE",
            Kind::Bool => "BOOLEAN",
            Kind::U64List => "UBIGINT[]",
            Kind::F64List => "DOUBLE[]",
        }
    }

    /// The kind whose DuckDB type this is, if there is one.
    #[must_use]
    pub fn from_sql(sql: &str) -> Option<Kind> {
        let kinds = [
            Kind::Text,
            Kind::Time,
            Kind::I64,
            Kind::I32,
            Kind::U32,
            Kind::U64,
            Kind::F64,
            Kind::Bool,
            Kind::U64List,
            Kind::F64List,
        ];
        kinds.into_iter().find(|kind| kind.sql() == sql)
    }
}

/// A column: its name and what it holds.
pub type Column = (&'static str, Kind);

const RESOURCE: [Column; 3] = [
    ("service_name", Kind::Text),
    ("service_namespace", Kind::Text),
    ("service_instance_id", Kind::Text),
];

const SCOPE: [Column; 4] = [
    ("resource_attributes", Kind::Text),
    ("scope_name", Kind::Text),
    ("scope_version", Kind::Text),
    ("scope_attributes", Kind::Text),
];

const EXTRA: [Column; 4] = [
    ("resource_schema_url", Kind::Text),
    ("scope_schema_url", Kind::Text),
    ("resource_dropped_attributes_count", Kind::U32),
    ("scope_dropped_attributes_count", Kind::U32),
];

const METRIC: [Column; 5] = [
    ("time_unix_nano", Kind::Time),
    ("start_time_unix_nano", Kind::Time),
    ("name", Kind::Text),
    ("description", Kind::Text),
    ("unit", Kind::Text),
];

const POINT: [Column; 2] = [("metric_attributes", Kind::Text), ("flags", Kind::U32)];
const EXEMPLARS: [Column; 1] = [("exemplars_json", Kind::Text)];
const METADATA: [Column; 1] = [("metadata", Kind::Text)];
const TEMPORALITY: [Column; 1] = [("aggregation_temporality", Kind::I32)];
const NUMBER: [Column; 2] = [("int_value", Kind::I64), ("double_value", Kind::F64)];
const DISTRIBUTION: [Column; 4] = [
    ("count", Kind::U64),
    ("sum", Kind::F64),
    ("min", Kind::F64),
    ("max", Kind::F64),
];

/// The table's columns in order.
#[must_use]
pub fn columns(table: Table) -> Vec<Column> {
    match table {
        Table::Logs => [
            &[
                ("time_unix_nano", Kind::Time),
                ("observed_time_unix_nano", Kind::Time),
                ("trace_id", Kind::Text),
                ("span_id", Kind::Text),
            ][..],
            &RESOURCE,
            &[
                ("severity_number", Kind::I32),
                ("severity_text", Kind::Text),
                ("event_name", Kind::Text),
                ("body", Kind::Text),
            ],
            &SCOPE,
            &[
                ("log_attributes", Kind::Text),
                ("dropped_attributes_count", Kind::U32),
                ("flags", Kind::U32),
            ],
            &EXTRA,
        ]
        .concat(),
        Table::Traces => [
            &[
                ("start_time_unix_nano", Kind::Time),
                ("duration_time_unix_nano", Kind::I64),
                ("trace_id", Kind::Text),
                ("span_id", Kind::Text),
                ("parent_span_id", Kind::Text),
                ("trace_state", Kind::Text),
            ][..],
            &RESOURCE,
            &[
                ("name", Kind::Text),
                ("kind", Kind::I32),
                ("status_code", Kind::I32),
                ("status_status_message", Kind::Text),
            ],
            &SCOPE,
            &[
                ("span_attributes", Kind::Text),
                ("events_json", Kind::Text),
                ("links_json", Kind::Text),
                ("dropped_attributes_count", Kind::U32),
                ("dropped_events_count", Kind::U32),
                ("dropped_links_count", Kind::U32),
                ("flags", Kind::U32),
            ],
            &EXTRA,
        ]
        .concat(),
        Table::Gauge => [
            &METRIC[..],
            &NUMBER,
            &RESOURCE,
            &SCOPE,
            &POINT,
            &EXEMPLARS,
            &METADATA,
            &EXTRA,
        ]
        .concat(),
        Table::Sum => [
            &METRIC[..],
            &NUMBER,
            &RESOURCE,
            &SCOPE,
            &POINT,
            &EXEMPLARS,
            &TEMPORALITY,
            &[("is_monotonic", Kind::Bool)],
            &METADATA,
            &EXTRA,
        ]
        .concat(),
        Table::Histogram => [
            &METRIC[..],
            &DISTRIBUTION,
            &[
                ("bucket_counts", Kind::U64List),
                ("explicit_bounds", Kind::F64List),
            ],
            &RESOURCE,
            &SCOPE,
            &POINT,
            &EXEMPLARS,
            &TEMPORALITY,
            &METADATA,
            &EXTRA,
        ]
        .concat(),
        Table::ExpHistogram => [
            &METRIC[..],
            &DISTRIBUTION,
            &[
                ("scale", Kind::I32),
                ("zero_count", Kind::U64),
                ("zero_threshold", Kind::F64),
                ("positive_offset", Kind::I32),
                ("positive_bucket_counts", Kind::U64List),
                ("negative_offset", Kind::I32),
                ("negative_bucket_counts", Kind::U64List),
            ],
            &RESOURCE,
            &SCOPE,
            &POINT,
            &EXEMPLARS,
            &TEMPORALITY,
            &METADATA,
            &EXTRA,
        ]
        .concat(),
        Table::Summary => [
            &METRIC[..],
            &[
                ("count", Kind::U64),
                ("sum", Kind::F64),
                ("quantiles", Kind::F64List),
                ("quantile_values", Kind::F64List),
            ],
            &RESOURCE,
            &SCOPE,
            &POINT,
            &METADATA,
            &EXTRA,
        ]
        .concat(),
    }
}

static SCHEMAS: LazyLock<[SchemaRef; Table::ALL.len()]> = LazyLock::new(|| {
    Table::ALL.map(|table| {
        let fields: Vec<Field> = columns(table)
            .into_iter()
            .map(|(name, kind)| Field::new(name, kind.arrow(), true))
            .collect();
        Arc::new(Schema::new(fields))
    })
});

/// The table's Arrow schema. Every column is nullable, as in the lake.
#[must_use]
pub fn schema(table: Table) -> SchemaRef {
    Arc::clone(&SCHEMAS[table.index()])
}

static FIXED_ROW_BYTES: LazyLock<[usize; Table::ALL.len()]> = LazyLock::new(|| {
    Table::ALL.map(|table| {
        columns(table)
            .into_iter()
            .map(|(_, kind)| match kind {
                Kind::Text => 16,
                Kind::Time | Kind::I64 | Kind::U64 | Kind::F64 => 8,
                Kind::I32 | Kind::U32 | Kind::U64List | Kind::F64List => 4,
                Kind::Bool => 1,
            })
            .sum()
    })
});

/// What a row of the table holds in memory beside its texts and lists, bytes.
#[must_use]
pub fn fixed_row_bytes(table: Table) -> usize {
    FIXED_ROW_BYTES[table.index()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every table's column list.
    /// Guarantees: names are unique within a table, and the time column the table is sorted by exists.
    #[test]
    fn columns_are_unique_and_dated() {
        for table in Table::ALL {
            let mut names: Vec<_> = columns(table).into_iter().map(|(name, _)| name).collect();
            assert!(names.contains(&table.time_column()), "{table}");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{table}");
        }
    }
}
