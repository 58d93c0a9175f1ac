/*
 * Exports logs, traces and metrics through the public OpenTelemetry SDK for Node.js.
 *
 * export.cjs grpc|http|http-json SERVICE; the SDK's own OTEL_EXPORTER_OTLP_* variables say where to and how. What it exports
 * is what export.py exports, and check.py looks for. On standard output: one JSON object with what only this run knows.
 */
"use strict";

const api = require("@opentelemetry/api");
const { SeverityNumber } = require("@opentelemetry/api-logs");
const { defaultResource, resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchLogRecordProcessor, LoggerProvider } = require("@opentelemetry/sdk-logs");
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { BasicTracerProvider, BatchSpanProcessor, InMemorySpanExporter, SimpleSpanProcessor } =
  require("@opentelemetry/sdk-trace-base");

const [protocol, service] = process.argv.slice(2);
const flavour = { grpc: "grpc", http: "proto", "http-json": "http" }[protocol];
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${flavour}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${flavour}`);
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${flavour}`);

// The same in export.py and check.py. Nanoseconds do not fit a number, so times are pairs of seconds and nanoseconds.
const START = [1_700_000_000, 123_456_789];
const MS = 1_000_000;
const TICKS = 600;
const LINES = 1000;
const BATCH = 200;
const REFUSALS = 20;
const SCOPE = ["interop.scope", "1.2.3"];
const SCOPE_SCHEMA = "https://opentelemetry.io/schemas/1.26.0";
const REMOTE = {
  traceId: "0af7651916cd43dd8448eb211c80319c",
  spanId: "b7ad6b7169203331",
  isRemote: true,
  traceFlags: api.TraceFlags.SAMPLED,
  traceState: api.createTraceState("vendor=one"),
};

/** The time this long after the start. */
const after = (nanoseconds) => [START[0], START[1] + nanoseconds];

const resource = (name) =>
  defaultResource().merge(
    resourceFromAttributes(
      {
        "service.name": name,
        "service.namespace": "interop",
        "service.instance.id": "one",
        "interop.answer": 42,
        "interop.tags": ["a", "b"],
      },
      { schemaUrl: "https://opentelemetry.io/schemas/1.27.0" },
    ),
  );

/** Five spans that show the fields, then many small ones in several batches. */
function exportTraces(provider) {
  const tracer = provider.getTracer(...SCOPE, { schemaUrl: SCOPE_SCHEMA });
  const spans = {};
  const start = (name, kind, at, parent, more) => {
    const context = parent ? api.trace.setSpan(api.ROOT_CONTEXT, parent) : api.ROOT_CONTEXT;
    spans[name] = tracer.startSpan(name, { kind, startTime: after(at * MS), ...more }, context);
    return spans[name];
  };

  const checkout = start("GET /checkout", api.SpanKind.SERVER, 0, null, {
    attributes: {
      text: 'grüße "quoted"\n',
      int: Number.MAX_SAFE_INTEGER,
      negative: -7,
      double: 1.5,
      bool: true,
      texts: ["x", "y"],
      ints: [1, 2, 3],
    },
  });
  checkout.addEvent("cache miss", { key: "cart", size: 3 }, after(MS));
  checkout.addEvent("cache filled", after(2 * MS));
  const select = start("SELECT cart", api.SpanKind.CLIENT, 3, checkout, {
    links: [{ context: REMOTE, attributes: { reason: "retry", attempt: 2 } }],
  });
  select.setStatus({ code: api.SpanStatusCode.OK });
  select.end(after(4 * MS));
  const charge = start("charge card", api.SpanKind.INTERNAL, 5, checkout);
  charge.recordException(new TypeError("card declined"), after(6 * MS));
  charge.setStatus({ code: api.SpanStatusCode.ERROR, message: "card declined" });
  charge.end(after(7 * MS));
  const settle = start("settle", api.SpanKind.CONSUMER, 8, api.trace.wrapSpanContext(REMOTE));
  const publish = start("publish", api.SpanKind.PRODUCER, 9, settle);
  publish.end(after(10 * MS));
  settle.end(after(11 * MS));
  checkout.end(after(12 * MS));

  for (let seq = 0; seq < TICKS; seq++) {
    const tick = tracer.startSpan("tick", { attributes: { seq }, startTime: after(seq) }, api.ROOT_CONTEXT);
    tick.end(after(2 * seq));
  }
  return spans;
}

