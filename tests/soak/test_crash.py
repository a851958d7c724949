"""The kills of `crash.py`, some of them: `pytest tests/soak/test_crash.py --kills 1000` tries more."""

import pytest
from crash import Crash


@pytest.mark.slow
async def test_no_kill_takes_or_doubles_what_was_let_out(request, tmp_path):
    """Whenever a service under load is killed: what callers were answered and readers have seen is there when it is
    back, once and in order and with no gap; each alarm rings and has its effect once; no turn stands by half; what is
    published again under its message id is answered with its first id.
    """
    crash = Crash(request.config.getoption("kills"), request.config.getoption("seed"), folder=tmp_path)
    await crash.run()
    report = crash.report()
    print(report)
    assert [] == report["wrong"]
    assert report["kills"] + 1 == report["stores_inspected"]
    assert report["turns"] > 100
    assert report["alarms"] > report["turns_kept_unanswered"]
    assert report["repeats_from_before"] > 0
