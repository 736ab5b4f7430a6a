"""A curation card as one HTML fragment for the report (`card.html.j2`), and as a page of its own.

Both are without scripts and external resources. Names of categories and ids come from tickets; the template escapes
them.
"""

from pathlib import Path
from typing import NamedTuple

from schemas.curation_card import QUANTILES, CardNumbers, Distribution, ValueCounts
from tasks.curate.cards.card_drift import MAJOR, MODERATE
from tasks.pages import charts
from tasks.pages.charts import Segment
from tasks.pages.templates import render

_REMOVED = ("merged", "dropped", "quarantined")
_PARTS = ("train", "validation", "test")
_COLUMNS = ("category", "priority", "language", "product", "channel")
_LEAST_SHARE = {"language": 0.01}
"""Rarer values are shown together (0-1): most rare languages are short texts that were taken for another one."""
MAX_COLUMNS = 60
"""Columns of the chart of weeks; over longer times several weeks share a column."""


def draw_card(numbers: CardNumbers) -> str:
    """Return the fragment: one `section`, readable in light and dark mode."""
    shown = {name: each for name in _COLUMNS if (each := numbers.distributions[name]).missing.n < each.n}
    n_clusters = numbers.duplicates.sizes.items()
    sizes = [(size, size.partition("-")[0], [Segment("merged", n, "clusters")]) for size, n in n_clusters]
    return render(
        "card.html.j2",
        folder=Path(__file__).parent,
        numbers=numbers,
        n_kept=numbers.n_train + numbers.n_validation + numbers.n_test,
        parts=_PARTS,
        removed=[kind for kind in _REMOVED if any(getattr(step.rows, f"n_{kind}") for step in numbers.funnel)],
        n_together=-(-len(numbers.weeks) // MAX_COLUMNS),
        weeks=_weeks(numbers.weeks),
        lengths=[_length(numbers, of) for of in ("body", "reply")],
        balances=[_balance(name, folded(each, least=_LEAST_SHARE.get(name, 0.0))) for name, each in shown.items()],
        sizes=charts.columns(sizes, label="clusters by size"),
        quantiles=["least" if at == 0 else "most" if at == 1 else f"{at:.0%}" for at in QUANTILES],
        limits=(MODERATE, MAJOR),
    )


def whole_page(fragment: str, *, title: str) -> str:
    """Return a page with the fragment, to be opened by itself: with its encoding, and nothing that it may load."""
    return render("card_page.html.j2", folder=Path(__file__).parent, fragment=fragment, title=title)


def _weeks(weeks: tuple[ValueCounts, ...]) -> str:
    n_together = max(1, -(-len(weeks) // MAX_COLUMNS))
    bins = []
    for group in (weeks[start : start + n_together] for start in range(0, len(weeks), n_together)):
        first, last = group[0].value, group[-1].value
        segments = [Segment(part, sum(getattr(week, part) for week in group), part) for part in _PARTS]
        bins.append((first if first == last else f"{first} to {last}", first, segments))
    return charts.columns(bins, label="tickets over time", wide=True)


def _length(numbers: CardNumbers, of: str) -> tuple[str, str, int]:
    """What is measured, its chart, and the tickets that have none."""
    found = numbers.distributions[f"{of}_length"]
    bins = [(each.value, each.value.partition("-")[0], [Segment("kept", each.n, "tickets")]) for each in found.values]
    return of, charts.columns(bins, label=f"tickets by characters of the {of}"), found.missing.n


class _Balance(NamedTuple):
    """The shares of each value within each split, side by side: that shows a label that test has and train lacks."""

    name: str
    rows: list[tuple[str, ValueCounts]]
    rest: list[tuple[str, ValueCounts]]
    """Other values, and none."""
    totals: dict[str, int]
    """Of the splits that have tickets."""
    longest: float
    """The largest share, 0-1: the full width of a bar."""


def _balance(name: str, found: Distribution) -> _Balance:
    rows = [(counts.value, counts) for counts in found.values]
    rest = [(title, each) for title, each in (("other values", found.other), ("no value", found.missing)) if each.n]
    listed = [counts for _, counts in (*rows, *rest)]
    totals = {part: n for part in _PARTS if (n := sum(getattr(counts, part) for counts in listed))}
    longest = max((getattr(counts, part) / n for counts in listed for part, n in totals.items()), default=1.0)
    return _Balance(name, rows, rest, totals, longest)


def folded(distribution: Distribution, *, least: float) -> Distribution:
    """Add the values of less than this share (0-1) of the tickets to the other values."""
    rare = [counts for counts in distribution.values if counts.n < least * distribution.n]
    other = distribution.other.model_copy(
        update={part: sum(getattr(counts, part) for counts in (distribution.other, *rare)) for part in _PARTS}
    )
    kept = tuple(counts for counts in distribution.values if counts not in rare)
    return distribution.model_copy(update={"values": kept, "other": other})
