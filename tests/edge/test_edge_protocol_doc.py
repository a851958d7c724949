"""`docs/protocol.md` is executed: its requests are sent, its answers come; its tables name every code there is."""

import json
import re
from pathlib import Path

from edge_service import open_service

from trio_swarm import errors
from trio_swarm.edge.answers import trouble
from trio_swarm.live.channel import Channel
from trio_swarm.objects.durable import DurableObject, exposed

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
_ID = re.compile(r"\b[0-9]{13}-[0-9]+\b")


class Game(DurableObject):
    async def start(self):
        self.score = [0, 0]

    @exposed
    async def goal(self, team: int):
        self.score = [goals + (side == team) for side, goals in enumerate(self.score)]
        self.publish("score", self.score)
        return self.score

    async def snapshot(self):
        return {"score": self.score}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def without_ids(value):
    return json.loads(_ID.sub("ID", json.dumps(value)))


async def run_http(service, block):
    request, _, answer = block.strip().rpartition("\n\n")
    head, _, body = request.partition("\n\n")
    first, *fields = head.split("\n")
    method, path = first.split(" ")
    headers = {name.lower().replace("-", "_"): value for name, value in (field.split(": ") for field in fields)}
    status, expected = answer.split("\n", 1)
    got = await service.ask(method, path, body.encode(), **headers)
    assert (int(status), without_ids(json.loads(expected))) == (got.status, without_ids(got.json)), first


async def test_the_examples():
    """Every request, in order, against one service."""
    async with open_service(kinds=(Game, Channel)) as service:
        for block in blocks("http"):
            await run_http(service, block)
        async with service.ws() as ws:
            for exchange in blocks("websocket")[0].removeprefix("> ").split("\n> "):
                said, *expected = map(json.loads, exchange.strip().split("\n< "))
                await ws.send(**said)
                told = [await ws.next() for _ in expected]
                in_any_order = [sorted(map(without_ids, each), key=str) for each in (expected, told)]
                assert in_any_order[0] == in_any_order[1]


def test_every_code_is_named_beside_its_status():
    """The table of errors has all that the library can raise towards a client."""
    rows = dict(re.findall(r"^\| ([0-9]{3}) \| (.*) \|$", DOCUMENT, re.MULTILINE))
    inside = {
        "InvalidCapture",
        "ReaderLagged",
        "SettingsError",
        "HostError",
        "ProtocolViolation",
        "RequestRefused",
        "ServiceRefused",  # what a client of ours makes of an answer
        "ServiceUnavailable",
        "SwarmError",
    }
    bases = {"CallerError", "LimitError", "ObjectError", "PeerError"}
    seen = set()
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, errors.SwarmError) and name not in inside | bases:
            error = cls.__new__(cls)
            for field in getattr(cls, "__attrs_attrs__", ()):
                setattr(error, field.name, 1 if field.name in {"limit", "seconds", "retry_after_s"} else "x")
            told = trouble(error)
            code = cls.code
            assert f"`{code}`" in rows[str(told.status)], (name, told.status)
            seen.add(name)
    assert len(seen) > 15


def test_every_code_in_the_source_is_documented():
    """Codes that are written as literals too."""
    edge = Path(errors.__file__).parent / "edge"
    text = "".join(path.read_text(encoding="utf-8") for path in edge.glob("*.py"))
    codes = set(re.findall(r'RequestRefused\(\s*[0-9]{3},\s*"([a-z_]+)"', text))
    codes |= set(re.findall(r'messages\.error\([^,]+, "([a-z_]+)"', text))
    closes = set(re.findall(r"(?:Close\(|dismiss\(client, |LAGGED_CODE = |say_goodbye\()([0-9]{4})", text))
    assert {"not_found", "already_done", "too_slow"} <= codes
    assert {"1003", "1009", "4500", "4503", "4001", "4002"} <= closes
    assert set() == {code for code in codes if f"`{code}`" not in DOCUMENT}
    assert set() == {code for code in closes if f"| {code} |" not in DOCUMENT}
