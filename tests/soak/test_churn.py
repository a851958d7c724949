"""The soak of `churn.py`, short: what it leaves behind is judged when the churn has ended, since slopes need minutes.

`pytest tests/soak --soak-minutes 60` runs it for as long as that, and judges both.
"""

import pytest
from churn import Soak, spans
from flatness import judge
from watched_service import PLANTS

RATE = 300.0
MINUTES = 1 / 10  # two spans of 3 s


@pytest.mark.slow
async def test_churn_leaves_nothing(request):
    """Tasks, descriptors, clients, objects and journals are what they were; the second half costs no objects; every
    visit and both witnesses got what they should.
    """
    minutes = request.config.getoption("soak_minutes") or MINUTES
    seed = request.config.getoption("seed")
    soak = Soak(RATE, seed)
    await soak.run(*spans(minutes))
    print(f"seed {seed}: {soak.visits} visits; {soak.growth}")
    assert "" == soak.left
    assert [] == soak.faults
    assert {} == {name: str(verdict) for name, verdict in soak.verdicts().items() if verdict.grows}
    assert not soak.heap_grew, soak.growth


@pytest.mark.slow
async def test_planted_leaks_are_seen():
    """A service that keeps a record of each connection, and a task, and a descriptor, does not pass for any of them."""
    soak = Soak(RATE, 1, settle_s=1.0)
    await soak.run(1.0, 1.0, plant=PLANTS)
    assert soak.heap_grew
    assert "tasks_living" in soak.left
    assert "descriptors pipe" in soak.left
    assert [] == soak.faults


@pytest.mark.parametrize(
    ("series", "grows"),
    [
        ([100.0] * 240, False),
        ([100.0 + (n * 7919 % 41) for n in range(240)], False),
        ([100.0 + 50 * (n % 37 == 0) + (n * 7919 % 41) for n in range(240)], False),
        ([100.0 + n / 36 + (n * 7919 % 5) for n in range(240)], True),
        ([100.0 - n / 36 for n in range(240)], False),
        ([0.0] * 240, False),
        ([80e6 + 2_000 * n + (n * 7919 % 41) * 1e4 for n in range(240)], True),
    ],
    ids=["constant", "noise", "outliers", "slope", "shrinking", "nothing", "seven-bytes-a-connection"],
)
def test_what_flat_means(series, grows):
    """Noise and outliers are flat; a slope that is certain is not."""
    assert grows is judge(series).grows
