"""Looks in the lake for exactly what export.py and export.cjs exported, with SQL through `otlake query`.

check.py OTLAKE DATA_DIR RUN...; each RUN is a file with the JSON object that an exporter printed. Prints one line a check,
and "N passed, N failed" at the end; the exit code is 0 when none failed.
"""

import collections
import json
import pathlib
import subprocess
import sys

# The same in export.py and export.cjs.
START_NS = 1_700_000_000_123_456_789
MS = 1_000_000
TICKS = 600
LINES = 1000
REFUSALS = 20
REMOTE = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"]

DELTA, CUMULATIVE = 1, 2
# An SDK may round its clock to milliseconds.
CLOCK_SLACK_NS = 10 * MS
COUNTS = {
    "otlp_logs": 3 + LINES,
    "otlp_traces": 5 + TICKS,
    "otlp_metrics_gauge": 1,
    "otlp_metrics_sum": 5,
    "otlp_metrics_histogram": 1,
    "otlp_metrics_exp_histogram": 1,
    "otlp_metrics_summary": 0,
}
METRICS = [table for table in COUNTS if "metrics" in table]

SPANS = """
    SELECT service_name, name, trace_id, span_id, parent_span_id, trace_state, kind, status_code, status_status_message,
        epoch_ns(start_time_unix_nano) AS start_ns, duration_time_unix_nano AS duration_ns, flags,
        span_attributes, events_json, links_json
    FROM otlp_traces WHERE name <> 'tick'"""
# Counts the small records that are as they were made from their number.
TICKS_SQL = f"""
    SELECT service_name, count(*) AS records, count(DISTINCT span_id) AS ids, count(DISTINCT trace_id) AS traces,
        count(DISTINCT seq) AS numbers, min(seq) AS first, max(seq) AS last,
        count(*) FILTER (start_ns = {START_NS} + seq AND duration_time_unix_nano = seq AND parent_span_id IS NULL) AS right
    FROM (SELECT *, (span_attributes->>'$.seq')::BIGINT AS seq, epoch_ns(start_time_unix_nano) AS start_ns
        FROM otlp_traces WHERE name = 'tick')
    GROUP BY service_name"""
LOGS = """
    SELECT service_name, epoch_ns(time_unix_nano) AS time_ns, epoch_ns(observed_time_unix_nano) AS observed_ns,
        trace_id, span_id, flags, severity_number, severity_text, event_name, body, log_attributes
    FROM otlp_logs WHERE severity_number <> 5 ORDER BY time_unix_nano"""
LINES_SQL = f"""
    SELECT service_name, count(*) AS records, count(DISTINCT seq) AS numbers, min(seq) AS first, max(seq) AS last,
        count(*) FILTER (body = 'line ' || seq AND epoch_ns(time_unix_nano) = {START_NS} + 1000 + seq
            AND severity_text = 'DEBUG' AND trace_id IS NULL) AS right
    FROM (SELECT *, (log_attributes->>'$.seq')::BIGINT AS seq FROM otlp_logs WHERE severity_number = 5)
    GROUP BY service_name"""
NUMBERS = """
    SELECT service_name, name, metric_attributes, unit, description, int_value, double_value,
        aggregation_temporality, is_monotonic FROM otlp_metrics_sum
    UNION ALL SELECT service_name, name, metric_attributes, unit, description, int_value, double_value,
        NULL, NULL FROM otlp_metrics_gauge"""
HISTOGRAMS = """
    SELECT service_name, name, metric_attributes, unit, count, sum, min, max, bucket_counts, explicit_bounds,
        aggregation_temporality, exemplars_json FROM otlp_metrics_histogram"""
EXP_HISTOGRAMS = """
    SELECT service_name, name, unit, count, sum, min, max, scale, zero_count, positive_offset, positive_bucket_counts,
        aggregation_temporality FROM otlp_metrics_exp_histogram"""
COUNTS_SQL = " UNION ALL ".join(
    f"SELECT service_name, '{table}' AS tbl, count(*) AS records FROM {table} GROUP BY service_name" for table in COUNTS
)
CONTEXTS = " UNION ".join(
    f"""SELECT DISTINCT service_name, '{table}' AS tbl, service_namespace, service_instance_id, resource_attributes,
        resource_schema_url, scope_name, scope_version, scope_attributes, scope_schema_url FROM {table}"""
    for table in COUNTS
)
METRIC_TIMES = " UNION ALL ".join(
    f"""SELECT service_name, epoch_ns(time_unix_nano) AS time_ns, epoch_ns(start_time_unix_nano) AS start_ns FROM {table}"""
    for table in METRICS
)


