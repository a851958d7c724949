"""What a service says decides whether a client comes back: held against all that a service of ours can say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm import errors
from trio_swarm.client.coming_back import AT_MOST_S, after_error, after_status, retry_after_s
from trio_swarm.edge.answers import trouble
from trio_swarm.errors import LimitError, ServiceRefused, ServiceUnavailable, SwarmError

BASES = {"SwarmError", "CallerError", "LimitError", "ObjectError", "PeerError"}
NOT_SENT = {"HostError", "InvalidCapture", "ProtocolViolation", "ReaderLagged", "RequestRefused", "SettingsError"}
SENT = {  # `vars`, because attrs leaves a second class of each name behind
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, SwarmError) and name not in BASES | NOT_SENT
    if cls not in {ServiceRefused, ServiceUnavailable}
}
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
FINAL = {"TooManyStreams", "TooManyTopics"}  # limits that waiting does not lift


def told(cls):
    """What a client is told of an error of this class, whatever its fields are."""
    error = cls.__new__(cls)
    for field in getattr(cls, "__attrs_attrs__", ()):
        setattr(error, field.name, 1 if field.name in {"limit", "seconds", "retry_after_s"} else "x")
    return trouble(error)


@pytest.mark.parametrize("name", SENT)
def test_over_a_websocket_a_code_means_what_its_status_means_over_http(name):
    """Where a status says that it may work later, so does the code."""
    problem = told(SENT[name])
    if problem.status == 500:  # HTTP's own word for whatever went wrong; the code says that authors made a circle
        assert name == "CallCycle"
    else:
        assert type(after_status(problem.status, {}, b"")) is type(after_error(problem.code, problem.message))


@pytest.mark.parametrize("name", [name for name, cls in SENT.items() if issubclass(cls, LimitError)])
def test_what_a_limit_refused_was_not_done(name):
    """So that who publishes it again has no doubt; and waiting helps, but for limits of what was asked."""
    problem = told(SENT[name])
    body = json.dumps({"error": {"code": problem.code, "message": problem.message}}).encode()
    found = after_status(problem.status, {}, body)
    if name in FINAL:
        assert isinstance(found, ServiceRefused)
    else:
        assert isinstance(found, ServiceUnavailable)
        assert not found.uncertain


@given(st.from_regex(r"\w{3}, [0-9]{1,2} Oct [0-9]{1,6} [0-9]{1,3}:[0-9]{2}:[0-9]{2} [+-][0-9]{1,30}", fullmatch=True))
def test_whatever_date_is_said_is_seconds_or_none(date):
    """Within reason, and never an error: a proxy may say anything."""
    for headers in ({"retry-after": date, "date": DATE}, {"retry-after": DATE, "date": date}):
        seconds = retry_after_s(headers)
        assert seconds is None or 0 <= seconds <= AT_MOST_S
