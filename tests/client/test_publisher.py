"""Publishing over a network that loses answers, in virtual time, over memory streams."""

import pytest
import trio
from scripted_service import Refuses, ScriptedService, answers, hangs_up, never_answers, published, trouble
from test_event_source import Middle

from trio_swarm.client import Published, Publisher
from trio_swarm.errors import ServiceRefused, ServiceUnavailable
from trio_swarm.testing import assert_no_leaks

URL = "http://service.test/v1/channel/a/publish"


async def publish(service, lines=b'{"data":1}', *, key=None, **how):
    """One request: what was published or raised, and the waits between the attempts."""
    waits = []
    with assert_no_leaks():
        async with service.running():
            publisher = Publisher(
                URL, access=service.access(), rng=Middle(), on_retry=lambda why, s: waits.append((why, s)), **how
            )
            async with publisher:
                try:
                    outcome = await publisher.publish(lines, key=key)
                except (ServiceRefused, ServiceUnavailable) as error:
                    outcome = error
    return outcome, waits


async def test_a_request_is_what_the_service_takes(autojump_clock):
    """Lines as they are, with a name that nobody else has."""
    service = ScriptedService(published("5-0", 2))
    outcome, waits = await publish(service, b'{"data":1}\n{"data":2}')
    (peer,) = service.peers
    assert Published("5-0", 2) == outcome
    assert ("POST", "/v1/channel/a/publish", b'{"data":1}\n{"data":2}') == (peer.method, peer.target, peer.body)
    assert "application/x-ndjson" == peer.headers["content-type"]
    assert peer.headers["idempotency-key"]
    assert [] == waits


async def test_names_are_each_their_own():
    """Of one publisher and of two; a name that is given is that, and the empty one is none."""
    service = ScriptedService(then=published())
    async with service.running():
        for key in (None, None, "mine", ""):
            async with Publisher(URL, access=service.access()) as publisher:
                await publisher.publish(b"1", key=key)
    names = [peer.headers.get("idempotency-key") for peer in service.peers]
    assert ["mine", None] == names[2:]
    assert 4 == len(set(names))


@pytest.mark.parametrize(
    "loses",
    [hangs_up, never_answers, answers(502), answers(200, body="")],
    ids=["hangs up", "never answers", "bad gateway", "no body"],
)
async def test_a_lost_answer_is_asked_for_again_under_the_same_name(autojump_clock, loses):
    """So that the service can see that it is the same request."""
    service = ScriptedService(loses, published())
    outcome, waits = await publish(service, retry_s=60)
    if isinstance(outcome, ServiceRefused):  # an answer that is no answer of ours
        assert "no service of ours" in str(outcome)
        return
    assert 1 == len(waits)
    first, second = (peer.headers["idempotency-key"] for peer in service.peers)
    assert first == second
    assert outcome.certain is (loses is not never_answers)  # 30 s are more than the 5 s that it is remembered


async def test_nothing_is_doubtful_where_nothing_was_done(autojump_clock):
    """Nobody there, or an error that says so: the wait may be as long as it likes."""
    service = ScriptedService(
        Refuses,
        trouble(503, "too_many_connections", "full", retry_after=20),
        trouble(429, "limit", "x", retry_after=9),
        published(),
    )
    outcome, waits = await publish(service, retry_s=100)
    assert outcome.certain
    assert [1, 22, 13] == [seconds for _, seconds in waits]


async def test_a_doubt_stays_until_the_answer(autojump_clock):
    """One answer lost, then nobody there for longer than the service remembers: it may be there twice."""
    outcome, _ = await publish(ScriptedService(hangs_up, Refuses, Refuses, Refuses, published()), retry_s=60)
    assert not outcome.certain
    outcome, _ = await publish(ScriptedService(hangs_up, Refuses, published()), retry_s=60)
    assert outcome.certain


async def test_it_gives_up_in_time(autojump_clock):
    """A wait that would go beyond `retry_s` is not begun; whether it was done is said."""
    service = ScriptedService(Refuses, Refuses, Refuses, then=Refuses)
    outcome, waits = await publish(service, retry_s=10)
    assert "cannot connect to service.test: Connection refused" == str(outcome)
    assert not outcome.uncertain
    assert [1, 2, 4] == [seconds for _, seconds in waits]
    outcome, _ = await publish(ScriptedService(hangs_up, then=Refuses), retry_s=10)
    assert outcome.uncertain
    outcome, waits = await publish(ScriptedService(then=Refuses), retry_s=0)
    assert [] == waits


async def test_a_refusal_is_raised_at_once(autojump_clock):
    """With the service's sentence."""
    outcome, waits = await publish(
        ScriptedService(trouble(400, "invalid_event", "line 2: the message is not as expected"))
    )
    assert "line 2: the message is not as expected (HTTP 400)" == str(outcome)
    assert [] == waits


async def test_a_connection_is_used_again_unless_it_rested(autojump_clock):
    """One for many requests; after 3 s without one a new one, for the service may be closing it; at the end, none."""
    connections = []

    async def serves_many(peer):
        connections.append(peer)
        await peer.answer(200, {}, '{"id":"1-0","count":1}')
        while received := await peer.stream.receive_some(65536):
            assert received.startswith(b"POST ")
            await peer.answer(200, {}, '{"id":"1-1","count":1}')

    service = ScriptedService(then=serves_many)
    async with service.running():
        async with Publisher(URL, access=service.access()) as publisher:
            for _ in range(5):
                await publisher.publish(b"1")
            assert 1 == len(connections)
            await trio.sleep(4)
            await publisher.publish(b"1")
            assert 2 == len(connections)
        await service.all_closed()


async def test_leaving_in_the_middle_leaves_nothing(autojump_clock):
    """While connecting, waiting for an answer, or for the next attempt."""
    for act in (never_answers, Refuses, hangs_up):
        for moment in (0, 0.1, 1.5):
            service = ScriptedService(then=act)
            with assert_no_leaks():
                async with service.running():
                    with trio.move_on_after(moment):
                        async with Publisher(URL, access=service.access(), rng=Middle()) as publisher:
                            await publisher.publish(b"1")
                    await service.all_closed()
