"""Exports logs, traces and metrics through the public OpenTelemetry SDK for Python.

export.py grpc|http SERVICE; the SDK's own OTEL_EXPORTER_OTLP_* variables say where to and how. What it exports is what
export.cjs exports, and check.py looks for. On standard output: one JSON object with what only this run knows.
"""

import json
import logging
import sys
import time

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

PROTOCOL, SERVICE = sys.argv[1:]
if PROTOCOL == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

# The same in export.cjs and check.py.
START_NS = 1_700_000_000_123_456_789
MS = 1_000_000
TICKS = 600
LINES = 1000
BATCH = 200
REFUSALS = 20
SCOPE = ("interop.scope", "1.2.3", "https://opentelemetry.io/schemas/1.26.0")
REMOTE = SpanContext(
    trace_id=0x0AF7651916CD43DD8448EB211C80319C,
    span_id=0xB7AD6B7169203331,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("vendor", "one")]),
)


class Complaints(logging.Handler):
    """Keeps what the SDK warns of: a failed export, one that is tried again, a partial success."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def resource(service):
    return Resource.create(
        {
            "service.name": service,
            "service.namespace": "interop",
            "service.instance.id": "one",
            "interop.answer": 42,
            "interop.tags": ["a", "b"],
        },
        schema_url="https://opentelemetry.io/schemas/1.27.0",
    )


def export_traces(provider):
    """Five spans that show the fields, then many small ones in several batches."""
    tracer = provider.get_tracer(*SCOPE, attributes={"interop.kind": "scope"})
    spans = {}

    def start(name, kind, at, parent=None, **more):
        context = trace.set_span_in_context(parent) if parent else None
        spans[name] = tracer.start_span(name, context, kind, start_time=START_NS + at * MS, **more)
        return spans[name]

    checkout = start(
        "GET /checkout",
        SpanKind.SERVER,
        0,
        attributes={
            "text": 'grüße "quoted"\n',
            "int": 9_007_199_254_740_991,
            "negative": -7,
            "double": 1.5,
            "bool": True,
            "texts": ["x", "y"],
            "ints": [1, 2, 3],
        },
    )
    checkout.add_event("cache miss", {"key": "cart", "size": 3}, timestamp=START_NS + 1 * MS)
    checkout.add_event("cache filled", timestamp=START_NS + 2 * MS)
    select = start(
        "SELECT cart", SpanKind.CLIENT, 3, checkout, links=[Link(REMOTE, {"reason": "retry", "attempt": 2})]
    )
    select.set_status(Status(StatusCode.OK))
    select.end(START_NS + 4 * MS)
    charge = start("charge card", SpanKind.INTERNAL, 5, checkout)
    charge.record_exception(ValueError("card declined"), timestamp=START_NS + 6 * MS)
    charge.set_status(Status(StatusCode.ERROR, "card declined"))
    charge.end(START_NS + 7 * MS)
    settle = start("settle", SpanKind.CONSUMER, 8, NonRecordingSpan(REMOTE))
    publish = start("publish", SpanKind.PRODUCER, 9, settle)
    publish.end(START_NS + 10 * MS)
    settle.end(START_NS + 11 * MS)
    checkout.end(START_NS + 12 * MS)

    for seq in range(TICKS):
        tick = tracer.start_span("tick", attributes={"seq": seq}, start_time=START_NS + seq)
        tick.end(START_NS + 2 * seq)
    return spans


def export_logs(provider, span):
    """Three records that show the fields, then many small ones in several batches."""
    logger = provider.get_logger(*SCOPE, attributes={"interop.kind": "scope"})
    logger.emit(
        timestamp=START_NS,
        observed_timestamp=START_NS + 1,
        context=trace.set_span_in_context(span),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        body="paid 12.50 € 🛒",
        attributes={
            "text": "a",
            "int": 7,
            "double": 0.25,
            "bool": False,
            "list": ["x", "y"],
            "map": {"b": 1, "a": {"deep": "yes"}},
            "bytes": b"\x00\x01\xff",
        },
    )
    logger.emit(
        timestamp=START_NS + 2,
        observed_timestamp=START_NS + 3,
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        body={"order": 7, "ok": True, "items": ["a", 1.5]},
        event_name="order.placed",
    )
    logger.emit(observed_timestamp=START_NS + 4, timestamp=START_NS + 4, severity_number=SeverityNumber.FATAL4)
    for seq in range(LINES):
        logger.emit(
            timestamp=START_NS + 1000 + seq,
            observed_timestamp=START_NS + 1000 + seq,
            severity_number=SeverityNumber.DEBUG,
            severity_text="DEBUG",
            body=f"line {seq}",
            attributes={"seq": seq},
        )


def export_metrics(provider, span):
    """Every instrument, measured inside a span, so that the SDK may add exemplars."""
    meter = provider.get_meter(*SCOPE, attributes={"interop.kind": "scope"})
    context = trace.set_span_in_context(span)
    requests = meter.create_counter("requests", "1", "Requests served")
    for count, route in [(3, "/checkout"), (4, "/checkout"), (5, "/cart")]:
        requests.add(count, {"route": route}, context)
    meter.create_counter("sent", "By").add(2.5, context=context)
    queued = meter.create_up_down_counter("queued")
    for change in [5, -7]:
        queued.add(change, context=context)
    meter.create_observable_counter("cpu", [lambda options: [Observation(11)]], "s")
    meter.create_observable_gauge("temperature", [lambda options: [Observation(-3.25, {"room": "lab"})]], "Cel")
    latency = meter.create_histogram("latency", "ms", explicit_bucket_boundaries_advisory=[1, 5, 10])
    for value in [0.5, 3, 7, 20]:
        latency.record(value, {"route": "/checkout"}, context)
    sizes = meter.create_histogram("sizes", "By")
    for value in [0, 1, 2, 4, 8]:
        sizes.record(value, context=context)


def export_with_a_wrong_token(complaints):
    """Sends a span some times through an exporter of its own; answers how many failed, and what the SDK said."""
    provider = TracerProvider(resource=resource(f"{SERVICE}-refused"))
    span = provider.get_tracer(*SCOPE).start_span("refused")
    span.end()
    # gRPC wants header names in lower case, and HTTP does not care.
    exporter = OTLPSpanExporter(headers={"authorization": "Bearer this-is-not-the-token"})
    complaints.messages.clear()
    results = [exporter.export([span]) for _ in range(REFUSALS)]
    exporter.shutdown()
    return {"failed": results.count(SpanExportResult.FAILURE), "complaints": complaints.messages}


def main():
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    started_ns = time.time_ns()

    tracers = TracerProvider(resource=resource(SERVICE))
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_export_batch_size=BATCH))
    spans = export_traces(tracers)
    checkout = spans["GET /checkout"]

    loggers = LoggerProvider(resource=resource(SERVICE))
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(), max_export_batch_size=BATCH))
    export_logs(loggers, checkout)

    # The reader exports once: when it is shut down.
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=3_600_000)
    views = [View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation())]
    meters = MeterProvider([reader], resource(SERVICE), views=views)
    export_metrics(meters, checkout)

    for provider in (tracers, loggers, meters):
        provider.shutdown()
    run = {
        "service": SERVICE,
        "language": "python",
        "protocol": PROTOCOL,
        "started_ns": started_ns,
        "ended_ns": time.time_ns(),
        "resource": dict(tracers.resource.attributes),
        "spans": {
            name: [trace.format_trace_id(span.context.trace_id), trace.format_span_id(span.context.span_id)]
            for name, span in spans.items()
        },
        "trace_flags": checkout.context.trace_flags,
        "complaints": list(complaints.messages),
        "refused": export_with_a_wrong_token(complaints),
    }
    print(json.dumps(run))


if __name__ == "__main__":
    main()
