"""An object's keys and values, and the overlay through which its turns see what is not committed yet.

A turn writes into its own changes. When it ends they go to the store as one commit and, until that is safe, into the
overlay: the next turn may begin meanwhile and must read what the last one wrote. A read looks into its turn's
changes, then the overlay, then the store. Only turns of this object write its keys, one at a time, so nothing can
slip in between.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from trio_swarm.errors import StorageError, TooLarge
from trio_swarm.objects.turn import CURRENT, open_turn
from trio_swarm.storage import Owner, Storage

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject

KEY_BYTES: Final = 512  # a key is an index entry in every store
VALUE_BYTES: Final = 128 * 1024  # read and written whole: what is larger is better cut into keys
LIST_LIMIT: Final = 1_000  # pairs a `list` gives unless told: a megabyte of kilobyte values

_encode: Final = msgspec.msgpack.Encoder().encode


class Overlay:
    """What turns of this incarnation have changed and the store has not confirmed."""

    __slots__ = ("_alarms", "_cleared", "_values", "serial")

    def __init__(self) -> None:
        self.serial = 0  # of the newest commit
        self._values: dict[str, tuple[int, bytes | None]] = {}
        self._alarms: dict[str, int] = {}  # those that were set or deleted, and by which commit
        self._cleared: int | None = None  # the commit that removed all, while it is under way

    def add(self, changes: Mapping[str, bytes | None], *, clear: bool, alarms: Iterable[str] = ()) -> int:
        """A turn's changes are under way; answers the serial of their commit."""
        self.serial += 1
        if clear:
            self._values.clear()
            self._cleared = self.serial
        for key, value in changes.items():
            self._values[key] = (self.serial, value)
        for key in alarms:
            self._alarms[key] = self.serial
        return self.serial

    def committed(self, serial: int, changes: Iterable[str], alarms: Iterable[str] = ()) -> None:
        """That commit is safe: the store has it."""
        for key in alarms:
            if self._alarms.get(key) == serial:
                del self._alarms[key]
        for key in changes:
            entry = self._values.get(key)
            if entry is not None and entry[0] == serial:
                del self._values[key]
        if self._cleared == serial:
            self._cleared = None

    def has_alarm(self, key: str) -> bool:
        """Whether an alarm was set or deleted, and the store has not confirmed it."""
        return key in self._alarms

    def view(self) -> tuple[dict[str, bytes | None], bool]:
        """All pending values, and whether they hide the store wholly."""
        return {key: value for key, (_, value) in self._values.items()}, self._cleared is not None

    def get(self, key: str) -> tuple[bool, bytes | None]:
        """Whether the key is decided here, and its value (None: gone)."""
        entry = self._values.get(key)
        if entry is not None:
            return True, entry[1]
        return self._cleared is not None, None


