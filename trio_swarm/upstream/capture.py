r"""Captures: recorded sessions with a feed, as JSON lines.

    {"capture":1,"name":"coinbase","url":"wss://…","frames":9949,"seconds":31.00304}
    {"t":0.177186,"dir":"out","data":"{\"type\":\"subscribe\",…}"}
    {"t":0.218415,"dir":"in","data":"…"}

`t` counts seconds from the moment the connection was open; `in` came from the feed, `out` went to it; `data` is the
text. A head whose `frames` is null belongs to a recording that was cut off: what is there is good, but for a last
line that is not whole.

A recording keeps a head of fixed width in front and writes it again at its end, so that the file can be read at every
moment in between. Every frame is in the hands of the operating system before the next is taken.
"""

import os
from collections.abc import Sequence
from errno import EACCES
from pathlib import Path
from typing import BinaryIO, Literal, Self

import attrs
import msgspec

from trio_swarm.errors import InvalidCapture
from trio_swarm.settings import MIB

Direction = Literal["in", "out"]

VERSION = 1
CAPTURE_BYTES = 256 * MIB  # a capture is held in memory while it is played: an hour of Coinbase's ten products

_EXISTS = "exists already; a recording does not overwrite"
_HEAD_BYTES = 512  # more than any head but one with a very long URL, which is then written as it is


class _Head(msgspec.Struct):
    capture: int
    name: str
    url: str | None
    frames: int | None
    seconds: float | None


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    t: float
    dir: Direction
    data: str


@attrs.frozen
class CapturedFrame:
    """One frame: `t` seconds after the connection opened, from the feed (`in`) or to it (`out`)."""

    t: float
    dir: Direction
    data: str


@attrs.frozen
class Capture:
    """A whole capture, in memory.

    Attributes:
        complete: False for a recording that was cut off.
        seconds: its length; that of the last frame where the head does not say.
    """

    name: str
    url: str | None
    frames: tuple[CapturedFrame, ...]
    seconds: float
    complete: bool = True

    @property
    def incoming(self) -> list[CapturedFrame]:
        """What the feed sent."""
        return [frame for frame in self.frames if frame.dir == "in"]

    @property
    def outgoing(self) -> list[CapturedFrame]:
        """What was sent to the feed."""
        return [frame for frame in self.frames if frame.dir == "out"]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a capture file.

        Raises:
            InvalidCapture: it cannot be read, or is not a capture; it names the line.
        """
        file = os.fspath(path)
        try:
            if Path(path).stat().st_size > CAPTURE_BYTES:
                raise InvalidCapture(file, None, f"is larger than {CAPTURE_BYTES // MIB} MiB")
            content = Path(path).read_bytes()
        except OSError as error:
            raise InvalidCapture(file, None, f"cannot be read: {error.strerror}") from error
        return cls.parse(content, file)

    @classmethod
    def parse(cls, content: bytes, file: str = "capture") -> Self:
        """Read a capture's bytes; `file` is for the errors.

        Raises:
            InvalidCapture: it is not a capture; it names the line.
        """
        first, _, rest = content.partition(b"\n")
        head = _read_head(first, file)
        complete = head.frames is not None
        lines = rest.split(b"\n")
        if not lines[-1] or not (complete or _is_whole(lines[-1])):
            lines.pop()  # what follows the last line break: nothing, or what a crash left
        frames = _read_frames(lines, file)
        if complete and head.frames != len(frames):
            raise InvalidCapture(file, 1, f"the head promises {head.frames} frames; there are {len(frames)}")
        seconds = head.seconds if head.seconds is not None else (frames[-1].t if frames else 0.0)
        return cls(head.name, head.url, tuple(frames), seconds, complete)


def check_new(path: str | os.PathLike[str]) -> None:
    """Refuse at once what `CaptureWriter` would refuse later; that one decides.

    Raises:
        InvalidCapture: there is a file already, or none can be made there.
    """
    file = os.fspath(path)
    if os.path.lexists(file):
        raise InvalidCapture(file, None, _EXISTS)
    folder = Path(file).parent
    if not folder.is_dir():
        raise InvalidCapture(file, None, f"cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InvalidCapture(file, None, f"cannot be written: {os.strerror(EACCES)}")


class CaptureWriter:
    """Writes a capture to a new file, frame by frame. A context manager: its end completes the head.

    Writing blocks for as long as it takes to hand a line to the operating system.

    Raises:
        InvalidCapture: there is a file already, or none can be made there.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self.frames = 0
        self.seconds = 0.0
        try:
            self._file: BinaryIO = Path(path).open("xb", buffering=0)  # noqa: SIM115 - closed by `close`
        except FileExistsError as error:
            raise InvalidCapture(os.fspath(path), None, _EXISTS) from error
        except OSError as error:
            raise InvalidCapture(os.fspath(path), None, f"cannot be written: {error.strerror}") from error
        self._width = max(_HEAD_BYTES, len(self._head(complete=True)) + 40)
        self._write_head(complete=False)

    def write(self, t: float, direction: Direction, data: str) -> None:
        """Add one frame, `t` seconds after the connection opened."""
        self.seconds = max(self.seconds, round(t, 6))  # never back: a reader insists on it
        self._write(msgspec.json.encode(_Line(self.seconds, direction, data)) + b"\n")
        self.frames += 1

    def close(self) -> None:
        """Complete the head. Idempotent."""
        if not self._file.closed:
            self._file.seek(0)
            self._write_head(complete=True)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _head(self, *, complete: bool) -> bytes:
        frames, seconds = (self.frames, self.seconds) if complete else (None, None)
        return msgspec.json.encode(_Head(VERSION, self._name, self._url, frames, seconds))

    def _write_head(self, *, complete: bool) -> None:
        self._write(self._head(complete=complete).ljust(self._width - 1) + b"\n")

    def _write(self, line: bytes) -> None:
        while line:  # an unbuffered file may take less than it is given
            line = line[self._file.write(line) :]


def _read_head(line: bytes, file: str) -> _Head:
    try:
        head = msgspec.json.decode(line, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCapture(file, 1, f"is not the head of a capture: {error}") from error
    if head.capture != VERSION:
        raise InvalidCapture(file, 1, f"is of version {head.capture}; this program reads version {VERSION}")
    return head


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _read_frames(lines: Sequence[bytes], file: str) -> list[CapturedFrame]:
    decode = msgspec.json.Decoder(_Line).decode
    frames: list[CapturedFrame] = []
    before = 0.0
    for number, line in enumerate(lines, start=2):
        try:
            read = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidCapture(file, number, f"is not a frame: {error}") from error
        if read.t < before:
            raise InvalidCapture(file, number, f"goes back in time, from {before:g} s to {read.t:g} s")
        before = read.t
        frames.append(CapturedFrame(read.t, read.dir, read.data))
    return frames
