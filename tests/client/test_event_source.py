"""A stream that outlives its connections, in virtual time, over memory streams."""

import random

import pytest
import trio
from scripted_service import (
    Refuses,
    ScriptedService,
    answers,
    event,
    gap,
    half_a_head,
    hangs_up,
    hello,
    never_answers,
    stream,
    trouble,
)

from trio_swarm.client import Connected, Event, Gap, Lost, Problem, Snapshot, Status, open_events
from trio_swarm.errors import ServiceRefused
from trio_swarm.testing import assert_no_leaks

FOR_EVER_S = 50_000.0  # in virtual time: what waits this long would wait for ever


class Middle(random.Random):
    """Draws the highest jitter there is, so that the ceilings are seen."""

    def uniform(self, a, b):
        return b


async def collect(service, enough=None, *, limits=None, **how):
    """What happens until `enough` says so, or to the end; a refusal is the last of it."""
    happened = []
    with assert_no_leaks(), trio.fail_after(FOR_EVER_S):
        async with service.running():
            access = service.access(**(limits or {}))
            async with open_events(service.url, access=access, rng=Middle(), **how) as source:
                try:
                    async for happening in source:
                        happened.append(happening)
                        if enough is not None and enough(happened):
                            break
                except ServiceRefused as error:
                    happened.append(error)
            await service.all_closed()
    return happened


def refusal(happened):
    assert isinstance(happened[-1], ServiceRefused), happened
    return str(happened[-1])


def events(happened):
    return [(each.id, each.data) for each in happened if isinstance(each, Event)]


def lost(happened):
    return [(each.reason, each.seconds) for each in happened if isinstance(each, Lost)]


def count(number):
    return lambda happened: len(events(happened)) == number


async def test_it_goes_on_after_the_last_id(autojump_clock):
    """Each connection asks for what comes after the last event of the one before it."""
    service = ScriptedService(
        stream(hello("5-0"), event("6-0", 1)),
        stream(hello("6-0"), event("7-0", 2)),
        stream(hello("7-0"), event("8-0", 3)),
    )
    happened = await collect(service, count(3), since="5-0")
    assert [("6-0", "1"), ("7-0", "2"), ("8-0", "3")] == events(happened)
    assert ["5-0", "6-0", "7-0"] == service.last_ids


async def test_an_event_cut_off_in_the_middle_comes_whole(autojump_clock):
    """A connection that ends inside an event, or inside a character of it, has not given it."""
    whole = event("2-0", '"ü"').encode()
    for cut in range(1, len(whole)):
        service = ScriptedService(
            stream(hello("0-0"), event("1-0", 1), whole[:cut]), stream(hello("1-0"), event("2-0", '"ü"'))
        )
        happened = await collect(service, count(2))
        assert [("1-0", "1"), ("2-0", '"ü"')] == events(happened)
        assert [None, "1-0"] == service.last_ids


async def test_no_event_is_told_twice(autojump_clock):
    """What a service repeats from before the position is left out."""
    again = [event("5-0", 1), event("6-0", 2), event("7-0", 3), event("7-0", 3), event("8-0", 4)]
    service = ScriptedService(
        stream(hello("0-0"), event("5-0", 1), event("6-0", 2)),
        stream(hello("6-0"), *again),
    )
    happened = await collect(service, count(4))
    assert ["5-0", "6-0", "7-0", "8-0"] == [each for each, _ in events(happened)]


async def test_a_gap_is_told_and_the_stream_goes_on_from_there(autojump_clock):
    """Also when the new position is below the old one: the service began a new life with another clock."""
    service = ScriptedService(
        stream(hello("0-0"), event("9-0", 1)), stream(hello("3-0", gap("9-0", "3-0")), event("4-0", 2))
    )
    happened = await collect(service, count(2))
    assert [("9-0", "1"), ("4-0", "2")] == events(happened)
    assert [Gap(None, "9-0", "3-0")] == [each for each in happened if isinstance(each, Gap)]


