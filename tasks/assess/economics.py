"""Cost of a query, the volume from which an own model pays off, and its best possible speed.

Arithmetic on measured tokens and seconds and a dated price book; docs/how-to/weigh-costs.md explains where every number
comes from. Prices are in `prices.yaml`; users can replace it with their own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from schemas.artifacts import BATCH_SIZES
from schemas.costs import CardLine, CostReport, PaybackLine, QueryLine
from schemas.errors import GateError
from schemas.evaluation import TokenPrices
from schemas.regular_file import open_regular
from schemas.spec import Spec

HOURS_PER_MONTH = 730.0
"""365 days of 24 hours, over 12."""
PRICES = Path(__file__).with_name("prices.yaml")
MAX_BYTES = 1_000_000
PROMPTED = ("few_shot", "retrieval", "rag", "zero_shot")
"""Arms whose prompt an API would get: the first one that is known."""
OWN = "tuned"
ENDPOINT = "endpoint"
"""Begins the name of the line of `evaluate.endpoint`."""
UTILISATION = 0.5
"""Planned busy share of a card's month. Judgement, not a measurement: a desk is busy by day, and peaks need room."""


class GpuPrice(Spec):
    """A rented card."""

    usd_per_hour: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    """Memory bandwidth, 10^9 bytes per second."""
    source: str = Field(min_length=1)

    def usd_per_month(self) -> float:
        """Rent of a card for a whole month."""
        return self.usd_per_hour * HOURS_PER_MONTH


class ApiPrice(TokenPrices):
    """A hosted model."""

    source: str = Field(min_length=1)


class PriceBook(Spec):
    """`prices.yaml`."""

    dated: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    gpus: dict[str, GpuPrice] = Field(min_length=1)
    apis: dict[str, ApiPrice] = Field(min_length=1)
    """At least one, so that an own model is always compared with a hosted one."""


def read_prices(path: Path = PRICES) -> PriceBook:
    """Read the price book.

    Raises:
        GateError: TG0612, it cannot be read, or an entry has no price, date or source.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return PriceBook.model_validate(YAML(typ="safe").load(data.decode("utf-8")))
        at, reason = "", f"it is larger than {MAX_BYTES:,} bytes"
    except ValidationError as error:
        first = error.errors()[0]
        at, reason = ".".join(map(str, first["loc"])), first["msg"]
    except (OSError, YAMLError, ValueError, RecursionError) as error:
        at, reason = "", f"it cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    raise GateError(f"the price book is wrong: {f'{at} ' if at else ''}{reason}", code="TG0612", where=str(path))


def find_gpu(name: str, path: Path = PRICES, *, where: str = "gates.cost.machine") -> GpuPrice:
    """Return the machine of that name from the price book.

    Raises:
        GateError: TG0612, there is no such machine, or the book is wrong.
    """
    book = read_prices(path)
    if name not in book.gpus:
        raise GateError(
            f"the price book has no machine {name!r}; machines: {', '.join(sorted(book.gpus))}", code="TG0612",
            where=where, hint=f"add it to {path.name}, with price and source",
        )  # fmt: skip
    return book.gpus[name]


def hosted_usd_per_query(*, usd_per_hour: float, seconds_per_query: float) -> float:
    """Cost of one query on a rented card that does nothing else. For batches, pass seconds per batch / its size.

    Source: rent per second times seconds, `usd_per_hour * seconds_per_query / 3600`.

    >>> round(1000 * hosted_usd_per_query(usd_per_hour=0.80, seconds_per_query=1.35), 3)
    0.3
    """
    return usd_per_hour * seconds_per_query / 3600


def break_even_queries(*, usd_per_month: float, api_usd_per_query: float) -> float:
    """Queries a month from which rent is cheaper than an API; infinite if the API costs nothing.

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
    """Days until the savings have paid the one-off cost; infinite if nothing is saved.

    Args:
        usd_per_month: Rent of the own model's hardware; or pass `own_usd_per_query` instead.

    Source: one-off cost divided by the savings of a day, `queries * (api - own) - rent` over the days of a month.

    >>> level = {"one_off_usd": 500, "api_usd_per_query": 0.03, "usd_per_month": 500}
    >>> round(payback_days(queries_per_month=89_000, **level), 1)
    7.0
    """
    saved = queries_per_month * (api_usd_per_query - own_usd_per_query) - usd_per_month
    return one_off_usd / saved * (HOURS_PER_MONTH / 24) if saved > 0 else math.inf


