"""What all tests may ask for."""

import gc
import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    """Longer runs of the tests that do something very often."""
    group = parser.getgroup("trio_swarm")
    group.addoption("--disconnects", type=int, default=20_000, help="abrupt disconnects, over all transports")
    group.addoption("--soak-minutes", type=float, default=0.0, help="run the soak this long, and judge its slopes too")
    group.addoption("--examples", type=int, default=2_000, help="of each fuzzer, over both transports")
    group.addoption("--kills", type=int, default=20, help="of a service under load")
    group.addoption("--power-cuts", type=int, default=300, help="states of the disk that a power cut may leave")
    group.addoption("--seed", type=int, default=1, help="of tests that draw lots themselves: disconnects, soak")


def pytest_collection_modifyitems(items):
    """The slow ones first: at the end there is something small for whichever worker is free."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def no_store_in_the_working_directory():
    """What a test serves without a word about a store is kept in memory: `serve` would leave a file where it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIO_SWARM_STORE", "memory:")
        yield


@pytest.fixture(scope="module")
def small_heap():
    """Makes looking for leaks cheap, for tests that do it hundreds of times: what is there already is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures and vectors: `TRIO_SWARM_SHARED`, or `shared` beside the repository."""
    folder = Path(os.environ.get("TRIO_SWARM_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        reason = f"there is no {folder}; TRIO_SWARM_SHARED names the folder of captures and vectors"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
