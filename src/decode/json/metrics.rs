//! Metrics of OTLP/JSON: what the points of one metric share. The points are in [`super::points`].

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Source;
use super::groups::Target;
use super::points::{PointScratch, Points};
use super::read::{Field, Message, ReadList, ReadMessage};
use super::value::{Entries, read_attributes};
use crate::memory::MemoryError;
use crate::rows::{
    JsonText, MetricFields, MetricKind, MetricRows, ResourceFields, Rows, ScopeFields,
};

/// Feeds metrics and their points into their builder.
pub(super) struct MetricTarget<'a> {
    rows: MetricRows,
    entries: Entries<'a>,
    metadata: JsonText,
    points: PointScratch<'a>,
}

impl MetricTarget<'_> {
    pub(super) fn new(rows: MetricRows) -> Self {
        MetricTarget {
            rows,
            entries: Entries::new(),
            metadata: JsonText::new(),
            points: PointScratch::default(),
        }
    }
}

impl<'a> Target<'a> for MetricTarget<'a> {
    const RESOURCES: [&'static str; 2] = ["resourceMetrics", "resource_metrics"];
    const SCOPES: [&'static str; 2] = ["scopeMetrics", "scope_metrics"];
    const RECORDS: [&'static str; 2] = ["metrics", "metrics"];

    fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.rows.set_resource(resource);
    }

    fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.rows.set_scope(scope);
    }

    fn next<A: SeqAccess<'a>>(
        &mut self,
        source: &Source<'a>,
        records: &mut A,
    ) -> Result<bool, A::Error> {
        self.metadata.clear();
        let mut metric = Metric {
            source,
            entries: &mut self.entries,
            metadata: &mut self.metadata,
            texts: Default::default(),
            data: None,
        };
        if records
            .next_element_seed(ReadMessage(&mut metric))?
            .is_none()
        {
            return Ok(false);
        }
        let Metric { texts, data, .. } = metric;
        let Some(Data {
            kind,
            points: Some(points),
        }) = data
        else {
            return Ok(true);
        };
        let [name, description, unit] = &texts;
        self.rows.set_metric(&MetricFields {
            name,
            description,
            unit,
            metadata: self.metadata.as_str(),
            kind,
        });
        let mut list = Points::new(source, kind, &mut self.rows, &mut self.points);
        source.read_later(points, ReadList(&mut list))?;
        Ok(true)
    }

    fn finish(self) -> Result<Rows, MemoryError> {
        self.rows.finish()
    }
}

struct Metric<'s, 'a> {
    source: &'s Source<'a>,
    entries: &'s mut Entries<'a>,
    metadata: &'s mut JsonText,
    /// Name, description and unit.
    texts: [Cow<'a, str>; 3],
    data: Option<Data<'a>>,
}

impl<'a> Message<'a> for Metric<'_, 'a> {
    const EXPECTED: &'static str = "a metric object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let [metric_name, description, unit] = &mut self.texts;
        let kind = match name {
            "name" => {
                *metric_name = field.text()?;
                return Ok(());
            }
            "description" => {
                *description = field.text()?;
                return Ok(());
            }
            "unit" => {
                *unit = field.text()?;
                return Ok(());
            }
            "metadata" => {
                return read_attributes(field, self.source, self.entries, self.metadata);
            }
            "gauge" => MetricKind::Gauge,
            "sum" => MetricKind::Sum {
                aggregation_temporality: 0,
                is_monotonic: false,
            },
            "histogram" => MetricKind::Histogram {
                aggregation_temporality: 0,
            },
            "exponentialHistogram" | "exponential_histogram" => MetricKind::ExpHistogram {
                aggregation_temporality: 0,
            },
            "summary" => MetricKind::Summary,
            _ => return field.skip(),
        };
        let mut data = Data { kind, points: None };
        if field.message(&mut data)? {
            self.data = Some(data);
        }
        Ok(())
    }
}

/// A `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram` or `Summary`.
struct Data<'a> {
    kind: MetricKind,
    points: Option<&'a RawValue>,
}

impl<'a> Message<'a> for Data<'a> {
    const EXPECTED: &'static str = "an object with `dataPoints`";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match (name, &mut self.kind) {
            ("dataPoints" | "data_points", _) => field.raw_once(&mut self.points),
            (
                "aggregationTemporality" | "aggregation_temporality",
                MetricKind::Sum {
                    aggregation_temporality,
                    ..
                }
                | MetricKind::Histogram {
                    aggregation_temporality,
                }
                | MetricKind::ExpHistogram {
                    aggregation_temporality,
                },
            ) => {
                *aggregation_temporality = field.enumeration(temporality)?;
                Ok(())
            }
            ("isMonotonic" | "is_monotonic", MetricKind::Sum { is_monotonic, .. }) => {
                *is_monotonic = field.boolean()?.unwrap_or_default();
                Ok(())
            }
            _ => field.skip(),
        }
    }
}

fn temporality(name: &str) -> Option<i32> {
    Some(match name {
        "AGGREGATION_TEMPORALITY_UNSPECIFIED" => 0,
        "AGGREGATION_TEMPORALITY_DELTA" => 1,
        "AGGREGATION_TEMPORALITY_CUMULATIVE" => 2,
        _ => return None,
    })
}