def cards_needed(*, queries_per_month: float, seconds_per_query: float, utilisation: float = 1.0) -> int:
    """Whole cards that answer the volume; at least one.

    Args:
        utilisation: Share of a month in which a card may be busy, 0-1.

    Source: busy seconds over the seconds that a card may work, rounded up, since a card is rented whole.

    >>> cards_needed(queries_per_month=1e6, seconds_per_query=5), 1e6 * 5 / (730 * 3600)
    (2, 1.9025875190258752)
    """
    busy = queries_per_month * seconds_per_query / (HOURS_PER_MONTH * 3600 * utilisation)
    return max(1, math.ceil(busy - 1e-9))  # the rounding of a division must not rent another card


def bandwidth_bound_s(*, weight_bytes: float, bandwidth_gb_s: float, n_tokens: int) -> float:
    """Minimum seconds for a reply at batch size 1: every token reads all weights once, whatever the arithmetic costs.

    Source: the roofline's memory side, Williams et al. (2009), with one pass over the weights per token; the key and
    value cache would come on top.

    >>> round(bandwidth_bound_s(weight_bytes=2 * 6_738_415_616, bandwidth_gb_s=300, n_tokens=200), 1)
    9.0
    """
    return weight_bytes / (bandwidth_gb_s * 1e9) * n_tokens


@dataclass(frozen=True)
class Volume:
    """How many queries to plan for."""

    queries_per_month: float | None = None
    """None leaves out capacity, monthly costs and payback."""
    utilisation: float = UTILISATION


NO_VOLUME = Volume()


@dataclass(frozen=True)
class MeasuredEndpoint:
    """What the arm endpoint showed of its model, per answer."""

    model: str
    prompt_tokens: float | None
    """As the server counts them; None if it does not."""
    reply_tokens: float | None
    seconds: float | None
    """Mean, over the network."""
    prices: TokenPrices | None
    """As declared; None takes the price book's for the model."""

    def usd(self, book: PriceBook) -> float | None:
        """Price of an answer; None without tokens or prices."""
        if self.prompt_tokens is None or self.reply_tokens is None:
            return None
        if self.prices is not None:
            return self.prices.usd(self.prompt_tokens, self.reply_tokens)
        listed = book.apis.get(self.model)
        return None if listed is None else listed.usd(self.prompt_tokens, self.reply_tokens)


@dataclass(frozen=True)
class Measures:
    """Known figures of the traffic and of the own model."""

    n_parameters: int
    weight_bytes: int
    reply_tokens: float
    prompt_tokens: Mapping[str, float]
    """Arm -> mean tokens of its prompts."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Figures of `gates.latency`."""
    given_seconds: float | None = None
    """Per answer, measured elsewhere on the machine (`--seconds`); replaces what the run measured."""
    batched_seconds: float | None = None
    """Per answer, in the batches of the evaluation, including the loading of the model."""
    training_seconds: float | None = None
    endpoint: MeasuredEndpoint | None = None
    """Of `evaluate.endpoint`; None if it is not declared, or did not answer."""
    routed_share: float | None = None
    """Share of tickets that go out without a person, 0-1; None if no threshold is asked for."""
    minutes_per_review: float | None = None
    """Of a person, per ticket that goes to review."""
    assumed: bool = False
    """The traffic is assumed; no run was measured."""


