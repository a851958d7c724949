"""The capture format: what is written can be read, what is broken names its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import InvalidCapture
from trio_swarm.upstream.capture import Capture, CapturedFrame, CaptureWriter

HEAD = b'{"capture":1,"name":"x","url":null,"frames":%d,"seconds":2.5}\n'
LINE = b'{"t":1.5,"dir":"in","data":"{}"}\n'


@pytest.mark.parametrize(("name", "frames", "out"), [("coinbase", 9949, 3), ("kraken", 4322, 1), ("bitmex", 2123, 3)])
def test_the_recorded_sessions(shared, name, frames, out):
    """The captures of real feeds are captures."""
    capture = Capture.load(shared / "captures" / f"{name}.jsonl")
    assert (capture.name, len(capture.frames), len(capture.outgoing), capture.complete) == (name, frames, out, True)
    assert capture.seconds == capture.frames[-1].t


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "is not the head"),
        (b'{"hello":1}\n', 1, "is not the head"),
        (HEAD.replace(b'"capture":1', b'"capture":2') % 0, 1, "version 2"),
        (HEAD % 2 + LINE, 1, "promises 2 frames; there are 1"),
        (HEAD % 2 + LINE + b'{"t":1,"dir":"in","data":""}\n', 3, "back in time"),
        (HEAD % 2 + LINE + b'{"t":2,"dir":"up","data":""}\n', 3, "is not a frame"),
        (HEAD % 2 + LINE + b'{"t":2,"dir":"in","data":{}}\n', 3, "is not a frame"),
        (HEAD % 2 + LINE + b'{"t":2,"dir":"in","data":""', 3, "is not a frame"),
        (HEAD % 2 + LINE + b"\n", 3, "is not a frame"),
        (HEAD % 1 + b'{"t":1,"dir":"in","data":"","more":1}\n', 2, "is not a frame"),
        (HEAD % 1 + b"\xff\n", 2, "is not a frame"),
    ],
)
def test_a_broken_capture_names_its_line(content, line, reason):
    """Whatever is wrong, the error says in which line and what."""
    with pytest.raises(InvalidCapture, match=reason) as caught:
        Capture.parse(content, "broken.jsonl")
    assert caught.value.line == line
    assert str(caught.value).startswith(f"broken.jsonl, line {line}: ")


def test_a_file_that_is_not_there(tmp_path):
    """Reading what is not there, and writing where something is, are told with the file's name."""
    path = tmp_path / "none.jsonl"
    with pytest.raises(InvalidCapture, match="cannot be read"):
        Capture.load(path)
    path.write_bytes(b"precious")
    with pytest.raises(InvalidCapture, match="exists already"):
        CaptureWriter(path, name="x", url="ws://x")
    with pytest.raises(InvalidCapture, match="cannot be written"):
        CaptureWriter(tmp_path / "no" / "folder", name="x", url="ws://x")
    assert path.read_bytes() == b"precious"


frames = st.lists(
    st.tuples(st.floats(0, 100).map(lambda t: round(t, 6)), st.sampled_from(["in", "out"]), st.text()), max_size=20
).map(sorted)


@given(frames)
def test_what_is_written_is_read(tmp_path_factory, wanted):
    """A recording reads back as it was written, and its head tells how much there is."""
    path = tmp_path_factory.mktemp("capture") / "c.jsonl"
    with CaptureWriter(path, name="c", url="ws://c/" + "x" * 1000) as writer:
        for t, direction, data in wanted:
            writer.write(t, direction, data)
    capture = Capture.load(path)
    assert capture.frames == tuple(CapturedFrame(*frame) for frame in wanted)
    assert capture.complete
    head = json.loads(path.read_text().partition("\n")[0])
    assert head["frames"] == len(wanted)
    assert head["seconds"] == (wanted[-1][0] if wanted else 0)


@given(st.integers(0, 5000))
def test_a_recording_cut_off_anywhere_is_read(tmp_path_factory, cut):
    """Cut at any byte behind the head, the file gives every frame that is whole, and says that it is not complete."""
    path = tmp_path_factory.mktemp("capture") / "c.jsonl"
    writer = CaptureWriter(path, name="c", url="ws://c")
    for n in range(50):
        writer.write(n / 10, "in", "x" * n)
    content = path.read_bytes()
    writer.close()
    head, _, rest = content.partition(b"\n")
    part = rest[:cut]
    capture = Capture.parse(head + b"\n" + part)
    whole = part.count(b"\n") + part.endswith(b"}")
    assert [len(frame.data) for frame in capture.frames] == list(range(whole))
    assert not capture.complete
