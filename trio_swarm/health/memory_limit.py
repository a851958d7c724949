"""How much memory this process may use: the least of its control groups' limits (v2 or v1), else the machine's RAM."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

_ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_RAM: Final = Path("/proc/meminfo")
_NO_LIMIT: Final = 2**60  # version 1 writes "none" as a number near the largest there is


@attrs.frozen
class MemoryLimit:
    """So many bytes, and who says so."""

    bytes: int
    source: str


def find_memory_limit(root: Path = _ROOT, own: Path = _OWN, ram: Path = _RAM) -> MemoryLimit | None:
    """Look now; None where the system does not tell."""
    limits = [MemoryLimit(number, str(path)) for path in _files(root, own) if (number := _number(path)) is not None]
    total = _total(ram)
    if total is not None:
        limits.append(MemoryLimit(total, "RAM"))
    return min(limits, key=lambda limit: limit.bytes, default=None)


def _files(root: Path, own: Path) -> Iterator[Path]:
    """The limits of this process's groups, and of those around them. In a container the path may be the host's."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = Path(group.lstrip("/"))
        for each in (folder, *folder.parents):
            yield base / each / name


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def _total(ram: Path) -> int | None:
    try:
        lines = ram.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    return None
