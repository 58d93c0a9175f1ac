//! OTLP `metrics.proto`: `Metric` and the data points of its five kinds.

use super::SignalDecoder;
use super::attributes::{Attributes, LIST_ITEMS_MAX};
use super::wire::{Fields, Value, check_list};
use crate::decode::DecodeError;
use crate::rows::{
    ExemplarFields, ExpHistogramPoint, HistogramPoint, JsonText, MetricFields, MetricKind,
    MetricRows, NumberPoint, NumberValue, PointFields, ResourceFields, ScopeFields, SummaryPoint,
};

pub(super) struct Decoder<'a, 'r> {
    rows: &'r mut MetricRows,
    scratch: Scratch<'a>,
}

/// Space reused from point to point.
#[derive(Default)]
struct Scratch<'a> {
    attributes: Attributes<'a>,
    nested: Attributes<'a>,
    exemplars: JsonText,
    counts: [Vec<u64>; 2],
    doubles: [Vec<f64>; 2],
}

impl<'r> Decoder<'_, 'r> {
    pub(super) fn new(rows: &'r mut MetricRows) -> Self {
        Decoder {
            rows,
            scratch: Scratch::default(),
        }
    }
}

impl<'a> SignalDecoder<'a> for Decoder<'a, '_> {
    fn set_resource(&mut self, resource: &ResourceFields<'_>) {
        self.rows.set_resource(resource);
    }

    fn set_scope(&mut self, scope: &ScopeFields<'_>) {
        self.rows.set_scope(scope);
    }

    fn expect(&mut self, _: usize) {
        // A metric's points are not counted yet, nor is it known which table they are for.
    }

    fn record(&mut self, record: &'a [u8]) -> Result<(), DecodeError> {
        let metadata = &mut self.scratch.attributes;
        metadata.clear();
        let mut metric = MetricFields::default();
        let mut data = None;
        let mut further = Vec::new();
        let mut fields = Fields::new(record);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => metric.name = value.text()?,
                2 => metric.description = value.text()?,
                3 => metric.unit = value.text()?,
                // The data is a oneof: of several kinds the last one counts. The parts of one kind are merged.
                5 | 7 | 9 | 10 | 11 => match data {
                    Some((kind, _)) if kind == number => {
                        further.push(value.bytes()?);
                        check_list(further.len(), LIST_ITEMS_MAX)?;
                    }
                    _ => {
                        data = Some((number, value.bytes()?));
                        further.clear();
                    }
                },
                12 => metadata.push(value.bytes()?)?,
                _ => {}
            }
        }
        let Some((kind, first)) = data else {
            return Ok(()); // A metric without data has no points, so no rows.
        };
        let parts = std::iter::once(first).chain(further);
        metric.kind = metric_kind(kind, parts.clone())?;
        metric.metadata = metadata.write()?;
        self.rows.set_metric(&metric);
        let kind = metric.kind;
        for part in parts {
            let mut points = Fields::new(part);
            while let Some((number, value)) = points.next()? {
                if number == 1 {
                    self.point(kind, value.bytes()?)?;
                }
            }
        }
        Ok(())
    }
}

/// What the metric's data says beside its points: they may stand before it.
fn metric_kind<'a>(
    kind: u32,
    parts: impl Iterator<Item = &'a [u8]>,
) -> Result<MetricKind, DecodeError> {
    let (mut aggregation_temporality, mut is_monotonic) = (0, false);
    let parts = parts.filter(|_| matches!(kind, 7 | 9 | 10));
    for part in parts {
        let mut fields = Fields::new(part);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => aggregation_temporality = value.int32()?,
                3 if kind == 7 => is_monotonic = value.bool()?,
                _ => {}
            }
        }
    }
    Ok(match kind {
        5 => MetricKind::Gauge,
        7 => MetricKind::Sum {
            aggregation_temporality,
            is_monotonic,
        },
        9 => MetricKind::Histogram {
            aggregation_temporality,
        },
        10 => MetricKind::ExpHistogram {
            aggregation_temporality,
        },
        _ => MetricKind::Summary,
    })
}

impl<'a> Decoder<'a, '_> {
    fn point(&mut self, kind: MetricKind, message: &'a [u8]) -> Result<(), DecodeError> {
        let scratch = &mut self.scratch;
        scratch.attributes.clear();
        scratch.exemplars.clear();
        scratch.counts.iter_mut().for_each(Vec::clear);
        scratch.doubles.iter_mut().for_each(Vec::clear);
        match kind {
            MetricKind::Gauge | MetricKind::Sum { .. } => {
                let number = scratch.number(message)?;
                Ok(self.rows.push_number(&number)?)
            }
            MetricKind::Histogram { .. } => {
                let histogram = scratch.histogram(message)?;
                Ok(self.rows.push_histogram(&histogram)?)
            }
            MetricKind::ExpHistogram { .. } => {
                let histogram = scratch.exp_histogram(message)?;
                Ok(self.rows.push_exp_histogram(&histogram)?)
            }
            MetricKind::Summary => {
                let summary = scratch.summary(message)?;
                Ok(self.rows.push_summary(&summary)?)
            }
        }
    }
}

