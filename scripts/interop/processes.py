"""The processes of an interop run: otlake, the collector, the recorder. Each ends with the script, however that ends."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gobuild

PATIENCE_S = 30


def find_otlake():
    named = os.environ.get("OTLAKE_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR", gobuild.ROOT / "target"))
    candidates = [Path(named)] if named else [target / "release" / "otlake", target / "debug" / "otlake"]
    for path in candidates:
        if path.exists():
            return path.resolve()
    sys.exit(f"{candidates[0]} is missing; build it with 'cargo build --release', or name one in OTLAKE_BIN")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, is_true, patience_s=PATIENCE_S, pause_s=0.05):
    """Polls until `is_true()` answers something true, and answers that."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if answer := is_true():
            return answer
        time.sleep(pause_s)
    raise TimeoutError(f"{what}: not within {patience_s} s")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Process:
    """A child that is ended by its own id, at the latest when the script ends."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "ab") as words:
            self.child = subprocess.Popen([str(part) for part in command], stdout=words, stderr=words, **options)
        atexit.register(self.kill)

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def stop(self, patience_s=PATIENCE_S):
        """SIGTERM; answers the exit code, or None when it had to be killed."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def words(self):
        return self.log.read_text(errors="replace")

    def expect_alive(self):
        if self.child.poll() is not None:
            sys.exit(f"{self.words()}\n{self.child.args[0]} ended (its words are above)")
        return True


class Otlake:
    """A server with a data folder of its own, on a port that stays the same when it is started again."""

    def __init__(self, program, folder, *options):
        folder.mkdir(parents=True)
        self.program, self.data, self.log = program, folder / "data", folder / "otlake.log"
        self.port, self.options = free_port(), options
        self.start()

    def start(self):
        command = [self.program, "serve", "--data-dir", self.data, *self.options]
        command += ["--grpc-listen", f"127.0.0.1:{self.port}", "--http-listen", "127.0.0.1:0"]
        # From the repository's folder, where it finds the extensions that scripts/setup made.
        # Without the file of one that was killed.
        (self.data / "server.json").unlink(missing_ok=True)
        self.process = Process(command, self.log, cwd=gobuild.ROOT)
        ready = lambda: self.process.expect_alive() and (self.data / "server.json").exists() and accepts(self.port)
        wait_for("otlake's start", ready)

    def run(self, *arguments):
        command = [str(self.program), *(str(part) for part in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=gobuild.ROOT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)[:300]}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done.stdout

    def query(self, sql):
        return json.loads(self.run("query", "--format", "json", "--data-dir", self.data, sql))

    def status(self):
        return json.loads(self.run("status", "--json", "--data-dir", self.data))

    def flush(self):
        self.run("flush", "--timeout", "1m", "--data-dir", self.data)

    def stop(self):
        """As a user stops it."""
        self.run("stop", "--data-dir", self.data)
        return self.process.child.wait(PATIENCE_S)


class Collector(Process):
    """A collector with the given exporter, which keeps trying while its server is away."""

    def __init__(self, program, folder, exporter, settings):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{self.port}"}}}},
            "exporters": {exporter: {
                "tls": {"insecure": True},
                "retry_on_failure": {"initial_interval": "100ms", "max_interval": "1s", "max_elapsed_time": "2m"},
                **settings,
            }},
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "info", "encoding": "json"}},
                "pipelines": {
                    signal: {"receivers": ["otlp"], "exporters": [exporter]} for signal in ("logs", "traces", "metrics")
                },
            },
        }
        # JSON is YAML.
        (folder / "collector.yaml").write_text(json.dumps(config, indent=1))
        super().__init__([program, "--config", folder / "collector.yaml"], folder / "collector.log")
        wait_for("the collector's start", lambda: self.expect_alive() and accepts(self.port))

    def problems(self):
        """What it logged as an error."""
        found = []
        for line in self.words().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("level") in ("error", "fatal"):
                found.append(f"{entry.get('msg')} {entry.get('error', entry.get('message', ''))}".strip())
        return found


class Recorder(Process):
    """The recorder of otap/; `index()` once it has ended."""

    def __init__(self, tools, folder, forward=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.port = folder / "recorded", free_port()
        command = [tools / "recorder", "-out", self.out, "-listen", f"127.0.0.1:{self.port}"]
        super().__init__(command + (["-forward", f"127.0.0.1:{forward}"] if forward else []), folder / "recorder.log")
        wait_for("the recorder's start", lambda: self.expect_alive() and accepts(self.port))

    def index(self):
        return json.loads((self.out / "index.json").read_text())
