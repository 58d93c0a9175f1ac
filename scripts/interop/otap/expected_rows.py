#!/usr/bin/env python3
"""Writes the rows that a recorded OTAP stream must give, made of the OTLP that went into the exporter.

    python3 scripts/interop/otap/expected_rows.py tests/fixtures/otap/*/

Independent of otlake: the input is read with the public protobuf definitions (`pip install opentelemetry-proto zstandard`), and
becomes rows by docs/TABLES.md, with what docs/INTEROP.md says that the exporter changes. Into each folder goes `rows.jsonl`, or
`rows.jsonl.zst` where that is long: a line a row, in the input's order, with its batch, its table, and its columns that are not
null. Columns that hold JSON are JSON, times are Unix nanoseconds, and doubles that are no numbers are "NaN", "inf" and "-inf".
"""

import base64
import json
import math
import sys
from pathlib import Path

import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

# A longer file is compressed, bytes.
PLAIN_BYTES_MAX = 128 << 10


def double(value):
    """A double of an attribute, as JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def column_double(value):
    """A double in a column of doubles."""
    return value if math.isfinite(value) else str(value).replace("nan", "NaN")


def any_value(value):
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [any_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: any_value(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value":
        return double(value.double_value)
    return getattr(value, kind)


def attributes(pairs):
    """An object; the exporter leaves out attributes without a value, and none are null."""
    taken = {pair.key: any_value(pair.value) for pair in pairs if pair.value.WhichOneof("value") is not None}
    return taken or None


def text_of(value):
    """A body, or an attribute that has a column of its own: text as it is, all else as JSON text."""
    taken = any_value(value)
    if taken is None or value.WhichOneof("value") == "string_value":
        return taken
    return json.dumps(taken, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def hexadecimal(some_id):
    return some_id.hex() if any(some_id) else None


def without_none(row):
    return {name: value for name, value in row.items() if value is not None and value != ""}


def resource_columns(group):
    named = {pair.key: text_of(pair.value) for pair in group.resource.attributes}
    return {
        "service_name": named.get("service.name") or "unknown_service",
        "service_namespace": named.get("service.namespace"),
        "service_instance_id": named.get("service.instance.id"),
        "resource_attributes": attributes(group.resource.attributes),
        "resource_schema_url": group.schema_url,
        "resource_dropped_attributes_count": group.resource.dropped_attributes_count,
    }


def scope_columns(group):
    return {
        "scope_name": group.scope.name,
        "scope_version": group.scope.version,
        "scope_attributes": attributes(group.scope.attributes),
        "scope_schema_url": group.schema_url,
        "scope_dropped_attributes_count": group.scope.dropped_attributes_count,
    }


def log_row(record):
    named = {pair.key: pair.value.string_value for pair in record.attributes}
    return {
        "time_unix_nano": record.time_unix_nano or record.observed_time_unix_nano or "received",
        "observed_time_unix_nano": record.observed_time_unix_nano or None,
        "trace_id": hexadecimal(record.trace_id),
        "span_id": hexadecimal(record.span_id),
        "severity_number": record.severity_number,
        "severity_text": record.severity_text,
        "event_name": record.event_name or named.get("event.name"),
        "body": text_of(record.body),
        "log_attributes": attributes(record.attributes),
        "dropped_attributes_count": record.dropped_attributes_count,
        "flags": record.flags,
    }


def event(one):
    return without_none({
        "time_unix_nano": one.time_unix_nano or None,
        "attributes": attributes(one.attributes),
        "dropped_attributes_count": one.dropped_attributes_count or None,
    }) | {"name": one.name}


def link(one):
    return without_none({
        "trace_id": hexadecimal(one.trace_id),
        "span_id": hexadecimal(one.span_id),
        "trace_state": one.trace_state,
        "attributes": attributes(one.attributes),
        "dropped_attributes_count": one.dropped_attributes_count or None,
        "flags": one.flags or None,
    })


def span_row(span):
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return {
        "start_time_unix_nano": start or None,
        "duration_time_unix_nano": end - start if start and end else None,
        "trace_id": hexadecimal(span.trace_id),
        "span_id": hexadecimal(span.span_id),
        "parent_span_id": hexadecimal(span.parent_span_id),
        "trace_state": span.trace_state,
        "name": span.name,
        "kind": span.kind,
        "status_code": span.status.code,
        "status_status_message": span.status.message,
        "span_attributes": attributes(span.attributes),
        "events_json": [event(one) for one in span.events] or None,
        "links_json": [link(one) for one in span.links] or None,
        "dropped_attributes_count": span.dropped_attributes_count,
        "dropped_events_count": span.dropped_events_count,
        "dropped_links_count": span.dropped_links_count,
        "flags": span.flags,
    }


def number(one, as_double):
    """The value of a point or an exemplar, if it has one."""
    kind = one.WhichOneof("value")
    return None if kind is None else as_double(one.as_double) if kind == "as_double" else one.as_int


def exemplar(one):
    return without_none({
        "time_unix_nano": one.time_unix_nano or None,
        "value": number(one, double),
        "trace_id": hexadecimal(one.trace_id),
        "span_id": hexadecimal(one.span_id),
        "filtered_attributes": attributes(one.filtered_attributes),
    })


def point_columns(metric, point):
    return {
        "name": metric.name,
        "description": metric.description,
        "unit": metric.unit,
        "time_unix_nano": point.time_unix_nano or None,
        "start_time_unix_nano": point.start_time_unix_nano or None,
        "metric_attributes": attributes(point.attributes),
        "flags": point.flags,
    }


def exemplars(point):
    return {"exemplars_json": [exemplar(one) for one in point.exemplars] or None}


def number_columns(point):
    kind = point.WhichOneof("value")
    value = number(point, column_double)
    return exemplars(point) | ({} if kind is None else {"int_value" if kind == "as_int" else "double_value": value})


def distribution(point):
    """A histogram's own numbers: the exporter cannot tell a sum, a min or a max of 0 from none."""
    optional = {
        name: column_double(getattr(point, name))
        for name in ("sum", "min", "max") if point.HasField(name) and getattr(point, name) != 0
    }
    return exemplars(point) | {"count": point.count} | optional


