"""A feed that cannot be reached is tried for ever: a failed connection leaves Python's collector nothing."""

import gc
import socket
import weakref

import pytest

from trio_swarm.errors import FeedUnavailable
from trio_swarm.settings import UpstreamSettings
from trio_swarm.upstream.websocket import connect


@pytest.fixture
def _no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_a_failed_connection_leaves_no_cycle():
    """Its error goes as soon as nobody holds it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    try:
        async with connect("x", f"ws://127.0.0.1:{port}/", settings=UpstreamSettings()):
            pass
    except FeedUnavailable as error:
        gone = weakref.ref(error)
    assert gone() is None
