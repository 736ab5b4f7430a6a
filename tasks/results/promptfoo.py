"""Results of promptfoo (`promptfoo eval --output results.json`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.results.own import IDS
from tasks.results.rows import ItemResult, as_number, as_text, objects, refuse

PASSED = "pass"


def is_promptfoo(run: Mapping[str, Any]) -> bool:
    return isinstance(run.get("results"), dict) and "evalId" in run


def rows_of(
    path: Path, run: Mapping[str, Any], *, id_column: str | None = None, provider: str | None = None
) -> tuple[str, Iterator[ItemResult]]:
    """The provider's label and its rows: the id is a variable of the test, else the test's description.

    Metrics are `pass` (all assertions hold), `score`, and the assertions' own named metrics.

    Raises:
        DataError: TG0262, several providers or prompts and none is chosen, or a test has no id.
    """
    found = list(objects(run["results"].get("results")))
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        label = str(row["provider"].get("label") or row["provider"].get("id"))
        arms.setdefault(label, []).append(row)
    if provider is None and len(arms) == 1:
        provider = next(iter(arms))
    if provider not in arms:
        got = f"no provider {provider!r}" if provider else f"{len(arms)} providers"
        raise refuse(
            path, f"{got}; there are: {', '.join(sorted(arms)) or 'none'}",
            "append the provider's label to the path: results.json@LABEL",
        )  # fmt: skip
    rows = arms[provider]
    if len({row["promptIdx"] for row in rows}) > 1:
        raise refuse(path, "several prompts per test", "write one file per prompt (`promptfoo eval --filter-prompts`)")
    return provider, (_row(path, row, id_column) for row in rows)


def _row(path: Path, row: dict[str, Any], id_column: str | None) -> ItemResult:
    variables = row.get("vars") or {}
    names = (id_column,) if id_column else IDS
    item_id = next((variables[name] for name in names if variables.get(name) is not None), None)
    if item_id is None and id_column is None:
        item_id = row["testCase"].get("description")
    if not item_id:
        raise refuse(
            path, f"test {row['testIdx']} has no {id_column or 'item_id, id or description'}",
            "--id VARIABLE names the variable with the item's id",
        )  # fmt: skip
    values = {str(name): as_number(value) for name, value in (row.get("namedScores") or {}).items()}
    answered = row.get("response") is not None and row.get("failureReason") != 2
    values |= {PASSED: float(bool(row["success"])), "score": as_number(row.get("score"))}
    return ItemResult(
        item_id=str(item_id),
        # A provider that failed gave no answer, which is not a wrong one.
        values={name: value if answered and value is not None else math.nan for name, value in values.items()},
        prompt=as_text((row.get("prompt") or {}).get("raw")),
        answer=as_text((row.get("response") or {}).get("output")),
        assertions=as_text((row.get("testCase") or {}).get("assert") or []),
        columns={name: as_text(value) for name, value in variables.items()},
        repeat=str((row.get("testCase") or {}).get("repeatIndex", "")),
    )