impl<'a> Scratch<'a> {
    fn exemplar(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        self.nested.clear();
        let mut exemplar = ExemplarFields::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => exemplar.time_unix_nano = value.fixed64()?,
                3 => exemplar.value = NumberValue::Double(value.double()?),
                4 => exemplar.span_id = value.bytes()?,
                5 => exemplar.trace_id = value.bytes()?,
                6 => exemplar.value = NumberValue::Int(value.fixed64()?.cast_signed()),
                7 => self.nested.push(value.bytes()?)?,
                _ => {}
            }
        }
        exemplar.filtered_attributes = self.nested.write()?;
        self.exemplars.push_exemplar(&exemplar);
        Ok(())
    }

    fn number(&mut self, message: &'a [u8]) -> Result<NumberPoint<'_>, DecodeError> {
        let mut point = PointFields::default();
        let mut number_value = NumberValue::None;
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => point.start_time_unix_nano = value.fixed64()?,
                3 => point.time_unix_nano = value.fixed64()?,
                4 => number_value = NumberValue::Double(value.double()?),
                5 => self.exemplar(value.bytes()?)?,
                6 => number_value = NumberValue::Int(value.fixed64()?.cast_signed()),
                7 => self.attributes.push(value.bytes()?)?,
                8 => point.flags = value.uint32()?,
                _ => {}
            }
        }
        self.exemplars.end_list();
        Ok(NumberPoint {
            point: PointFields {
                attributes: self.attributes.write()?,
                exemplars_json: self.exemplars.as_str(),
                ..point
            },
            value: number_value,
        })
    }

    fn histogram(&mut self, message: &'a [u8]) -> Result<HistogramPoint<'_>, DecodeError> {
        let mut point = PointFields::default();
        let mut histogram = HistogramPoint::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => point.start_time_unix_nano = value.fixed64()?,
                3 => point.time_unix_nano = value.fixed64()?,
                4 => histogram.count = value.fixed64()?,
                5 => histogram.sum = Some(value.double()?),
                6 => value.fixed64s(&mut self.counts[0], LIST_ITEMS_MAX, |bits| bits)?,
                7 => value.fixed64s(&mut self.doubles[0], LIST_ITEMS_MAX, f64::from_bits)?,
                8 => self.exemplar(value.bytes()?)?,
                9 => self.attributes.push(value.bytes()?)?,
                10 => point.flags = value.uint32()?,
                11 => histogram.min = Some(value.double()?),
                12 => histogram.max = Some(value.double()?),
                _ => {}
            }
        }
        self.exemplars.end_list();
        Ok(HistogramPoint {
            point: PointFields {
                attributes: self.attributes.write()?,
                exemplars_json: self.exemplars.as_str(),
                ..point
            },
            bucket_counts: &self.counts[0],
            explicit_bounds: &self.doubles[0],
            ..histogram
        })
    }

    fn exp_histogram(&mut self, message: &'a [u8]) -> Result<ExpHistogramPoint<'_>, DecodeError> {
        let mut point = PointFields::default();
        let mut histogram = ExpHistogramPoint::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => self.attributes.push(value.bytes()?)?,
                2 => point.start_time_unix_nano = value.fixed64()?,
                3 => point.time_unix_nano = value.fixed64()?,
                4 => histogram.count = value.fixed64()?,
                5 => histogram.sum = Some(value.double()?),
                6 => histogram.scale = value.sint32()?,
                7 => histogram.zero_count = value.fixed64()?,
                8 => buckets(value, &mut histogram.positive_offset, &mut self.counts[0])?,
                9 => buckets(value, &mut histogram.negative_offset, &mut self.counts[1])?,
                10 => point.flags = value.uint32()?,
                11 => self.exemplar(value.bytes()?)?,
                12 => histogram.min = Some(value.double()?),
                13 => histogram.max = Some(value.double()?),
                14 => histogram.zero_threshold = value.double()?,
                _ => {}
            }
        }
        self.exemplars.end_list();
        Ok(ExpHistogramPoint {
            point: PointFields {
                attributes: self.attributes.write()?,
                exemplars_json: self.exemplars.as_str(),
                ..point
            },
            positive_bucket_counts: &self.counts[0],
            negative_bucket_counts: &self.counts[1],
            ..histogram
        })
    }

    fn summary(&mut self, message: &'a [u8]) -> Result<SummaryPoint<'_>, DecodeError> {
        let mut point = PointFields::default();
        let mut summary = SummaryPoint::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => point.start_time_unix_nano = value.fixed64()?,
                3 => point.time_unix_nano = value.fixed64()?,
                4 => summary.count = value.fixed64()?,
                5 => summary.sum = value.double()?,
                6 => self.quantile(value.bytes()?)?,
                7 => self.attributes.push(value.bytes()?)?,
                8 => point.flags = value.uint32()?,
                _ => {}
            }
        }
        Ok(SummaryPoint {
            point: PointFields {
                attributes: self.attributes.write()?,
                ..point
            },
            quantiles: &self.doubles[0],
            quantile_values: &self.doubles[1],
            ..summary
        })
    }

    fn quantile(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let (mut quantile, mut at) = (0.0, 0.0);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => quantile = value.double()?,
                2 => at = value.double()?,
                _ => {}
            }
        }
        let [quantiles, values] = &mut self.doubles;
        quantiles.push(quantile);
        values.push(at);
        check_list(quantiles.len(), LIST_ITEMS_MAX)
    }
}

/// `ExponentialHistogramDataPoint.Buckets`: 1 offset, 2 counts.
fn buckets(value: Value<'_>, offset: &mut i32, counts: &mut Vec<u64>) -> Result<(), DecodeError> {
    let mut fields = Fields::new(value.bytes()?);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => *offset = value.sint32()?,
            2 => value.varints(counts, LIST_ITEMS_MAX)?,
            _ => {}
        }
    }
    Ok(())
}
