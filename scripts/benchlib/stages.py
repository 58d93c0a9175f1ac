"""The stage benchmarks of tests/bench, and the targets of what they measure."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

from server import ROOT

MANIFEST = ROOT / "tests/bench/Cargo.toml"

# Of a stage and a workload, what we do beside something: at least so many times as many rows a CPU second.
TIMES_AS_FAST = {
    ("decode protobuf", "logs", "otlp2records"): 4.0,
    ("decode protobuf", "traces", "otlp2records"): 4.0,
    ("stage to Parquet", "logs", "DuckDB's appender"): 3.0,
    ("stage to Parquet", "traces", "DuckDB's appender"): 3.0,
}
# And at most so much of its bytes.
BYTES_PART = {("stage to Parquet", "logs", "DuckDB's appender"): 0.55, ("stage to Parquet", "traces", "DuckDB's appender"): 0.55}
# JSON against protobuf, rows a CPU second of decoding.
JSON_PART = 0.4


def check_profile():
    """What is measured has to be built as what is used."""
    profiles = [tomllib.loads(path.read_text()).get("profile", {}).get("release") for path in (ROOT / "Cargo.toml", MANIFEST)]
    if profiles[0] != profiles[1]:
        sys.exit(f"[profile.release] of tests/bench/Cargo.toml is not the program's: {profiles[1]} and {profiles[0]}")


def cargo(command, arguments, **options):
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    whole = ["cargo", command, "--manifest-path", MANIFEST, "--target-dir", target, *arguments]
    done = subprocess.run(whole, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"cargo {command} of tests/bench failed:\n{done.stdout[-8000:]}")
    return done.stdout


def measure():
    check_profile()
    # The program's own versions, and those of the yardsticks beside them.
    shutil.copy(ROOT / "Cargo.lock", MANIFEST.parent / "Cargo.lock")
    # Figures beside otlp2records say something where both do the same.
    cargo("test", ["--release", "--test", "differential"])
    out = cargo("bench", ["--bench", "stages", "--", "--json"])
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def run(table):
    figures = measure()
    seen = set()
    for figure in figures:
        stage, workload, beside = figure["stage"], figure["workload"], figure["beside"]
        if stage == "publish seals":
            table.add(f"publish, {workload}: CPU ms a seal", 1e3 / figure["rows_a_cpu_second"], "{:.1f}")
        elif (stage, workload) not in seen:
            seen.add((stage, workload))
            note = f", {figure['bytes_a_row']:.0f} B a row"
            table.add(f"{stage}, {workload}: M rows a CPU s", figure["rows_a_cpu_second"] / 1e6, "{:.2f}", note=note)
        if beside:
            key = (stage, workload, beside["name"])
            bound = TIMES_AS_FAST.get(key)
            note = f" (it: {beside['rows_a_cpu_second'] / 1e6:.2f} M)"
            table.add(f"{stage}, {workload}: times as fast as {beside['name']}", beside["ratio"], target=bound and (">=", bound), note=note)
            if beside["bytes_a_row"]:
                bound = BYTES_PART.get(key)
                part = figure["bytes_a_row"] / beside["bytes_a_row"]
                note = f" (it: {beside['bytes_a_row']:.0f} B a row)"
                table.add(f"{stage}, {workload}: part of the bytes of {beside['name']}", part, target=bound and ("<=", bound), note=note)
    rate = {(figure["stage"], figure["workload"]): figure["rows_a_cpu_second"] for figure in figures}
    for workload in ("logs", "traces", "metrics"):
        part = rate["decode JSON", workload] / rate["decode protobuf", workload]
        table.add(f"decode, {workload}: JSON's part of protobuf's rows a CPU s", part, target=(">=", JSON_PART))
