"""Tickets whose labels a run's classifier doubted, and how to leave out a file or week of them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.ledger.open import open_ledger, open_store
from flows.workspace.settings import Settings
from schemas.artifacts import LabelSources
from schemas.diagnosis import LabelGroup
from schemas.errors import ConfigError
from tasks.storage.files import sha256_json

NAME_CHARACTERS = 40
"""Of a file's name in that of its step: steps have names of at most 63 characters."""


@dataclass(frozen=True)
class Suspects:
    """What a run's check of labels found."""

    run_id: str
    checked: LabelSources
    rows: tuple[Mapping[str, Any], ...]
    """Suspect tickets without their text, the least likely label first."""
    n_rows: int
    """How many there are with the wanted source and week."""

    def ways_out(self) -> Iterator[str]:
        """Yield a step for `curate.steps` for each file or week that is named: it leaves its tickets out."""
        for group in self.checked.groups:
            if group.disagrees:
                yield _rule_without(group)


def find_suspects(
    settings: Settings, pipeline: str, *, source: str | None = None, week: str | None = None, limit: int
) -> Suspects:
    """Read the newest check of the pipeline's labels.

    Raises:
        ConfigError: TG0159, no run has checked them, or the results are gone.
    """
    ledger, store = open_ledger(settings), open_store(settings)
    for row in ledger.runs_with_step("label_sources", pipeline=pipeline):
        checked = store.whole("label_sources", ledger.keys_of(row.run_id).get("label_sources"), LabelSources)
        if checked is None:
            continue
        table = pq.read_table(checked.suspects)
        for name, value in (("source", source), ("week", week)):
            if value is not None:
                table = table.filter(pc.equal(table[name], value))
        return Suspects(row.run_id, checked, tuple(table.slice(0, limit).to_pylist()), table.num_rows)
    raise ConfigError(
        f"no run of {pipeline} has checked labels by file and week, or the results are gone", code="TG0159",
        where=pipeline, hint=f"`tunegate run {pipeline}` checks them once there is a champion",
    )  # fmt: skip


def _rule_without(group: LabelGroup) -> str:
    """
    >>> print(_rule_without(LabelGroup(kind="file", name="week 47.csv", n_checked=9, n_suspects=9, share_elsewhere=0,
    ...                                p_chance=0, disagrees=True)))
    - {uses: rule, name: without_week_47_csv_7ad499, keep: "source <> 'week 47.csv'"}
    """
    words = re.sub(r"[^a-z0-9]+", "_", group.name.lower())[:NAME_CHARACTERS].strip("_")
    # Long names, and those in another script, may leave the same words.
    name = f"without_{words}_{sha256_json(group.name)[:6]}"
    text = group.name.replace("'", "''")
    column = "source" if group.kind == "file" else "coalesce(strftime(created_at, '%G-W%V'), '')"
    keep = json.dumps(f"{column} <> '{text}'", ensure_ascii=False)  # in YAML a string in double quotes
    return f"- {{uses: rule, name: {name}, keep: {keep}}}"
