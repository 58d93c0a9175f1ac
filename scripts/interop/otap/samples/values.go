package main

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// 2025-01-02 03:04:05.123456789 UTC.
const at = 1_735_787_045_123_456_789

func time(after int) pcommon.Timestamp { return pcommon.Timestamp(at + after) }

func traceID(n int) (id pcommon.TraceID) {
	binary.BigEndian.PutUint64(id[:8], 0x0af7651916cd43dd)
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func spanID(n int) (id pcommon.SpanID) {
	binary.BigEndian.PutUint64(id[:], 0xb7ad6b7100000000|uint64(n))
	return id
}

// everyKind puts an attribute of every kind that OTLP has into `to`, keys out of order; values vary with `n`.
func everyKind(to pcommon.Map, n int) {
	to.PutStr("zeta", "naïve ☕ 日本語 \U0001f980 \"q\" \\ \n\t\x01")
	to.PutStr("text", []string{"", "a", "bb"}[n%3])
	to.PutInt("int", []int64{0, 1, -1, math.MinInt64, math.MaxInt64, 42}[n%6])
	to.PutDouble("double", []float64{0, 0.1, -0.25, math.Inf(1), math.Inf(-1), math.NaN(), 5e-324, math.MaxFloat64}[n%8])
	to.PutBool("bool", n%2 == 0)
	to.PutEmptyBytes("bytes").FromRaw([][]byte{{}, {0, 1, 254, 255}}[n%2])
	to.PutEmpty("empty")
	list := to.PutEmptySlice("list")
	list.AppendEmpty().SetStr("a")
	list.AppendEmpty().SetInt(int64(n))
	list.AppendEmpty()
	list.AppendEmpty().SetEmptySlice().AppendEmpty().SetBool(true)
	to.PutEmptySlice("empty list")
	inner := to.PutEmptyMap("map")
	inner.PutDouble("β", 0.5)
	inner.PutEmptyMap("a").PutEmptyBytes("b").FromRaw([]byte{7})
	inner.PutInt("n", math.MinInt64)
	to.PutEmptyMap("empty map")
}

func checkout(to pcommon.Resource) {
	to.Attributes().PutStr("service.name", "checkout-überall")
	to.Attributes().PutStr("service.namespace", "shop")
	to.Attributes().PutStr("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09")
	to.Attributes().PutEmptySlice("process.command_args").AppendEmpty().SetStr("run")
	to.Attributes().PutInt("host.cpu.count", 64)
	to.SetDroppedAttributesCount(3)
}

func mongodb(to pcommon.InstrumentationScope) {
	to.SetName("io.opentelemetry.contrib.mongodb")
	to.SetVersion("1.2.3-β")
	to.Attributes().PutBool("scoped", true)
	to.Attributes().PutStr("lib", "driver")
	to.SetDroppedAttributesCount(9)
}