class Lake:
    """Answers each statement once, split by service."""

    def __init__(self, otlake, data_dir):
        self.command = [otlake, "query", "--data-dir", data_dir, "--no-flush", "--format", "json"]
        self.answers = {}

    def rows(self, sql, service):
        if sql not in self.answers:
            done = subprocess.run([*self.command, sql], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"check.py: otlake query failed: {done.stderr.strip()}")
            self.answers[sql] = collections.defaultdict(list)
            for row in json.loads(done.stdout):
                self.answers[sql][row.pop("service_name")].append(row)
        return self.answers[sql][service]

    def services(self):
        self.rows(COUNTS_SQL, None)
        return {service for service, rows in self.answers[COUNTS_SQL].items() if rows}


class Report:
    """Compares and prints."""

    def __init__(self):
        self.passed = self.failed = 0
        self.about = ""

    def same(self, what, actual, expected):
        if actual == expected:
            self.passed += 1
            print(f"ok    {self.about:<18} {what}")
            return
        self.failed += 1
        print(f"FAIL  {self.about:<18} {what}: expected {json.dumps(expected)}, got {json.dumps(actual)}")

    def none(self, what, found):
        self.same(what, found, [])

    def group(self, check, *arguments):
        """Makes some checks; where the data is too wrong for the rest of them, that is one failure."""
        try:
            check(self, *arguments)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            self.failed += 1
            print(f"FAIL  {self.about:<18} {check.__name__} ended early: {error!r}")


def check_sdk(report, run):
    """What the SDK itself made of the answers."""
    report.none("the SDK exported without a warning or a retry", run["complaints"])
    refused = run["refused"]
    report.same("a wrong token is refused", refused["failed"], REFUSALS)
    retried = [words for words in refused["complaints"] if "retry" in words]
    report.none("a refused export is not tried again", retried)


def check_counts(report, lake, run):
    counts = {row["tbl"]: row["records"] for row in lake.rows(COUNTS_SQL, run["service"])}
    for table, expected in COUNTS.items():
        report.same(f"{table}: {expected} row{'' if expected == 1 else 's'}", counts.get(table, 0), expected)


def check_contexts(report, lake, run):
    """Resource and scope, the same in all rows of a table."""
    python = run["language"] == "python"
    rows = lake.rows(CONTEXTS, run["service"])
    resources = [json.loads(row["resource_attributes"]) for row in rows]
    report.same("one resource and scope a table", len(rows), sum(1 for rows in COUNTS.values() if rows))
    report.none("resource attributes", [resource for resource in resources if resource != run["resource"]])
    names = {(row["service_namespace"], row["service_instance_id"]) for row in rows}
    report.same("service namespace and instance", sorted(names), [("interop", "one")])
    scopes = {(row["scope_name"], row["scope_version"]) for row in rows}
    report.same("scope name and version", sorted(scopes), [("interop.scope", "1.2.3")])
    schemas = {(row["resource_schema_url"], row["scope_schema_url"]) for row in rows}
    expected = tuple(f"https://opentelemetry.io/schemas/{version}" for version in ("1.27.0", "1.26.0"))
    report.same("schema URLs", sorted(schemas), [expected])
    # The SDK for Node.js has scope attributes for logs only.
    attributes = {row["tbl"]: row["scope_attributes"] for row in rows}
    expected = {table: '{"interop.kind":"scope"}' if python or table == "otlp_logs" else None for table in attributes}
    report.same("scope attributes", attributes, expected)


