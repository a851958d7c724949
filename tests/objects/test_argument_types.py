"""Arguments from outside have the types that annotations name, where these are JSON's."""

from typing import TYPE_CHECKING, Any, Literal

import pytest

from trio_swarm.errors import InvalidArguments
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.objects.methods import Methods

if TYPE_CHECKING:
    from nowhere import Unknown


class Money:
    """An author's own type."""


class Game(DurableObject):
    @exposed
    async def bet(
        self, on: str, stakes: list[float], *, odds: float | None = None, side: Literal["home", "away"] = "home"
    ):
        """Typed throughout."""

    @exposed
    async def loose(self, anything, more: Any, money: Money = Money(), *rest: int, **options: int):  # noqa: B008
        """Of what is not JSON's nothing is known."""

    @exposed
    async def unread(self, number: int, unknown: "Unknown"):
        """Annotations that only a type checker can read."""


METHODS = Methods(Game)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["a", [1.5, 2]], {}),
        (["a", []], {"odds": None, "side": "away"}),
        (["a", [1]], {"odds": 3}),
    ],
)
def test_arguments_that_fit(args, kwargs):
    """A whole number is a float."""
    assert METHODS.outside("bet", args, kwargs).name == "bet"


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ([1, []], {}, "`on`: Expected `str`, got `int`"),
        (["a", ["x"]], {}, "`stakes`: Expected `float`, got `str`"),
        (["a", []], {"odds": "1"}, "`odds`: Expected `float | null`, got `str`"),
        (["a", []], {"side": "left"}, "`side`: Invalid enum value 'left'"),
        (["a", None], {}, "`stakes`: Expected `array`, got `null`"),
    ],
)
def test_arguments_of_a_wrong_type(args, kwargs, words):
    """The error names the argument."""
    with pytest.raises(InvalidArguments) as raised:
        METHODS.outside("bet", args, kwargs)
    assert raised.value.reason.startswith(words)


def test_what_cannot_be_checked_is_the_authors():
    """No annotation, `Any`, a class of the author's, `*args`, names that do not exist at run time."""
    assert METHODS.outside("loose", [1, "2", {"amount": 1}, "x"], {"y": "z"}).name == "loose"
    assert METHODS.outside("unread", ["x", 1], {}).name == "unread"


class Odd(DurableObject):
    @exposed
    async def plain(self, number: int): ...

    @exposed
    async def renamed(this, **rest): ...  # noqa: N805

    @exposed
    async def free(self, /, **rest): ...

    @exposed
    async def packed(*args): ...


@pytest.mark.parametrize(("method", "name"), [("plain", "self"), ("renamed", "this")])
def test_the_objects_own_parameter_is_no_name_of_a_caller(method, name):
    """It is unknown like any other, also where the method takes names that it does not know."""
    with pytest.raises(InvalidArguments) as raised:
        Methods(Odd).outside(method, [], {name: "a"})
    assert raised.value.reason == f"got an unexpected keyword argument {name!r}"


def test_a_name_that_the_object_does_not_have_is_free():
    """Any other name is left to the method, and so is this one where the object comes by place alone."""
    assert Methods(Odd).outside("renamed", [], {"self": "a"}).name == "renamed"
    assert Methods(Odd).outside("free", [], {"self": "a"}).name == "free"
    assert Methods(Odd).outside("packed", [1, 2], {}).name == "packed"
