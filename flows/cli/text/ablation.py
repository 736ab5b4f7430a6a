"""An ablation for people: one row for each arm, and the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.output import out, print_rows, talk
from flows.graph.graph import Node
from flows.run.ablation import CURATED
from tasks.assess.ablation import AblationRow, AblationTable


def print_step(arm: str, node: Node, seconds: float, reused: bool) -> None:
    """A step that was made, on stderr; of one that was there already nothing."""
    if not reused:
        talk().print(f"  {arm:<18} {node.name:<18} {seconds:.1f} s", style="dim", markup=False)


def print_ablation(table: AblationTable, place: Path) -> None:
    """The table, the reason of each difference, and where it is kept."""
    out().print(
        f"{table.pipeline}: {table.metric} on {table.n_items} held-out items, {table.n_steps} steps each, seed "
        f"{table.seed}; bounds one-sided at {100 * table.confidence:.4g} %\n",
        markup=False,
    )
    print_rows([_shown(row) for row in table.rows])
    for row in table.rows:
        if row.gain is not None:
            out().print(f"\n{row.arm}: {row.description}. {row.reason}", markup=False, soft_wrap=True)
    out().print(f"\n{table.answer}\n{place}", markup=False, soft_wrap=True)
    talk().print(
        "note  the held-out items were looked at: a curation chosen by this table is no longer unseen by them, so "
        "let fresh items judge it (docs/how-to/weigh-costs.md)", markup=False, style="dim",
    )  # fmt: skip


def _shown(row: AblationRow) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "rows": row.n_rows,
        "trained on": row.n_examples,
        "value": None if row.value is None else f"{row.value:.3f}",
        "curated gains": None if row.difference is None else f"{row.difference:+.3f}",
        "bounds": None if row.lower is None else f"{row.lower:+.3f} .. {row.upper or 0:+.3f}",
        "won / lost": None if row.won is None else f"{row.won} / {row.lost}",
        "curation": "as declared" if row.arm == CURATED else row.gain,
    }
