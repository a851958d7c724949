"""A service that goes away under its clients, and comes back: all return, spread, and nobody misses a thing untold."""

import os
import random
import signal
import socket
from math import sqrt

import pytest
import trio
from returning_clients import Publisher, come_back, histogram, lost_by, make_clients, most_in_a_second, wait_for

CLIENTS = 200
SPAN = (0.3, 2.8)  # seconds: the span of the settings, shortened
SIGMAS = 5  # a second may see by chance what one in a million runs would


@pytest.fixture
def place(tmp_path):
    """A port that stays ours while nobody listens on it, and settings with a short span."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        config = tmp_path / "s.toml"
        config.write_text(f"[liveness]\nretry_min_s = {SPAN[0]}\nretry_max_s = {SPAN[1]}\nshutdown_s = 10\n")
        yield keeper.getsockname()[1], ["serve", "--bind", f"127.0.0.1:{keeper.getsockname()[1]}", "--config", config]


async def all_back(clients, times, publisher):
    """Everybody was connected that often, and has what is acknowledged by now: that is returned."""
    await wait_for(lambda: all(client.times >= times for client in clients))
    acknowledged = dict(publisher.acknowledged)  # more is on its way while this waits
    target = max(acknowledged)
    await wait_for(lambda: all(client.received and client.received[-1] >= target for client in clients))
    return acknowledged


async def test_the_service_comes_back_and_so_do_its_clients(service, place, capsys):
    """Stopped and started, reloaded, killed and started, under 200 clients and a publisher that goes on all the time.

    All come back each time. After a goodbye they are told different moments: no second of the span sees more than its
    share. What was acknowledged, each client has once and in order; only a kill leaves some out, and tells of them.
    """
    port, command = place
    rng = random.Random(3)
    pairs = make_clients(CLIENTS, SPAN)
    clients = [client for client, _ in pairs]
    publisher = Publisher(port, 0.01)
    starts = []
    async with trio.open_nursery() as nursery:
        async with service(*command) as (process, _):
            for client, talk in pairs:
                nursery.start_soon(come_back, client, talk, port, rng)
            await wait_for(lambda: all(client.times for client in clients))
            first = max(publisher.acknowledged, default=0)
            nursery.start_soon(publisher.run)
            await trio.sleep(0.5)
            starts.append(trio.current_time())
        async with service(*command) as (process, _):
            await all_back(clients, 2, publisher)
            starts.append(trio.current_time())
            os.kill(process.pid, signal.SIGHUP)
            all_have = await all_back(clients, 3, publisher)
            assert process.poll() is None
            kept = max(all_have)
            for client in clients:
                assert ([], []) == lost_by(client, all_have, first), client.name
                assert 2 == client.goodbyes, client.name
            process.kill()
            starts.append(trio.current_time())
        async with service(*command):
            await all_back(clients, 4, publisher)
        nursery.cancel_scope.cancel()
    ended = max(publisher.acknowledged) - 5  # those on their way when the test ended
    acknowledged = {number: given for number, given in publisher.acknowledged.items() if number <= ended}
    told_of = 0
    for client in clients:
        lost, told = lost_by(client, acknowledged, kept)
        assert [] == lost, client.name
        told_of = max(told_of, len(told))
        assert 0 == client.out_of_order, client.name
        assert [] == client.strange, client.name
        assert client.times - 1 == len(client.gaps), client.name  # a position of another life is never just taken
        twice = {number for number in client.received if client.received.count(number) > 1}
        assert set() == {number for number in twice if publisher.tries[number] == 1}, client.name
    share = 1 / (SPAN[1] - SPAN[0])
    most = CLIENTS * share + SIGMAS * sqrt(CLIENTS * share * (1 - share))
    with capsys.disabled():
        print(f"\n{len(acknowledged)} acknowledged, {told_of} told as a gap, refusals {dict(publisher.refusals)}")
    for time in (0, 1):
        tries = [client.first_tries[time] for client in clients]
        returns = [client.returns[time + 1] for client in clients]
        with capsys.disabled():
            print(f"tries {most_in_a_second(tries)} of {most:.0f}: {histogram(tries, starts[time])}")
            print(f"returns {most_in_a_second(returns)}: {histogram(returns, starts[time])}")
        assert most_in_a_second(tries) <= most
    with capsys.disabled():
        print(f"after a kill: {histogram([client.returns[3] for client in clients], starts[2])}")
