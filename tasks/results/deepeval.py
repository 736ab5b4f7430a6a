"""`test_run_*.json` of DeepEval, as `DEEPEVAL_RESULTS_FOLDER` collects them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.results.rows import ItemResult, as_number, as_text, objects, refuse

_DEFAULT_NAME = "test_case_"
"""Names that DeepEval gives are places in a list, not ids."""


def is_deepeval(run: Mapping[str, Any]) -> bool:
    return isinstance(run.get("testCases"), list)


def rows_of(path: Path, run: Mapping[str, Any]) -> Iterator[ItemResult]:
    """Yield each test case by its name; each metric has its score.

    Raises:
        DataError: TG0262, the run has conversations, or a case has no name of its own.
    """
    if run.get("conversationalTestCases"):
        raise refuse(path, "conversational test cases are not read", "give the turns as test cases of their own")
    for case in objects(run["testCases"]):
        name = as_text(case.get("name")) or ""
        if not name or name.startswith(_DEFAULT_NAME):
            raise refuse(
                path, f"test case {name or case.get('order')} has no name of its own: its place in a list is no id",
                'give each a name: LLMTestCase(name="ticket-17", ...)',
            )  # fmt: skip
        values = {}
        for metric in objects(case.get("metricsData")):
            score = None if metric.get("error") else as_number(metric.get("score"))
            values[str(metric["name"])] = math.nan if score is None else score
        yield ItemResult(
            item_id=name,
            values=values,
            prompt=as_text(case.get("input")),
            answer=as_text(case.get("actualOutput")),
            reference=as_text(case.get("expectedOutput")),
        )
