"""Files that make a candidate look better than it is: none is promoted, whatever tool wrote it.

The candidate is as good as the champion. Each attack raises what a plain comparison of two means would see, or hides
what would show that the items are others. The forms are those of `tests/tasks/results/files`, which the real tools
wrote: one of their rows is filled with the items here.
"""

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.views.gate_check import check_files
from schemas.errors import DataError

FILES = Path(__file__).parents[2] / "tasks" / "results" / "files"
N, N_RIGHT, N_BETTER = 60, 40, 16


@dataclass(frozen=True)
class Answer:
    """What one row of a file has, in every form."""

    item: int | str
    prompt: str
    expected: str
    value: float | str | None
    repeat: int = 1


Rows = list[Answer]


def answers(right: set[int]) -> Rows:
    return [Answer(item, f"question {item}", f"answer {item}", float(item in right)) for item in range(N)]


def champion() -> Rows:
    return answers(set(range(N_RIGHT)))


def candidate() -> Rows:
    """As many are right, some of them others."""
    return answers(set(range(10, N_RIGHT + 10)))


# The forms


def own(rows: Rows) -> bytes:
    def line(row: Answer) -> dict[str, Any]:
        return {"id": row.item, "prompt": row.prompt, "reference": row.expected, "exact": row.value,
                "repeat": row.repeat}  # fmt: skip

    return b"\n".join(orjson.dumps(line(row)) for row in rows)


LM_EVAL = orjson.loads((FILES / "lm_eval_a.jsonl").read_bytes().splitlines()[0])
INSPECT = orjson.loads((FILES / "inspect_a.json").read_bytes())
PROMPTFOO = orjson.loads((FILES / "promptfoo_a.json").read_bytes())
DEEPEVAL = orjson.loads((FILES / "deepeval_a.json").read_bytes())


def lm_eval(rows: Rows) -> bytes:
    def line(row: Answer) -> dict[str, Any]:
        return LM_EVAL | {
            "doc_id": row.item, "target": row.expected, "exact_match": row.value,
            "doc": {"id": f"t{row.item}", "question": row.prompt, "answer": row.expected},
            "prompt_hash": hashlib.sha256(row.prompt.encode()).hexdigest(),
        }  # fmt: skip

    return b"\n".join(orjson.dumps(line(row)) for row in rows)


def inspect(rows: Rows) -> bytes:
    grades: Mapping[Any, Any] = {1.0: "C", 0.0: "I"}

    def sample(row: Answer) -> dict[str, Any]:
        value = grades.get(row.value, row.value)
        return {
            **INSPECT["samples"][0], "events": [], "id": f"t{row.item}", "epoch": row.repeat, "input": row.prompt,
            "target": row.expected, "scores": {"exact": {"value": value}},
        }  # fmt: skip

    return orjson.dumps(INSPECT | {"samples": list(map(sample, rows))})


def promptfoo(rows: Rows) -> bytes:
    def result(row: Answer) -> dict[str, Any]:
        filled = deepcopy(PROMPTFOO["results"]["results"][0])
        variables = {"item_id": f"t{row.item}", "question": row.prompt}
        filled["testCase"] |= {"vars": variables, "description": None, "repeatIndex": row.repeat}
        filled["testCase"]["assert"][0]["value"] = row.expected
        filled["prompt"]["raw"] = row.prompt
        return filled | {"vars": variables, "namedScores": {"exact": row.value}}

    return orjson.dumps(PROMPTFOO | {"results": PROMPTFOO["results"] | {"results": list(map(result, rows))}})


def deepeval(rows: Rows) -> bytes:
    def case(row: Answer) -> dict[str, Any]:
        filled = deepcopy(DEEPEVAL["testCases"][0])
        filled["metricsData"][0]["score"] = row.value
        return filled | {"name": f"t{row.item}", "input": row.prompt, "expectedOutput": row.expected}

    return orjson.dumps(DEEPEVAL | {"testCases": list(map(case, rows))})


