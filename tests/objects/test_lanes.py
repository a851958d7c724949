"""The order in which items get their turns."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.objects.mailbox import CALL, CONTROL, FEED, PATIENCE, Item, Mailbox


class Made(Item):
    def __init__(self, lane, n=0):
        super().__init__()
        self.lane = lane
        self.n = n


def filled(*lanes):
    mailbox = Mailbox(100, 100, 100)
    for n, lane in enumerate(lanes):
        mailbox.send_nowait(Made(lane, n))
    return mailbox


def drained(mailbox):
    taken = []
    while (item := mailbox.take()) is not None:
        taken.append(item)
    return taken


def test_higher_lanes_go_first_and_each_in_order():
    """Control before call before feed; first come first served inside a lane."""
    taken = drained(filled(FEED, CALL, CONTROL, FEED, CALL, CONTROL))
    assert [(CONTROL, 2), (CONTROL, 5), (CALL, 1), (CALL, 4), (FEED, 0), (FEED, 3)] == [(i.lane, i.n) for i in taken]


@pytest.mark.parametrize(("busy", "waiting"), [(CALL, FEED), (CONTROL, FEED), (CONTROL, CALL)])
def test_a_waiting_lower_lane_gets_one_turn_in_eight(busy, waiting):
    """Seven of the higher lane, then one of the lower, again and again."""
    taken = drained(filled(*[busy] * 50, *[waiting] * 5))
    assert [7, 15, 23, 31, 39] == [n for n, item in enumerate(taken[:40]) if item.lane == waiting]


@given(st.lists(st.sampled_from([CONTROL, CALL, FEED, "take"]), max_size=300))
def test_whatever_comes_each_waiting_lane_is_served_in_time(steps):
    """Each lane that waits gets at least one turn in nine (with two others starving beside it), and nothing is lost."""
    mailbox, waiting, since, n = Mailbox(1000, 1000, 1000), {CONTROL: [], CALL: [], FEED: []}, {CALL: 0, FEED: 0}, 0
    for step in steps:
        if step != "take":
            mailbox.send_nowait(Made(step, n))
            waiting[step].append(n)
            n += 1
            continue
        item = mailbox.take()
        if item is None:
            assert not any(waiting.values())
            continue
        assert waiting[item.lane].pop(0) == item.n
        for lane, passed in since.items():
            since[lane] = passed + 1 if waiting[lane] and lane != item.lane else 0
            assert since[lane] <= PATIENCE + 1
    assert [len(waiting[lane]) for lane in (CONTROL, CALL, FEED)] == mailbox.counts


def test_what_was_withdrawn_is_skipped_and_wanted_no_more():
    """An item whose sender left takes no turn and is no interest."""
    mailbox = Mailbox(10, 10, 10)
    items = [Made(CALL, n) for n in range(3)]
    for item in items:
        mailbox.send_nowait(item)
    items[1].withdraw()
    assert 2 == mailbox.wanting
    assert [0, 2] == [item.n for item in drained(mailbox)]
    assert 0 == mailbox.wanting


async def test_senders_wait_for_room_in_order(autojump_clock):
    """A full lane lets senders wait; each taken item lets the first of them in; the cancelled one never was."""
    mailbox = Mailbox(1, 1, 1)
    async with trio.open_nursery() as nursery:
        scopes = []

        async def send(n):
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await mailbox.send(Made(CALL, n))

        for n in range(4):
            nursery.start_soon(send, n)
            await trio.testing.wait_all_tasks_blocked()
        assert (4, 4) == (mailbox.statistics().call, mailbox.wanting)
        with pytest.raises(trio.WouldBlock):
            mailbox.send_nowait(Made(CALL))
        scopes[2].cancel()
        # Taken in the same moment, before the cancelled sender has run: it must not be counted on.
        assert [0, 1, 3] == [item.n for item in drained(mailbox)]
    assert (0, 0) == (mailbox.statistics().call, mailbox.wanting)


async def test_clearing_settles_everything_that_waits(autojump_clock):
    """Those before a full lane too."""
    mailbox, ends = Mailbox(1, 1, 1), []

    async def ask():
        try:
            await mailbox.ask(Made(CALL))
        except OSError:
            ends.append("told")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.clear(OSError)
    assert ["told"] * 3 == ends