/** Three records that show the fields, then many small ones in several batches. */
function exportLogs(provider, span) {
  const logger = provider.getLogger(...SCOPE, { schemaUrl: SCOPE_SCHEMA, attributes: { "interop.kind": "scope" } });
  logger.emit({
    timestamp: START,
    observedTimestamp: after(1),
    context: api.trace.setSpan(api.ROOT_CONTEXT, span),
    severityNumber: SeverityNumber.INFO,
    severityText: "INFO",
    body: "paid 12.50 € 🛒",
    attributes: {
      text: "a",
      int: 7,
      double: 0.25,
      bool: false,
      list: ["x", "y"],
      map: { b: 1, a: { deep: "yes" } },
      bytes: new Uint8Array([0, 1, 255]),
    },
  });
  logger.emit({
    timestamp: after(2),
    observedTimestamp: after(3),
    severityNumber: SeverityNumber.WARN,
    severityText: "WARN",
    body: { order: 7, ok: true, items: ["a", 1.5] },
    eventName: "order.placed",
  });
  logger.emit({ timestamp: after(4), observedTimestamp: after(4), severityNumber: SeverityNumber.FATAL4 });
  for (let seq = 0; seq < LINES; seq++) {
    logger.emit({
      timestamp: after(1000 + seq),
      observedTimestamp: after(1000 + seq),
      severityNumber: SeverityNumber.DEBUG,
      severityText: "DEBUG",
      body: `line ${seq}`,
      attributes: { seq },
    });
  }
}

/** Every instrument, measured inside a span. */
function exportMetrics(provider, span) {
  const meter = provider.getMeter(...SCOPE, { schemaUrl: SCOPE_SCHEMA });
  const context = api.trace.setSpan(api.ROOT_CONTEXT, span);
  const int = { valueType: api.ValueType.INT };
  const requests = meter.createCounter("requests", { unit: "1", description: "Requests served", ...int });
  for (const [count, route] of [[3, "/checkout"], [4, "/checkout"], [5, "/cart"]]) {
    requests.add(count, { route }, context);
  }
  meter.createCounter("sent", { unit: "By" }).add(2.5, {}, context);
  const queued = meter.createUpDownCounter("queued", int);
  for (const change of [5, -7]) {
    queued.add(change, {}, context);
  }
  meter.createObservableCounter("cpu", { unit: "s", ...int }).addCallback((result) => result.observe(11));
  meter.createObservableGauge("temperature", { unit: "Cel" }).addCallback((result) => result.observe(-3.25, { room: "lab" }));
  const latency = meter.createHistogram("latency", { unit: "ms", advice: { explicitBucketBoundaries: [1, 5, 10] } });
  for (const value of [0.5, 3, 7, 20]) {
    latency.record(value, { route: "/checkout" }, context);
  }
  const sizes = meter.createHistogram("sizes", { unit: "By" });
  for (const value of [0, 1, 2, 4, 8]) {
    sizes.record(value, {}, context);
  }
}

/**
 * What the SDK warns of: a failed export, a partial success. That an export is tried again it says in its debug output only.
 */
function collectComplaints() {
  const complaints = [];
  const complain = (...words) => complaints.push(words.join(" "));
  const onlyRetries = (...words) => /^Scheduling export retry/.test(words[0]) && complain(...words);
  const logger = { error: complain, warn: complain, info() {}, debug() {}, verbose: onlyRetries };
  api.diag.setLogger(logger, api.DiagLogLevel.ALL);
  return complaints;
}

/** Sends a span some times through an exporter of its own; answers how many failed, and what the SDK said. */
async function exportWithAWrongToken(complaints) {
  const kept = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({
    resource: resource(`${service}-refused`),
    spanProcessors: [new SimpleSpanProcessor(kept)],
  });
  provider.getTracer(...SCOPE).startSpan("refused").end();
  // As an option the headers look different for gRPC; the variable is the same for all.
  process.env.OTEL_EXPORTER_OTLP_HEADERS = "authorization=Bearer this-is-not-the-token";
  const exporter = new OTLPTraceExporter();
  complaints.length = 0;
  const send = () => new Promise((resolve) => exporter.export(kept.getFinishedSpans(), resolve));
  const results = await Promise.all(Array.from({ length: REFUSALS }, send));
  await exporter.shutdown();
  return { failed: results.filter((result) => result.code !== 0).length, complaints };
}

async function main() {
  const complaints = collectComplaints();
  const startedMs = Date.now();

  const batch = { maxExportBatchSize: BATCH };
  const tracers = new BasicTracerProvider({
    resource: resource(service),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(), batch)],
  });
  const spans = exportTraces(tracers);
  const checkout = spans["GET /checkout"];

  const loggers = new LoggerProvider({
    resource: resource(service),
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(), ...batch })],
  });
  exportLogs(loggers, checkout);

  // The reader exports once: when it is shut down.
  const meters = new MeterProvider({
    resource: resource(service),
    readers: [new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(), exportIntervalMillis: 3_600_000 })],
    views: [{ instrumentName: "sizes", aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
  });
  exportMetrics(meters, checkout);

  for (const provider of [tracers, loggers, meters]) {
    await provider.shutdown();
  }
  const ids = ([name, span]) => [name, [span.spanContext().traceId, span.spanContext().spanId]];
  const run = {
    service,
    language: "nodejs",
    protocol,
    started_ns: startedMs * MS,
    ended_ns: Date.now() * MS,
    resource: resource(service).attributes,
    spans: Object.fromEntries(Object.entries(spans).map(ids)),
    trace_flags: checkout.spanContext().traceFlags,
    complaints: [...complaints],
    refused: await exportWithAWrongToken(complaints),
  };
  console.log(JSON.stringify(run));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
