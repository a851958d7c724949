"""What clients come for, in a soak: most leave abruptly (`abrupt.py`), the others do something whole, stay, come back,
or read many streams that nobody has read before.

A visit that gets something else than it should raises `Short` or `AssertionError`.
"""

import random
import re

import trio
from abrupt import ENDINGS, Peer, connection, leave_abruptly
from test_edge_websocket import masked

FRESH = 15  # streams that one visit makes
STAY_S = (1.0, 5.0)
EVENTS = 5
_EVENT = re.compile(rb'id: (\S+)\n(?:event: \w+\n)?data: \{"n":(\d+),')


async def requests(peer):
    """Two calls on one connection."""
    for number in (peer.rng.randrange(1000), 7):
        await peer.send(peer.post(f"room/{peer.room}/call/double", [number]))
        answer = await peer.until(b'"result"')
        assert b'"result":%d}' % (2 * number) in answer, answer


async def reader(peer):
    """Some events, in order."""
    await peer.send(peer.events("room/witness"))
    await read_events(peer, EVENTS)


async def talker(peer):
    """A subscription, a call, its end, and a closing handshake."""
    await peer.websocket()
    await peer.subscribe()
    await peer.until(b'"subscribed"')
    await peer.send(peer.message("call", stream=f"room/{peer.room}", method="double", arguments=[21]))
    assert b'"result":42' in await peer.until(b'"result"}'[:8])
    await peer.send(masked(8, b"\x03\xe8"))
    await peer.until(b"\x88\x02\x03\xe8")


async def stayer(peer):
    """Reads for seconds."""
    if peer.rng.random() < 0.5:
        await peer.send(peer.events("room/witness"))
    else:
        await peer.websocket()
        await peer.subscribe("room/witness")
    with trio.move_on_after(peer.rng.uniform(*STAY_S)):
        while await peer.sock.recv(1 << 16):
            pass
        raise AssertionError("the service ended a stream that was read")


async def maker(peer):
    """Streams that are new, an event in each."""
    await peer.websocket()
    streams = [f"room/f{peer.rng.getrandbits(64):x}" for _ in range(FRESH)]
    subscriptions = [{"stream": stream} for stream in streams]
    await peer.send(peer.message("batch_subscribe", subscriptions=subscriptions))
    await peer.until(b'"batch_subscribed"')
    for number, stream in enumerate(streams):
        await peer.send(peer.message("publish", stream=stream, data=f"fresh {number}"))
        await peer.until(b'"fresh %d"' % number)


KINDS = (
    (leave_abruptly, 60), (requests, 12), (reader, 8), (talker, 7), (stayer, 5), ("resume", 6), (maker, 2),
)  # fmt: skip


async def visit(address, seed, n):
    """Make visit number `n` of a seed: always the same."""
    rng = random.Random(f"{seed}/visit/{n}")
    [kind] = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    if kind is leave_abruptly:
        await leave_abruptly(address, seed, n)
    elif kind == "resume":
        await resume(address, n, rng)
    else:
        async with connection(address, n) as sock:
            await kind(Peer(sock, rng))
            await rng.choice(ENDINGS)(sock)


async def resume(address, n, rng):
    """Read, go, and come back for what follows: with no hole and no repeat, or the gap is told."""
    last, since = None, None
    for _ in range(3):
        async with connection(address, n) as sock:
            peer = Peer(sock, rng)
            await peer.send(peer.events("room/witness", since))
            gap, events = await read_events(peer, EVENTS)
            if last is not None and not gap:
                assert events[0][1] == last + 1, (last, events)
            since, last = events[-1]
            await rng.choice(ENDINGS)(sock)


async def read_events(peer, count):
    """Read so many numbered events; gives whether there was a gap before them, and their ids and numbers."""
    text = b""
    while len(found := _EVENT.findall(text)) < count:
        text += await peer.until(b"\n\n")
    numbers = [int(number) for _, number in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    return b"event: gap" in text, [(id_.decode(), int(number)) for id_, number in found]
