"""What the tests of objects share."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs():
    """The log, kept from the terminal; each entry a dict."""
    with structlog.testing.capture_logs() as entries:
        yield entries
