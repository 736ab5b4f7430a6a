"""How a long task reports progress, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called from time to time by long tasks; must be cheap and must not raise."""

    def __call__(self, done: int, total: int | None, unit: str, **figures: float) -> None:
        """`done` of `total` units (rows, tokens, steps, items) with figures such as loss=0.42."""


def silent(done: int, total: int | None, unit: str, **figures: float) -> None:
    """Ignore all progress."""


def silent_report(_what: str) -> None:
    """Ignore what is done now."""
