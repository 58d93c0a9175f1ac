package main

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// metricKinds has metrics of all five kinds, with points that have everything and points that have nothing.
func metricKinds() []request {
	var made []request
	for n := range 4 {
		data := pmetric.NewMetrics()
		full := data.ResourceMetrics().AppendEmpty()
		full.SetSchemaUrl("https://opentelemetry.io/schemas/1.26.0")
		checkout(full.Resource())
		scoped := full.ScopeMetrics().AppendEmpty()
		scoped.SetSchemaUrl("https://opentelemetry.io/schemas/1.25.0")
		mongodb(scoped.Scope())
		everyMetric(scoped.Metrics(), n)
		everyMetric(data.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics(), n+10)
		made = append(made, metrics(data))
	}
	return made
}

func everyMetric(to pmetric.MetricSlice, n int) {
	gauge := to.AppendEmpty()
	gauge.SetName("queue.length")
	gauge.SetDescription("Größe der Warteschlange")
	gauge.SetUnit("{request}")
	gauge.Metadata().PutStr("source", "prometheus")
	numbers(gauge.SetEmptyGauge().DataPoints(), n)
	sum := to.AppendEmpty()
	sum.SetName("requests")
	sum.SetEmptySum().SetIsMonotonic(n%2 == 0)
	sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporality(1 + n%2))
	numbers(sum.Sum().DataPoints(), n+1)
	histogram := to.AppendEmpty()
	histogram.SetName("latency")
	histogram.SetUnit("ms")
	histogram.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	histograms(histogram.Histogram().DataPoints(), n)
	exponential := to.AppendEmpty()
	exponential.SetName("latency.exponential")
	exponential.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	exponentials(exponential.ExponentialHistogram().DataPoints(), n)
	summary := to.AppendEmpty()
	summary.SetName("latency.summary")
	summaries(summary.SetEmptySummary().DataPoints(), n)
}

func numbers(to pmetric.NumberDataPointSlice, n int) {
	for i := range 8 {
		point := to.AppendEmpty()
		point.SetStartTimestamp(time(-60_000_000_000))
		point.SetTimestamp(time(n + i))
		everyKind(point.Attributes(), n+i)
		switch i {
		case 0:
			point.SetIntValue(int64(n))
		case 1:
			point.SetIntValue(math.MinInt64)
		case 2:
			point.SetDoubleValue(-0.25)
		case 3:
			point.SetDoubleValue(math.NaN())
		case 4:
			point.SetDoubleValue(math.Inf(1))
		case 5:
			point.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		case 6:
			point.SetIntValue(0)
		case 7:
			point.SetDoubleValue(0)
		}
		if i%3 == 0 {
			exemplars(point.Exemplars(), n+i)
		}
	}
}

func exemplars(to pmetric.ExemplarSlice, n int) {
	full := to.AppendEmpty()
	full.SetTimestamp(time(n))
	full.SetTraceID(traceID(n))
	full.SetSpanID(spanID(n))
	full.SetIntValue(int64(n))
	everyKind(full.FilteredAttributes(), n)
	same := to.AppendEmpty()
	same.SetTimestamp(time(n + 1))
	same.SetIntValue(int64(n))
	double := to.AppendEmpty()
	double.SetDoubleValue(0.5 * float64(n))
	double.FilteredAttributes().PutStr("user", "u")
}

func histograms(to pmetric.HistogramDataPointSlice, n int) {
	for i := range 3 {
		point := to.AppendEmpty()
		point.SetTimestamp(time(n + i))
		point.SetStartTimestamp(time(-1))
		point.SetCount(uint64(n + 6))
		point.SetSum(12.5 * float64(i))
		point.SetMin(0)
		point.SetMax(math.MaxFloat64)
		point.BucketCounts().FromRaw([]uint64{1, 0, uint64(n), 5})
		point.ExplicitBounds().FromRaw([]float64{-0.5, 0, 1e300})
		everyKind(point.Attributes(), n+i)
		exemplars(point.Exemplars(), n+i)
	}
	least := to.AppendEmpty()
	least.SetTimestamp(time(n))
	least.SetCount(math.MaxUint64)
}

func exponentials(to pmetric.ExponentialHistogramDataPointSlice, n int) {
	for i := range 3 {
		point := to.AppendEmpty()
		point.SetTimestamp(time(n + i))
		point.SetStartTimestamp(time(-1))
		point.SetCount(9)
		point.SetSum(-1)
		point.SetScale(int32(-4 + i))
		point.SetZeroCount(2)
		point.SetZeroThreshold([]float64{0, 1e-9}[i%2])
		point.Positive().SetOffset(int32(-7 * i))
		point.Positive().BucketCounts().FromRaw([]uint64{3, 0, 1 << 60})
		point.Negative().SetOffset(math.MaxInt32)
		if i == 2 {
			point.Negative().BucketCounts().FromRaw([]uint64{1})
			point.SetMin(-3)
			point.SetMax(math.NaN())
		}
		everyKind(point.Attributes(), n+i)
		exemplars(point.Exemplars(), n+i)
	}
	to.AppendEmpty().SetTimestamp(time(n))
}

func summaries(to pmetric.SummaryDataPointSlice, n int) {
	for i := range 3 {
		point := to.AppendEmpty()
		point.SetTimestamp(time(n + i))
		point.SetStartTimestamp(time(-1))
		point.SetCount(100)
		point.SetSum(0.3)
		quantile(point, 0, -1)
		quantile(point, 0.99, math.Inf(1))
		if i > 0 {
			quantile(point, 1, 5e-324)
		}
		everyKind(point.Attributes(), n+i)
	}
	to.AppendEmpty().SetTimestamp(pcommon.Timestamp(at + n))
}

func quantile(of pmetric.SummaryDataPoint, at, value float64) {
	made := of.QuantileValues().AppendEmpty()
	made.SetQuantile(at)
	made.SetValue(value)
}
