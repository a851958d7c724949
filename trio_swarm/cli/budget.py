"""`trio-swarm budget`: what the settings in force may cost in memory at worst, part by part."""

from typing import TYPE_CHECKING

import click
import msgspec

from trio_swarm.cli.options import Asked, service_options
from trio_swarm.settings import MIB

if TYPE_CHECKING:
    from trio_swarm.health.budget import Budget, Row


@click.command(short_help="Show what the settings may cost in memory at worst, part by part.")
@service_options(shown={"config", "feeds", "module", "store", "certfile"})
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def budget(asked: Asked, *, as_json: bool) -> None:
    """Show the worst case in bytes of the settings that `serve` would have with the same options.

    It takes all options of `serve`; those that are not listed change nothing here.
    """
    # ruff: noqa: PLC0415 - see `serve`
    from trio_swarm.cli.objects_module import load_objects
    from trio_swarm.health.budget import make_budget
    from trio_swarm.health.memory_limit import find_memory_limit
    from trio_swarm.live.channel import Channel

    settings = asked.settings()
    classes = [] if asked.module is None else load_objects(asked.module)
    further = [cls.journal for cls in classes if cls.kind != Channel.kind]
    counted = make_budget(settings, further)
    limit = find_memory_limit()
    machine = None if limit is None else limit.bytes
    click.echo(_as_json(counted, machine) if as_json else _as_table(counted, machine))


def _as_json(counted: "Budget", machine: int | None) -> str:
    told = {
        "rows": [_plain(row) for row in counted.rows],
        "total_bytes": counted.total,
        "kernel": [_plain(row) for row in counted.kernel],
        "kernel_bytes": counted.kernel_total,
        "machine_bytes": machine,
    }
    return msgspec.json.format(msgspec.json.encode(told)).decode()


def _plain(row: "Row") -> dict[str, object]:
    return {
        "part": row.part,
        "count": row.count,
        "size_bytes": row.size,
        "bytes": row.bytes,
        "settings": list(row.settings),
        "why": row.why,
    }


def _as_table(counted: "Budget", machine: int | None) -> str:
    width = max(len(row.part) for row in (*counted.rows, *counted.kernel))
    lines = [f"{'':{width}}      count x       bytes =     MiB"]
    lines += [_line(row, width) for row in counted.rows]
    lines += [_sum("total", counted.total, width), "", "beside it, in the kernel:"]
    lines += [_line(row, width) for row in counted.kernel]
    lines += [_sum("total", counted.kernel_total, width)]
    if machine is not None:
        lines += ["", f"This machine, or this process's control group, has {_mib(machine)} MiB."]
        if counted.total > machine:
            lines += ["That is less than the total: lower what is largest above, or find a larger one."]
    return "\n".join(lines)


def _line(row: "Row", width: int) -> str:
    because = f"{', '.join(row.settings)}: {row.why}" if row.settings else row.why
    return f"{row.part:{width}} {row.count:>10,} x {row.size:>11,} = {_mib(row.bytes):>7}   {because}"


def _sum(what: str, number: int, width: int) -> str:
    return f"{what:{width}} {'':>10}   {'':>11}   {_mib(number):>7}"


def _mib(number: int) -> str:
    return f"{number / MIB:,.0f}" if number >= 10 * MIB else f"{number / MIB:.1f}"