async def test_a_bare_id_moves_the_position_on(autojump_clock):
    """A heartbeat is no event, and what it says is where the next connection begins."""
    service = ScriptedService(stream(hello("1-0"), "id: 8-0\n\n"), stream(hello("8-0"), event("9-0", 1)))
    await collect(service, count(1))
    assert [None, "8-0"] == service.last_ids


async def test_what_a_service_of_ours_says_has_its_own_kind(autojump_clock):
    """Control events are told apart from events."""
    service = ScriptedService(
        stream(
            hello("1-0"),
            'event: snapshot\nid: 1-0\ndata: {"score":[1,0]}\n\n',
            'event: status\ndata: {"feed":"f","state":"live","reason":null}\n\n',
            'event: error\ndata: {"code":"snapshot_failed","message":"none"}\n\n',
            event(
                "2-0",
                '{"type":"event","stream":"channel/a","topic":"t","event":"shout","id":"2-0","data":[1]}',
                "shout",
            ),
        )
    )
    happened = await collect(service, count(1), stream="channel/a", envelope=True)
    assert [
        Connected(),
        Snapshot("channel/a", "1-0", '{"score":[1,0]}'),
        Status("channel/a", '{"feed":"f","state":"live","reason":null}'),
        Problem("channel/a", "snapshot_failed", "none"),
        Event("channel/a", "2-0", "t", "shout", "[1]"),
    ] == happened


async def test_of_another_server_every_event_is_one(autojump_clock):
    """Its types are its own, its ids any text, and what it repeats is repeated."""
    service = ScriptedService(
        stream("event: gap\ndata: a\n\nid: zwei\ndata: b\n\nid: zwei\ndata: c\n\ndata: d\ndata: e\n\n"),
        answers(204),
    )
    happened = await collect(service)
    assert [(None, "gap", "a"), ("zwei", "message", "b"), ("zwei", "message", "c"), ("zwei", "message", "d\ne")] == [
        (each.id, each.type, each.data) for each in happened if isinstance(each, Event)
    ]
    assert [None, "zwei"] == service.last_ids


async def test_204_is_the_end(autojump_clock):
    """By the standard: do not come back."""
    assert [] == await collect(ScriptedService(answers(204)))


async def test_the_delays_double_up_to_their_maximum(autojump_clock):
    """From 1 s to 30 s, whatever kind of failure it is; an event makes it begin anew."""
    service = ScriptedService(
        Refuses, hangs_up, answers(500), answers(502), Refuses, hangs_up, Refuses,
        stream(hello("0-0"), event("1-0", 1)), Refuses, stream(hello("1-0"), event("2-0", 1)),
    )  # fmt: skip
    happened = await collect(service, count(2))
    assert [1, 2, 4, 8, 16, 30, 30, 1, 2] == [seconds for _, seconds in lost(happened)]
    waited = [round(b - a, 6) for a, b in zip(service.times, service.times[1:], strict=False)]
    assert [1, 2, 4, 8, 16, 30, 30, 1, 2] == [round(each) for each in waited]


async def test_a_service_that_greets_and_hangs_up_is_left_alone_longer_and_longer(autojump_clock):
    """A greeting is no success."""
    service = ScriptedService(then=stream(hello("0-0")))
    happened = await collect(service, lambda happened: len(lost(happened)) == 6)
    assert [1, 2, 4, 8, 16, 30] == [seconds for _, seconds in lost(happened)]


async def test_a_connection_that_stood_for_a_while_was_a_good_one(autojump_clock):
    """After 10 s without an event the backoff begins anew all the same."""

    async def stands(peer):
        await peer.begin()
        await peer.send(hello("0-0"))
        await trio.sleep(11)

    service = ScriptedService(Refuses, Refuses, Refuses, stands, Refuses, stream(hello("0-0"), event("1-0", 1)))
    happened = await collect(service, count(1))
    assert [1, 2, 4, 1, 2] == [seconds for _, seconds in lost(happened)]


