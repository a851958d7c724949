"""`trio-swarm publish URL [DATA]`: one event, or one for each line of standard input."""

import sys
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import click
import msgspec
import trio

from trio_swarm.cli.input_lines import InputFailed, Lines
from trio_swarm.cli.interruptible import until_signal
from trio_swarm.cli.lines import again_in, printable, say
from trio_swarm.cli.numbers import Finite
from trio_swarm.cli.reaching import make_access, reaching
from trio_swarm.cli.sending import Outgoing, Sending
from trio_swarm.client.address import find_publish
from trio_swarm.client.publishing import Publisher
from trio_swarm.errors import InvalidEvent, InvalidMessage, ServiceRefused, ServiceUnavailable, SettingsError
from trio_swarm.settings import REPEAT_S
from trio_swarm.wire.messages import parse_publication
from trio_swarm.wire.names import MAX_MESSAGE_ID, check_key, check_topic, check_type


@click.command(short_help="Publish an event, or lines from stdin.")
@click.argument("url")
@click.argument("data", required=False)
@click.option("--topic", metavar="TOPIC", help="The events' topic; without it, the one without a name.")
@click.option("--type", "type_", metavar="TYPE", help="The events' type; without it, message.")
@click.option("--key", metavar="KEY", help="What the event is the newest of, for topics that keep only that.")
@click.option("--durable", is_flag=True, help="Keep it in the service's storage.")
@click.option("--message-id", metavar="ID", help="An event of this ID is published once in 5 s, however often sent.")
@click.option("--text", is_flag=True, help="DATA, or each line, is text and not JSON.")
@click.option("--events", is_flag=True, help='DATA, or each line, is a whole event: {"topic":…,"data":…}.')
@click.option("--skip", type=click.IntRange(0), metavar="N", default=0, help="Leave out the first N lines.")
@click.option(
    "--retry-for",
    type=Finite(0),
    metavar="S",
    default=30.0,
    show_default=True,
    help="Seconds for which to try again while the service is away.",
)
@reaching
def publish(
    *,
    url: str,
    data: str | None,
    topic: str | None,
    type_: str | None,
    key: str | None,
    durable: bool,
    message_id: str | None,
    text: bool,
    events: bool,
    skip: int,
    retry_for: float,
    headers: tuple[str, ...],
    cacert: str | None,
    insecure: bool,
) -> None:
    """Publish DATA, which is JSON, into the object at URL; or each line of stdin, where DATA is `-` or left out.

    URL is http://HOST/KIND/ID, in any form that `trio-swarm tail` takes for one stream.

    \b
    Examples
      trio-swarm publish localhost:8000/channel/lobby '{"text":"hello"}' --topic chat
      trio-swarm publish localhost:8000/channel/lobby --text hello
      trio-swarm publish localhost:8000/channel/lobby --topic log < lines.jsonl
      some-program | trio-swarm publish localhost:8000/channel/lobby --text

    Lines are sent as they come, in requests of at most 250; each is published whole or not at all. A line that cannot
    be is named: everything before it is published, and nothing after. While the service is away, a request is sent
    again under the same name, which the service knows for 5 s: what it has done is not done again. After that, events
    may be there twice, and you are told. A command that gives up says how many lines were acknowledged; --skip goes on
    from there.

    Exit code 1: the service was away, or Ctrl-C. Exit code 2: it refused, or the command cannot be.
    """  # noqa: D301 - click looks for the character
    address = find_publish(url)
    access = make_access(headers, address.headers, cacert, insecure=insecure)
    fields = _Fields(topic, type_, key, durable, message_id)
    fields.check()
    if text and events:
        raise click.UsageError("--text and --events exclude each other")
    if events and fields != _Fields():
        raise click.UsageError("with --events each event says itself what its topic, type, key and messageId are")
    piped = data is None or data == "-"
    if piped and sys.stdin is None:
        raise click.UsageError("standard input is closed: give DATA")
    if data is None and sys.stdin.isatty():
        raise click.UsageError("give DATA, or lines on standard input")
    if piped and message_id is not None:
        raise click.UsageError("--message-id is for one event; with --events each line may have its own")
    if skip and not piped:
        raise click.UsageError("--skip is for lines on standard input")
    publisher = Publisher(address.url, access=access, retry_s=retry_for, on_retry=_tell_retry)
    make_event = _whole_event if events else partial(fields.make_event, text=text)
    sending = Sending(publisher, make_event, skip=skip, show_progress=piped and sys.stderr.isatty())
    if data is None or piped:
        work = partial(sending.send_lines, Lines(sys.stdin.fileno()))
    else:
        work = partial(sending.send_one, data.encode(errors="surrogateescape"))
    _run(sending, work, address.url, piped=piped)


