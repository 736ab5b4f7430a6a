"""Write a snapshot of curated tickets for other programs: tables, or conversations to train on.

A folder with `train`, `validation` and `test`, complete or missing, sealed with a manifest. Needs no model. A ticket
that makes no conversation, such as one without an answer, is left out of the formats of conversations and listed in
`left_out.jsonl`.

Source: the Hugging Face documentation of `datasets` (a `README.md` whose `configs` name the files of each split);
chatml and alpaca are the `messages` and `instruction`/`input`/`output` rows that TRL, Axolotl and LLaMA-Factory read.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from schemas.errors import DataError
from schemas.export import DataOrigin
from schemas.tables import TICKETS
from schemas.training import PromptSpec
from tasks.storage.sealed_folder import SealedFolder, check_free, sealed_contents, sealed_folder
from tasks.tickets.prompts import Message, conversation_for

SPLITS = ("train", "validation", "test")
LEFT_OUT = "left_out.jsonl"
BATCH_ROWS = 8192
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""Type of `messages` in the format `datasets`."""


@dataclass(frozen=True)
class DataExport:
    """Written data."""

    folder: SealedFolder
    origin: DataOrigin


def export_data(snapshot: Path, origin: DataOrigin, prompt: PromptSpec, *, out: Path) -> DataExport:
    """Write the folder `out`, which must be missing or empty.

    Args:
        snapshot: Folder with a Parquet file per split.
        origin: What the manifest says; its counts are filled in.
        prompt: How a ticket becomes a conversation.

    Raises:
        ConfigError: TG0189, `out` is not empty.
        DataError: TG0221, there is nothing to write.
    """
    out, about = check_free(out), dict[str, object]()
    with sealed_folder(out, mode=0o700, about=about) as folder:
        tickets = _Tickets(snapshot, prompt)
        rows = _WRITERS[origin.format](tickets, folder)
        if not any(rows.values()):
            raise DataError(
                f"no ticket of snapshot {origin.snapshot_id} can be written as {origin.format}",
                code="TG0221", where=origin.pipeline,
                hint="conversations need a reply: another --answer, or --format parquet",
            )  # fmt: skip
        if tickets.left_out:
            (folder / LEFT_OUT).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in tickets.left_out))
        origin = origin.model_copy(update={"rows": rows, "n_left_out": len(tickets.left_out)})
        if origin.format == "datasets":
            (folder / "README.md").write_text(_card(origin), encoding="utf-8")
        about["export"] = origin.model_dump(mode="json")
    return DataExport(sealed_contents(out), origin)


@dataclass
class _Tickets:
    """The tickets of a snapshot, and those that made no conversation."""

    snapshot: Path
    prompt: PromptSpec
    left_out: list[dict[str, str]] = field(default_factory=list)

    def batches(self, split: str) -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(self.snapshot / f"{split}.parquet").iter_batches(BATCH_ROWS)

    def schema(self, split: str) -> pa.Schema:
        return pq.read_schema(self.snapshot / f"{split}.parquet")

    def conversations(self, split: str) -> Iterator[tuple[pa.RecordBatch, list[list[Message]]]]:
        """Yield the tickets that make a conversation, batch by batch, with their turns."""
        for batch in self.batches(split):
            kept: list[int] = []
            found: list[list[Message]] = []
            for place, row in enumerate(batch.to_pylist()):
                why = ""
                try:
                    turns = conversation_for(self.prompt, row)
                except DataError as error:  # its text quotes no ticket
                    why = f"{error.code}: {error.message}"
                else:
                    why = next((f"no text for {turn['role']}" for turn in turns if not turn["content"].strip()), "")
                if why:
                    self.left_out.append({"split": split, "ticket_id": row["ticket_id"], "reason": why})
                    continue
                kept.append(place)
                found.append([{"role": turn["role"], "content": turn["content"]} for turn in turns])
            yield batch.take(pa.array(kept, pa.int64())), found


def _write_parquet(tickets: _Tickets, folder: Path) -> dict[str, int]:
    rows = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        with pq.ParquetWriter(folder / f"{split}.parquet", tickets.schema(split), compression="zstd") as writer:
            for batch in tickets.batches(split):
                writer.write_batch(batch)
                rows[split] += batch.num_rows
    return rows


