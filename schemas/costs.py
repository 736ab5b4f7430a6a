"""Cost and speed of a model as plain data, for `tunegate study cost`, `advise` and reports.

`tasks/assess/economics.py` computes them from a dated price book and from measured figures, which
`flows/views/costs.py` collects.
"""

from schemas.spec import Frozen


class QueryLine(Frozen):
    """One way to answer a query."""

    what: str
    prompt_tokens: float | None
    reply_tokens: float | None
    seconds: float | None
    """Of one answer, if measured; in a batch, the batch's seconds over its size."""
    wait_s: float | None = None
    """Seconds until a query has its answer, which in a batch is the whole batch's; null if not measured."""
    usd: float | None
    """Of one query, on a card that is always busy; null if the measured machine has no known price."""
    n_cards: int | None = None
    """Cards that the declared volume needs; null without a volume, and for an API."""
    idle_share: float | None = None
    """Share of those cards' month in which they have no work, 0-1."""
    usd_at_volume: float | None = None
    """Of one query at the declared volume: the rent of whole cards, over the queries; null without a volume."""
    usd_per_month: float | None
    """At the declared volume: rent of whole cards, or the API's price; null without a volume."""


class CardLine(Frozen):
    """One rented card: its rent, its speed limit by memory bandwidth, and when it costs less than an API."""

    card: str
    usd_per_month: float
    least_seconds: float
    """Of one reply at batch size 1, limited only by memory bandwidth."""
    least_ms_per_token: float
    most_queries: float
    """Per month, one at a time, at those seconds; batches answer more."""
    measured: bool = False
    """Whether `serves` comes from seconds measured on this card; otherwise from the bandwidth bound, one at a time."""
    serves: float | None = None
    """Whole queries a month that one card answers at the declared utilisation."""
    break_even: dict[str, float | None]
    """API -> fewest queries a month at which the rent costs less, up to `serves`: beyond that a second card is rented.
    null: at no volume that the card serves."""

    def pays_at(self, api: str) -> str:
        """The queries a month at which this one card costs less than the API, as `53,091 to 973,333`."""
        volume = self.break_even[api]
        if volume is not None:
            return f"{volume:,.0f} to {self.serves or 0:,.0f}"
        return "never" if self.measured else "not one at a time"


class PaybackLine(Frozen):
    """Days until the savings against one API have paid for the training."""

    api: str
    own: str | None = None
    """The line of `queries` that is compared with the API: the cheapest own one at this volume."""
    usd_saved_per_month: float | None = None
    """Month of the API minus month of that line; negative: the API costs less."""
    days: float | None
    """Null: nothing is saved at this volume."""


class CostReport(Frozen):
    """All figures, and notes on the missing ones."""

    dated: str
    """Of the price book."""
    machine: str | None
    """Card of the price book that the measured seconds come from; null if unknown."""
    n_parameters: int
    weight_bytes: int
    """Read for every token at batch size 1."""
    reply_tokens: float
    prompt_tokens: dict[str, float]
    """Arm -> mean tokens of its prompts."""
    saved_tokens: float | None
    """Prompt tokens per query that the tuned model saves against the few-shot prompt."""
    saved_usd_per_1k: dict[str, float]
    """API -> cost of those tokens for 1,000 queries."""
    queries_per_month: float | None
    utilisation: float = 1.0
    """Share of a month in which a card is planned to work, 0-1: the rest is the room for peaks."""
    routed_share: float | None = None
    """Share of the held-out tickets that a certified threshold routes without a person, 0-1; null without
    `evaluate.abstain`."""
    routed_per_month: float | None = None
    """Queries of the volume that are routed; null without a volume."""
    review_minutes: float | None = None
    """Minutes of a person per query, over all of them; null without `evaluate.abstain.review_minutes`."""
    review_hours_per_month: float | None = None
    """At the declared volume."""
    measured: dict[str, float]
    """Seconds, tokens per second and dollars that the run measured."""
    queries: tuple[QueryLine, ...]
    cards: tuple[CardLine, ...]
    training_seconds: float | None
    one_off_usd: float | None
    """Training at the machine's rent, plus `--one-off`."""
    payback: tuple[PaybackLine, ...]
    notes: tuple[str, ...]
    """What the figures leave out, and how to get the missing ones."""
