"""Builds, with Go, the programs that the interop scripts try otlake with. All goes to target/interop, and is built once.

Every version is pinned; Go verifies what it downloads against sum.golang.org, or against go.sum where there is one.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
WORK = ROOT / "target" / "interop"
BIN = WORK / "bin"

COLLECTOR = "0.145.0"
GRPCURL = "1.9.4"
GO_MIN = (1, 24)


def find_go():
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not go:
        sys.exit("Go is missing: install Go 1.24 or newer (https://go.dev/dl)")
    version = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < GO_MIN:
        sys.exit(f"{version.strip()} is too old: install Go 1.24 or newer (https://go.dev/dl)")
    return go, version.split()[2]


def go_env(go):
    # -modcacherw: so that target/ can be removed like any folder.
    return {
        **os.environ,
        "PATH": f"{Path(go).parent}{os.pathsep}{os.environ['PATH']}",
        "GOPATH": str(WORK / "go"),
        "GOBIN": str(BIN),
        "GOFLAGS": "-modcacherw -buildvcs=false -trimpath",
        "GOWORK": "off",
    }


def run(command, cwd, env):
    """Shows the command's words only when it failed."""
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))} failed (its words are above): check the network, then run this again")


def once(name, made, inputs, build):
    """Calls `build` unless `made` is there from the same inputs; answers how many seconds it took."""
    stamp = WORK / f"{name}.stamp"
    digest = hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in inputs)).hexdigest()
    if all(path.exists() for path in made) and stamp.exists() and stamp.read_text() == digest:
        return 0.0
    print(f"building {name} into target/interop", file=sys.stderr, flush=True)
    begun = time.monotonic()
    BIN.mkdir(parents=True, exist_ok=True)
    build()
    stamp.write_text(digest)
    return time.monotonic() - begun


def collector():
    """The collector of collector/builder.yaml; answers its path and the seconds that building it took."""
    go, version = find_go()
    env = go_env(go)
    manifest = HERE / "collector" / "builder.yaml"
    made = WORK / "collector" / "otelcol-interop"

    def build():
        run([go, "install", f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR}"], WORK, env)
        # The manifest's output_path is relative to the folder that the builder runs in.
        run([BIN / "builder", "--config", manifest], WORK, env)

    return made, once("collector", [made], [version, COLLECTOR, manifest.read_bytes()], build)


def tools():
    """The programs of otap/: recorder, samples and fixture; answers their folder."""
    go, version = find_go()
    sources = sorted(path for path in (HERE / "otap").rglob("*") if path.is_file())
    names = ["recorder", "samples", "fixture"]

    def build():
        run([go, "install", *(f"./{name}" for name in names)], HERE / "otap", go_env(go))

    once("tools", [BIN / name for name in names], [version, *(path.read_bytes() for path in sources)], build)
    return BIN


def grpcurl():
    """grpcurl; answers its path."""
    go, version = find_go()

    def build():
        run([go, "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@v{GRPCURL}"], WORK, go_env(go))

    once("grpcurl", [BIN / "grpcurl"], [version, GRPCURL], build)
    return BIN / "grpcurl"
