"""One number for what many hold together."""

from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.bounded.allowance import Allowance, AllowanceStatistics


def test_what_is_too_much_is_not_held():
    """A refusal leaves everything as it was, and is counted."""
    allowance = Allowance(10)
    with allowance.share() as one, allowance.share() as two:
        assert one.take(6)
        assert not two.take(5)
        assert two.take(4)
        assert allowance.statistics() == AllowanceStatistics(held=10, limit=10, refused=1)
        one.give(3)
        assert two.take(3)
    assert allowance.statistics() == AllowanceStatistics(held=0, limit=10, refused=1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.booleans())))
def test_never_above_the_limit_and_nothing_left(steps):
    """Whatever is taken and given back, the sum is that of the shares, never above the limit, and 0 at the end."""
    allowance = Allowance(30)
    shares = [allowance.share() for _ in range(4)]
    for index, count, take in steps:
        if take:
            shares[index].take(count)
        else:
            shares[index].give(min(count, shares[index].held))
        assert allowance.held == sum(share.held for share in shares) <= 30
    for share in shares:
        share.give()
        share.give()
    assert allowance.held == 0


def test_a_payload_that_several_hold():
    """It is counted once, until the last has given it back; another that is equal is another."""
    allowance = Allowance(5)
    first, second = allowance.share(), allowance.share()
    payload, equal = bytes(bytearray(b"abc")), bytes(bytearray(b"abc"))
    assert [True, True, False] == [first.hold(payload), second.hold(payload), allowance.share().hold(equal)]
    assert allowance.statistics() == AllowanceStatistics(held=3, limit=5, refused=1)
    first.give()
    first.give()
    assert allowance.held == 3
    with second:
        pass
    assert allowance.held == 0