FORMS: Mapping[Callable[[Rows], bytes], str] = {
    own: "exact", lm_eval: "exact_match", inspect: "exact", promptfoo: "exact", deepeval: "Exact Match",
}  # fmt: skip
"""Form -> its metric."""


# The attacks


def shuffled_ids(rows: Rows) -> Rows:
    """Right answers get the ids of items that the champion has wrong."""
    return [replace(row, item=other.item) for row, other in zip(rows, rows[::-1], strict=True)]


def missing(rows: Rows) -> Rows:
    return [row for row in rows if row.value]


def missing_from_the_champion(rows: Rows) -> Rows:
    return [*rows, *(Answer(N + item, f"easy {item}", "yes", 1.0) for item in range(60))]


def duplicated(rows: Rows) -> Rows:
    return [*rows, *(row for row in rows if row.value)]


def drawn_again(rows: Rows) -> Rows:
    """Wrong answers are asked for once more, until they are right."""
    return [*rows, *(replace(row, repeat=2, value=1.0) for row in rows if not row.value)]


def other_ids(rows: Rows) -> Rows:
    return [Answer(f"x{row.item}", row.prompt, row.expected, 1.0) for row in rows]


def other_prompts(rows: Rows) -> Rows:
    return [row if row.value else replace(row, prompt=f"easier {row.prompt}", value=1.0) for row in rows]


def other_references(rows: Rows) -> Rows:
    return [row if row.value else replace(row, expected="whatever it says", value=1.0) for row in rows]


def no_value_if_wrong(rows: Rows) -> Rows:
    return [row if row.value else replace(row, value=None) for row in rows]


def not_a_number_if_wrong(rows: Rows) -> Rows:
    return [row if row.value else replace(row, value="nan") for row in rows]


def numbers_that_python_reads(rows: Rows) -> Rows:
    return [row if row.value else replace(row, value="1_0") for row in rows]


def endless(rows: Rows) -> Rows:
    return [replace(row, value="inf") if row.value else row for row in rows]


ATTACKS = (
    shuffled_ids, missing, missing_from_the_champion, duplicated, drawn_again, other_ids, other_prompts,
    other_references, no_value_if_wrong, not_a_number_if_wrong, numbers_that_python_reads, endless,
)  # fmt: skip


def swapped(theirs: bytes, ours: bytes) -> bytes:
    """The champion's own file as the candidate's."""
    return theirs


def cut(theirs: bytes, ours: bytes) -> bytes:
    """The file ends where the wrong answers begin."""
    return ours[: len(ours) * 2 // 3]


def repeated_whole(theirs: bytes, ours: bytes) -> bytes:
    return ours + b"\n" + ours


FILE_ATTACKS = (swapped, cut, repeated_whole)


def verdict(form: Callable[[Rows], bytes], ours: bytes, theirs: bytes, folder: Path) -> str:
    paths = [folder / "candidate", folder / "champion"]
    for path, content in zip(paths, (ours, theirs), strict=True):
        path.write_bytes(content)
    try:
        return check_files(candidate=str(paths[0]), champion=str(paths[1]), metric=FORMS[form]).decision.verdict
    except DataError as error:
        return error.code


@pytest.mark.parametrize("form", FORMS)
def test_no_attack_is_promoted_and_a_better_candidate_is(form: Callable[[Rows], bytes], tmp_path: Path) -> None:
    theirs = form(champion())
    better = form(answers(set(range(N_RIGHT + N_BETTER))))
    assert verdict(form, better, theirs, tmp_path) == "PROMOTE"
    assert verdict(form, form(candidate()), theirs, tmp_path) == "HOLD"
    found = {each.__name__: verdict(form, form(each(candidate())), theirs, tmp_path) for each in ATTACKS}
    found |= {each.__name__: verdict(form, each(theirs, better), theirs, tmp_path) for each in FILE_ATTACKS}
    assert {name: how for name, how in found.items() if how not in ("ERROR", "TG0262")} == {}
