"""Bytes as they go over the wire: OTLP requests of one log record, and as much of HTTP/2 as one's own requests need.

Sources: OTLP logs.proto, RFC 9113, RFC 7541, gRPC over HTTP/2.
"""

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

EXPORT_LOGS = b"/opentelemetry.proto.collector.logs.v1.LogsService/Export"
ARROW_LOGS = b"/opentelemetry.proto.experimental.arrow.v1.ArrowLogsService/ArrowLogs"

# A name of five letters, a dash, and a number.
ID_LEN = 19


def field(number, payload):
    """A field of a protobuf message with less than 16 KiB in it."""
    length = len(payload)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + payload


class LogRequests:
    """Requests that differ by the record's body alone, which is its id."""

    def __init__(self, unix_nano):
        mark = b"#" * ID_LEN
        time = b"\x09" + unix_nano.to_bytes(8, "little")
        record = time + field(3, b"INFO") + field(5, field(1, mark))
        name = field(1, field(1, b"service.name") + field(2, field(1, b"load")))
        request = field(1, field(1, name) + field(2, field(2, record)))
        self.before, self.after = request.split(mark)
        self.length = len(request)

    def of(self, identity):
        return self.before + identity + self.after


def h2_frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_headers(path, content_type=b"application/grpc"):
    """The fields of a POST, none of them compressed."""
    literal = lambda name, value: name + bytes([len(value)]) + value
    fields = literal(b"\x04", path) + literal(b"\x01", b"localhost") + literal(b"\x0f\x10", content_type)
    return b"\x83\x86" + fields + literal(b"\x00\x02te", b"trailers")


# As much as may be sent to us on the connection: answers are small, and never wait.
H2_OPENING = PREFACE + h2_frame(SETTINGS, 0, 0) + h2_frame(WINDOW_UPDATE, 0, 0, (2**31 - 2**16).to_bytes(4, "big"))


def grpc_message(message):
    return b"\0" + len(message).to_bytes(4, "big") + message
