"""What a query costs, when an own model pays off and how fast it can be at best: arithmetic over a dated price book.

Knows nothing of models; numbers in, numbers out. Prices come from `infra/prices.yaml`, which a user replaces by theirs.
"""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field, ValidationError

from schemas.errors import GateError
from schemas.spec import Spec

HOURS_PER_MONTH = 730.0
"""365 days of 24 hours, over 12."""
PRICES = Path(__file__).resolve().parents[2] / "infra" / "prices.yaml"


class GpuPrice(Spec):
    """A rented card."""

    usd_per_hour: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    """Memory bandwidth, 10^9 bytes per second."""
    source: str = Field(min_length=1)

    def usd_per_month(self) -> float:
        """Rent of a card that is never given back."""
        return self.usd_per_hour * HOURS_PER_MONTH


class ApiPrice(Spec):
    """A hosted model."""

    usd_per_m_in: float = Field(ge=0)
    """Per million prompt tokens."""
    usd_per_m_out: float = Field(ge=0)
    """Per million generated tokens."""
    source: str = Field(min_length=1)

    def usd_per_query(self, n_in: float, n_out: float) -> float:
        """One query of `n_in` prompt and `n_out` generated tokens.

        >>> round(ApiPrice(usd_per_m_in=0.15, usd_per_m_out=0.60, source="example").usd_per_query(500, 200), 6)
        0.000195
        """
        return (n_in * self.usd_per_m_in + n_out * self.usd_per_m_out) / 1e6


class PriceBook(Spec):
    """`infra/prices.yaml`."""

    dated: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    gpus: dict[str, GpuPrice] = Field(min_length=1)
    apis: dict[str, ApiPrice] = Field(min_length=1)
    """At least one, so that no own model is ever reckoned without a hosted one beside it."""


def read_prices(path: Path = PRICES) -> PriceBook:
    """The price book.

    Raises:
        GateError: TG0612, it cannot be read, or an entry has no price, no date or no source.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return PriceBook.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        at, told = ".".join(map(str, first["loc"])), first["msg"]
    except (OSError, YAMLError) as error:
        at, told = "", f"cannot be read ({type(error).__name__})"
    raise GateError(f"the price book is wrong: {at} {told}", code="TG0612", where=str(path))


def find_gpu(name: str, path: Path = PRICES) -> GpuPrice:
    """The machine of that name in the price book.

    Raises:
        GateError: TG0613, it is not there; TG0612, the book is wrong.
    """
    book = read_prices(path)
    if name not in book.gpus:
        known = ", ".join(sorted(book.gpus)) or "none"
        raise GateError(
            f"the price book has no machine {name!r}; there are: {known}", code="TG0613", where="gates.cost.machine",
            hint=f"add it to {path.name}, with price and source",
        )  # fmt: skip
    return book.gpus[name]


def hosted_usd_per_query(*, usd_per_hour: float, seconds_per_query: float) -> float:
    """One query on a rented card that does nothing else meanwhile. With batches, give seconds per batch / its size.

    Source: rent per second times seconds, `usd_per_hour * seconds_per_query / 3600`.

    >>> round(1000 * hosted_usd_per_query(usd_per_hour=0.80, seconds_per_query=1.35), 3)
    0.3
    """
    return usd_per_hour * seconds_per_query / 3600


def break_even_queries(*, usd_per_month: float, api_usd_per_query: float) -> float:
    """Queries a month from which rent is cheaper than an API; infinite where the API costs nothing.

    Source: the volume at which both cost the same, `usd_per_month / api_usd_per_query`; the rent is fixed.

    >>> break_even_queries(usd_per_month=500, api_usd_per_query=0.01)
    50000.0
    """
    return usd_per_month / api_usd_per_query if api_usd_per_query > 0 else math.inf


def payback_days(
    *,
    one_off_usd: float,
    queries_per_month: float,
    api_usd_per_query: float,
    usd_per_month: float = 0.0,
    own_usd_per_query: float = 0.0,
) -> float:
    """Days until what is saved has paid the one-off cost; infinite where nothing is saved.

    Args:
        usd_per_month: Rent of the own model's hardware, or give `own_usd_per_query` in its place.

    Source: one-off cost over what a day saves, `queries * (api - own) - rent` over the days of a month.

    >>> level = {"one_off_usd": 500, "api_usd_per_query": 0.03, "usd_per_month": 500}
    >>> round(payback_days(queries_per_month=89_000, **level), 1)
    7.0
    """
    saved = queries_per_month * (api_usd_per_query - own_usd_per_query) - usd_per_month
    return one_off_usd / saved * (HOURS_PER_MONTH / 24) if saved > 0 else math.inf


def bandwidth_bound_s(*, weight_bytes: float, bandwidth_gb_s: float, n_tokens: int) -> float:
    """Least seconds for a reply at batch size 1: every token reads all weights once, whatever the arithmetic costs.

    Source: the roofline's memory side, Williams et al. (2009), with one pass over the weights per token; the key and
    value cache would come on top.

    >>> round(bandwidth_bound_s(weight_bytes=2 * 6_738_415_616, bandwidth_gb_s=300, n_tokens=200), 1)
    9.0
    """
    return weight_bytes / (bandwidth_gb_s * 1e9) * n_tokens
