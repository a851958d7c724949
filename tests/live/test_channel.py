"""The channel: what is published goes to who listens."""

from trio_swarm.journal.event import Draft
from trio_swarm.runtime import open_swarm


async def test_what_is_published_is_heard(autojump_clock):
    """Any id is a channel; events keep their topic, type and bytes."""
    async with open_swarm() as swarm:
        room = swarm.get("channel", "room")
        async with room.watch() as reader:
            published = await room.publish([Draft(b'"hi"', "chat"), Draft(b"1", "", "tick")])
            assert published.count == 2
            events = [await anext(reader), await anext(reader)]
        assert [(event.topic, event.type, event.data) for event in events] == [
            ("chat", "message", b'"hi"'),
            ("", "tick", b"1"),
        ]
        assert events[-1].id == published.id