def histogram_columns(point):
    return distribution(point) | {
        "bucket_counts": list(point.bucket_counts),
        "explicit_bounds": [column_double(bound) for bound in point.explicit_bounds],
    }


def exp_histogram_columns(point):
    return distribution(point) | {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": column_double(point.zero_threshold),
        "positive_offset": point.positive.offset,
        "positive_bucket_counts": list(point.positive.bucket_counts),
        "negative_offset": point.negative.offset,
        "negative_bucket_counts": list(point.negative.bucket_counts),
    }


def summary_columns(point):
    return {
        "count": point.count,
        "sum": column_double(point.sum),
        "quantiles": [column_double(one.quantile) for one in point.quantile_values],
        "quantile_values": [column_double(one.value) for one in point.quantile_values],
    }


KINDS = {
    "gauge": ("otlp_metrics_gauge", number_columns),
    "sum": ("otlp_metrics_sum", number_columns),
    "histogram": ("otlp_metrics_histogram", histogram_columns),
    "exponential_histogram": ("otlp_metrics_exp_histogram", exp_histogram_columns),
    "summary": ("otlp_metrics_summary", summary_columns),
}


def metric_rows(metric):
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    table, columns = KINDS[kind]
    of_metric = {}
    if kind not in ("gauge", "summary"):
        of_metric["aggregation_temporality"] = data.aggregation_temporality
    if kind == "sum":
        of_metric["is_monotonic"] = data.is_monotonic
    for point in data.data_points:
        yield table, point_columns(metric, point) | of_metric | columns(point)


SIGNALS = {
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records",
             lambda record: [("otlp_logs", log_row(record))]),
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans",
               lambda span: [("otlp_traces", span_row(span))]),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics", metric_rows),
}


def varint(content, at):
    """The number at a place, and the place behind it."""
    number = shift = 0
    while content[at] & 0x80:
        number |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | content[at] << shift, at + 1


def messages(path):
    """The messages of a file, each behind its length."""
    with open(path, "rb") as file:
        content = zstandard.ZstdDecompressor().stream_reader(file).read()
    at = 0
    while at < len(content):
        length, at = varint(content, at)
        yield content[at:at + length]
        at += length


def rows(folder):
    signal = json.loads((folder / "index.json").read_text())["signal"]
    request_type, resources, scopes, records, rows_of = SIGNALS[signal]
    for batch, message in enumerate(messages(folder / "input.binpb.zst")):
        for resource in getattr(request_type.FromString(message), resources):
            of_resource = resource_columns(resource)
            for scope in getattr(resource, scopes):
                context = of_resource | scope_columns(scope)
                for record in getattr(scope, records):
                    for table, row in rows_of(record):
                        yield {"batch": batch, "table": table, "row": without_none(context | row)}


def main(folders):
    for folder in map(Path, folders):
        # Whatever cannot be written as strict JSON is a mistake here.
        lines = [json.dumps(row, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False) for row in rows(folder)]
        content = "".join(f"{line}\n" for line in lines).encode()
        plain, compressed = folder / "rows.jsonl", folder / "rows.jsonl.zst"
        for path in (plain, compressed):
            path.unlink(missing_ok=True)
        if len(content) <= PLAIN_BYTES_MAX:
            plain.write_bytes(content)
        else:
            compressed.write_bytes(zstandard.ZstdCompressor(level=19).compress(content))
        print(f"{folder.name}: {len(lines)} rows, {len(content)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