def check_spans(report, lake, run):
    python = run["language"] == "python"
    rows = lake.rows(SPANS, run["service"])
    spans = {row["name"]: row for row in rows}
    report.same("span names", sorted(row["name"] for row in rows), sorted(run["spans"]))
    ids = {name: [span["trace_id"], span["span_id"]] for name, span in spans.items()}
    report.same("trace and span ids", ids, run["spans"])

    def column(name):
        return {span: row[name] for span, row in spans.items()}

    def by_span(checkout, select, charge, settle, publish):
        names = ["GET /checkout", "SELECT cart", "charge card", "settle", "publish"]
        return dict(zip(names, [checkout, select, charge, settle, publish]))

    checkout_id, settle_id = run["spans"]["GET /checkout"][1], run["spans"]["settle"][1]
    parents = by_span(None, checkout_id, checkout_id, REMOTE[1], settle_id)
    report.same("parent links", column("parent_span_id"), parents)
    report.same("span kinds", column("kind"), by_span(2, 3, 1, 5, 4))
    starts = by_span(*(START_NS + at * MS for at in (0, 3, 5, 8, 9)))
    report.same("start times to the nanosecond", column("start_ns"), starts)
    durations = by_span(*(length * MS for length in (12, 1, 2, 3, 1)))
    report.same("durations", column("duration_ns"), durations)
    report.same("status codes", column("status_code"), by_span(0, 1, 2, 0, 0))
    messages = by_span(None, None, "card declined", None, None)
    report.same("status messages", column("status_status_message"), messages)
    states = by_span(None, None, None, "vendor=one", "vendor=one")
    report.same("trace states", column("trace_state"), states)
    # The SDK for Python does not repeat the sampled flag in a span's flags.
    local, remote = (0x100, 0x300) if python else (0x100 | run["trace_flags"], 0x301)
    last = local if python else 0x101
    report.same("span flags", column("flags"), by_span(local, local, local, remote, last))
    attributes = (
        '{"bool":true,"double":1.5,"int":9007199254740991,"ints":[1,2,3],"negative":-7,'
        '"text":"grüße \\"quoted\\"\\n","texts":["x","y"]}'
    )
    report.same("attribute types", column("span_attributes"), by_span(attributes, None, None, None, None))
    check_events_and_links(report, spans, python)


def check_events_and_links(report, spans, python):
    events = json.loads(spans["GET /checkout"]["events_json"])
    expected = [
        {"time_unix_nano": START_NS + MS, "name": "cache miss", "attributes": {"key": "cart", "size": 3}},
        {"time_unix_nano": START_NS + 2 * MS, "name": "cache filled"},
    ]
    report.same("events", events, expected)
    (exception,) = json.loads(spans["charge card"]["events_json"])
    attributes = exception["attributes"]
    found = [exception["name"], exception["time_unix_nano"], attributes["exception.type"], attributes["exception.message"]]
    kind = "ValueError" if python else "TypeError"
    report.same("recorded exception", found, ["exception", START_NS + 6 * MS, kind, "card declined"])
    without = [name for name, span in spans.items() if span["events_json"] is None]
    report.same("no events elsewhere", sorted(without), ["SELECT cart", "publish", "settle"])
    link = {"trace_id": REMOTE[0], "span_id": REMOTE[1], "attributes": {"attempt": 2, "reason": "retry"}}
    # The SDK for Python sends a link without its trace state and sampled flag.
    link |= {"flags": 0x300} if python else {"trace_state": "vendor=one", "flags": 0x301}
    links = {name: json.loads(span["links_json"]) for name, span in spans.items() if span["links_json"]}
    report.same("links", links, {"SELECT cart": [link]})


def check_many(report, lake, run):
    """The small records, in several requests: each once, none changed."""
    expected = {"records": TICKS, "ids": TICKS, "traces": TICKS, "numbers": TICKS, "first": 0, "last": TICKS - 1}
    rows = lake.rows(TICKS_SQL, run["service"])
    report.same(f"{TICKS} numbered spans, each once", rows, [expected | {"right": TICKS}])
    expected = {"records": LINES, "numbers": LINES, "first": 0, "last": LINES - 1}
    rows = lake.rows(LINES_SQL, run["service"])
    report.same(f"{LINES} numbered logs, each once", rows, [expected | {"right": LINES}])


def check_logs(report, lake, run):
    rows = lake.rows(LOGS, run["service"])

    def column(name):
        return [row[name] for row in rows]

    report.same("log times", column("time_ns"), [START_NS, START_NS + 2, START_NS + 4])
    report.same("observed times", column("observed_ns"), [START_NS + 1, START_NS + 3, START_NS + 4])
    report.same("severity numbers", column("severity_number"), [9, 13, 24])
    report.same("severity texts", column("severity_text"), ["INFO", "WARN", None])
    bodies = ["paid 12.50 € 🛒", '{"items":["a",1.5],"ok":true,"order":7}', None]
    report.same("bodies: text, map, none", column("body"), bodies)
    report.same("event names", column("event_name"), [None, "order.placed", None])
    trace_id, span_id = run["spans"]["GET /checkout"]
    report.same("logs point to their trace", column("trace_id"), [trace_id, None, None])
    report.same("logs point to their span", column("span_id"), [span_id, None, None])
    report.same("log flags", column("flags"), [run["trace_flags"], 0, 0])
    attributes = (
        '{"bool":false,"bytes":"AAH/","double":0.25,"int":7,"list":["x","y"],"map":{"a":{"deep":"yes"},"b":1},"text":"a"}'
    )
    report.same("log attribute types", column("log_attributes"), [attributes, None, None])