def _write_csv(tickets: _Tickets, folder: Path) -> dict[str, int]:
    rows = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        with pyarrow.csv.CSVWriter(folder / f"{split}.csv", tickets.schema(split)) as writer:
            for batch in tickets.batches(split):
                writer.write_batch(batch)
                rows[split] += batch.num_rows
    return rows


def _write_datasets(tickets: _Tickets, folder: Path) -> dict[str, int]:
    """Parquet with `messages` as turns; a split without rows has no file, since `datasets` refuses one."""
    rows: dict[str, int] = {}
    (folder / "data").mkdir()
    for split in SPLITS:
        schema, path = tickets.schema(split), folder / "data" / f"{split}.parquet"
        schema = schema.set(schema.get_field_index("messages"), pa.field("messages", TURNS))
        n_rows = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch, conversations in tickets.conversations(split):
                turns = pa.array(conversations, TURNS)
                writer.write_batch(batch.set_column(batch.schema.get_field_index("messages"), "messages", turns))
                n_rows += batch.num_rows
        if n_rows:
            rows[split] = n_rows
        else:
            path.unlink()
    return rows


def _write_chatml(tickets: _Tickets, folder: Path) -> dict[str, int]:
    return _write_lines(tickets, folder, lambda turns: {"messages": turns})


def _write_alpaca(tickets: _Tickets, folder: Path) -> dict[str, int]:
    return _write_lines(tickets, folder, alpaca_row)


def alpaca_row(turns: list[Message]) -> dict[str, Any]:
    """Return a conversation as one alpaca row; earlier turns are `history`, as in LLaMA-Factory.

    >>> alpaca_row([{"role": "user", "content": "Late!"}, {"role": "assistant", "content": "Sorry."}])
    {'instruction': 'Late!', 'input': '', 'output': 'Sorry.'}
    """
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    texts = [turn["content"] for turn in turns if turn["role"] != "system"]
    *earlier, question, answer = texts
    asked = {"instruction": system, "input": question} if system else {"instruction": question, "input": ""}
    history = [[earlier[place], earlier[place + 1]] for place in range(0, len(earlier), 2)]
    return {**asked, "output": answer, **({"history": history} if history else {})}


def _write_lines(tickets: _Tickets, folder: Path, row: Callable[[list[Message]], Mapping[str, Any]]) -> dict[str, int]:
    """JSON Lines; a split without rows has no file."""
    rows: dict[str, int] = {}
    for split in SPLITS:
        path, n_rows = folder / f"{split}.jsonl", 0
        with path.open("wb") as lines:
            for _, conversations in tickets.conversations(split):
                lines.writelines(orjson.dumps(row(turns)) + b"\n" for turns in conversations)
                n_rows += len(conversations)
        if n_rows:
            rows[split] = n_rows
        else:
            path.unlink()
    return rows


_WRITERS: dict[str, Callable[[_Tickets, Path], dict[str, int]]] = {
    "parquet": _write_parquet,
    "datasets": _write_datasets,
    "chatml": _write_chatml,
    "alpaca": _write_alpaca,
    "csv": _write_csv,
}


FORMATS = tuple(_WRITERS)
"""What can be written."""


def _card(origin: DataOrigin) -> str:
    """The dataset's card: which file is which split, where the data come from, and what each column means."""
    files = "\n".join(f"  - split: {split}\n    path: data/{split}.parquet" for split in origin.rows)
    table = "\n".join(f"| {split} | {n_rows:,} |" for split, n_rows in origin.rows.items())
    columns = "\n".join(
        f"| `{column.name}` | {'list of role and content' if column.name == 'messages' else column.sql_type} | "
        f"{'The conversation to train on' if column.name == 'messages' else column.meaning} |"
        for column in TICKETS
    )
    personal = "were replaced by placeholders" if origin.redacted else "were **not** redacted"
    listed = ""
    if origin.n_left_out:
        listed = f"\n{origin.n_left_out:,} tickets make no conversation; `{LEFT_OUT}` lists them.\n"
    return f"""---
configs:
- config_name: default
  data_files:
{files}
---

# {origin.pipeline}

Support tickets, curated by tunegate: snapshot `{origin.snapshot_id}` of run `{origin.run_id}`. No customer is in two
splits. Personal data {personal}. `MANIFEST.json` has the sha256 of every file.

| split | rows |
|---|--:|
{table}
{listed}
| column | type | meaning |
|---|---|---|
{columns}
"""
