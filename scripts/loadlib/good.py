"""The good half: connections that are kept, and small requests on them at a fixed rate, whatever the answers do (an open loop).

Each request has a record with an id of its own. What counts as acknowledged is a 200 over HTTP; over gRPC an answer with a message
and trailers: a refusal of otlake's is trailers alone.
"""

import array
import asyncio
import gc
import time

import wire

CONNECT_PAUSE_S = 0.002
LAST_ANSWERS_S = 15


class Tally:
    """Latencies are seconds from the planned time; so is how late requests were sent, which is our own doing, or the machine's."""

    def __init__(self):
        self.latencies, self.late = array.array("d"), array.array("d")
        self.acknowledged = []
        self.planned = self.refused = self.broken = 0

    def answer(self, request, is_taken):
        identity, due = request
        if is_taken:
            self.latencies.append(time.monotonic() - due)
            self.acknowledged.append(identity)
        else:
            self.refused += 1


class Connection(asyncio.Protocol):
    """Opened again by the next request when it was lost; the requests on it then have no answer."""

    def __init__(self, address, tally, requests):
        self.address, self.tally, self.requests = address, tally, requests
        self.transport = None
        self.buffer = bytearray()
        self.open, self.waiting = {}, []

    async def connect(self):
        self.waiting.clear()
        self.buffer.clear()
        await asyncio.get_running_loop().create_connection(lambda: self, *self.address)

    def connection_made(self, transport):
        self.transport = transport
        self.greet()

    def connection_lost(self, _):
        self.transport = None
        self.tally.broken += len(self.open)
        self.open.clear()

    def eof_received(self):
        return False

    def submit(self, request):
        if self.transport is None:
            # Not awaited here: the others' time goes on.
            self.tally.broken += 1
            return
        self.send(request)

    def close(self):
        if self.transport:
            self.transport.close()

    def greet(self):
        pass


class Http(Connection):
    """OTLP/HTTP, protobuf: one request after the other."""

    def send(self, request):
        self.waiting.append(request)
        if len(self.waiting) == 1:
            self.write()

    def write(self):
        head = b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"
        identity, _ = self.waiting[0]
        self.open[0] = True
        self.transport.write(head % self.requests.length + self.requests.of(identity))

    def connection_lost(self, error):
        self.tally.broken += max(0, len(self.waiting) - len(self.open))
        self.waiting.clear()
        super().connection_lost(error)

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        whole = end + 4 + (int(length) if length else 0)
        if len(self.buffer) < whole:
            return
        del self.buffer[:whole]
        self.open.clear()
        self.tally.answer(self.waiting.pop(0), head.startswith(b"http/1.1 200 "))
        if self.waiting:
            self.write()


class Grpc(Connection):
    """OTLP/gRPC: a stream of HTTP/2 a request, several at a time when answers are late."""

    headers = wire.h2_headers(wire.EXPORT_LOGS)

    def greet(self):
        self.stream = 1
        self.transport.write(wire.H2_OPENING)

    def send(self, request):
        stream, self.stream = self.stream, self.stream + 2
        self.open[stream] = [request, False]
        message = wire.grpc_message(self.requests.of(request[0]))
        self.transport.write(
            wire.h2_frame(wire.HEADERS, wire.END_HEADERS, stream, self.headers)
            + wire.h2_frame(wire.DATA, wire.END_STREAM, stream, message)
        )

    def data_received(self, data):
        self.buffer += data
        while len(self.buffer) >= 9:
            end = 9 + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < end:
                return
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big")
            payload = bytes(self.buffer[9:end])
            del self.buffer[:end]
            self.frame(kind, flags, stream, payload)

    def frame(self, kind, flags, stream, payload):
        if kind in (wire.SETTINGS, wire.PING) and not flags & wire.ACK:
            self.transport.write(wire.h2_frame(kind, wire.ACK, 0, payload if kind == wire.PING else b""))
        elif stream in self.open:
            if kind == wire.DATA:
                self.open[stream][1] = True
            is_end = kind in (wire.DATA, wire.HEADERS) and flags & wire.END_STREAM
            if is_end or kind == wire.RESET:
                request, has_message = self.open.pop(stream)
                self.tally.answer(request, has_message and kind == wire.HEADERS)


async def drive(kind, address, count, rate, seconds, prefix, go):
    tally = Tally()
    requests = wire.LogRequests(time.time_ns())
    protocol = {"http": Http, "grpc": Grpc}[kind]
    connections = [protocol(address, tally, requests) for _ in range(count)]
    for connection in connections:
        await connection.connect()
        await asyncio.sleep(CONNECT_PAUSE_S)
    go()
    loop_start = time.monotonic() + 0.1
    total = int(rate * seconds)
    while tally.planned < total:
        now = time.monotonic()
        while tally.planned < total and (due := loop_start + tally.planned / rate) <= now:
            connection = connections[tally.planned % count]
            identity = b"%b-%013d" % (prefix, tally.planned)
            tally.planned += 1
            tally.late.append(now - due)
            connection.submit((identity, due))
            if connection.transport is None and not getattr(connection, "opening", None):
                connection.opening = asyncio.ensure_future(reopen(connection))
        await asyncio.sleep(max(0.0005, loop_start + tally.planned / rate - time.monotonic()))
    until = time.monotonic() + LAST_ANSWERS_S
    while any(connection.open or connection.waiting for connection in connections) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    unanswered = sum(max(len(connection.open), len(connection.waiting)) for connection in connections)
    for connection in connections:
        connection.close()
    await asyncio.sleep(0.1)
    return tally, unanswered


async def reopen(connection):
    try:
        await connection.connect()
    except OSError:
        await asyncio.sleep(0.2)
    finally:
        connection.opening = None


def run(pipe, folder, kind, address, count, rate, seconds, prefix):
    """A process of its own. Says when all connections stand, then what became of the requests; ids and latencies go into files."""
    gc.disable()
    tally, unanswered = asyncio.run(drive(kind, address, count, rate, seconds, prefix, lambda: pipe.send("connected")))
    name = prefix.decode()
    (folder / f"{name}.ids").write_bytes(b"\n".join(tally.acknowledged) + b"\n")
    (folder / f"{name}.latencies").write_bytes(tally.latencies.tobytes())
    (folder / f"{name}.late").write_bytes(tally.late.tobytes())
    pipe.send({
        "planned": tally.planned,
        "acknowledged": len(tally.acknowledged),
        "refused": tally.refused,
        "lost with their connection": tally.broken,
        "unanswered": unanswered,
    })
