"""How many requests a caller may send in a second."""

from collections.abc import Hashable

_SWEEP = 1_024


class Rate:
    """A limit for each caller by itself; it has `burst_s` seconds' worth of requests in reserve.

    >>> rate = Rate(per_s=2, burst_s=1)
    >>> [rate.wait_s("a", now) for now in (0.0, 0.0, 0.0, 0.5)], rate.wait_s("b", 0.0)
    ([0.0, 0.0, 0.5, 0.0], 0.0)

    Source: the generic cell rate algorithm, ITU-T I.371: per caller only the time by which its requests are due.
    """

    def __init__(self, per_s: float, *, burst_s: float = 2.0) -> None:
        self._gap_s = 1 / per_s
        self._ahead_s = max(0.0, burst_s - self._gap_s)
        self._due: dict[Hashable, float] = {}

    def wait_s(self, caller: Hashable, now: float) -> float:
        """Count a request and return 0; or count nothing and return the seconds until one is allowed."""
        due = max(self._due.get(caller, now), now)
        if due - now > self._ahead_s + 1e-9:
            return due - now - self._ahead_s
        if len(self._due) >= _SWEEP:
            self._due = {each: at for each, at in self._due.items() if at > now}
        self._due[caller] = due + self._gap_s
        return 0.0