async def test_the_jitter_is_full():
    """Drawn evenly between nothing and the ceiling, so that many do not come back in one wave."""
    delays = []
    async with ScriptedService(then=hangs_up).running() as service:
        for seed in range(60):
            async with open_events(service.url, access=service.access(), rng=random.Random(seed)) as source:
                delays.append((await anext(source)).seconds)
    assert all(0 <= each <= 1 for each in delays)
    assert 10 <= sum(each < 0.5 for each in delays) <= 50
    assert len(set(delays)) == 60


async def test_retry_is_waited_for_at_every_return(autojump_clock):
    """`retry:` is the least, and the draw comes on top; what the last connection said holds."""
    service = ScriptedService(
        stream("retry: 3000\n\n" + hello("0-0"), event("1-0", 1)),
        Refuses,
        stream("retry: 500\n\n" + hello("1-0"), event("2-0", 1)),
        stream(hello("2-0"), event("3-0", 1)),
    )
    happened = await collect(service, count(3))
    assert [4.0, 5.0, 1.5] == [seconds for _, seconds in lost(happened)]


async def test_a_retry_beyond_reason_is_ten_minutes(autojump_clock):
    """A client that waits longer without a word looks dead."""
    service = ScriptedService(
        stream("retry: 99999999999\n\n", event("1", 1)), trouble(503, "x", "y", retry_after=86400), answers(204)
    )
    assert [601, 602] == [seconds for _, seconds in lost(await collect(service))]


async def test_retry_after_is_waited_for(autojump_clock):
    """In seconds, or as a date by the service's own clock; nonsense is nothing."""
    date = {"date": "Sun, 01 Jan 2040 00:00:00 GMT"}
    service = ScriptedService(
        trouble(503, "shutting_down", "later", retry_after=7),
        trouble(429, "too_many_objects", "there are too many", retry_after="Sun, 01 Jan 2040 00:00:09 GMT", **date),
        trouble(503, "closed", "x", retry_after="soon"),
        trouble(503, "closed", "x", retry_after="Sun, 01 Jan 2040 00:00:09 GMT"),
        answers(204),
    )
    happened = await collect(service)
    assert [
        ("later (HTTP 503)", 8), ("there are too many (HTTP 429)", 11), ("x (HTTP 503)", 4), ("x (HTTP 503)", 8)
    ] == lost(happened)  # fmt: skip


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 426, 501, 505, 301, 302])
async def test_a_refusal_is_raised(autojump_clock, status):
    """Asking again would change nothing; what came before is given first, and the sentence is the service's."""
    service = ScriptedService(
        stream(hello("0-0"), event("1-0", 1)), trouble(status, "unknown_kind", "no kind 'x' is served here")
    )
    happened = await collect(service)
    assert f"no kind 'x' is served here (HTTP {status})" == refusal(happened)
    assert [("1-0", "1")] == events(happened)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
async def test_a_passing_trouble_is_not(autojump_clock, status):
    """These may be over when it comes back."""
    service = ScriptedService(answers(status, body="<html>"), answers(204))
    assert 1 == len(lost(await collect(service)))


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"content-type": "text/html; charset=utf-8"}, "text/html"),
        ({}, "of no type"),
        ({"content-type": "text/event-stream", "content-encoding": "gzip"}, "compressed"),
    ],
)
async def test_what_is_no_stream_of_events_is_refused(autojump_clock, headers, words):
    """It would not be one the next time."""
    assert words in refusal(await collect(ScriptedService(stream("data: x\n\n", headers=headers, hold=True))))


async def test_an_event_without_end_is_refused(autojump_clock):
    """It would come again, and again be too large; no more than the limit of it is kept."""

    async def endless(peer):
        await peer.begin()
        while True:
            await peer.send(b"data: " + b"x" * 2**16)

    assert "larger than" in refusal(await collect(ScriptedService(endless)))


