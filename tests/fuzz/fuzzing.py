"""How long to fuzz a target: the same few examples in `make test`, new ones for minutes in `make fuzz`."""

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MINUTES = float(os.environ.get("FUZZ_MINUTES") or 0)
TARGETS: list[str] = []
"""Targets that share the minutes; all are registered before the first one runs."""
LEAK = "zqleakq"
"""Text of a ticket that no message may repeat."""

Test = Callable[..., None]


def fuzz(*strategies: st.SearchStrategy[Any], examples: int = 60) -> Callable[[Test], Test]:
    """Decorate a test of one function over generated values.

    Args:
        examples: The number of examples in `make test`, the same each time.
    """

    def decorate(check: Test) -> Test:
        quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

        def run() -> None:
            short = settings(
                max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet
            )
            short(given(*strategies)(check))()
            until = time.monotonic() + MINUTES * 60 / len(TARGETS)
            long = settings(
                max_examples=500, derandomize=False, deadline=None, database=None, suppress_health_check=quiet
            )
            while time.monotonic() < until:
                long(given(*strategies)(check))()

        run.__name__, run.__doc__, run.__module__ = check.__name__, check.__doc__, check.__module__
        TARGETS.append(check.__name__)
        return run

    return decorate


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds with pieces cut, repeated, overwritten and inserted; sometimes only noise."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 40)))
        match draw(st.integers(0, 4)):
            case 0:
                del data[start:stop]
            case 1:
                data[start:start] = data[start:stop]
            case 2:
                data[start:start] = draw(st.binary(max_size=12))
            case 3 if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case _:
                other = draw(st.sampled_from(seeds))
                at = draw(st.integers(0, len(other)))
                data[start:stop] = other[at : at + draw(st.integers(0, 40))]
    return bytes(data)


def mutated_text(seeds: list[str]) -> st.SearchStrategy[str]:
    """Like `mutated`, for text; invalid UTF-8 is replaced."""
    return mutated([seed.encode() for seed in seeds]).map(lambda data: data.decode("utf-8", "replace"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12) | st.just(LEAK),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Any JSON value."""
