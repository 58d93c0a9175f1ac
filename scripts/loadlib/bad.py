"""The bad half: peers that are slow or send rubbish, each over and over; a peer that was thrown out comes back after a moment."""

import asyncio
import collections
import random
import socket
import struct
import time

import wire

DRIP_S = 1
CONNECT_S = 10
BACK_S = (0.02, 0.2)

HTTP_HEAD = b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n"


def grpc_call(stream, path, body, end=True):
    headers = wire.h2_frame(wire.HEADERS, wire.END_HEADERS, stream, wire.h2_headers(path))
    return headers + wire.h2_frame(wire.DATA, wire.END_STREAM if end else 0, stream, body)


class Peer:
    """One connection of a way to be bad."""

    def __init__(self, reader, writer, chance):
        self.reader, self.writer, self.chance = reader, writer, chance

    def write(self, data):
        self.writer.write(data)

    def rubbish(self, least, most):
        return self.chance.randbytes(self.chance.randint(least, most))

    async def drip(self, parts):
        """Sends a part a second, until thrown out."""
        thrown_out = asyncio.ensure_future(self.until_thrown_out())
        try:
            for part in parts:
                self.write(part)
                await asyncio.wait([thrown_out], timeout=DRIP_S)
                if thrown_out.done():
                    return thrown_out.result()
        finally:
            thrown_out.cancel()

    async def until_thrown_out(self):
        while await self.reader.read(1 << 16):
            pass

    async def until_answered(self):
        await self.reader.read(1 << 16)

    def reset(self):
        """The next close is a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def silent(peer):
    await peer.until_thrown_out()


async def drips_headers(peer):
    await peer.drip(bytes([byte]) for byte in HTTP_HEAD * 100)


async def drips_a_body(peer):
    peer.write(HTTP_HEAD + b"content-length: 100000\r\n\r\n")
    await peer.drip([b"x"] * 1000)


async def drips_a_message(peer):
    peer.write(wire.H2_OPENING + grpc_call(1, wire.EXPORT_LOGS, b"\0\0\1\0\0", end=False))
    await peer.drip([wire.h2_frame(wire.DATA, 0, 1, b"x")] * 1000)


async def random_bytes(peer):
    peer.write(peer.rubbish(1, 1 << 16))
    await peer.until_thrown_out()


async def speaks_tls(peer):
    hello = b"\1\0\1\xfc\3\3" + peer.chance.randbytes(506)
    peer.write(b"\x16\3\1\2\0" + hello)
    await peer.until_thrown_out()


async def preface_then_rubbish(peer):
    peer.write(wire.H2_OPENING + peer.rubbish(100, 10_000))
    await peer.until_thrown_out()


async def declares_too_much(peer):
    if peer.chance.random() < 0.5:
        peer.write(HTTP_HEAD + b"content-length: 99999999999\r\n\r\n" + peer.rubbish(0, 1000))
    else:
        peer.write(wire.H2_OPENING + grpc_call(1, wire.EXPORT_LOGS, b"\0\xff\xff\xff\xff" + peer.rubbish(0, 1000), end=False))
        peer.write(wire.h2_frame(wire.DATA, wire.END_STREAM, 1, peer.rubbish(0, 1000)))
    await peer.until_answered()


async def resets(peer):
    if peer.chance.random() < 0.5:
        peer.write(HTTP_HEAD + b"content-length: 10000\r\n\r\n" + peer.rubbish(1, 9999))
    else:
        peer.write(wire.H2_OPENING + grpc_call(1, wire.EXPORT_LOGS, b"\0\0\0\xff\xff" + peer.rubbish(1, 9999), end=False))
    await asyncio.sleep(peer.chance.random() / 10)
    peer.reset()


async def garbage_messages(peer):
    """Calls in their frames, as they should be, and nothing that can be understood in them."""
    peer.write(wire.H2_OPENING)
    for call in range(20):
        peer.write(grpc_call(2 * call + 1, wire.EXPORT_LOGS, wire.grpc_message(peer.rubbish(1, 5000))))
        await peer.until_answered()
        await asyncio.sleep(0.1)


async def garbage_streams(peer):
    """OTAP: rubbish as a message; or as the Arrow data of a batch that is one otherwise."""
    peer.write(wire.H2_OPENING)
    for call in range(20):
        arrow = wire.field(1, b"1") + b"\x10\x1e" + wire.field(3, peer.rubbish(1, 5000))
        message = peer.chance.choice([peer.rubbish(1, 5000), b"\x08\x01" + wire.field(2, arrow)])
        peer.write(grpc_call(2 * call + 1, wire.ARROW_LOGS, wire.grpc_message(message), end=False))
        await peer.until_answered()
        await asyncio.sleep(0.1)


# Each with the port that it goes to; None is either.
WAYS = {
    "silent": (silent, None),
    "drips headers": (drips_headers, "http"),
    "drips a body": (drips_a_body, "http"),
    "drips a message": (drips_a_message, "grpc"),
    "random bytes": (random_bytes, None),
    "TLS to a plain port": (speaks_tls, None),
    "HTTP/2, then rubbish": (preface_then_rubbish, None),
    "huge lengths": (declares_too_much, None),
    "resets": (resets, None),
    "garbage messages": (garbage_messages, "grpc"),
    "garbage streams": (garbage_streams, "grpc"),
}


async def misbehave(way, addresses, chance, counts, until):
    act, port = WAYS[way]
    while (left := until - time.monotonic()) > 0:
        # A request of the wrong protocol is rubbish too, and at random.
        address = addresses[port or chance.choice(["grpc", "http"])]
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*address), CONNECT_S)
        except (OSError, asyncio.TimeoutError):
            counts[way, "not let in"] += 1
            await asyncio.sleep(chance.uniform(*BACK_S))
            continue
        counts[way, "connections"] += 1
        begun = time.monotonic()
        try:
            await asyncio.wait_for(act(Peer(reader, writer, chance)), left)
        except asyncio.TimeoutError:
            pass  # The time is over.
        except OSError:
            pass  # Thrown out.
        finally:
            writer.close()
        counts[way, "longest"] = max(counts[way, "longest"], time.monotonic() - begun)
        await asyncio.sleep(chance.uniform(*BACK_S))


async def drive(addresses, count, seconds, seed):
    counts = collections.Counter()
    until = time.monotonic() + seconds
    names = list(WAYS)
    ways = (names[number % len(names)] for number in range(count))
    peers = [misbehave(way, addresses, random.Random(f"{seed} {number}"), counts, until) for number, way in enumerate(ways)]
    await asyncio.gather(*peers)
    return {name: {what: counts[name, what] for what in ("connections", "not let in", "longest")} for name in names}


def run(pipe, addresses, count, seconds, seed):
    """A process of its own; says what each way came to."""
    pipe.send(asyncio.run(drive(addresses, count, seconds, seed)))
