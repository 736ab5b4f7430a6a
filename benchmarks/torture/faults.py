"""All faults, in the order of the table."""

from __future__ import annotations

from benchmarks.torture.kills import KILLS
from benchmarks.torture.trial import Fault

FAULTS: tuple[Fault, ...] = (*KILLS,)
