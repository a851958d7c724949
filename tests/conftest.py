"""What all tests may ask for."""

import gc
import os
from pathlib import Path

import pytest


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
