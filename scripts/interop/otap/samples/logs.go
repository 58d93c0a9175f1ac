package main

import (
	"fmt"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// logValues has bodies and attributes of every kind, in two resources with two scopes each, one of them bare.
func logValues() []request {
	var made []request
	for n := range 3 {
		data := plog.NewLogs()
		full := data.ResourceLogs().AppendEmpty()
		full.SetSchemaUrl("https://opentelemetry.io/schemas/1.26.0")
		checkout(full.Resource())
		scoped := full.ScopeLogs().AppendEmpty()
		scoped.SetSchemaUrl("https://opentelemetry.io/schemas/1.25.0")
		mongodb(scoped.Scope())
		for i := range 12 {
			record := scoped.LogRecords().AppendEmpty()
			fullRecord(record, 12*n+i)
		}
		undated := full.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		undated.SetObservedTimestamp(time(3))
		undated.Attributes().PutStr("event.name", "from.attribute")
		bare := data.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
		for i := range 3 {
			record := bare.LogRecords().AppendEmpty()
			record.SetTimestamp(time(100*n + i))
			record.Body().SetStr("bare")
		}
		made = append(made, logs(data))
	}
	return made
}

func fullRecord(record plog.LogRecord, n int) {
	record.SetTimestamp(time(n))
	record.SetObservedTimestamp(time(n + 1))
	record.SetSeverityNumber(plog.SeverityNumber(n % 25))
	record.SetSeverityText([]string{"", "INFO", "ERROR"}[n%3])
	record.SetEventName([]string{"", "payment.failed"}[n%2])
	record.SetDroppedAttributesCount(uint32(n))
	record.SetFlags(plog.LogRecordFlags(n % 2))
	if n%4 != 0 {
		record.SetTraceID(traceID(n))
		record.SetSpanID(spanID(n))
	}
	everyKind(record.Attributes(), n)
	body := record.Body()
	switch n % 8 {
	case 0:
		body.SetStr("payment of 12 € failed\n\tat line 1")
	case 1:
		everyKind(body.SetEmptyMap(), n)
	case 2:
		list := body.SetEmptySlice()
		list.AppendEmpty().SetInt(1)
		list.AppendEmpty().SetStr("two")
	case 3:
		body.SetEmptyBytes().FromRaw([]byte("\x00binary\xff"))
	case 4:
		body.SetDouble(math.Inf(-1))
	case 5:
		body.SetInt(math.MinInt64)
	case 6:
		body.SetBool(true)
	}
}

// logDictionaries makes an exporter's dictionaries overflow: event names and keys are few in a request and new in the next,
// so that a dictionary of at most 255 is begun anew; bodies and ids are all new, so that indices widen.
func logDictionaries() []request {
	var made []request
	for n := range 24 {
		data := plog.NewLogs()
		scoped := data.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
		for i := range 128 {
			record := scoped.LogRecords().AppendEmpty()
			record.SetTimestamp(time(128*n + i))
			record.SetSpanID(spanID(128*n + i))
			record.SetTraceID(traceID(8*n + i%8))
			record.SetEventName(fmt.Sprintf("event.%d.%d", n, i%16))
			record.SetSeverityText([]string{"INFO", "WARN"}[i%2])
			record.Body().SetStr(fmt.Sprintf("request %d took a while", 128*n+i))
			record.Attributes().PutStr(fmt.Sprintf("key.%d.%d", n, i%16), fmt.Sprintf("value.%d", i%4))
			record.Attributes().PutInt("seq", int64(128*n+i))
		}
		made = append(made, logs(data))
	}
	return made
}

// logLateColumns begins with what a log has at least; each request adds columns, and the last goes without them again.
func logLateColumns() []request {
	steps := []func(plog.LogRecord, int){
		func(record plog.LogRecord, n int) { record.Body().SetStr(fmt.Sprint("line ", n)) },
		func(record plog.LogRecord, n int) { record.SetSeverityNumber(plog.SeverityNumberInfo) },
		func(record plog.LogRecord, n int) { record.SetEventName("late") },
		func(record plog.LogRecord, n int) { record.Attributes().PutStr("text", "first") },
		func(record plog.LogRecord, n int) { record.Attributes().PutDouble("ratio", float64(n)/3) },
		func(record plog.LogRecord, n int) {
			record.Attributes().PutEmptySlice("list").AppendEmpty().SetInt(int64(n))
		},
		func(record plog.LogRecord, n int) { record.SetTraceID(traceID(n)); record.SetSpanID(spanID(n)) },
		func(record plog.LogRecord, n int) { record.Body().SetInt(int64(n)) },
		func(record plog.LogRecord, n int) { record.SetObservedTimestamp(time(n)); record.SetFlags(1) },
	}
	var made []request
	for n := range len(steps) + 2 {
		data := plog.NewLogs()
		resource := data.ResourceLogs().AppendEmpty()
		if n > 4 {
			resource.SetSchemaUrl("https://opentelemetry.io/schemas/1.26.0")
			resource.Resource().Attributes().PutStr("service.name", "late")
		}
		scoped := resource.ScopeLogs().AppendEmpty()
		if n > 6 {
			mongodb(scoped.Scope())
		}
		upTo := min(n+1, len(steps))
		if n > len(steps) {
			upTo = 1
		}
		for i := range 4 {
			record := scoped.LogRecords().AppendEmpty()
			record.SetTimestamp(pcommon.Timestamp(at + 10*n + i))
			for _, step := range steps[:upTo] {
				step(record, 10*n+i)
			}
		}
		made = append(made, logs(data))
	}
	return made
}
