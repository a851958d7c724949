"""How `top` draws two looks at a service: a few tables, the worst first in each."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trio_swarm.cli.figures import SHOWN, Look, Rates, busiest, feeds
from trio_swarm.settings import KIB, MIB


def draw(before: Look, now: Look) -> RenderableType:
    """All of it, for a terminal of any width."""
    parts: list[RenderableType] = [_head(before, now), _figures(before, now)]
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
            )
        )
    slow = _slow(now)
    if slow:
        parts.append(_table("slow clients", ("client", "address", "streams", "not reading for", "events behind"), slow))
    return Group(*parts)


def _head(before: Look, now: Look) -> Text:
    rates = Rates.between(before, now)
    memory, budget = now.number("process", "rss_bytes"), now.told["budget"]["bytes"]
    return Text(
        f"trio-swarm {now.told['version']} on {now.told['bind']}, process {now.number('process', 'pid'):.0f}, "
        f"up {_duration(now.number('uptime_s'))}, CPU {rates.cpu:.0%}, "
        f"memory {_bytes(memory)} of {_bytes(budget)} at worst ({memory / budget:.0%})\n",
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
    rows = [
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


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a client's words are no markup
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
