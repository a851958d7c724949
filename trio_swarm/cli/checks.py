"""What would fail, before it does: one finding a thing that serving needs.

`serve` goes through `examine` before it begins, ends at the first thing that fails and logs the warnings; `check` and a
reload show all findings. So there is one opinion. What only an attempt can tell (the port, the store, the classes)
`serve` attempts anyway, and `check` attempts by the same functions, in `attempt`.
"""

import resource
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from trio_swarm.cli.advice import with_advice
from trio_swarm.cli.findings import Doubt, Examined
from trio_swarm.cli.listening import check_bind
from trio_swarm.cli.objects_module import load_objects
from trio_swarm.cli.options import Asked
from trio_swarm.cli.store_checks import attempt_store
from trio_swarm.edge.certificates import check_certificate
from trio_swarm.edge.hosting import require_known_host
from trio_swarm.edge.listeners import is_loopback, open_listeners, parse_bind
from trio_swarm.errors import FeedUnavailable, SettingsError
from trio_swarm.health.budget import make_budget, most_connections
from trio_swarm.health.control import NO_PATH, open_control
from trio_swarm.health.memory_limit import find_memory_limit
from trio_swarm.live.channel import Channel
from trio_swarm.objects.durable import DurableObject
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import MIB, FeedSettings, JournalSettings, Settings
from trio_swarm.storage.memory import MemoryStorage
from trio_swarm.upstream.protocols import make_protocol
from trio_swarm.upstream.websocket import connect, parse_url

OWN_DESCRIPTORS: Final = 64  # the loop's, the store's, the log's, listening sockets, imports under way

GIB: Final = 1024 * MIB

_log = structlog.get_logger("trio_swarm.cli")


def examine(asked: Asked) -> Examined:
    """Look at everything that can be told without an attempt."""
    examined = Examined()
    with examined.looking_at("settings") as says:
        examined.settings = asked.settings()
        says(asked.config or "the defaults, the environment and the options")
    with examined.looking_at("host") as says:
        says(require_known_host())
    settings = examined.settings
    if settings is not None:
        with examined.looking_at("bind") as says:
            says(_look_at_bind(settings))
        with examined.looking_at("certificate") as says:
            says(_look_at_certificate(settings))
        for feed in settings.feed:
            with examined.looking_at(f"feed {feed.name}") as says:
                says(_look_at_feed(feed))
    if asked.module is not None:
        with examined.looking_at("objects") as says:
            examined.objects = load_objects(asked.module)
            says(", ".join(cls.__name__ for cls in examined.objects))
    if settings is not None:
        with examined.looking_at("descriptors") as says:
            says(_look_at_descriptors(settings))
        with examined.looking_at("memory") as says:
            says(_look_at_memory(settings, examined.objects))
        with examined.looking_at("times") as says:
            says(_look_at_times(settings))
    return examined


def require(examined: Examined) -> Settings:
    """The settings to serve with.

    Raises:
        SwarmError: the first thing that fails.
    """
    if examined.first_failure is not None:
        raise examined.first_failure
    if examined.settings is None:  # pragma: no cover - then something has failed
        raise SettingsError("settings", "there are none")
    return examined.settings


def log_doubts(examined: Examined) -> None:
    """What will work, and not as far as the settings say, is for the log of whoever begins all the same."""
    for finding in examined.findings:
        if finding.state == "warning":
            _log.warning("setting_doubtful", what=finding.what, reason=finding.says)


async def attempt(examined: Examined, *, held: Iterable[str] = (), online: bool = False) -> None:
    """Do for a moment what serving does, and add what came of it.

    Args:
        examined: what was found so far; without settings there is nothing to attempt.
        held: what the running service holds already, which a reload will be given: addresses, and its store.
        online: connect to the feeds, too.
    """
    settings = examined.settings
    if settings is None:
        return
    ours = set(held)

    async def attempt_one(what: str, act: Callable[[], Awaitable[str]]) -> None:
        with examined.looking_at(what) as says:
            says(await act())

    await attempt_one("port", lambda: _attempt_port(settings, ours))
    await attempt_one("store", lambda: attempt_store(settings, ours))
    await attempt_one("control", lambda: _attempt_control(settings.control, ours))
    await attempt_one("classes", lambda: _attempt_classes(settings, examined.objects))
    if online:
        for feed in settings.feed:
            await attempt_one(f"feed {feed.name} online", lambda feed=feed: _attempt_feed(settings, feed))  # type: ignore[misc]


def check_service(settings: Settings) -> None:
    """What `demo` has of this: the host, an address that may be listened on, a certificate, feeds that can be read.

    Raises:
        HostError: our connections would not serve.
        SettingsError: it names the place.
    """
    require_known_host()
    _look_at_bind(settings)
    _look_at_certificate(settings)
    for feed in settings.feed:
        _look_at_feed(feed)


