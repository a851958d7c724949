"""`trio-swarm objects`: what a store keeps, beside whoever serves it.

What comes out of a store was named and written by clients, and is not trusted with a terminal: what does not print is
escaped, also in JSON, where that means the same.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from trio_swarm.cli.lines import printable, say
from trio_swarm.cli.options import CONFIG, store_option
from trio_swarm.cli.standard_output import discard
from trio_swarm.cli.stored import find_store, reading
from trio_swarm.errors import SettingsError

if TYPE_CHECKING:
    from trio_swarm.storage.inspection import ObjectRow, StoredObject

_STORE = store_option("The store to look into.")
_TITLE: Final = f"{'bytes':>12} {'values':>8} {'events':>8}  {'next alarm':<25}  object"
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999: what is later has no date
_encode: Final = msgspec.json.encode


@click.group(
    short_help="List what a store keeps, object by object, also while it is served.", invoke_without_command=True
)
@_STORE
@CONFIG
@click.option("--kind", metavar="KIND", help="Only objects of this kind.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each object.")
@click.pass_context
def objects(ctx: click.Context, *, store: str | None, config: str | None, kind: str | None, as_json: bool) -> None:
    """List the objects of a store by kind and id, a line each; `objects dump` shows one whole.

    \b
    Examples
      trio-swarm objects
      trio-swarm objects --kind channel --json
      trio-swarm objects dump channel lobby

    It reads beside the service, and takes nothing from it. A line has the bytes of values and alarms, how many values
    and durable events there are, and when the next alarm is due.
    """  # noqa: D301 - click looks for the character
    if ctx.invoked_subcommand is not None:
        if kind is not None or as_json:
            raise click.UsageError("--kind and --json are for the list, and not for `dump`")
        ctx.obj = store, config
        return
    from trio_swarm.storage.inspection import list_objects  # noqa: PLC0415 - no `--help` waits for a store

    path = find_store(config, store)
    shown = 0
    with reading(path) as connection:
        for page in list_objects(connection, path, kind):
            title = [] if as_json or shown else [_TITLE]
            lines = [_as_json(row) if as_json else _as_line(row) for row in page]
            shown += len(page)
            try:
                click.echo("\n".join([*title, *lines]))
            except BrokenPipeError:  # `| head`: that is enough
                discard()
                return
    if not shown:
        what = "no object" if kind is None else f"no object of the kind {kind}"
        say(
            f"{path} keeps {what}: an object is there once a turn of it has stored a value, an alarm or a durable event"
        )


@objects.command()
@click.argument("kind")
@click.argument("id")
@_STORE
@CONFIG
@click.pass_context
def dump(ctx: click.Context, *, kind: str, id: str, store: str | None, config: str | None) -> None:
    """Print all that the object KIND/ID keeps, as it is at one moment, as one JSON document.

    In values and alarms bytes are base64, moments are text in RFC 3339, and a map whose keys are not all text or all
    whole numbers is a list of pairs.
    """
    from trio_swarm.storage.inspection import read_object  # noqa: PLC0415 - see above

    above: tuple[str | None, str | None] = ctx.obj
    path = find_store(config or above[1], store or above[0])
    with reading(path) as connection:
        found = read_object(connection, path, (kind, id))
    if found is None:
        raise SettingsError(
            "objects", f"{path} keeps nothing of {printable(f'{kind}/{id}')}: `trio-swarm objects` lists what it does"
        )
    document = msgspec.json.format(_encode(_plain_object(found))).decode()
    click.echo("\n".join(map(printable, document.split("\n"))))


def _as_line(row: "ObjectRow") -> str:
    due = "-" if row.next_alarm_ms is None else _moment(row.next_alarm_ms).astimezone().isoformat(timespec="seconds")
    return f"{row.bytes:>12} {row.values:>8} {row.events:>8}  {due:<25}  {printable(f'{row.kind}/{row.id}')}"


def _as_json(row: "ObjectRow") -> str:
    told = {
        "kind": row.kind,
        "id": row.id,
        "bytes": row.bytes,
        "values": row.values,
        "events": row.events,
        "next_alarm": None if row.next_alarm_ms is None else _moment(row.next_alarm_ms),
    }
    return printable(_encode(told).decode())


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(ms, 0), _LAST_MS) / 1000, UTC)


def _plain_object(found: "StoredObject") -> dict[str, object]:
    """As the document has it; every part is encoded by itself, so that not all is there twice."""
    return {
        "kind": found.kind,
        "id": found.id,
        "bytes": found.size,
        "values": {key: _to_json(value, f"the value of {key!r}") for key, value in found.values},
        "alarms": [
            {
                "key": alarm.key,
                "due": _moment(alarm.due_ms),
                "attempt": alarm.attempt,
                "data": _to_json(alarm.data, f"the data of the alarm {alarm.key!r}"),
            }
            for alarm in found.alarms
        ],
        "topics": [{"topic": topic.topic, "count": topic.count, "mark": str(topic.mark)} for topic in found.topics],
        "events": [
            {
                "id": str(event.id),
                "topic": event.topic,
                "event": event.type,
                "key": event.key,
                "data": msgspec.Raw(event.data),
            }
            for event in found.events
        ],
    }


def _to_json(encoded: bytes, what: str) -> msgspec.Raw:
    """MessagePack as JSON.

    Raises:
        SettingsError: it is none.
    """
    try:
        return msgspec.Raw(_encode(_plain(msgspec.msgpack.decode(encoded))))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingsError("store", f"{printable(what)} cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """What JSON has a form for. msgspec knows the rest: bytes are base64, moments RFC 3339."""
    if isinstance(value, dict):
        kinds = {type(key) for key in value}
        if len(kinds) <= 1 and kinds <= {str, int}:
            return {key: _plain(each) for key, each in value.items()}
        return [[_plain(key), _plain(each)] for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, msgspec.msgpack.Ext):
        return {"extension": value.code, "data": value.data}
    return value
