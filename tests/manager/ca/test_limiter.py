import pytest

from swarmd.manager.ca.join import BURST, REFILL, Limiter
from swarmd.proto.errors import Exhausted


def test_failures_slow_down_the_address_that_makes_them_and_are_forgiven() -> None:
    now = [0.0]
    limiter = Limiter(lambda: now[0])
    for _ in range(int(BURST)):
        limiter.check("10.0.0.1")
        limiter.failed("10.0.0.1")
    with pytest.raises(Exhausted, match="try again in"):
        limiter.check("10.0.0.1")
    limiter.check("10.0.0.2")
    now[0] += 1.1 / REFILL
    limiter.check("10.0.0.1")
