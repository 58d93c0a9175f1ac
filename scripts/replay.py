#!/usr/bin/env python3
"""Sends captured OTLP payloads again, byte for byte, each over the transport it was captured on.

A capture is a folder with payload files and an index.jsonl that lists them, such as tests/fixtures/agents/claude-grpc.
The exit code is 0 when every payload was accepted.
"""

import argparse
import json
import pathlib
import sys
import urllib.error
import urllib.request

GRPC_SERVICES = {
    "logs": "logs.v1.LogsService",
    "traces": "trace.v1.TraceService",
    "metrics": "metrics.v1.MetricsService",
}
TIMEOUT_S = 10


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("capture", type=pathlib.Path, help="folder with an index.jsonl")
    parser.add_argument(
        "--grpc", default="127.0.0.1:4317", metavar="HOST:PORT", help="OTLP/gRPC address (default: %(default)s)"
    )
    parser.add_argument(
        "--http", default="http://127.0.0.1:4318", metavar="URL", help="OTLP/HTTP base address (default: %(default)s)"
    )
    parser.add_argument("--token", help="sent as 'authorization: Bearer TOKEN'")
    return parser.parse_args()


class GrpcSender:
    """Opens its channel at the first payload, so that captures over HTTP need no grpcio."""

    def __init__(self, address, token):
        self.address = address
        self.metadata = [("authorization", f"Bearer {token}")] if token else None
        self.channel = None

    def send(self, signal, encoding, body):
        try:
            import grpc
        except ImportError:
            sys.exit("replay.py: this capture was sent over gRPC, and Python's grpcio is missing: pip install grpcio")
        if self.channel is None:
            self.channel = grpc.insecure_channel(self.address, options=[("grpc.max_send_message_length", -1)])
        compression = grpc.Compression.Gzip if encoding == "gzip" else grpc.Compression.NoCompression
        # Without serializers the bytes go out and come back as they are.
        export = self.channel.unary_unary(f"/opentelemetry.proto.collector.{GRPC_SERVICES[signal]}/Export")
        try:
            response = export(body, metadata=self.metadata, timeout=TIMEOUT_S, compression=compression)
        except grpc.RpcError as error:
            raise OSError(f"{error.code().name}: {error.details()}") from error
        return f"grpc ok, response {response!r}"


class HttpSender:
    def __init__(self, base, token):
        self.base = base.rstrip("/")
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def send(self, signal, content_type, body):
        request = urllib.request.Request(
            f"{self.base}/v1/{signal}", data=body, headers={"content-type": content_type, **self.headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return f"http {response.status}, response {response.read()[:80]!r}"
        except urllib.error.HTTPError as error:
            raise OSError(f"http {error.code}: {error.read()[:160]!r}") from error


def main():
    arguments = parse_arguments()
    grpc_sender = GrpcSender(arguments.grpc, arguments.token)
    http_sender = HttpSender(arguments.http, arguments.token)
    try:
        index = (arguments.capture / "index.jsonl").read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"replay.py: {arguments.capture} is not a capture: {error}")

    accepted = failed = 0
    for entry in map(json.loads, index.splitlines()):
        if entry["signal"] not in GRPC_SERVICES:
            continue
        body = (arguments.capture / entry["file"]).read_bytes()
        try:
            if entry["transport"] == "grpc":
                outcome = grpc_sender.send(entry["signal"], entry["encoding"], body)
            else:
                # Captures hold the decompressed body, so no content-encoding is sent.
                is_json = entry["file"].endswith(".json")
                content_type = "application/json" if is_json else "application/x-protobuf"
                outcome = http_sender.send(entry["signal"], content_type, body)
            accepted += 1
        except OSError as error:
            outcome = f"FAILED {error}"
            failed += 1
        print(f"{entry['file']}: {len(body)} bytes, {outcome}")
    print(f"{accepted} accepted, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