def _look_at_bind(settings: Settings) -> str:
    parse_bind(settings.bind)
    check_bind(settings.bind, is_open=settings.open)
    return f"{settings.bind}, {'this machine only' if is_loopback(settings.bind) else 'open to other machines'}"


def _look_at_certificate(settings: Settings) -> str:
    check_certificate(settings.certfile, settings.keyfile)
    return settings.certfile or "none: no TLS"


def _look_at_feed(feed: FeedSettings) -> str:
    make_protocol(feed)
    parse_url(feed.url, f"feed {feed.name}")
    return f"{feed.protocol} at {feed.url}"


def descriptors_needed(settings: Settings) -> int:
    """The most file descriptors that these settings can come to use."""
    return most_connections(settings) + len(settings.feed) + OWN_DESCRIPTORS


def _look_at_descriptors(settings: Settings) -> str:
    """Raise this process's own limit as far as needed and allowed: the usual 1,024 is a default, and not a decision."""
    needed = descriptors_needed(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise Doubt(
            f"limits.connections = {settings.limits.connections} needs {needed} file descriptors, and {soft} are "
            "allowed: raise the limit (`LimitNOFILE=` of the systemd unit, `ulimit -Hn`), or lower limits.connections"
        )
    return f"{needed} needed, {'any number' if soft == resource.RLIM_INFINITY else soft} allowed"


def _look_at_memory(settings: Settings, objects: list[type[DurableObject]]) -> str:
    journals: list[Any] = [cls.journal for cls in objects if cls.kind != Channel.kind]
    right = [each for each in journals if each is None or isinstance(each, JournalSettings)]  # `classes` tells
    needed = make_budget(settings, right).total
    limit = find_memory_limit()
    if limit is None:
        return f"{_gib(needed)} at worst; the system does not tell its limit"
    if needed > limit.bytes:
        raise Doubt(
            f"the settings may come to use {_gib(needed)}, and {_gib(limit.bytes)} are allowed ({limit.source}): "
            "`trio-swarm budget` shows which settings to lower"
        )
    return f"{_gib(needed)} at worst, {_gib(limit.bytes)} allowed ({limit.source})"


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"


def _look_at_times(settings: Settings) -> str:
    """Numbers that work, and that work against each other."""
    shutdown, stop = settings.liveness.shutdown_s, settings.objects.stop_s
    if stop * 2 > shutdown:
        raise Doubt(
            f"objects.stop_s = {stop:g} is given twice (to `stop`, then to the last commits) and liveness.shutdown_s = "
            f"{shutdown:g} ends both: objects may be cut off; give liveness.shutdown_s = {stop * 2:g} or more"
        )
    if settings.stall.seconds > settings.journal.age_s:
        raise Doubt(
            f"stall.seconds = {settings.stall.seconds:g} is longer than journal.age_s = {settings.journal.age_s:g}: "
            "a client that is waited for will find that what it missed is forgotten"
        )
    if settings.liveness.retry_max_s > settings.journal.age_s:
        raise Doubt(
            f"liveness.retry_max_s = {settings.liveness.retry_max_s:g} is longer than journal.age_s = "
            f"{settings.journal.age_s:g}: clients come back when what they missed is forgotten"
        )
    return "they go together"


async def _attempt_port(settings: Settings, held: set[str]) -> str:
    if settings.bind in held:
        return f"{settings.bind} is held by the running service"
    try:
        listeners = open_listeners(settings.bind, stall_s=settings.stall.seconds)
    except SettingsError as error:
        raise with_advice(error) from error
    for sock in listeners:
        sock.close()
    await trio.lowlevel.checkpoint()
    return f"{settings.bind} can be listened on"


async def _attempt_control(control: str, held: set[str]) -> str:
    if control in NO_PATH:
        return control
    if control in held:
        return f"{control} is held by the running service"
    async with open_control(Path(control), lambda _: {}):
        return f"{control} can be listened on"


async def _attempt_classes(settings: Settings, objects: list[type[DurableObject]]) -> str:
    without_feeds = attrs.evolve(settings, feed=())  # those with fixed topics connect when a swarm begins
    storage = MemoryStorage(settings.limits.memory_store_bytes)
    async with open_swarm(objects, settings=without_feeds, storage=storage):
        await trio.lowlevel.checkpoint()
    kinds = [cls.kind for cls in objects]
    return f"a swarm of {', '.join(['channel', *kinds])} begins and ends"


async def _attempt_feed(settings: Settings, feed: FeedSettings) -> str:
    try:
        async with connect(feed.name, feed.url, settings=settings.upstream):
            return f"{feed.url} answers"
    except FeedUnavailable as error:
        raise Doubt(f"{feed.url}: {error.reason}; it will be tried again while serving") from error
