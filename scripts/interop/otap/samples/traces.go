package main

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// spanEventsLinks has spans with and without events, links, parents and status, in two resources.
func spanEventsLinks() []request {
	var made []request
	for n := range 4 {
		data := ptrace.NewTraces()
		full := data.ResourceSpans().AppendEmpty()
		full.SetSchemaUrl("https://opentelemetry.io/schemas/1.26.0")
		checkout(full.Resource())
		scoped := full.ScopeSpans().AppendEmpty()
		scoped.SetSchemaUrl("https://opentelemetry.io/schemas/1.25.0")
		mongodb(scoped.Scope())
		for i := range 12 {
			fullSpan(scoped.Spans().AppendEmpty(), 100*n+i)
		}
		bare := data.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty()
		for i := range 5 {
			span := bare.Spans().AppendEmpty()
			span.SetTraceID(traceID(1000 + n))
			span.SetSpanID(spanID(100*n + 50 + i))
			span.SetStartTimestamp(time(i))
			span.SetEndTimestamp(time(i))
		}
		made = append(made, traces(data))
	}
	return made
}

func fullSpan(span ptrace.Span, n int) {
	span.SetTraceID(traceID(n / 4))
	span.SetSpanID(spanID(n))
	if n%4 != 0 {
		span.SetParentSpanID(spanID(n - n%4))
	}
	span.SetName([]string{"POST /pay/{id}", "SELECT", ""}[n%3])
	span.SetKind(ptrace.SpanKind(n % 6))
	span.SetStartTimestamp(time(n))
	// Whole seconds recur, the others do not; one span ends before it starts.
	span.SetEndTimestamp(time(n + []int{1_000_000_000, 1_234_567_891 + n, 0, -1}[n%4]))
	span.SetFlags(uint32([]int{0, 0x101, 0x301}[n%3]))
	span.TraceState().FromRaw([]string{"", "congo=t61rcWkgMzE"}[n%2])
	span.SetDroppedAttributesCount(uint32(n % 3))
	span.SetDroppedEventsCount(uint32(n % 5))
	span.SetDroppedLinksCount(uint32(n % 7))
	span.Status().SetCode(ptrace.StatusCode(n % 3))
	if n%3 == 2 {
		span.Status().SetMessage("card \"declined\"")
	}
	everyKind(span.Attributes(), n)
	for i := range n % 4 {
		event := span.Events().AppendEmpty()
		event.SetTimestamp(time(n + i))
		event.SetName([]string{"exception", "retry", ""}[i%3])
		event.SetDroppedAttributesCount(uint32(i))
		if i != 1 {
			everyKind(event.Attributes(), n+i)
		}
	}
	for i := range n % 3 {
		link := span.Links().AppendEmpty()
		link.SetTraceID(traceID(2000 + n/6))
		link.SetSpanID(spanID(3000 + n + i))
		link.SetFlags(uint32(0x100 * i))
		link.TraceState().FromRaw([]string{"rojo=00f067aa0ba902b7", ""}[i%2])
		link.SetDroppedAttributesCount(uint32(i))
		linkAttributes(link.Attributes(), n, i)
	}
}

func linkAttributes(to pcommon.Map, n, i int) {
	if i == 0 {
		everyKind(to, n)
		return
	}
	to.PutStr("messaging.batch", fmt.Sprint(n))
}

// spanDictionaryReset has more than 65,535 event names, the most that an exporter's dictionary holds, each often enough that the
// exporter does not give the dictionary up, but begins it anew in the midst of the stream.
func spanDictionaryReset() []request {
	const (
		requests = 12
		names    = 6000
		repeats  = 4
	)
	var made []request
	for n := range requests {
		data := ptrace.NewTraces()
		spans := data.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
		for i := range repeats {
			span := spans.AppendEmpty()
			span.SetTraceID(traceID(n))
			span.SetSpanID(spanID(repeats*n + i))
			span.SetStartTimestamp(time(n))
			span.SetEndTimestamp(time(n + i))
			for name := range names {
				span.Events().AppendEmpty().SetName(fmt.Sprintf("%x", 1<<16+n*names+name))
			}
		}
		made = append(made, traces(data))
	}
	return made
}
