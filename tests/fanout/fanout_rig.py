"""A sink written for fan-out's tests, and the ways to open a stream and a reader."""

import trio
import trio.testing

from trio_swarm.fanout.encoding import SSE_CHUNKED
from trio_swarm.settings import JournalSettings


class Sink:
    """Takes one payload at a time; `hold` makes it not ready after each."""

    def __init__(self, *, hold=False):
        self.ready = True
        self.on_ready = None
        self.hold = hold
        self.payloads = []
        self.aborted = None

    def write(self, payload):
        self.payloads.append(payload)
        if self.hold:
            self.ready = False

    def abort(self, reason):
        self.aborted = reason
        self.ready = False

    def drain(self):
        self.ready = True
        self.on_ready()

    @property
    def text(self):
        return b"".join(self.payloads).decode()


def open_stream(streams, **journal):
    return streams.open("game/1", journal=JournalSettings(**journal), latest=lambda topic: topic == "latest")


async def live(stream, sink, encoding=SSE_CHUNKED, **arguments):
    reader = stream.subscribe(sink, encoding=encoding, **arguments)
    await reader.opened()
    reader.start()
    await trio.testing.wait_all_tasks_blocked()
    return reader