class ObjectStorage:
    """The keys and values of one object: `self.storage`.

    Values are anything that msgspec writes as MessagePack; they come back as plain data (a tuple as a list), or as
    `type`. What changes belongs to the running turn, and is kept if it ends well. Reads wait for the store only for
    what no uncommitted turn has written. All keys and values of an object together have at most 64 MiB: the turn that
    would pass it fails at its commit with `StorageError`, and the object restarts.
    """

    __slots__ = ("_instance", "_overlay", "_owner", "_store")

    def __init__(self, store: Storage, owner: Owner, overlay: Overlay, instance: "DurableObject") -> None:
        self._store = store
        self._owner = owner
        self._overlay = overlay
        self._instance = instance

    def put(self, key: str, value: Any) -> None:
        """Store a value.

        Raises:
            RuntimeError: outside of a turn of this object.
            StorageError: the key is empty, or no text.
            TooLarge: the key has more than 512 bytes, or the encoded value more than 128 KiB.
            TypeError: the value cannot be encoded.
        """
        turn = open_turn(self._instance, "storage.put")
        turn.changes[check_key(key)] = encode_value(key, value)

    def put_many(self, values: Mapping[str, Any]) -> None:
        """Store several values; all of them or, where one raises what `put` raises, none."""
        turn = open_turn(self._instance, "storage.put_many")
        turn.changes.update({check_key(key): encode_value(key, value) for key, value in values.items()})

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
        open_turn(self._instance, "storage.delete").changes[check_key(key)] = None

    def delete_all(self) -> None:
        """Remove everything that this object has stored."""
        turn = open_turn(self._instance, "storage.delete_all")
        turn.changes.clear()
        turn.clear = True

    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """The value of a key, or the default."""
        found, encoded = self._pending(check_key(key))
        if found:
            await trio.lowlevel.checkpoint()
        else:
            encoded = (await self._store.get_many(self._owner, (key,))).get(key)
        return default if encoded is None else msgspec.msgpack.decode(encoded, type=type)

    async def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:
        """The values of those keys that exist."""
        wanted = [check_key(key) for key in dict.fromkeys(keys)]
        decided = {key: value for key in wanted for found, value in (self._pending(key),) if found}
        missing = [key for key in wanted if key not in decided]
        stored: dict[str, bytes] = {}
        if missing:
            stored = await self._store.get_many(self._owner, missing)
        else:
            await trio.lowlevel.checkpoint()
        values = ((key, decided[key] if key in decided else stored.get(key)) for key in wanted)
        return {key: msgspec.msgpack.decode(value, type=type) for key, value in values if value is not None}

    async def list(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        limit: int = LIST_LIMIT,
        reverse: bool = False,
        type: Any = Any,
    ) -> dict[str, Any]:
        """The pairs whose key has the prefix, in key order, at most `limit`; `start` is the first key that may come."""
        pending, hides = self._all_pending()
        pending = {
            key: value for key, value in pending.items() if key.startswith(prefix) and _reached(key, start, reverse)
        }
        merged: dict[str, bytes] = {}
        if hides:
            await trio.lowlevel.checkpoint()
        else:
            # One more for each pending key, since the store may still give what is deleted here.
            ask = limit + len(pending)
            merged.update(await self._store.scan(self._owner, prefix, start, ask, reverse=reverse))
        for key, value in pending.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = value
        keys = sorted(merged, reverse=reverse)[:limit]
        return {key: msgspec.msgpack.decode(merged[key], type=type) for key in keys}

    def _pending(self, key: str) -> tuple[bool, bytes | None]:
        turn = CURRENT.get()
        if turn is not None and not turn.ended and turn.instance is self._instance:
            if key in turn.changes:
                return True, turn.changes[key]
            if turn.clear:
                return True, None
        return self._overlay.get(key)

    def _all_pending(self) -> tuple[dict[str, bytes | None], bool]:
        pending, hides = self._overlay.view()
        turn = CURRENT.get()
        if turn is not None and not turn.ended and turn.instance is self._instance:
            if turn.clear:
                return dict(turn.changes), True
            pending.update(turn.changes)
        return pending, hides


def _reached(key: str, start: str | None, reverse: bool) -> bool:  # noqa: FBT001
    return start is None or (key <= start if reverse else key >= start)


def check_key(key: str) -> str:
    """Check a key, of a value or an alarm.

    Raises:
        StorageError: it is empty, or no text.
        TooLarge: it has more than 512 bytes.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise StorageError(f"the key {key[:80]!r} is no text: UTF-8 cannot write it") from None
    if not key:
        raise StorageError("a key is not empty")
    if size > KEY_BYTES:
        raise TooLarge("a key of the storage", KEY_BYTES)
    return key


def encode_value(key: str, value: Any) -> bytes:
    """Encode what is stored under a key, or goes with an alarm.

    Raises:
        TooLarge: it has more than 128 KiB.
        TypeError: it cannot be encoded.
    """
    encoded = _encode(value)
    if len(encoded) > VALUE_BYTES:
        raise TooLarge(f"the stored value of {key[:80]!r}", VALUE_BYTES)
    return encoded
