"""What does not fit the tickets held in memory goes through files aside: the same bytes, and memory stays flat."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from schemas.source import FilesSource
from tasks.curate import gather, row_groups, spill
from tasks.sources.readers import records, streams
from tests.support.synced import extract

Row = dict[str, Any]


def texts(n_rows: int, *, ids: str, seed: int = 3) -> list[Row]:
    """Rows whose ids are `ordered`, `mixed up`, `repeated`, `none`, or `late`: only the last tenth has any."""
    draw = random.Random(seed)
    rows: list[Row] = [{"body": "word " * draw.randint(1, 40), "reply": f"answer {number}"} for number in range(n_rows)]
    names = {
        "ordered": [f"{number:05d}" for number in range(n_rows)],
        "mixed up": [f"{number * 7919 % 10007}" for number in range(n_rows)],
        "repeated": [f"{draw.randint(0, 3)}" for _ in range(n_rows)],
        "none": [None] * n_rows,
        "late": [None if number < 0.9 * n_rows else f"{number}" for number in range(n_rows)],
        "early": [f"{number}" if number < 0.3 * n_rows else None for number in range(n_rows)],
    }[ids]
    return [row | ({} if name is None else {"ticket_id": name}) for row, name in zip(rows, names, strict=True)]


def as_jsonl(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["ticket_id", "body", "reply"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def extracted(root: Path, out: Path) -> tuple[Any, ...]:
    source = FilesSource(kind="files", paths=("*.jsonl", "*.csv"))
    table = extract(source, root, out=out)
    assert {path.name for path in out.iterdir()} == {"tickets.parquet", "removed.parquet"}
    return table.rows, table.notes, table.tickets.read_bytes(), table.removed.read_bytes()


@pytest.mark.parametrize("ids", ["ordered", "mixed up", "repeated", "none", "late", "early"])
def test_files_aside_change_no_byte(ids: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(texts(300, ids=ids)) + b"not json\n" * 5)
    (tmp_path / "b.csv").write_bytes(as_csv(texts(120, ids=ids, seed=4)))
    (tmp_path / "c.jsonl").write_bytes(as_jsonl(texts(40, ids="ordered", seed=5)))
    # Private sizes: at their true ones this takes gigabytes.
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 2000)
    monkeypatch.setattr(records, "_BATCH_BYTES", 2000)
    for name, size in (("GROUP_ROWS", 64), ("GROUP_BYTES", 5000)):
        monkeypatch.setattr(row_groups, name, size)
    held = extracted(tmp_path, tmp_path / "held")
    parts: list[Path] = []
    write = spill.SortedPart.__init__

    def noting(part: spill.SortedPart, path: Path, table: Any) -> None:
        parts.append(path)
        write(part, path, table)

    monkeypatch.setattr(spill.SortedPart, "__init__", noting)
    monkeypatch.setattr(gather, "HELD_BYTES", 8000)
    monkeypatch.setattr(gather, "_HELD_REMOVED", 3)  # private, as above
    monkeypatch.setattr(spill, "CHUNK_BYTES", 1200)
    assert extracted(tmp_path, tmp_path / "aside") == held
    assert len(parts) > 3