def compute_costs(
    book: PriceBook,
    known: Measures,
    *,
    machine: str | None = None,
    volume: Volume = NO_VOLUME,
    one_off_usd: float = 0.0,
) -> CostReport:
    """Compute all costs that the figures allow.

    Cards are rented whole, so an own model's month is the rent of the cards that the volume needs at the measured
    seconds; break-even and payback follow from that month.

    Args:
        machine: Card of the price book that the seconds were measured on; None leaves out the own model's costs.
        one_off_usd: Costs besides the training, such as people's hours for curation.
    """
    card = None if machine is None else book.gpus[machine]
    prompted = next((arm for arm in PROMPTED if arm in known.prompt_tokens), None)
    own, few = known.prompt_tokens.get(OWN), known.prompt_tokens.get("few_shot")
    saved = None if few is None or own is None else few - own
    sent = known.prompt_tokens[prompted] if prompted else own or 0.0
    queries = volume.queries_per_month
    api_usd = {name: api.usd(sent, known.reply_tokens) for name, api in book.apis.items()}
    asked = known.endpoint
    asked_usd = None if asked is None else asked.usd(book)

    on, prompt = f", on {machine}" if machine else "", f", {prompted} prompt" if prompted else ""
    own_lines = tuple(
        _own_line(f"own model, {way}{on}", timed, known, card=card, volume=volume) for way, timed in _ways(known)
    )
    api_lines = tuple(
        QueryLine(
            what=f"API {api}{prompt}", prompt_tokens=sent, reply_tokens=known.reply_tokens, seconds=None,
            usd=api_usd[api], usd_at_volume=None if queries is None else api_usd[api],
            usd_per_month=None if queries is None else api_usd[api] * queries,
        )
        for api in sorted(api_usd, key=api_usd.__getitem__)
    )  # fmt: skip
    by_api = dict(zip(sorted(api_usd, key=api_usd.__getitem__), api_lines, strict=True))
    endpoint_lines: tuple[QueryLine, ...] = ()
    if asked is not None:
        name = f"{ENDPOINT} {asked.model.replace(',', ' ')}"  # a comma ends the name in what a line says
        month = None if queries is None or asked_usd is None else asked_usd * queries
        endpoint_lines = (
            QueryLine(
                what=f"{name}, as it answered", prompt_tokens=asked.prompt_tokens, reply_tokens=asked.reply_tokens,
                seconds=asked.seconds, usd=asked_usd, usd_at_volume=None if queries is None else asked_usd,
                usd_per_month=month,
            ),
        )  # fmt: skip
        if asked_usd is not None:
            api_usd = {name: asked_usd, **api_usd}
            by_api = {name: endpoint_lines[0], **by_api}
    trained_usd = None
    if card is not None and known.training_seconds is not None:
        trained_usd = card.usd_per_hour * known.training_seconds / 3600
    one_off = one_off_usd + trained_usd if trained_usd is not None else one_off_usd or None
    fastest = min((line.seconds for line in own_lines if line.seconds), default=None)
    routed, minutes = known.routed_share, known.minutes_per_review
    review = None if routed is None or minutes is None else (1 - routed) * minutes
    return CostReport(
        dated=book.dated,
        machine=machine,
        n_parameters=known.n_parameters,
        weight_bytes=known.weight_bytes,
        reply_tokens=known.reply_tokens,
        prompt_tokens=dict(known.prompt_tokens),
        saved_tokens=saved,
        saved_usd_per_1k={name: 1000 * saved * api.usd_per_m_in / 1e6 for name, api in book.apis.items()}
        if saved is not None
        else {},
        queries_per_month=queries,
        utilisation=volume.utilisation,
        routed_share=routed,
        routed_per_month=None if routed is None or queries is None else routed * queries,
        review_minutes=review,
        review_hours_per_month=None if review is None or queries is None else review * queries / 60,
        measured=dict(known.measured),
        queries=(*own_lines, *endpoint_lines, *api_lines),
        cards=tuple(
            _card_line(name, book, known, api_usd, fastest if name == machine else None, volume.utilisation)
            for name in book.gpus
        ),
        training_seconds=known.training_seconds,
        one_off_usd=one_off,
        payback=_payback(own_lines, by_api, one_off),
        notes=_notes(known, machine, prompted, queries, endpoint_usd=asked_usd),
    )


def cheapest_own(lines: Iterable[QueryLine]) -> QueryLine | None:
    """The own model's line with the lowest month, the fastest of equal ones; None without a volume or a price."""
    priced = [line for line in lines if line.n_cards is not None and line.usd_per_month is not None]
    return min(priced, key=lambda line: (line.usd_per_month or 0.0, line.wait_s or math.inf), default=None)


def _ways(known: Measures) -> Iterator[tuple[str, tuple[float, float | None]]]:
    """How the own model answered -> seconds per answer, and seconds until an answer is there."""
    if known.given_seconds is not None:
        yield "as given", (known.given_seconds, None)
        return
    speed = known.measured.get("tokens_per_s")
    if speed:
        single = known.reply_tokens / speed
        yield "one at a time", (single, single)
    for size in BATCH_SIZES:
        if (batch := known.measured.get(f"batch_{size}_s")) is not None:
            yield f"batches of {size}", (batch / size, batch)
    if known.batched_seconds is not None:
        yield "in the evaluation's batches", (known.batched_seconds, None)


def _own_line(
    what: str, timed: tuple[float, float | None], known: Measures, *, card: GpuPrice | None, volume: Volume
) -> QueryLine:
    seconds, wait_s = timed
    queries = volume.queries_per_month
    n_cards = idle = month = None
    if queries is not None:
        n_cards = cards_needed(
            queries_per_month=queries, seconds_per_query=seconds, utilisation=volume.utilisation
        )  # fmt: skip
        idle = max(0.0, 1 - queries * seconds / (n_cards * HOURS_PER_MONTH * 3600))
        month = None if card is None else n_cards * card.usd_per_month()
    return QueryLine(
        what=what, prompt_tokens=known.prompt_tokens.get(OWN), reply_tokens=known.reply_tokens, seconds=seconds,
        wait_s=wait_s, n_cards=n_cards, idle_share=idle, usd_per_month=month,
        usd=None if card is None else hosted_usd_per_query(usd_per_hour=card.usd_per_hour, seconds_per_query=seconds),
        usd_at_volume=None if month is None or queries is None else month / queries,
    )  # fmt: skip


