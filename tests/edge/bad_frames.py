"""What is said for each row of the table of frames: several variants a row, to be treated alike."""

import struct

import trio
from worker_rig import client_frame
from wrong_input import HANDSHAKE, KEPT, STILL, Talk, peer, text

from trio_swarm.edge.protocol import EVENTS_A_TURN

LIMIT = 100 * 1024
FLOOD = 100_000


def part(payload, opcode=0, *, last=False):
    """A fragment."""
    return client_frame(opcode, payload, first_bits=0x80 if last else 0)


def head(first, *rest):
    """A frame's first bytes as they are, then a mask of zeros."""
    return bytes([first, *rest]) + bytes(4)


def close(code, reason=b""):
    return Talk(client_frame(8, struct.pack("!H", code) + reason))


class Turns(trio.abc.Instrument):
    """Counts the rounds of the loop, in each of which every task that can run does."""

    def __init__(self):
        self.count = 0

    def before_io_wait(self, timeout):
        self.count += 1


async def unread_pings(service):
    """All are sent before one byte of the answers is read: the last of each read is answered, and others have turns."""
    turns = Turns()
    async with peer(service) as client:
        await client.stream.send_all(HANDSHAKE)
        await client.head()
        trio.lowlevel.add_instrument(turns)
        await client.stream.send_all(b"".join(client_frame(9, b"%d" % n) for n in range(FLOOD)))
        numbers = [-1]
        while numbers[-1] < FLOOD - 1:
            opcode, payload = await client.frame()
            assert opcode == 10
            assert int(payload) > numbers[-1]
            numbers.append(int(payload))
        assert len(numbers) < FLOOD / 100
        trio.lowlevel.remove_instrument(turns)
        assert turns.count > FLOOD / EVENTS_A_TURN
        client.push(client_frame(1, STILL))
        assert b"still there" in (await client.frame())[1]
        return "`pong`", KEPT


FRAMES = {
    "a text that is not UTF-8, also across fragments": [
        text(b"\xff"),
        text(b"\xed\xa0\x80"),
        text(b'{"type":"ping","messageId":"\xc0\xaf"}'),
        text(b"\xf5\x80\x80\x80"),
        text(b"a\xc3"),
        Talk(part(b"a\xc3", 1) + part(b"b", last=True)),
        Talk(part(b"a\xe2\x82", 1) + part(b"") + part(b"", last=True)),
        Talk(part(b"\xf0\x9f", 1) + part(b"\x98") + part(b"\xff", last=True)),
    ],
    "binary": [
        Talk(client_frame(2, b"{}")),
        Talk(client_frame(2)),
        Talk(part(b"\xff", 2) + part(b"", last=True)),
    ],
    "a message above 100 KiB, announced, sent, or as the sum of its fragments": [
        text(b"x" * (LIMIT + 1)),
        text("é".encode() * (LIMIT // 2 + 1)),
        text(b"x" * (20 * LIMIT)),
        Talk(part(b"x" * LIMIT, 1) + part(b"x", last=True)),
        Talk(part(b"", 1) + part(b"x" * 1000) * 110),
        Talk(head(0x81, 0xFF, 0x7F, *b"\xff" * 7) + b"x" * (LIMIT + 1)),
        Talk(client_frame(2, bytes(LIMIT + 1))),
    ],
    "more than 1,000 fragments, empty ones too": [
        Talk(part(b"", 1) + part(b"") * 20_000),
        Talk(part(b"x", 1) + part(b"x") * 1_001),
        Talk(part(b"x", 1) + (part(b"") + client_frame(9)) * 2_000),
    ],
    "a frame that is not masked": [
        Talk(b"\x81\x02hi"),
        Talk(b"\x89\x00"),
        Talk(b"\x88\x02\x03\xe8"),
        Talk(b"\x81\x7e\x01\x00"),
    ],
    "a reserved bit, also that of compression": [
        Talk(client_frame(1, STILL, first_bits=0x80 | bit)) for bit in (0x40, 0x20, 0x10, 0x70)
    ]
    + [Talk(client_frame(9, first_bits=0xC0))],
    "a reserved opcode": [Talk(client_frame(opcode, b"x")) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    "a control frame above 125 bytes, or in fragments": [
        *(Talk(client_frame(opcode, b"x" * 126)) for opcode in (8, 9, 10)),
        *(Talk(part(b"", opcode)) for opcode in (8, 9, 10)),
        Talk(head(0x89, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0) + b"x" * 65_536),
    ],
    "a continuation of nothing": [
        Talk(part(b"x")),
        Talk(part(b"", last=True)),
        Talk(client_frame(1, b'{"type":"pong"}') + part(b"x", last=True)),
    ],
    "a new message inside a fragmented one": [
        Talk(part(b'{"type":', 1) + client_frame(1, STILL)),
        Talk(part(b"x", 1) + part(b"x", 2)),
    ],
    "a length in more bytes than it needs, or negative": [
        Talk(head(0x81, 0xFE, 0, 5) + b"hello"),
        Talk(head(0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5) + b"hello"),
        Talk(head(0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 5) + b"hello"),
    ],
    "a close with a code that nobody may send, or with one byte": [
        *(close(code) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)),
        Talk(client_frame(8, b"\x03")),
    ],
    "a close whose reason is not UTF-8": [
        close(1000, b"\xff"),
        close(4000, b"a\xed\xa0\x80"),
        close(1000, b"\xe2\x82"),
    ],
    "frames behind a close": [
        Talk(client_frame(8, struct.pack("!H", 1000)) + client_frame(1, STILL)),
        Talk(client_frame(8, struct.pack("!H", 1000)) * 3),
        Talk(client_frame(8, struct.pack("!H", 1000)) + b"\xff" * 10_000),
    ],
    "100,000 pings, and nobody reads the pongs": [unread_pings],
    "100,000 pongs that nobody asked for": [Talk(client_frame(10, b"x") * FLOOD, answers=0)],
}
