"""Limits that end a training without changing what it would become: its deadline, and a budget of time and money.

They are no part of a key, so that a training that was stopped continues with larger ones.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.training import BudgetSpec, TrainSpec
from tasks.train.memory import detect_device


class Use(NamedTuple):
    """What a training has used, in all its attempts."""

    seconds: float
    n_cards: int
    """GPUs it works on; 0 on a CPU."""


class UsedTime:
    """What the trainings that share a budget have used; they may run in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: dict[str, Use] = {}

    def report(self, training: str, use: Use) -> tuple[Use, ...]:
        """Replace what one training has used; return the uses of all."""
        with self._lock:
            self._uses[training] = use
            return tuple(self._uses.values())


@dataclass(frozen=True)
class TrainingLimits:
    """The limits of one training, and what it shares with the others of its run."""

    timeout_minutes: float | None = None
    """None for that of the settings."""
    budget: BudgetSpec | None = None
    usd_per_hour: float = 0.0
    """Rent of `budget.machine`."""
    used: UsedTime = field(default_factory=UsedTime)

    def exceeded(self, uses: tuple[Use, ...]) -> str | None:
        """The first limit of the budget that is reached, as `10.2 of 10 minutes`; None if none is.

        >>> limits = TrainingLimits(budget=BudgetSpec(minutes=10, gpu_hours=1))
        >>> limits.exceeded((Use(500, 4),)), limits.exceeded((Use(500, 4), Use(400, 4)))
        (None, '15.0 of 10 minutes')
        """
        if self.budget is None:
            return None
        for name, used in self.amounts(uses).items():
            limit = getattr(self.budget, name)
            if limit is not None and used >= limit:
                return f"{used:.{4 if name == 'usd' else 1}f} of {limit:g} {UNITS[name]}"
        return None

    def amounts(self, uses: tuple[Use, ...]) -> Mapping[str, float]:
        """Use in each unit of the budget. Rent is that of a card for each GPU, or of the machine on a CPU."""
        hours = [(use.seconds / 3600, use.n_cards) for use in uses]
        return {
            "minutes": 60 * sum(each for each, _ in hours),
            "usd": self.usd_per_hour * sum(each * max(1, n_cards) for each, n_cards in hours),
            "gpu_hours": sum(each * n_cards for each, n_cards in hours),
        }


def cards_of(train: TrainSpec, *, local: bool) -> int:
    """GPUs of a training: one for each process, on this machine only if it has some; on a cluster always counted."""
    return train.processes if not local or detect_device() == "cuda" else 0


UNITS = {"minutes": "minutes", "usd": "USD", "gpu_hours": "GPU hours"}