def check_numbers(report, lake, run, temporality):
    """Sums and gauges: int and double, monotonic or not."""
    rows = {(row["name"], row["metric_attributes"]): row for row in lake.rows(NUMBERS, run["service"])}
    points = {
        ("requests", '{"route":"/checkout"}'): (7, None, temporality, True, "1", "Requests served"),
        ("requests", '{"route":"/cart"}'): (5, None, temporality, True, "1", "Requests served"),
        ("sent", None): (None, 2.5, temporality, True, "By", None),
        # An up-down counter is cumulative whatever the client prefers.
        ("queued", None): (-2, None, CUMULATIVE, False, None, None),
        ("cpu", None): (11, None, temporality, True, "s", None),
        ("temperature", '{"room":"lab"}'): (None, -3.25, None, None, "Cel", None),
    }
    kinds = {"requests": "counter", "sent": "counter of doubles", "queued": "up-down counter"}
    kinds |= {"cpu": "observable counter", "temperature": "observable gauge"}
    columns = ["int_value", "double_value", "aggregation_temporality", "is_monotonic", "unit", "description"]
    for (name, attributes), expected in points.items():
        row = rows.get((name, attributes), {})
        report.same(f"{kinds[name]} {name} {attributes or ''}".rstrip(), [row.get(column) for column in columns], list(expected))


def check_histograms(report, lake, run, temporality):
    rows = lake.rows(HISTOGRAMS, run["service"])
    exemplars = [json.loads(row.pop("exemplars_json") or "[]") for row in rows]
    latency = {"name": "latency", "metric_attributes": '{"route":"/checkout"}', "unit": "ms", "count": 4, "sum": 30.5}
    latency |= {"min": 0.5, "max": 20.0, "bucket_counts": [1, 1, 1, 1], "explicit_bounds": [1.0, 5.0, 10.0]}
    report.same("histogram latency", rows, [latency | {"aggregation_temporality": temporality}])
    # The SDK for Node.js has no exemplars.
    ids = run["spans"]["GET /checkout"]
    expected = [[value, *ids] for value in (0.5, 3, 7, 20)] if run["language"] == "python" else []
    found = [[one["value"], one["trace_id"], one["span_id"]] for one in sum(exemplars, [])]
    report.same("exemplars", found, expected)

    rows = lake.rows(EXP_HISTOGRAMS, run["service"])
    for row in rows:
        # SDKs differ in the empty buckets that they send.
        counts = enumerate(row.pop("positive_bucket_counts"), row.pop("positive_offset"))
        row["buckets"] = [[index, count] for index, count in counts if count]
    sizes = {"name": "sizes", "unit": "By", "count": 5, "sum": 15.0, "min": 0.0, "max": 8.0, "scale": 5, "zero_count": 1}
    sizes |= {"aggregation_temporality": temporality, "buckets": [[-1, 1], [31, 1], [63, 1], [95, 1]]}
    report.same("exponential histogram sizes", rows, [sizes])


def check_metric_times(report, lake, run):
    first, last = run["started_ns"] - CLOCK_SLACK_NS, run["ended_ns"] + CLOCK_SLACK_NS
    rows = lake.rows(METRIC_TIMES, run["service"])
    wrong = [row for row in rows if not first <= (row["start_ns"] or first) <= row["time_ns"] <= last]
    report.none("metric times lie within the run", wrong)


def main():
    otlake, data_dir, *files = sys.argv[1:]
    runs = [json.loads(pathlib.Path(file).read_text(encoding="utf-8")) for file in files]
    lake = Lake(otlake, data_dir)
    report = Report()
    for run in runs:
        report.about = f"{run['language']} {run['protocol']}"
        # The script asks for delta over HTTP, so that both are seen.
        temporality = CUMULATIVE if run["protocol"] == "grpc" else DELTA
        report.group(check_sdk, run)
        for check in (check_counts, check_contexts, check_spans, check_logs, check_many, check_metric_times):
            report.group(check, lake, run)
        for check in (check_numbers, check_histograms):
            report.group(check, lake, run, temporality)
    report.about = "all"
    report.same("nothing else is in the lake", sorted(lake.services()), sorted(run["service"] for run in runs))
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
