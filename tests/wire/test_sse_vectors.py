"""The parser and the encoder against the standard's own cases (`shared/vectors/sse.json`)."""

import base64
import json
import os
from pathlib import Path

import pytest

from trio_swarm.errors import ProtocolViolation
from trio_swarm.wire.sse import SseEvent, SseParser, encode_event

_SHARED = Path(os.environ.get("TRIO_SWARM_SHARED", Path(__file__).parents[3] / "shared"))
_FILE = _SHARED / "vectors" / "sse.json"
_CASES = json.loads(_FILE.read_text(encoding="utf-8")) if _FILE.exists() else None

if _CASES is None:
    _WHY = f"{_FILE} is not there; TRIO_SWARM_SHARED names the folder"
    if os.environ.get("CI") == "true":
        pytest.fail(_WHY, pytrace=False)
    pytest.skip(_WHY, allow_module_level=True)

VECTORS = {vector["name"]: vector for vector in _CASES["vectors"]}
INPUTS = {case["name"]: case for case in _CASES["encoder_inputs"]}


def outcome(pieces):
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    told = [{"type": event.type, "data": event.data, "lastEventId": event.last_event_id} for event in events]
    return told, parser.last_event_id, parser.retry_ms


def splittings(stream):
    """The whole; byte by byte; every cut in two of what is short, and every cut near a line end of what is long."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    for size in (2, 3, 5, 7, 4096):
        yield [stream[i : i + size] for i in range(0, len(stream), size)]
    cuts = range(len(stream) + 1)
    if len(stream) > 10_000:
        near = {i + d for i, byte in enumerate(stream) if byte in b"\r\n" for d in (-1, 0, 1, 2)}
        cuts = sorted(near & set(cuts))
    for cut in cuts:
        yield [stream[:cut], b"", stream[cut:]]
    if len(stream) < 100:
        for first, second in ((a, b) for a in cuts for b in cuts if a < b):
            yield [stream[:first], stream[first:second], stream[second:]]


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name):
    """Each case of the standard comes out as it should, however its bytes are cut."""
    vector = VECTORS[name]
    stream = b"".join(base64.b64decode(chunk) for chunk in vector["chunks_b64"])
    expected = (vector["events"], vector["reconnect_last_event_id"], vector["retry_ms"])
    for pieces in splittings(stream):
        assert expected == outcome(pieces), [len(piece) for piece in pieces][:10]


def test_all_vectors_are_there():
    """None of the 150 cases is skipped."""
    assert len(VECTORS) == 150


@pytest.mark.parametrize("name", INPUTS)
def test_encoder_input(name):
    """The encoder refuses, or writes what a conformant parser reads as exactly this one event."""
    case = INPUTS[name]
    try:
        written = encode_event(case["data"].encode(), id=case["id"], event=case["event"], retry=case["retry"])
    except (ProtocolViolation, UnicodeEncodeError):
        refused = {"data-lone-surrogate", "event-lf", "event-cr", "id-lf", "id-cr", "id-nul"}
        assert name in refused | {"retry-str", "retry-neg", "retry-float"}
        return
    data = case["data"].replace("\r\n", "\n").replace("\r", "\n")
    expected = SseEvent(case["event"] or "message", data, case["id"] or "")
    assert SseParser().feed(written) == [expected]