def _run(sending: Sending, work: Callable[[], Awaitable[None]], url: str, *, piped: bool) -> None:
    """Do it, and say how it went, in one sentence."""

    def state() -> str:
        if sending.publisher.is_certain:
            sending.under_way = 0
        if piped:
            return f"; {sending.account()}"
        return "; whether it was published is not known" if sending.under_way else ""

    try:
        trio.run(until_signal, work)
    except ServiceUnavailable as error:
        raise click.ClickException(f"{printable(error.reason)}{state()}") from error
    except ServiceRefused as error:
        raise SettingsError(url, f"{printable(error.reason)}{state()}") from error
    except InputFailed as error:
        raise SettingsError("standard input", f"cannot be read: {error.reason}{state()}") from error
    except InvalidEvent as error:
        where = f"line {error.line}" if piped else "DATA"
        raise SettingsError(where, f"{error.reason}{state()}") from error
    if not sending.done:
        raise click.ClickException(f"stopped{state() or '; nothing was published'}")
    if sending.doubtful:
        say(
            f"{sending.doubtful:,} of them may be there twice: "
            f"the answer was lost for longer than the {REPEAT_S:g} s that the service remembers"
        )
    click.echo(sending.sentence())


@attrs.frozen
class _Fields:
    """What the options say of every event."""

    topic: str | None = None
    type: str | None = None
    key: str | None = None
    durable: bool = False
    message_id: str | None = None

    def check(self) -> None:
        """Refuse here what the service would refuse.

        Raises:
            InvalidName, SettingsError: one cannot be.
        """
        if self.topic is not None:
            check_topic(self.topic)
        if self.type is not None:
            check_type(self.type)
        if self.key is not None:
            check_key(self.key)
        if self.message_id is not None and not 0 < len(self.message_id) <= MAX_MESSAGE_ID:
            raise SettingsError("--message-id", f"has 1 to {MAX_MESSAGE_ID} characters")

    def make_event(self, line: bytes, *, text: bool) -> Outgoing:
        """The event of one line.

        Raises:
            InvalidEvent: it is not JSON, or is not UTF-8.
        """
        fields = {"topic": self.topic, "type": self.type, "key": self.key, "messageId": self.message_id}
        said: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
        if self.durable:
            said["durable"] = True
        said["data"] = _text(line) if text else _json(line)
        return Outgoing(msgspec.json.encode(said), named=self.message_id is not None)


def _text(line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent("is not UTF-8") from error


def _json(line: bytes) -> msgspec.Raw:
    try:
        msgspec.json.decode(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidEvent("is not UTF-8") from error
    except RecursionError as error:
        raise InvalidEvent("is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise InvalidEvent(f"is not JSON ({error}); --text publishes it as text") from error
    return msgspec.Raw(_on_one_line(line))


def _whole_event(line: bytes) -> Outgoing:
    try:
        publication = parse_publication(line)
    except InvalidMessage as error:
        raise InvalidEvent(error.reason) from error
    return Outgoing(_on_one_line(line), named=publication.message_id is not None)


def _on_one_line(json: bytes) -> bytes:
    """Outside of strings a line break is white space, and inside there is none."""
    return json.replace(b"\n", b" ").replace(b"\r", b" ")


def _tell_retry(reason: str, seconds: float) -> None:
    say(f"{reason}; {again_in(seconds)}")
