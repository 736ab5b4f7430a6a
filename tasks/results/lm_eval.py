"""`samples_*.jsonl` of lm-evaluation-harness (`lm_eval --log_samples`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.results.rows import ItemResult, as_number, as_text, refuse


def is_lm_eval(first: Mapping[str, Any]) -> bool:
    return {"doc_id", "doc", "filter", "metrics", "doc_hash"} <= first.keys()


def rows_of(path: Path, objects: Sequence[Mapping[str, Any]]) -> tuple[ItemResult, ...]:
    """The items by `doc_id`; metrics are named as in lm-eval's table, `exact_match` or `exact_match,strict-match`.

    Each filter of an answer is a line of its own; the lines of an item are merged.

    Raises:
        DataError: TG0262, a metric of an item is no number, or an item has two lines of one filter.
    """
    merged: dict[str, ItemResult] = {}
    seen: set[tuple[str, str]] = set()
    for row in objects:
        item_id, name = str(row["doc_id"]), str(row["filter"])
        if (item_id, name) in seen:
            raise refuse(path, f"document {item_id} has two lines of the filter {name}")
        seen.add((item_id, name))
        values = {}
        for metric in row["metrics"]:
            number = as_number(row.get(metric))
            if number is None:
                raise refuse(
                    path, f"{metric} of document {item_id} is no number: lm-eval aggregates it over all documents",
                    "give the command a metric with one number per document, such as exact_match",
                )  # fmt: skip
            values[metric if name == "none" else f"{metric},{name}"] = number
        answers = row.get("filtered_resps")
        before = merged.get(item_id)
        merged[item_id] = ItemResult(
            item_id=item_id,
            values={**(before.values if before else {}), **values},
            prompt=as_text(row.get("prompt_hash")),
            answer=as_text(answers[0] if isinstance(answers, list) and len(answers) == 1 else answers),
            reference=as_text(row.get("target")),
            columns={key: as_text(value) for key, value in row["doc"].items()} if isinstance(row["doc"], dict) else {},
        )
    return tuple(merged.values())
