"""A server in a fresh folder, as the benchmarks start it, and what they read off it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OTLAKE = Path(os.environ.get("OTLAKE_BIN", ROOT / "target/release/otlake"))
PATIENCE_S = 120


def check_binary():
    if not OTLAKE.exists():
        sys.exit(f"{OTLAKE} is missing; build it with 'cargo build --release', or name one in OTLAKE_BIN")


@dataclass
class Sent:
    """What `otlake send` says of a run."""

    records_s: float  # acknowledged
    p50_ms: float
    p99_ms: float
    requests: int
    acknowledged: int
    elapsed_s: float


class Server:
    """`otlake serve` with more arguments, in a folder below TMPDIR that goes with it."""

    def __init__(self, arguments=(), folder=None):
        self.folder = folder or Path(tempfile.mkdtemp(prefix="otlake-bench-"))
        self.data = self.folder / "data"
        command = [OTLAKE, "serve", "--data-dir", self.data, *arguments]
        command += ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        (self.data / "server.json").unlink(missing_ok=True)
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        while not (self.data / "server.json").exists():
            if self.process.poll() is not None:
                sys.exit((self.folder / "log").read_text())
            time.sleep(0.005)
        file = json.loads((self.data / "server.json").read_text())
        self.address, self.http = file["grpc"], file["http"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def send_command(self, arguments, address=None):
        is_http = any(argument in ("http", "http-json") for argument in arguments)
        endpoint = f"http://{address or (self.http if is_http else self.address)}"
        return [OTLAKE, "send", "--endpoint", endpoint, *arguments]

    def send(self, arguments, address=None):
        """Sends; answers what the sender measured. Stops the script when it fails as a whole."""
        command = self.send_command(arguments, address)
        done = subprocess.run(command, capture_output=True, text=True)
        return read_report(done.stdout, done.stderr, done.returncode)

    def send_for(self, seconds, arguments):
        """Sends for so long; answers what the sender measured."""
        command = self.send_command([*arguments, "--count", str(10**12)])
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = sender.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # It waits for the answers to what it has sent, and reports.
            sender.send_signal(signal.SIGINT)
            out, err = sender.communicate(timeout=PATIENCE_S)
        return read_report(out, err, 0 if "ended early    interrupted" in out else sender.returncode)

    def status(self):
        command = [OTLAKE, "status", "--json", "--data-dir", self.data]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def flush(self):
        command = [OTLAKE, "flush", "--timeout", "2m", "--data-dir", self.data]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def query(self, sql):
        """The rows of a statement, a dict each, without a flush before it."""
        command = [OTLAKE, "query", "--no-flush", "--format", "json", "--data-dir", self.data, sql]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def cpu_seconds(self):
        fields = self.proc("stat").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        return self.memory("VmRSS")

    def peak_resident_mib(self):
        """Since the start, or since `forget_peak`."""
        return self.memory("VmHWM")

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory(self, key):
        return self.status_field(key) / 1024

    def threads(self):
        return self.status_field("Threads")

    def status_field(self, key):
        return int(re.search(rf"^{key}:\s+(\d+)", self.proc("status"), re.M)[1])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def proc(self, name):
        return Path(f"/proc/{self.process.pid}/{name}").read_text()

    def end(self):
        """Stops the process; its folder stays."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        if code != 0:
            sys.exit(f"otlake serve ended with {code}:\n{(self.folder / 'log').read_text()[-4000:]}")

    def stop(self):
        try:
            if self.process.poll() is None:
                self.end()
        finally:
            shutil.rmtree(self.folder)


def read_report(out, err, code):
    rate = re.search(r"^rate\s+(\d+) records/s", out, re.M)
    ack = re.search(r"^ack\s+p50 ([\d.]+) ms, p99 ([\d.]+) ms", out, re.M)
    if code not in (0, 1) or not rate or not ack:
        sys.exit(f"otlake send failed:\n{out}{err}")
    if code == 1:
        print(f"note: not everything was taken\n{out}", file=sys.stderr)
    return Sent(
        records_s=float(rate[1]),
        p50_ms=float(ack[1]),
        p99_ms=float(ack[2]),
        requests=int(re.search(r" in (\d+) (?:requests|batches)", out)[1]),
        acknowledged=int(re.search(r"^acknowledged\s+(\d+)", out, re.M)[1]),
        elapsed_s=float(re.search(r"^elapsed\s+([\d.]+) s", out, re.M)[1]),
    )
