"""How `top` draws two looks at a service: a few tables, the worst first in each."""

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trio_swarm.cli.figures import SHOWN, Look, Rates, busiest, feeds
from trio_swarm.settings import KIB, MIB

MOST_KEPT: Final = 20  # characters of a name that stay in the narrowest terminal


def draw(before: Look, now: Look) -> RenderableType:
    """All of it, for a terminal of any width."""
    parts: list[RenderableType] = [_head(now), _figures(before, now)]
    objects = busiest(before, now)
    if objects:
        parts.append(
            _table(
                "busiest objects",
                ("object", "state", "busy", "turns/s", "waiting", "longest turn"),
                [
                    (
                        each.name,
                        each.state,
                        f"{each.busy:.0%}",
                        _number(each.turns_s),
                        str(each.waiting),
                        _seconds(each.longest_s),
                    )
                    for each in objects
                ],
                shrinking="object",
            )
        )
    found = feeds(before, now)
    if found:
        parts.append(
            _table(
                "feeds",
                ("feed", "object", "state", "events/s", "failures", "last failure"),
                [
                    (each.name, each.object, each.state, _number(each.events_s), str(each.failures), each.reason)
                    for each in found
                ],
                shrinking="last failure",
            )
        )
    slow = _slow(now)
    if slow:
        columns = ("client", "address", "streams", "not reading for", "events behind")
        parts.append(_table("slow clients", columns, slow, shrinking="streams"))
    return Group(*parts)


def _head(now: Look) -> Text:
    return Text(
        f"trio-swarm {now.told['version']} on {now.told['bind']}, process {now.number('process', 'pid'):.0f}, "
        f"up {_duration(now.number('uptime_s'))}\n",
        style="bold",
    )


def _figures(before: Look, now: Look) -> Table:
    rates = Rates.between(before, now)
    kinds = now.statistics.get("directory", {}).get("objects", {})
    told = [
        f"{kind} {sum(states.values())}" + (f" ({_states(states)})" if set(states) - {"running"} else "")
        for kind, states in kinds.items()
    ]
    held, limit = now.number("requests", "held"), now.number("requests", "limit")
    named, most = (now.number("streams", "subscribed_topics", name) for name in ("held", "limit"))
    memory, budget = now.number("process", "rss_bytes"), now.told["budget"]["bytes"]
    rows = [
        ("CPU", f"{rates.cpu:.0%}"),
        ("memory", f"{_bytes(memory)} of {_bytes(budget)} at worst ({memory / budget:.0%})"),
        ("events", f"{_number(rates.published)}/s published, {_number(rates.deliveries)}/s delivered"),
        ("bytes", f"{_bytes(rates.delivered_bytes)}/s"),
        ("turns", f"{_number(rates.turns)}/s"),
        ("connections", f"{_number(rates.opened)}/s opened, {_number(rates.ended)}/s ended"),
        (
            "clients",
            (
                f"{now.number('clients', 'sse'):.0f} SSE, {now.number('clients', 'websocket'):.0f} WebSocket, "
                f"{now.number('clients', 'blocked'):.0f} blocked; {now.number('clients', 'refused'):.0f} refused so far"
            ),
        ),
        ("objects", ", ".join(told) or "none"),
        (
            "journals",
            (
                f"live {now.number('streams', 'live'):.0f} ({_bytes(now.number('streams', 'live_bytes'))}), "
                f"stopped {now.number('streams', 'idle'):.0f} ({_bytes(now.number('streams', 'idle_bytes'))})"
            ),
        ),
        ("requests", f"{_bytes(held)} of {_bytes(limit)} under way"),
        ("topics", f"{named:,.0f} of {most:,.0f} named by readers"),
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, value in rows:
        grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def _slow(now: Look) -> list[tuple[str, ...]]:
    found = {}
    for group in ("blocked", "behind"):
        for each in now.parts("slowest", group)[:SHOWN]:
            blocked = each["blocked_s"]
            found[each["client"]] = (
                f"{each['client']} ({each['transport']})",
                each["address"],
                ", ".join(each["streams"]),
                "" if blocked is None else _duration(blocked),
                f"{each['behind']:,}",
            )
    return list(found.values())


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], shrinking: str) -> Table:
    """A row a line. Where the terminal is too narrow, one column gives way, and the others only if they are long."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column, *cells in zip(columns, *rows, strict=True):
        width = max(len(column), *map(len, cells))
        table.add_column(
            Text(column, no_wrap=True, overflow="ellipsis"),
            header_style="dim",
            no_wrap=column != shrinking and width <= MOST_KEPT,
            overflow="ellipsis",
            min_width=None if column == shrinking else min(width, MOST_KEPT),
        )
    for row in rows:  # a client's words are no markup
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    return table


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _bytes(value: float) -> str:
    if value >= MIB:
        return f"{value / MIB:,.1f} MiB"
    return f"{value / KIB:,.1f} KiB" if value >= KIB else f"{value:.0f} B"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
