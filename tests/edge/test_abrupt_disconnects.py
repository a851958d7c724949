"""Clients that leave in the middle, by the thousand, beside two that stay; see `abrupt.py` for how they leave.

The service runs in a process of its own and tells what it holds. Memory is compared after the first half of the
disconnects, when all that is made once has been made, and after the second, as two numbers: the objects that Python's
collector knows (after a collection, exact to ten or so), and the blocks that its allocator has given out
(`sys.getallocatedblocks`, exact to a few hundred), which are every object and buffer. The resident size is not judged
here: it moves by megabytes with the holes of the C allocator, and shows a leak of a byte a client only after hours.
"""

import time

import pytest
import trio
from abrupt import PAIRS, Short, leave_abruptly
from watched_process import Witnesses, difference, watched_service

AT_ONCE = 100
SPARE_OBJECTS = 100  # caches fill more slowly beside busy neighbours: 12 to 58 were seen; a leak has several a client
SPARE_BLOCKS = 1_000


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_abrupt_disconnects_leave_nothing_and_disturb_nobody(foreign, request):
    """What the service holds is afterwards what it was, exactly; the second half costs no memory; the witnesses had
    every event once and in order; nothing was logged as an error.
    """
    attempts = request.config.getoption("disconnects") // 2
    seed = request.config.getoption("seed")
    assert attempts >= 2 * len(PAIRS), f"fewer than {4 * len(PAIRS)} disconnects do not reach every kind"
    shorts = []
    async with watched_service(foreign=foreign) as service, trio.open_nursery() as nursery:
        witnesses = Witnesses(service)
        await nursery.start(witnesses.run)
        base = await service.settled(witnesses)
        began = time.monotonic()
        await leave(service, seed, 0, attempts // 2, shorts)
        took = time.monotonic() - began
        half = await service.settled(witnesses, base)
        assert "" == difference(base, half)
        began = time.monotonic()
        await leave(service, seed, attempts // 2, attempts, shorts)
        took += time.monotonic() - began
        end = await service.settled(witnesses, base)
        print(f"seed {seed}: {attempts} disconnects, {attempts / took:.0f} a second; {witnesses.published} events")
        for name, census in (("base", base), ("half", half), ("end", end)):
            print(name, {key: census[key] for key in ("blocks", "gc_objects", "rss", "tasks_living", "aborted", "log")})
        assert "" == difference(base, end)
        assert end["gc_objects"] - half["gc_objects"] < SPARE_OBJECTS
        assert end["blocks"] - half["blocks"] < SPARE_BLOCKS
        assert [] == shorts
        witnesses.finish()
    assert [] == witnesses.faults


async def leave(service, seed, first, last, shorts):
    """Do these attempts, many at a time."""
    numbers = iter(range(first, last))

    async def worker():
        for n in numbers:
            try:
                await leave_abruptly((service.host, service.port), seed, n)
            except Short as short:
                shorts.append((n, PAIRS[n % len(PAIRS)][0].__name__, str(short)))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)