def _payback(own: Sequence[QueryLine], apis: Mapping[str, QueryLine], one_off: float | None) -> tuple[PaybackLine, ...]:
    """Days against each API, from the months of the table's own lines."""
    best = cheapest_own(own)
    if best is None or best.usd_per_month is None or one_off is None:
        return ()
    found = []
    for api, line in apis.items():
        days = payback_days(
            one_off_usd=one_off, queries_per_month=1.0, api_usd_per_query=line.usd_per_month or 0.0,
            usd_per_month=best.usd_per_month,
        )  # fmt: skip
        saved = (line.usd_per_month or 0.0) - best.usd_per_month
        found.append(PaybackLine(api=api, own=best.what, usd_saved_per_month=saved, days=_finite(days)))
    return tuple(found)


def _card_line(
    name: str, book: PriceBook, known: Measures, api_usd: Mapping[str, float], seconds: float | None, utilisation: float
) -> CardLine:
    card = book.gpus[name]
    n_tokens, rent = max(1, round(known.reply_tokens)), card.usd_per_month()
    least = bandwidth_bound_s(
        weight_bytes=known.weight_bytes, bandwidth_gb_s=card.bandwidth_gb_s, n_tokens=n_tokens
    )  # fmt: skip
    serves = math.floor(HOURS_PER_MONTH * 3600 * utilisation / (seconds or least))

    def from_volume(usd: float) -> int | None:
        # Beyond what one card serves a second one is rented, and more cards have no better ratio of rent to queries.
        equal = break_even_queries(usd_per_month=rent, api_usd_per_query=usd)
        return math.floor(equal) + 1 if equal < serves else None

    return CardLine(
        card=name,
        usd_per_month=rent,
        least_seconds=least,
        least_ms_per_token=1000 * least / n_tokens,
        most_queries=HOURS_PER_MONTH * 3600 / least,
        measured=seconds is not None,
        serves=serves,
        break_even={api: from_volume(usd) for api, usd in api_usd.items()},
    )


def _finite(value: float) -> float | None:
    """The value, or None for infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


def _notes(
    known: Measures, machine: str | None, prompted: str | None, queries: float | None, *, endpoint_usd: float | None
) -> tuple[str, ...]:
    """What the figures leave out, and how to get the missing ones."""
    batched, given = known.batched_seconds is not None, known.given_seconds is not None
    timed = given or batched or "tokens_per_s" in known.measured
    notes = (
        (known.assumed,
         "the traffic is assumed and no run was measured: `tunegate study cost PIPELINE` uses a run's figures"),
        (not known.assumed and not given and "tokens_per_s" not in known.measured,
         "seconds of single answers were not measured: declare `gates.latency` and run"),
        (not known.assumed and machine is None,
         "the measured seconds have no price without the name of the card: --machine, or gates.cost.machine"),
        (not known.assumed and not given and machine is not None,
         f"measured seconds are priced as those of {machine} (gates.cost.machine or --machine)"),
        (not known.assumed and prompted is None,
         "there is no prompting arm, so API costs assume the tuned prompt: add few_shot to the arms"),
        (known.endpoint is not None and endpoint_usd is None,
         "the endpoint has no price: declare evaluate.endpoint.prices, or it counts no tokens"),
        (known.endpoint is not None,
         "the endpoint's tokens are those that it counts, and its seconds include the network"),
        (not known.assumed, "tokens are those of the own base model; an API counts with its own tokenizer"),
        (machine is not None and timed and queries is None,
         "the cost of an own query assumes a card that is always busy; idle hours cost as much: --queries N"),
        (queries is not None and timed,
         "cards are rented whole; --utilisation is the share of a month in which one may be busy"),
        (queries is not None and not (machine and timed),
         "no payback: that needs seconds of a query on a card of the price book: --machine with gates.latency or "
         "--seconds S"),
        (batched and not given,
         "seconds in batches include loading the model: an upper bound for a server that keeps it loaded"),
        (queries is None, "without a volume there are no cards to count, no monthly costs and no payback: --queries N"),
    )  # fmt: skip
    return tuple(text for holds, text in notes if holds)
