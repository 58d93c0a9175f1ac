"""Prints the licences of everything that is in the program: each crate with its licence and the texts it comes with, and DuckDB's.

Crates that are there for building and for tests alone are left out.
"""

import json
import subprocess
from pathlib import Path

DUCKDB = """DuckDB, and its extensions ducklake, sqlite_scanner, quack and httpfs (which has OpenSSL, Apache-2.0, and curl, the curl licence, in it)
https://duckdb.org
MIT

Copyright 2018-2026 Stichting DuckDB Foundation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
(the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR
ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH
THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""

NAMES = ("licen", "copying", "notice", "unlicense")


def linked(metadata):
    """The ids of the packages that the program is linked from: reached by ordinary dependencies."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found - {metadata["resolve"]["root"]}


def host():
    for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines():
        if line.startswith("host: "):
            return line.removeprefix("host: ")
    raise SystemExit("rustc -vV names no host")


def texts(package):
    """The licence files beside a package's manifest, with what they say."""
    folder = Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().startswith(NAMES) and path.suffix not in (".rs", ".toml"):
            yield path.name, path.read_text(errors="replace").strip()


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host()]
    metadata = json.loads(subprocess.check_output(command, text=True))
    wanted = linked(metadata)
    packages = [package for package in metadata["packages"] if package["id"] in wanted]
    # A text that many share stands there once.
    shared = {}
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        title = f"{package['name']} {package['version']}: {package['license'] or 'see its licence file'}"
        if package.get("repository"):
            title += f"\n{package['repository']}"
        for name, text in texts(package):
            shared.setdefault(text, []).append(f"{package['name']} {package['version']}, {name}")
        print(title + "\n")
    print("=" * 100 + "\n\n" + DUCKDB + "\n")
    for text, users in shared.items():
        print("=" * 100 + "\n\n" + "\n".join(users) + "\n\n" + text + "\n")


main()
