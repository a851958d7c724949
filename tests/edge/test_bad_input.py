"""Wrong input at every entry gets what `docs/protocol.md` says; both transports, over real sockets."""

import bad_bodies
import bad_frames
import bad_heads
import bad_messages
import bad_paths
import pytest
from edge_service import open_service
from wrong_input import outcomes, tables

CASES = {
    "The head of a request": bad_heads.HEADS,
    "Paths and queries": bad_paths.PATHS,
    "Bodies of publish and call": bad_bodies.BODIES,
    "The handshake of a WebSocket": bad_heads.HANDSHAKES,
    "Frames": bad_frames.FRAMES,
    "Messages": bad_messages.MESSAGES,
}
ON_A_FOREIGN_HOST = {  # the edge cannot reset what it does not see
    "bytes after a stream has begun": ("200, the stream", "closed"),
    "bytes in one piece with a stream's request": ("200, the stream", "kept"),
}


def test_every_row_has_a_test_and_every_test_a_row():
    """The tables are the tests' data, whole."""
    rows = {entry: [row.sent for row in rows] for entry, rows in tables().items()}
    assert rows == {entry: list(cases) for entry, cases in CASES.items()}
    assert all(variants for cases in CASES.values() for variants in cases.values())


@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
@pytest.mark.parametrize("entry", CASES)
async def test_wrong_input(entry, foreign):
    """Each row's variants all get its answer and its fate, the witnesses every event, and the log no error; nothing
    is left for Python's collector."""
    expected = {row.sent: {(row.gets, row.fate)} for row in tables()[entry]}
    if foreign:
        expected.update({sent: {pair} for sent, pair in ON_A_FOREIGN_HOST.items() if sent in expected})
    async with open_service(foreign=foreign, collector=False) as service:
        assert expected == await outcomes(service, entry, CASES[entry])
