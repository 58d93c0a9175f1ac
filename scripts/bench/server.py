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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OTLAKE = Path(os.environ.get("OTLAKE_BIN", ROOT / "target/release/otlake"))


def check_binary():
    if not OTLAKE.exists():
        sys.exit(f"{OTLAKE} is missing; build it with 'cargo build --release', or name one in OTLAKE_BIN")


class Server:
    """`otlake serve` with more arguments, in a folder below TMPDIR that goes with it."""

    def __init__(self, arguments=()):
        self.folder = Path(tempfile.mkdtemp(prefix="otlake-bench-"))
        self.data = self.folder / "data"
        command = [OTLAKE, "serve", "--data-dir", self.data, *arguments]
        command += ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        while not (self.data / "server.json").exists():
            if self.process.poll() is not None:
                sys.exit((self.folder / "log").read_text())
            time.sleep(0.005)
        file = json.loads((self.data / "server.json").read_text())
        self.address = file["grpc"]

    def send(self, arguments, address=None):
        """Sends; answers records a second, p50 and p99 of the acknowledgement in milliseconds, and requests."""
        endpoint = f"http://{address or self.address}"
        command = [OTLAKE, "send", "--endpoint", endpoint, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        text = done.stdout
        rate = re.search(r"^rate\s+(\d+) records/s", text, re.M)
        ack = re.search(r"^ack\s+p50 ([\d.]+) ms, p99 ([\d.]+) ms", text, re.M)
        if done.returncode not in (0, 1) or not rate or not ack:
            sys.exit(f"otlake send failed:\n{text}{done.stderr}")
        if done.returncode == 1:
            print(f"note: not everything was taken\n{text}", file=sys.stderr)
        requests = re.search(r" in (\d+) (?:requests|batches)", text)
        return float(rate[1]), float(ack[1]), float(ack[2]), int(requests[1])

    def status(self):
        command = [OTLAKE, "status", "--json", "--data-dir", self.data]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def flush(self):
        command = [OTLAKE, "flush", "--timeout", "2m", "--data-dir", self.data]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.folder)
