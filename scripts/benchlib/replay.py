"""Records what a client sends over HTTP/2, and sends it again with hardly any work of its own: what a sender takes to make its
requests is felt by a server on the same cores, in the caches that they share, and differs from format to format.
"""

import socket
import struct
import threading
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9  # bytes before each frame: length, type, flags, stream
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK = 1, 1
INITIAL_WINDOW_SIZE = 4  # a setting
WINDOW = 65_535  # where nothing else is said


def frame_of(header):
    length = int.from_bytes(header[:3], "big")
    kind, flags, stream = struct.unpack(">BBI", header[3:HEADER])
    return length, kind, flags, stream & 0x7FFF_FFFF


class Recorder:
    """A proxy in front of `address` that keeps what the client sends over each connection."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.recorded = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def bytes(self):
        return sum(len(sent) for sent in self.recorded)

    @property
    def connections(self):
        """Those over which anything was sent; a client may look first whether anybody listens."""
        return [bytes(sent) for sent in self.recorded if sent]

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            sent = bytearray()
            self.recorded.append(sent)
            for source, sink, kept in ((client, server, sent), (server, client, None)):
                threading.Thread(target=self.pump, args=(source, sink, kept), daemon=True).start()

    def pump(self, source, sink, kept):
        try:
            while data := source.recv(1 << 16):
                if kept is not None:
                    kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Messages:
    """Counts the gRPC messages of a stream, however its frames cut them."""

    def __init__(self):
        self.prefix, self.left = bytearray(), 0

    def ended_in(self, data):
        """How many messages end in these bytes."""
        at, ended = 0, 0
        while at < len(data):
            if self.left == 0:
                part = data[at : at + 5 - len(self.prefix)]
                self.prefix += part
                at += len(part)
                if len(self.prefix) < 5:
                    break
                self.left = int.from_bytes(self.prefix[1:], "big")
                self.prefix.clear()
            part = min(self.left, len(data) - at)
            self.left -= part
            at += part
            ended += self.left == 0
        return ended


@dataclass
class Frame:
    """A frame that is sent again."""

    data: memoryview
    taken: int  # of the windows, bytes
    stream: int
    is_last: bool  # of its stream
    messages: int  # that end in it


def frames(recorded):
    """The frames of a recorded connection that are sent again."""
    assert recorded.startswith(PREFACE), "not HTTP/2 without TLS"
    view, at, found, messages = memoryview(bytes(recorded)), len(PREFACE), [], {}
    while at + HEADER <= len(view):
        length, kind, flags, stream = frame_of(view[at : at + HEADER])
        end = at + HEADER + length
        # What answered the server's own frames then would answer nothing now.
        is_answer = kind in (PING, SETTINGS) and flags & ACK
        if kind == DATA:
            ended = messages.setdefault(stream, Messages()).ended_in(view[at + HEADER : end])
            found.append(Frame(view[at:end], length, stream, bool(flags & END_STREAM), ended))
        elif kind != GOAWAY and not is_answer:
            found.append(Frame(view[at:end], 0, stream, kind == HEADERS and bool(flags & END_STREAM), 0))
        at = end
    return found


class Connection:
    """Sends the frames of one recorded connection, within the server's windows and with so many messages under way at most as
    the sender had; unary calls go one after the other."""

    def __init__(self, address, recorded, in_flight):
        host, port = address.rsplit(":", 1)
        self.frames, self.in_flight = frames(recorded), in_flight
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.changed = threading.Condition()
        self.initial, self.windows, self.ended, self.failed = WINDOW, {0: WINDOW}, set(), None
        self.is_settled = False
        self.answers, self.under_way = {}, 0

    def run(self):
        self.socket.sendall(PREFACE)
        threading.Thread(target=self.read, daemon=True).start()
        waiting = bytearray()

        def flush():
            self.socket.sendall(waiting)
            waiting.clear()

        for frame in self.frames:
            if frame.taken and not self.has_room(frame):
                # What waits goes first: the server may wait for it, and the windows for the server.
                flush()
                self.wait_for(lambda: self.has_room(frame))
            with self.changed:
                self.windows[0] -= frame.taken
                if frame.taken:
                    self.windows[frame.stream] -= frame.taken
                self.under_way += frame.messages
            waiting += frame.data
            if frame.messages or frame.is_last or len(waiting) >= 1 << 16:
                flush()
            if frame.messages:
                self.wait_for(lambda: self.under_way < self.in_flight)
            if frame.is_last:
                self.wait_for(lambda: frame.stream in self.ended)
        flush()
        self.socket.close()

    def has_room(self, frame):
        self.windows.setdefault(frame.stream, self.initial)
        return self.is_settled and min(self.windows[0], self.windows[frame.stream]) >= frame.taken

    def wait_for(self, holds):
        with self.changed:
            self.changed.wait_for(lambda: holds() or self.failed)
            if not holds():
                raise RuntimeError(self.failed)

    def read(self):
        stream_of_bytes = self.socket.makefile("rb", buffering=1 << 16)
        try:
            while len(header := stream_of_bytes.read(HEADER)) == HEADER:
                length, kind, flags, stream = frame_of(header)
                self.take_in(kind, flags, stream, stream_of_bytes.read(length))
            self.fail("the server closed the connection")
        except (OSError, ValueError) as error:
            self.fail(str(error))

    def fail(self, why):
        with self.changed:
            self.failed = self.failed or why
            self.changed.notify_all()

    def take_in(self, kind, flags, stream, payload):
        with self.changed:
            if kind == WINDOW_UPDATE:
                grown = int.from_bytes(payload, "big") & 0x7FFF_FFFF
                self.windows[stream] = self.windows.get(stream, self.initial) + grown
            elif kind == SETTINGS and not flags & ACK:
                for name, value in struct.iter_unpack(">HI", payload):
                    if name == INITIAL_WINDOW_SIZE:
                        grown, self.initial = value - self.initial, value
                        self.windows = {stream: size + (grown if stream else 0) for stream, size in self.windows.items()}
                self.is_settled = True
                self.socket.sendall(struct.pack(">BHBBI", 0, 0, SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(struct.pack(">BHBBI", 0, len(payload), PING, ACK, 0) + payload)
            elif kind in (GOAWAY, RST_STREAM):
                self.failed = f"the server refused: frame {kind} on stream {stream}, {payload[:80]!r}"
            elif kind == DATA:
                self.under_way -= self.answers.setdefault(stream, Messages()).ended_in(payload)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self.ended.add(stream)
            self.changed.notify_all()


def replay(address, connections, in_flight):
    """Sends recorded connections again, all at once, until the server has answered everything."""
    replayed = [Connection(address, recorded, in_flight) for recorded in connections]
    failures = []

    def run(connection):
        try:
            connection.run()
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(connection,)) for connection in replayed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
