"""Which methods of an object can be called, and from where.

Every public async method of the author's class can be called in this process; only those marked `@exposed` from
outside. What `DurableObject` itself defines (the hooks, `publish`, `every` and so on) never: those belong to the
object.

Arguments from outside have the types that a method's annotations name, where these are made of JSON's own (`int`,
`list[str]`, `float | None` …): a client's mistake is the client's error then, and not a crash of the author's code.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

from trio_swarm.errors import InvalidArguments, UnknownMethod
from trio_swarm.objects.durable import EXPOSED, DurableObject


@attrs.frozen
class Method:
    """One callable method of a class; `function` takes the object first."""

    name: str
    function: Callable[..., Awaitable[Any]]
    exposed: bool
    signature: inspect.Signature
    types: Mapping[str, Any]  # of the parameters whose annotations are JSON's types
    own: str | None  # the name by which it takes the object, if it has one: no caller's to give


_JSON_TYPES = frozenset({str, int, float, bool, NoneType, list, dict})
_MADE_OF_THEM = frozenset({list, dict, tuple, Union, UnionType})


class Methods:
    """The callable methods of one class."""

    def __init__(self, cls: type[DurableObject]) -> None:
        self._kind = cls.kind
        self._methods: dict[str, Method] = {}
        self._sync: set[str] = set()
        for name in dir(cls):
            if name.startswith("_") or hasattr(DurableObject, name):
                continue
            function = getattr(cls, name)
            if inspect.isfunction(function) and inspect.iscoroutinefunction(function):
                exposed = hasattr(function, EXPOSED)
                signature = inspect.signature(function)
                types = _checkable(function, signature) if exposed else {}
                self._methods[name] = Method(name, function, exposed, signature, types, _own_name(signature))
            elif inspect.isroutine(function):
                self._sync.add(name)

    def inside(self, name: str) -> Method:
        """A method, for a call from this process.

        Raises:
            UnknownMethod: there is none of that name, or it is not async (a note says so), or is the object's own
            business.
        """
        method = self._methods.get(name)
        if method is None:
            error = UnknownMethod(self._kind, name)
            if name in self._sync:
                error.add_note(f"`{name}` is not async: not `def {name}`, but `async def {name}`")
            raise error
        return method

    def outside(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Method:
        """A method, for a call from outside with these arguments.

        Raises:
            UnknownMethod: there is none of that name, or it is not exposed.
            InvalidArguments: it does not take these arguments.
        """
        method = self._methods.get(name)
        if method is None or not method.exposed:
            raise UnknownMethod(self._kind, name)
        if method.own in kwargs:
            raise InvalidArguments(self._kind, name, f"got an unexpected keyword argument {method.own!r}")
        try:
            given = method.signature.bind(None, *args, **kwargs).arguments
        except TypeError as error:
            raise InvalidArguments(self._kind, name, str(error)) from None
        for parameter, expected in method.types.items():
            if parameter in given:
                try:
                    msgspec.convert(given[parameter], expected)
                except msgspec.ValidationError as error:
                    raise InvalidArguments(self._kind, name, f"`{parameter}`: {error}") from None
        return method

    def names(self, *, exposed_only: bool = False) -> tuple[str, ...]:
        """The names, for the tree and for messages."""
        return tuple(name for name, method in self._methods.items() if method.exposed or not exposed_only)


def _own_name(signature: inspect.Signature) -> str | None:
    first = next(iter(signature.parameters.values()), None)
    return first.name if first is not None and first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else None


def _checkable(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # written for a type checker alone
        return {}
    plain = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY}
    return {
        name: hints[name]
        for name, parameter in signature.parameters.items()
        if parameter.kind in plain and name in hints and _is_json(hints[name])
    }


def _is_json(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return all(isinstance(each, str | int | None) for each in get_args(hint))
    if get_origin(hint) in _MADE_OF_THEM:
        return all(each is Ellipsis or each is Any or _is_json(each) for each in get_args(hint))
    return hint in _JSON_TYPES if isinstance(hint, type) else False
