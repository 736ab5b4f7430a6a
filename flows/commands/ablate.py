"""`tunegate ablate`: is data quality the lever here? Arms trained with equal steps, judged as the gate judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows, talk
from flows.context.run_context import new_run_id
from flows.graph.graph import Node
from flows.ledger.opened import open_ledger
from flows.run.ablation import CURATED, Ablation, arms_of, choose_arms
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings, load_settings
from schemas.load import load_file
from tasks.assess.ablation import AblationRow, AblationTable
from tasks.files import sha256_json, write_json

COLUMNS = ("arm", "rows", "trained on", "value", "curated gains", "bounds", "won / lost", "curation")


def ablate(
    *, pipeline: str, only: list[str], metric: str | None, n_steps: int | None, config: Path, as_json: bool
) -> int:
    """Train and judge every arm; what is in the store is reused, so a killed ablation goes on.

    Raises:
        ConfigError: TG0103, no such arm or metric; TG0159, nothing is curated.
        GateError: TG0623, the curated arm trained on what gives held-out items away.
        LockedError: a run holds the pipeline.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    arms = choose_arms(arms_of(spec), only)
    talk().print(f"{len(arms) + 1} trainings at most, one after another; what is stored is reused", style="dim")

    def listen(arm: str, node: Node, seconds: float, reused: bool) -> None:
        if not reused:
            talk().print(f"  {arm:<18} {node.name:<18} {seconds:.1f} s", style="dim", markup=False)

    with open_ledger(settings).pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        ablation = Ablation(spec, settings, config.resolve().parent, listen, n_steps=n_steps)
        table = ablation.run(arms, metric or spec.gates.rules[0].metric)
        place = _keep(table, settings)
    if as_json:
        print_json({**table.model_dump(mode="json"), "file": str(place)})
        return 0
    out().print(
        f"{table.pipeline}: {table.metric} on {table.n_items} held-out items, {table.n_steps} steps each, seed "
        f"{table.seed}; bounds one-sided at {100 * table.confidence:.4g} %\n",
        markup=False,
    )
    print_rows([_shown(row) for row in table.rows], COLUMNS)
    for row in table.rows:
        if row.gain is not None:
            out().print(f"\n{row.arm}: {row.told}. {row.reason}", markup=False, soft_wrap=True)
    out().print(f"\n{table.answer}\n{place}", markup=False, soft_wrap=True)
    talk().print(
        "note  the held-out items were looked at: a curation chosen by this table is no longer unseen by them, so "
        "let fresh items judge it (docs/how-to/weigh-costs.md)", markup=False, style="dim",
    )  # fmt: skip
    return 0


def _keep(table: AblationTable, settings: Settings) -> Path:
    """Under the digest of what it says: the same again is the same file."""
    content = table.model_dump(mode="json")
    place = private_folder(settings.home / "ablations" / table.pipeline) / f"{sha256_json(content)[:16]}.json"
    write_json(place, content)
    return place


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
