"""General questions: what the base model can do and the candidate must not forget.

The suites are data (`tasks/assess/suites/`); a pattern checks each answer. Steps of `flows/gate_checks.py` write the
prompts and score the answers; `tasks/assess/forgetting.py` judges.
"""

import heapq
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import ModelArm, Predictions, PromptSet, Scores
from schemas.checks import SuiteName
from schemas.errors import GateError
from schemas.evaluation import Arm
from schemas.training import Format
from tasks.step import as_step
from tasks.tickets.draw import hash_rank

SUITES: dict[SuiteName, str] = {"general": "tasks.assess.suites.general"}
"""Name -> package with `items.jsonl` (item_id, kind, question, answer, pattern) and `neutral.txt` (a text per line)."""
METRIC = "general"


@as_step("suite", libraries=("pyarrow",))
def build_suite(out: Path, *, suite: SuiteName, max_items: int | None, seed: int, format: Format) -> PromptSet:
    """Write `prompts.parquet` (see `PromptSet`; only a user turn, no system message), `items.parquet` (item_id, kind,
    pattern) and `neutral.parquet` (text).

    Args:
        max_items: Maximum number of items, chosen by hash of their ids; None takes all.
    """
    items = read_suite(suite)
    chosen = heapq.nsmallest(max_items or len(items), items, key=lambda item: hash_rank(item["item_id"], seed=seed))
    rows = sorted(chosen, key=lambda item: item["item_id"])
    if format == "completion":
        texts = {"text": [f"Question: {row['question']}\nAnswer:" for row in rows]}
    else:
        turns = [[{"role": "user", "content": row["question"]}] for row in rows]
        texts = {"messages": [orjson.dumps(each).decode() for each in turns]}
    ids, answers = [row["item_id"] for row in rows], [row["answer"] for row in rows]
    pq.write_table(pa.table({"item_id": ids, **texts, "answer": answers}), out / "prompts.parquet", compression="zstd")
    details = {name: [row[name] for row in rows] for name in ("item_id", "kind", "pattern")}
    pq.write_table(pa.table(details), out / "items.parquet", compression="zstd")
    neutral = files(SUITES[suite]).joinpath("neutral.txt").read_text(encoding="utf-8").splitlines()
    lines = [line.strip() for line in neutral if line.strip()]
    pq.write_table(pa.table({"text": lines}), out / "neutral.parquet", compression="zstd")
    return PromptSet(root=out, arm="suite", format=format, n_items=len(rows))


def read_suite(suite: SuiteName) -> list[dict[str, str]]:
    """The items of a suite, in order."""
    lines = files(SUITES[suite]).joinpath("items.jsonl").read_text(encoding="utf-8").splitlines()
    return [orjson.loads(line) for line in lines]


@as_step("scores_suite", libraries=("pyarrow",))
def score_suite(out: Path, *, suite: PromptSet, predictions: Predictions, arm: ModelArm | Arm) -> Scores:
    """Write `scores.parquet` (metric `general`: 1 if the answer has the pattern) and `slices.parquet` (kind).

    Raises:
        GateError: TG0603, answers and items do not have the same ids, once each.
    """
    items: list[dict[str, Any]] = pq.read_table(suite.root / "items.parquet").to_pylist()
    given = pq.read_table(predictions.root / "predictions.parquet", columns=["item_id", "text"]).to_pylist()
    answers = {row["item_id"]: row["text"] for row in given}
    if len(given) != len(items) or answers.keys() != {item["item_id"] for item in items}:
        raise GateError(
            f"the {len(given)} answers do not match the {len(items)} items of the suite, once each",
            code="TG0603", where="forgetting",
        )  # fmt: skip
    ids = [item["item_id"] for item in items]
    right = [is_right(str(answers[item["item_id"]]), item["pattern"]) for item in items]
    scores = {"item_id": ids, "metric": [METRIC] * len(ids), "value": [float(each) for each in right]}
    pq.write_table(pa.table(scores), out / "scores.parquet", compression="zstd")
    slices = {"item_id": ids, "slice": [f"kind={item['kind']}" for item in items]}
    pq.write_table(pa.table(slices), out / "slices.parquet", compression="zstd")
    return Scores(root=out, arm=arm, n_items=len(ids), means={METRIC: sum(right) / max(1, len(right))})


def is_right(answer: str, pattern: str) -> bool:
    """Return whether the answer has the pattern, ignoring case unless the pattern says otherwise.

    >>> is_right("The capital is **Paris**.", r"\\bParis\\b"), is_right("apple", r"(?-i:\\bAPPLE\\b)")
    (True, False)
    """
    return re.search(pattern, answer.strip(), re.IGNORECASE) is not None
