"""What an author wrote into a class is checked when it is served first, and the class is named."""

import pytest

from trio_swarm.errors import SettingsError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import JournalSettings
from trio_swarm.testing.small_swarm import open_directory


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"latest": "book"}, 'Game.latest is a set of topics: not "book", but {"book"}'),
        ({"latest": ["book", "bid"]}, "Game.latest is a set of topics: not ['book', 'bid'], but {\"book\", \"bid\"}"),
        ({"latest": {1}}, 'Game.latest is a set of topics: not {1}, but {"topic"}'),
        ({"latest": {"a,b"}}, "topic 'a,b' is not valid"),
        ({"lag_policy": "snap"}, 'Game.lag_policy is one of "snapshot", "skip", "disconnect": not "snap"'),
        ({"journal": 100}, "Game.journal is a JournalSettings(events=…, bytes=…, age_s=…): not 100"),
        ({"journal": JournalSettings(events=0)}, "Game.journal.events: 0 is not above 0"),
        ({"journal": JournalSettings(bytes=-1)}, "Game.journal.bytes: -1 is not above 0"),
        ({"journal": JournalSettings(age_s=float("inf"))}, "Game.journal.age_s: inf is not a finite number"),
        ({"kind": "Big Game"}, "kind 'Big Game' is not valid"),
        ({"kind": 7}, "Game.kind is a name: not 7"),
    ],
)
async def test_a_class_that_cannot_be(attributes, sentence):
    """The error names the class and says what to write."""
    with pytest.raises(SettingsError) as raised:
        async with open_directory(type("Game", (DurableObject,), {"__module__": "arena", **attributes})):
            pass
    assert "arena.Game" == raised.value.where
    assert raised.value.reason.startswith(sentence)


async def test_any_set_of_topics_will_do(autojump_clock):
    """A plain set is one."""

    class Game(DurableObject):
        latest = {"now"}  # noqa: RUF012

        async def put(self):
            for number in (1, 2):
                self.publish("now", number)

    async with open_directory(Game) as swarm:
        await swarm.get(Game, "a").put()
        (event,), _ = await swarm.get(Game, "a").history()
        assert b"2" == event.data
