"""What a model costs and how fast it can be, as plain data: of `tunegate study cost` and `advise` and of a report.

`tasks/assess/economics.py` reckons it from measured figures and a dated price book; `flows/views/costs.py` gathers
those.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QueryLine(_Part):
    """One way to have a query answered."""

    what: str
    prompt_tokens: float | None
    reply_tokens: float | None
    seconds: float | None
    """Of one answer, where it was measured."""
    usd: float | None
    """Of one query; null where no price is known for what it was measured on."""
    usd_per_month: float | None
    """At the declared volume; null without one."""


class CardLine(_Part):
    """One rented card: its rent, the bound that memory bandwidth puts, and when the rent is less than an API."""

    card: str
    usd_per_month: float
    least_seconds: float
    """Of one reply at batch size 1, by memory bandwidth alone."""
    least_ms_per_token: float
    most_queries: float
    """A month, one at a time, at those seconds; batches serve more."""
    break_even: dict[str, float | None]
    """API -> queries a month from which the rent is less; null: never."""


class PaybackLine(_Part):
    """Days until what is saved against one API has paid for the training."""

    api: str
    days: float | None
    """Null: nothing is saved at this volume."""


class CostReport(_Part):
    """All figures, and what is missing for the rest."""

    dated: str
    """Of the price book."""
    machine: str | None
    """Card of the price book that the measured seconds come from; null: it is not known which."""
    n_parameters: int
    weight_bytes: int
    """Read for every token at batch size 1."""
    reply_tokens: float
    prompt_tokens: dict[str, float]
    """Arm -> mean tokens of its prompts."""
    saved_tokens: float | None
    """Prompt tokens a query that the tuned model needs less than the few-shot prompt."""
    saved_usd_per_1k: dict[str, float]
    """API -> what those tokens cost there, 1,000 queries."""
    queries_per_month: float | None
    measured: dict[str, float]
    """Seconds, tokens per second and dollars, as the run measured them."""
    queries: tuple[QueryLine, ...]
    cards: tuple[CardLine, ...]
    training_seconds: float | None
    one_off_usd: float | None
    """Training at the machine's rent, and what `--one-off` adds."""
    payback: tuple[PaybackLine, ...]
    notes: tuple[str, ...]
    """What a figure leaves out, and what would give the missing ones."""
