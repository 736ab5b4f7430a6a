"""What is kept of a file of results: the values of each item, and hashes of all texts, by which items are compared.

A hash identifies equal texts of one ledger, and reveals none.
"""

from __future__ import annotations

from collections.abc import Iterator
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
                columns={name: hide(value) for name, value in row.columns.items()},
            )
            for row in file.rows
        ),
    )


def item_keys(file: ResultFile) -> list[str]:
    """What identifies each item of a hashed file: its id, with the prompt where there is one; sorted."""
    return sorted({row.item_id if row.prompt is None else f"{row.item_id}\0{row.prompt}" for row in file.rows})


def to_lines(file: ResultFile) -> bytes:
    """The rows of a hashed file, ordered by item and repeat, one JSON object per line."""
    rows = sorted(file.rows, key=lambda row: (row.item_id, row.repeat))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS) for row in rows)


def read_stored(results: CheckedResults) -> ResultFile:
    """The file as it was kept, hashed."""
    lines = (results.root / ROWS).read_bytes().splitlines()
    rows = tuple(ItemResult(**orjson.loads(line)) for line in lines)
    return ResultFile(Path(results.name), results.tool, rows, results.sha256, results.model_name)


def changed_items(
    file: ResultFile, measured: dict[str, str], earlier: CheckedResults, *, arm: str, when: str
) -> Iterator[PairFault]:
    """Yield the items to which the same model has other values than before: a second draw until one is lucky.

    Args:
        file: Hashed.
        measured: As in `CheckedResults`; metrics that are measured otherwise are not compared.
        when: What has the earlier values, for people.
    """
    before = {(row.item_id, row.repeat): row for row in read_stored(earlier).rows}
    metrics = [name for name, how in measured.items() if earlier.measured.get(name) == how]
    differing = []
    for row in file.rows:
        old = before.get((row.item_id, row.repeat))
        if old is None or (row.prompt and old.prompt and row.prompt != old.prompt):
            continue
        if any(row.values.get(name) != old.values.get(name) for name in metrics):
            differing.append(row.item_id)
    yield from of_items(
        "results of one model may add items, not change them", f"the {arm} has other values than {when}:", differing
    )