@pytest.mark.parametrize("act", [never_answers, half_a_head])
async def test_a_service_that_never_answers(autojump_clock, act):
    """30 s for an answer, from the connect on to the end of its head."""
    service = ScriptedService(act, answers(204))
    happened = await collect(service)
    assert [("no answer within 30 s", 1)] == lost(happened)
    assert 31 == round(service.times[1] - service.times[0], 3)


async def test_silence_of_a_service_of_ours_is_its_end(autojump_clock):
    """It says something every 10 s; after 30 s of nothing the connection is made anew. A heartbeat is enough."""

    async def fades(peer):
        await peer.begin()
        await peer.send(hello("0-0"))
        for _ in range(5):
            await trio.sleep(29)
            await peer.send("id: 0-0\n\n")
        await peer.until_gone()

    service = ScriptedService(fades, answers(204))
    happened = await collect(service)
    assert [("the service was silent for 30 s", 1)] == lost(happened)
    assert 5 * 29 + 30 + 1 == round(service.times[1] - service.times[0], 3)


async def test_silence_of_another_server_means_nothing(autojump_clock):
    """It promised no heartbeats."""

    async def rare(peer):
        await peer.begin()
        for number in range(3):
            await trio.sleep(3600)
            await peer.send(f"data: {number}\n\n")

    happened = await collect(ScriptedService(rare), count(3))
    assert [] == lost(happened)


async def test_a_slow_reader_is_no_silent_service(autojump_clock):
    """The watch is on only while somebody reads; events wait in the connection and not here."""
    pieces = [event(f"{number}-0", number) for number in range(1, 9)]
    service = ScriptedService(stream(hello("0-0"), *pieces, hold=True))
    got = []
    async with service.running(), open_events(service.url, access=service.access()) as source:
        async for happening in source:
            await trio.sleep(100)
            if isinstance(happening, Event):
                got.append(happening.data)
            if len(got) == 8:
                break
    assert [str(number) for number in range(1, 9)] == got
    assert 1 == len(service.times)


async def test_leaving_at_any_moment_leaves_nothing(autojump_clock):
    """Between events, while connecting, while waiting for the next attempt, with events that nobody took."""
    acts = [
        stream(hello("0-0"), event("1-0", 1), event("2-0", 2)),
        never_answers,
        Refuses,
        stream(hello("2-0"), hold=True),
    ]
    for moment in (0, 0.0001, 0.5, 1.5, 12, 31.9, 33, 36, 50):
        service = ScriptedService(*acts, then=stream(hello("2-0"), hold=True))
        with assert_no_leaks():
            async with service.running():
                with trio.move_on_after(moment):
                    async with open_events(service.url, access=service.access(), rng=Middle()) as source:
                        await anext(source)
                        await trio.sleep(1)
                        async for _ in source:
                            pass
                await service.all_closed()


async def test_what_the_block_raises_comes_out_bare(autojump_clock):
    """Not in a group, although there is a nursery."""
    async with ScriptedService(then=stream(hello("0-0"), hold=True)).running() as service:
        with pytest.raises(KeyError):
            async with open_events(service.url, access=service.access()):
                raise KeyError


async def test_a_wait_that_is_cancelled_has_taken_nothing(autojump_clock):
    """A reader may look with a deadline, and miss nothing by it."""

    async def slow(peer):
        await peer.begin()
        for number in range(5):
            await trio.sleep(1)
            await peer.send(event(f"{number}", number))
        await peer.until_gone()

    got = []
    service = ScriptedService(slow)
    async with service.running(), open_events(service.url, access=service.access()) as source:
        while len(got) < 5:
            with trio.move_on_after(0.3):
                happening = await anext(source)
                if isinstance(happening, Event):
                    got.append(happening.data)
    assert ["0", "1", "2", "3", "4"] == got
    assert 1 == len(service.times)
