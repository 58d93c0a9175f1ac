//! One family after the other, as OpenMetrics wants them: a name with its unit, a type, a help text, and the samples together.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::latency::{BOUNDS_US, Latencies};

/// Labels of a sample: names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// What a family is called and means.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Without unit and `_total`.
    name: &'static str,
    unit: Option<&'static Unit>,
    help: &'static str,
}

impl Family {
    /// A family of plain numbers.
    pub(super) const fn plain(name: &'static str, help: &'static str) -> Family {
        Family {
            name,
            unit: None,
            help,
        }
    }

    /// A family of bytes.
    pub(super) const fn bytes(name: &'static str, help: &'static str) -> Family {
        Family {
            name,
            unit: Some(&Unit::Bytes),
            help,
        }
    }

    /// A family of seconds.
    pub(super) const fn seconds(name: &'static str, help: &'static str) -> Family {
        Family {
            name,
            unit: Some(&Unit::Seconds),
            help,
        }
    }
}

/// The page that is being written.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page { encoder }
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, family: Family, value: u64) -> fmt::Result {
        self.counters(family, [([], value)])
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, family: Family, value: u64) -> fmt::Result {
        self.gauges(family, [([], value)])
    }

    /// A counter with a sample for each set of labels. Without any, there is no family.
    pub(super) fn counters<'l, const N: usize>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.numbers(family, MetricType::Counter, samples, |sample, value| {
            sample.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A gauge with a sample for each set of labels. Without any, there is no family.
    pub(super) fn gauges<'l, const N: usize>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.numbers(family, MetricType::Gauge, samples, |sample, value| {
            sample.encode_gauge(&value)
        })
    }

    fn numbers<'l, const N: usize>(
        &mut self,
        family: Family,
        metric_type: MetricType,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
        write: impl Fn(&mut MetricEncoder<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let Family { name, unit, help } = family;
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, unit, metric_type)?;
        for (labels, value) in samples {
            with(&mut metric, &labels, |sample| write(sample, value))?;
        }
        Ok(())
    }

    /// A counter of seconds.
    pub(super) fn counter_of_time(&mut self, family: Family, time: Duration) -> fmt::Result {
        let Family { name, unit, help } = family;
        self.encoder
            .encode_descriptor(name, help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&time.as_secs_f64(), None)
    }

    /// A gauge of seconds: a length of time, or a moment as the time since the Unix epoch.
    pub(super) fn gauge_of_time(&mut self, family: Family, time: Duration) -> fmt::Result {
        let Family { name, unit, help } = family;
        self.encoder
            .encode_descriptor(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&time.as_secs_f64())
    }

    /// A histogram with one distribution for each set of labels.
    pub(super) fn histograms<'l, const N: usize>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], Latencies)>,
    ) -> fmt::Result {
        let Family { name, unit, help } = family;
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, latencies) in samples {
            let ends = BOUNDS_US.map(|us| Duration::from_micros(us).as_secs_f64());
            let ends = ends.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(latencies.buckets).collect();
            let sum = Duration::from_nanos(latencies.sum_ns).as_secs_f64();
            with(&mut metric, &labels, |sample| {
                sample.encode_histogram::<NoLabelSet>(sum, latencies.count(), &buckets, None)
            })?;
        }
        Ok(())
    }

    /// A family that says what it says by its labels.
    pub(super) fn info(&mut self, family: Family, labels: Labels<'_>) -> fmt::Result {
        self.encoder
            .encode_descriptor(family.name, family.help, None, MetricType::Info)?
            .encode_info(&labels)
    }
}

/// Writes a sample with its labels; without any there are no braces either.
fn with<const N: usize>(
    metric: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    sample: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if N == 0 {
        sample(metric)
    } else {
        sample(&mut metric.encode_family(labels)?)
    }
}
