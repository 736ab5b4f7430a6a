"""What is kept of a file of results: the values of each item, and hashes of all texts, by which items are compared.

A hash identifies equal texts of one ledger, and reveals none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from schemas.artifacts import CheckedResults
from tasks.results.pair import PairFault, of_items
from tasks.results.rows import ItemResult, ResultFile
from tasks.tickets.draw import item_hash

ROWS = "rows.jsonl"
COLUMN = "column"
"""How a metric was measured that the file has itself."""


def hashed(file: ResultFile, *, salt: str) -> ResultFile:
    """The file with a hash in place of each prompt, reference and column, and without answers."""

    def hide(text: str | None) -> str | None:
        return None if text is None else item_hash(text, salt=salt)

    return replace(
        file,
        rows=tuple(
            replace(
                row,
                prompt=hide(row.prompt),
                answer=None,
                reference=hide(row.reference),
                assertions=hide(row.assertions),
                columns={name: hide(value) for name, value in row.columns.items()},
            )
            for row in file.rows
        ),
    )


def item_keys(files: Sequence[ResultFile], known: Iterable[str]) -> list[str]:
    """What identifies each item of the first file: its id, with the prompt where one of the files has it; sorted.

    An item that is known by its id alone, or has no prompt now, is the known one: leaving the prompts out makes no new
    items.

    Args:
        files: Hashed, of equal items.
        known: Such keys of earlier verdicts, the oldest first.
    """
    whole = dict.fromkeys(known)
    by_id: dict[str, str] = {}
    for key in whole:
        by_id.setdefault(key.partition("\0")[0], key)
    prompts = {row.item_id: row.prompt for file in reversed(files) for row in file.rows if row.prompt is not None}
    keys = set[str]()
    for item in {row.item_id for row in files[0].rows}:
        key = f"{item}\0{prompts[item]}" if item in prompts else item
        if key not in whole and (item in whole or item not in prompts):
            key = item if item in whole else by_id.get(item, item)
        keys.add(key)
    return sorted(keys)


def to_lines(file: ResultFile) -> bytes:
    """The rows of a hashed file, ordered by item and repeat, one JSON object per line."""
    rows = sorted(file.rows, key=lambda row: (row.item_id, row.repeat))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS) for row in rows)


def read_stored(results: CheckedResults) -> ResultFile:
    """The file as it was kept, hashed."""
    lines = (results.root / ROWS).read_bytes().splitlines()
    rows = tuple(map(_read_row, lines))
    return ResultFile(Path(results.name), results.tool, rows, results.sha256, results.model_name)


def _read_row(line: bytes) -> ItemResult:
    row = orjson.loads(line)
    # JSON has no NaN: it was written as null.
    values = {name: math.nan if value is None else value for name, value in row.pop("values").items()}
    return ItemResult(values=values, **row)


def changed_items(
    file: ResultFile, measured: dict[str, str], earlier: CheckedResults, *, arm: str, when: str
) -> Iterator[PairFault]:
    """Yield the items to which the same model has other values than before: a second draw until one is lucky.

    Args:
        file: Hashed.
        measured: As in `CheckedResults`; metrics that are measured otherwise are not compared.
        when: What has the earlier values, for people.
    """
    metrics = [name for name, how in measured.items() if earlier.measured.get(name) == how]
    before = _by_item(read_stored(earlier), metrics)
    differing = []
    for item, (prompts, values) in _by_item(file, metrics).items():
        if item not in before:
            continue
        old_prompts, old_values = before[item]
        if prompts and old_prompts and prompts != old_prompts:
            continue  # another item
        # Another answer under another `repeat` is a second draw, too.
        if values != old_values:
            differing.append(item)
    kept = "" if arm == "candidate" else f" (without --{arm} its kept ones are compared with)"
    yield from of_items(
        f"results of one model may add items, not change them{kept}",
        f"the {arm} has other values than {when}:",
        differing,
    )


def _by_item(file: ResultFile, metrics: Sequence[str]) -> dict[str, tuple[set[str], dict[str, list[float | None]]]]:
    """Item -> its prompts, and the values of each of its repeats; NaN is None, so that it equals itself."""
    found: dict[str, tuple[set[str], dict[str, list[float | None]]]] = {}
    for row in file.rows:
        prompts, values = found.setdefault(row.item_id, (set(), {}))
        prompts.update([row.prompt] if row.prompt else [])
        numbers = (row.values.get(name) for name in metrics)
        values[row.repeat] = [None if each is None or math.isnan(each) else each for each in numbers]
    return found
