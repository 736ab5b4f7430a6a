"""Searches every file below a folder for texts, also in Parquet, Arrow and DuckDB files and in token ids."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


def traces(folder: Path, words: tuple[str, ...], *, tokenizer: Path | None = None) -> list[str]:
    """`FILE: WORD` for each word found in a file's bytes or in the text they decode to."""
    decoder = _decoder(tokenizer)
    return [
        f"{path.relative_to(folder)}: {word}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for text in ["\n".join(_readings(path, decoder))]
        for word in words
        if word in text
    ]


def _readings(path: Path, decoder: object) -> Iterator[str]:
    content = path.read_bytes()
    yield str(path)
    yield content.decode("latin-1")
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content).decode("latin-1")
    elif content[:4] == b"PAR1":
        yield _rows_as_text(pq.read_table(path))
    elif content[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as db:
            for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield _rows_as_text(db.sql(f'SELECT * FROM "{name}"').to_arrow_table())
    elif path.suffix == ".arrow":
        with pa.memory_map(str(path)) as stream:
            table = pa.ipc.open_stream(stream).read_all()
        yield _rows_as_text(table)
        if decoder is not None and "input_ids" in table.column_names:
            for ids in table.column("input_ids").to_pylist():
                yield decoder.decode(ids)  # type: ignore[attr-defined]


def _rows_as_text(table: pa.Table) -> str:
    return json.dumps(table.to_pydict(), default=str, ensure_ascii=False)


def _decoder(folder: Path | None) -> object:
    if folder is None:
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
