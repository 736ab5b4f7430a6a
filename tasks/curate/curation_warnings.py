"""Warn of what curation loses: rules that drop many rows, straddlers, a test share that grows.

It reads counts alone, at the end of the stage, also if the stage's results are reused.
"""

from collections.abc import Iterator, Sequence

from schemas.artifacts import Splits, TicketTable
from schemas.curation import SplitSpec

WARN_ABOVE = 0.05
"""Share of the rows a step reads, dropped by one rule, above which the run warns."""
NO_TIMES = (
    "no ticket has `created_at`: the split is by customer or thread alone, so what is held out is not newer than what "
    "is trained on; map the column (source.columns: {created_at: THEIR_NAME}), or set split.by_time: false"
)
_STRADDLERS = ("straddles_cut_early", "straddles_cut_late")


def curation_warnings(
    tables: Sequence[tuple[str, TicketTable]], split: Splits, spec: SplitSpec, *, pipeline: str
) -> list[str]:
    """Return one sentence for each loss, in the order of the steps.

    Args:
        tables: The table after each step, with the step's name.
        split: The split, before decontamination.
        spec: The settings of the split.
        pipeline: Name of the pipeline, for the commands that show more.
    """
    found = [warning for name, table in tables for warning in _heavy_rules(name, table, pipeline)]
    return [*found, *_split_warnings(split, spec)]


def _heavy_rules(name: str, table: TicketTable, pipeline: str) -> Iterator[str]:
    n_in = table.rows.n_in
    dropped = {code.removeprefix("dropped_"): n for code, n in table.notes.items() if code.startswith("dropped_")}
    # A step without counts per rule is a rule itself.
    for code, n in (dropped or {name: table.rows.n_dropped}).items():
        if n > WARN_ABOVE * n_in:
            rules = f"`tunegate data funnel {pipeline} --reasons`"
            yield f"{name} drops {_share(n, n_in)} by `{code}`; {rules} shows all rules"
    if "warn_quarantined" in table.notes:
        yield f"more rows are quarantined than `schema.warn_above`; `tunegate data quarantine {pipeline}` shows them"


def _split_warnings(split: Splits, spec: SplitSpec) -> Iterator[str]:
    early, late = (split.notes.get(f"dropped_{code}", 0) for code in _STRADDLERS)
    n_in = split.rows.n_in
    if spec.by_time and split.cut is None:
        yield NO_TIMES
    if early + late > WARN_ABOVE * n_in:
        warning = (
            f"split drops {_share(early + late, n_in)} of customers and threads on both sides of the cut: {early:,} "
            f"before it, {late:,} after it"
        )
        if "new_tickets" not in split.notes:  # placed customers stay, whatever the setting
            others = {
                "keep_early": split.notes.get("straddling_late"), "keep_late": split.notes.get("straddling_early"),
            }  # fmt: skip
            offers = [f"`{name}` {n:,}" for name, n in others.items() if name != spec.straddlers and n is not None]
            warning += f"; with `split.straddlers` it would drop: {', '.join(offers)}" if offers else ""
        yield warning
    if share := split.notes.get("warn_test_share"):
        yield (
            f"test is {share / 10:.0f} % of the rows, above test_fraction {spec.test_fraction:g}, as no held-out "
            f"ticket retires; `split.retire_after_days: {split.notes['proposed_retire_after_days']}` brings it back"
        )
    if n := split.notes.get("warn_unseen_categories"):
        yield f"test has {n} categories that train does not have"
    if share := split.notes.get("warn_percolation"):
        yield f"{share / 10:.0f} % of the tickets are connected by shared customers and threads"


def _share(n: int, n_in: int) -> str:
    return f"{n:,} of {n_in:,} rows ({n / n_in:.1%})"
