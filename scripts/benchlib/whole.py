"""The whole server under `otlake send`, on the same machine: CPU, rates, latencies, tiny requests, memory."""

import statistics
import sys
import time
from dataclasses import dataclass, field

from server import Server

# The first rows warm the server up: pages that are touched for the first time, DuckDB's first transaction.
WARM_RECORDS = 100_000
CONNECTIONS = 4
MEMORY_ALLOWED_MIB = 512 + 300  # --max-buffered-bytes is 512 MiB by default


@dataclass
class Case:
    """A way to send, and what it may cost."""

    name: str
    signal: str = "logs"
    count: int = 1_000_000
    batch: int = 1000
    durability: str = "journal"
    ways: list = field(default_factory=list)
    cpu_max: float | None = None

    def arguments(self, count=None):
        common = ["--signal", self.signal, "--count", str(count or self.count), "--batch", str(self.batch)]
        return [*common, "--connections", str(CONNECTIONS), *self.ways]


CASES = [
    Case("logs", cpu_max=1.5),
    Case("traces", signal="traces", cpu_max=1.5),
    Case("metrics", signal="metrics"),
    Case("logs, memory", durability="memory"),
    Case("traces, memory", signal="traces", durability="memory"),
    Case("metrics, memory", signal="metrics", durability="memory"),
    Case("logs, 100 a request", count=500_000, batch=100, cpu_max=2.5),
    Case("logs, 10 a request", count=150_000, batch=10, cpu_max=8.0),
    Case("logs, gzip", ways=["--compression", "gzip"]),
    Case("logs, zstd", ways=["--compression", "zstd"]),
    Case("logs, HTTP protobuf", ways=["--protocol", "http"]),
    Case("logs, HTTP JSON", count=500_000, ways=["--protocol", "http-json"]),
    Case("logs, OTAP", ways=["--protocol", "otap"]),
]
RATE_MIN = {"logs": 600_000, "traces": 600_000}
HTTP_PART_MAX = 1.1  # of gRPC's CPU
ADDED_NOISE = 0.1  # CPU s: what the difference of two such figures is not sure of


def in_turn(rounds, cases, measure):
    """Measures every case in every round, in turn, so that whatever else the machine does meets all alike."""
    measured = {case.name: [] for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            measured[case.name].append(measure(case))
            print(f"round {number + 1} {case.name}: {measured[case.name][-1]}", file=sys.stderr)
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in measured.items()
    }


def cpu(table, rounds):
    def measure(case):
        with Server(["--durability", case.durability]) as server:
            server.send(case.arguments(WARM_RECORDS * case.batch // 1000))
            server.flush()
            before, began = server.cpu_seconds(), time.monotonic()
            sent = server.send(case.arguments())
            server.flush()
            took = time.monotonic() - began
            used = server.cpu_seconds() - before
            million = sent.acknowledged / 1e6
            return {"cpu": used / million, "taken": sent.records_s, "committed": sent.acknowledged / took}

    median = in_turn(rounds, CASES, measure)
    for case in CASES:
        figure = median[case.name]
        bound = case.cpu_max and ("<=", case.cpu_max)
        table.add(f"server, {case.name}: CPU s a M rows committed", figure["cpu"], target=bound)
    for case in CASES:
        figure = median[case.name]
        bound = RATE_MIN.get(case.name)
        note = f" ({figure['committed']:,.0f} committed)"
        table.add(f"server, {case.name}: rows/s, sender beside it", figure["taken"], "{:,.0f}", bound and (">=", bound), note)
    plain = median["logs"]["cpu"]
    for name in ("gzip", "zstd"):
        rate = table.value(f"inflate {name}, logs: M rows a CPU s")
        bound = rate and ("<=", 1 / rate + ADDED_NOISE)
        note = f" (decompressing alone: {1 / rate:.2f})" if rate else ""
        added = median[f"logs, {name}"]["cpu"] - plain
        table.add(f"server, logs: CPU s a M rows that {name} adds", added, target=bound, note=note)
    table.add("server, logs: HTTP protobuf's CPU, part of gRPC's", median["logs, HTTP protobuf"]["cpu"] / plain, target=("<=", HTTP_PART_MAX))


def latency(table, rounds):
    cases = [
        ("50,000 rows/s", ["--count", "300000", "--rate", "50000", "--connections", "8"], ("<", 5.0), ("<", 20.0)),
        ("closed loop of 16 connections", ["--count", "1500000", "--connections", "16"], None, ("<", 100.0)),
    ]
    for name, ways, p50, p99 in cases:
        runs = []
        for _ in range(rounds):
            with Server() as server:
                server.send(["--count", str(WARM_RECORDS), "--batch", "1000", "--connections", "8"])
                server.flush()
                runs.append(server.send(["--batch", "1000", *ways]))
        table.add(f"acknowledged, {name}: p50 ms", statistics.median(run.p50_ms for run in runs), target=p50)
        table.add(f"acknowledged, {name}: p99 ms", statistics.median(run.p99_ms for run in runs), target=p99)


def tiny(table, rounds):
    ways = ["--batch", "1", "--connections", "64"]
    for durability, bound in (("memory", 15_000), ("journal", None)):
        rates, used, syncs = [], [], []
        for _ in range(rounds):
            with Server(["--durability", durability]) as server:
                server.send(["--count", "20000", *ways])
                server.flush()
                before, status = server.cpu_seconds(), server.status()
                sent = server.send(["--count", "150000", *ways])
                rates.append(sent.requests / sent.elapsed_s)
                used.append((server.cpu_seconds() - before) / sent.requests * 1e6)
                syncs.append((server.status()["journal_syncs"] - status["journal_syncs"]) / sent.requests)
        note = "" if durability == "memory" else f" ({statistics.median(syncs):.3f} syncs a request)"
        rate = statistics.median(rates)
        table.add(f"one record a request, 64 connections, {durability}: requests/s", rate, "{:,.0f}", bound and (">=", bound), note)
        table.add(f"one record a request, 64 connections, {durability}: CPU s a M requests", statistics.median(used))


def memory(table, flood_s):
    with Server() as server:
        time.sleep(10)
        table.add("resident, idle after 10 s: MiB", server.resident_mib(), "{:.0f}", ("<", 100))
        server.forget_peak()
        sent = server.send_for(flood_s, ["--batch", "1000", "--connections", "16"])
        peak = server.peak_resident_mib()
        note = f" ({sent.records_s:,.0f} rows/s)"
        table.add(f"resident, peak in a flood of {flood_s:.0f} s over 16 connections: MiB", peak, "{:.0f}", ("<", MEMORY_ALLOWED_MIB), note)
        server.flush()
        time.sleep(10)
        table.add("resident, 10 s after it: MiB", server.resident_mib(), "{:.0f}")
