"""Which methods of an object can be called, and from where.

Every public async method of the author's class can be called in this process; only those marked `@exposed` from
outside. What `DurableObject` itself defines (the hooks, `publish`, `every` and so on) never: those belong to the
object.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from trio_swarm.errors import InvalidArguments, UnknownMethod
from trio_swarm.objects.durable import EXPOSED, DurableObject


@attrs.frozen
class Method:
    """One callable method of a class; `function` takes the object first."""

    name: str
    function: Callable[..., Awaitable[Any]]
    exposed: bool
    signature: inspect.Signature


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
                self._methods[name] = Method(name, function, hasattr(function, EXPOSED), inspect.signature(function))
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
        try:
            method.signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(self._kind, name, str(error)) from None
        return method

    def names(self, *, exposed_only: bool = False) -> tuple[str, ...]:
        """The names, for the tree and for messages."""
        return tuple(name for name, method in self._methods.items() if method.exposed or not exposed_only)
