"""A run's writes to its disk, as strace saw them, and the disks that a power cut could leave of them.

What the kernel was told to sync is on the disk. Of what was written, cut or renamed since, any part may be: each write
whole, not at all, or torn at a sector. Names (made, removed) reach the disk in their order, as file systems with a
journal do it, and with the sync of the file or of its folder.
"""

import random
import re
from pathlib import Path

import attrs

SECTOR = 512
CALLS = "openat,close,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename"
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_UNFINISHED = re.compile(r"(?P<pid>\d+) +(?P<begin>\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@attrs.frozen
class Operation:
    """One call: `create`, `remove`, `write`, `cut` (to `offset`), `sync`, `sync_folder`, or `say` (on stdout)."""

    what: str
    name: str = ""
    data: bytes = b""
    offset: int = 0


def read_log(log: Path, folder: Path) -> list[Operation]:
    """The operations on files of the folder, and what was said, in the order in which they were done."""
    descriptors: dict[str, str] = {"1": "stdout"}
    made: set[str] = set()
    found: list[Operation] = []
    for call, arguments, result in _calls(log):
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        first = arguments.split(",")[0].strip()
        if call == "openat":
            path = Path(texts[0].decode())
            if path == folder:
                descriptors[result] = "folder"
            elif path.parent == folder:
                descriptors[result] = path.name
                if "O_CREAT" in arguments and path.name not in made:
                    made.add(path.name)
                    found.append(Operation("create", path.name))
            else:
                descriptors.pop(result, None)
        elif call == "close":
            descriptors.pop(first, None)
        elif call == "unlink":
            path = Path(texts[0].decode())
            if path.parent == folder:
                made.discard(path.name)
                found.append(Operation("remove", path.name))
        elif call == "rename":
            assert folder not in {Path(text.decode()).parent for text in texts}, "this model knows no rename"
        elif first in descriptors:
            found.append(_on_descriptor(call, descriptors[first], arguments, texts))
    return found


def _on_descriptor(call, name, arguments, texts):
    numbers = [int(number) for number in re.findall(r", (\d+)(?=,|$)", arguments)]
    if call == "pwrite64":
        return Operation("write", name, texts[0], numbers[-1])
    if call == "ftruncate":
        return Operation("cut", name, offset=numbers[-1])
    if call == "write":
        return Operation("say" if name == "stdout" else "append", name, texts[0])
    return Operation("sync_folder" if name == "folder" else "sync", name)


def _calls(log):
    """Each call that went well; one that another thread interrupted stands where it ended."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        unfinished = _UNFINISHED.match(line)
        if unfinished:
            begun[unfinished["pid"]] = unfinished["begin"]
            continue
        resumed = _RESUMED.match(line)
        whole = f"{resumed['pid']} {begun.pop(resumed['pid'])}{resumed['rest']}" if resumed else line
        match = _LINE.match(whole)
        if match is not None and not match["result"].startswith("-"):
            yield match["call"], match["arguments"], match["result"]


@attrs.define
class _File:
    """One file: what is safe of it, and what was done since."""

    safe: bytes = b""
    since: list[Operation] = attrs.Factory(list)

    def sync(self):
        for operation in self.since:
            self.safe = _apply(self.safe, operation)
        self.since.clear()


class Disk:
    """What is on the disk, and what is only on its way, after some operations."""

    def __init__(self):
        self._files: dict[str, _File] = {}  # as the running process sees them
        self._names: dict[str, _File] = {}  # as they are safe
        self._pending: list[tuple[str, str, _File]] = []  # names made or removed, in order

    def do(self, operation: Operation) -> None:
        """One more operation."""
        name = operation.name
        if operation.what == "create":
            self._files[name] = _File()
            self._pending.append(("create", name, self._files[name]))
        elif operation.what == "remove":
            self._pending.append(("remove", name, self._files.pop(name)))
        elif operation.what == "sync_folder":
            self._settle(len(self._pending))
        elif operation.what == "sync":
            file = self._files[name]
            file.sync()
            places = [n for n, (_, _, pending) in enumerate(self._pending) if pending is file]
            self._settle(max(places, default=-1) + 1)
        elif operation.what in {"write", "cut"}:
            self._files[name].since.append(operation)

    def _settle(self, count):
        for what, name, file in self._pending[:count]:
            _rename(self._names, what, name, file)
        del self._pending[:count]

    def after_cut(self, rng: random.Random) -> dict[str, bytes]:
        """One of the disks that a cut at this moment may leave: name to content."""
        names = dict(self._names)
        for what, name, file in self._pending[: rng.randint(0, len(self._pending))]:
            _rename(names, what, name, file)
        return {name: _survivors(file, rng) for name, file in names.items()}


def _rename(names, what, name, file):
    if what == "create":
        names[name] = file
    else:
        names.pop(name, None)


def _survivors(file, rng):
    """The content of a file of whose last operations some were lost."""
    content = file.safe
    kind = rng.random()
    for operation in file.since:
        if kind < 0.2 or (kind < 0.9 and rng.random() < 0.5):
            continue  # at times all are lost, at times none
        torn = operation.what == "write" and rng.random() < 0.2
        content = _apply(content, _torn(operation, rng) if torn else operation)
    return content


def _torn(write, rng):
    """A part of a write, cut at a sector of the disk."""
    edges = [n for n in range(len(write.data) + 1) if (write.offset + n) % SECTOR == 0]
    edge = rng.choice(edges) if edges else len(write.data)
    if rng.random() < 0.5:
        return attrs.evolve(write, data=write.data[:edge])
    return attrs.evolve(write, data=write.data[edge:], offset=write.offset + edge)


def _apply(content, operation):
    if operation.what == "cut":
        return content[: operation.offset].ljust(operation.offset, b"\0")
    end = operation.offset + len(operation.data)
    content = content.ljust(operation.offset, b"\0")
    return content[: operation.offset] + operation.data + content[end:]
