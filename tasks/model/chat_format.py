"""Turn tickets into training examples: token ids and the mask of tokens that carry loss, within the length limit.

`encode_examples` is a step of flows/finetune.py; tasks/model/chat_codec.py converts text to ids, so that training and
serving agree. `show_examples` decodes examples for people.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.artifacts import DatasetRef, ModelRef, Splits
from schemas.errors import ConfigError, DataError, GateError
from schemas.training import DrawSpec, EncodeSpec, PlantedSpec
from tasks.model.base_model import load_tokenizer
from tasks.model.canaries import planted_examples
from tasks.model.chat_codec import ChatCodec, Encoded
from tasks.progress import Progress, silent
from tasks.step import as_step
from tasks.storage.files import write_json
from tasks.tickets.draw import draw_order
from tasks.tickets.prompts import conversation_for, render_text

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]

_BIN = 64
"""Width of the length histogram's bars, tokens."""
_REPORT_EVERY = 200
ROW_CODES = frozenset({"TG0301", "TG0314", "TG0315"})
"""Errors of a single ticket's texts. TG0309 is not among them: `overflow: error` ends the run."""


@as_step("encode", libraries=("transformers", "tokenizers", "datasets"))
def encode_examples(
    out: Path,
    *,
    splits: Splits,
    model: ModelRef,
    encoding: EncodeSpec,
    progress: Progress = silent,
) -> DatasetRef:
    """Write `train/` and `validation/` (see `DatasetRef`), `removed.parquet` and `encoding.json`.

    `removed.parquet` lists the other tickets: those that cannot become an example (no answer, a malformed conversation,
    or an error) are quarantined, those over `max_length` are dropped.

    Train takes up to `max_examples` tickets: the newest, and among those of equal time or without one a stratified
    draw (`tasks/tickets/draw.py`). Both splits are stored in the order of ticket_id. `encoding.json` has the template's
    sha256, the end token, what the template writes before an answer (`opening`), the number of neutralised control
    texts and a histogram of lengths.

    Raises:
        ConfigError: max_length exceeds the model's context, or the tokenizer has no usable template.
        DataError: no example is left, no ticket can become an example, or one exceeds max_length with
            `overflow: error`.
        GateError: TG0614, a canary exceeds max_length.
    """
    from tasks.curate.rows import write_removed

    check_max_length(encoding.max_length, model.context_length)
    codec = ChatCodec.of(load_tokenizer(model), encoding.format, encoding.loss_on)
    train = _encode_split(splits.train, codec, encoding, limit=encoding.max_examples, progress=progress)
    if encoding.canaries is not None:
        _plant(encoding.canaries, train, codec, max_length=encoding.max_length)
    # Validating on more tickets than are trained on takes more time than the figure is worth.
    validation = _encode_split(splits.validation, codec, encoding, limit=encoding.max_examples, progress=progress)
    if not train.examples:
        if train.fault is not None and train.n_faulty == train.n_read:
            raise train.fault
        n_long = len(train.removed) - train.n_faulty
        raise DataError(
            f"no training example is left: {n_long} of {train.n_read} tickets exceed max_length",
            code="TG0308",
            where="train",
            hint="raise train.max_length, or set overflow: truncate_left" if n_long else "see the funnel",
        )
    _write_arrow(train, out / "train")
    _write_arrow(validation, out / "validation")
    write_removed([*train.removed, *validation.removed], out)
    lengths = [len(example.input_ids) for _, example in train.examples]
    write_json(out / "encoding.json", _summary(codec, train, validation, lengths))
    return DatasetRef(
        root=out,
        n_train=len(train.examples),
        n_validation=len(validation.examples),
        n_tokens=sum(lengths),
        n_supervised=sum(sum(example.loss_mask) for _, example in train.examples),
        n_dropped=len(train.removed) + len(validation.removed),
        max_tokens=max(lengths),
        n_rewritten=sum(example.n_rewritten for _, example in train.examples),
    )


def check_max_length(max_length: int, context_length: int) -> None:
    """Check that the longest example fits the model's context; both in tokens.

    Raises:
        ConfigError: TG0111, it does not.
    """
    if max_length > context_length:
        raise ConfigError(
            f"max_length {max_length} exceeds the model's context of {context_length} tokens",
            code="TG0111",
            where="train.max_length",
            hint=f"set train.max_length to at most {context_length}",
        )


def _plant(spec: PlantedSpec, train: _Split, codec: ChatCodec, *, max_length: int) -> None:
    """Add the canaries to the examples; they do not count towards `max_examples`."""
    for name, example in planted_examples(spec, codec):
        if len(example.input_ids) > max_length:
            raise GateError(
                f"a canary has {len(example.input_ids)} tokens, max_length is {max_length}", code="TG0614",
                where="train.canaries", hint="raise train.max_length, or remove the canaries",
            )  # fmt: skip
        train.examples.append((name, example))
    train.examples.sort(key=lambda pair: pair[0])


@dataclass
class _Split:
    """The encoded tickets of one split."""

    examples: list[tuple[str, Encoded]] = field(default_factory=list)
    """ticket_id and example, in the order of ticket_id."""
    removed: list[dict[str, object]] = field(default_factory=list)
    n_read: int = 0
    n_truncated: int = 0
    n_faulty: int = 0
    """Removed tickets that were quarantined."""
    fault: Exception | None = None
    """The first error that quarantined one."""


def _encode_split(
    path: Path, codec: ChatCodec, encoding: EncodeSpec, *, limit: int | None, progress: Progress
) -> _Split:
    done = _Split()
    for row, total in _drawn(path, encoding.draw):
        if limit is not None and len(done.examples) >= limit:
            break
        done.n_read += 1
        try:
            example, truncated = _fit(row, codec, encoding)
        except Exception as error:
            done.removed.append(_quarantined(row, error))
            done.n_faulty += 1
            done.fault = done.fault or error
            continue
        if len(example.input_ids) <= encoding.max_length:
            done.examples.append((row["ticket_id"], example))
            done.n_truncated += truncated
        else:
            done.removed.append(_removed(row, example, encoding))
        if done.n_read % _REPORT_EVERY == 0:
            progress(done.n_read, total if limit is None else min(limit, total), "rows")
    progress(done.n_read, done.n_read, "rows")
    done.examples.sort(key=lambda pair: pair[0])
    return done


def _drawn(path: Path, draw: DrawSpec) -> Iterator[tuple[Row, int]]:
    """Yield each row with the total number of rows, in the order in which they are taken."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    ids, times = table.column("ticket_id").to_pylist(), table.column("created_at").to_pylist()
    labels = table.column(draw.label).to_pylist() if draw.label else [None] * table.num_rows
    order = draw_order(ids, times, labels, seed=draw.seed, cover=True)
    for start in range(0, table.num_rows, _REPORT_EVERY):
        for row in table.take(order[start : start + _REPORT_EVERY]).to_pylist():
            yield row, table.num_rows


def _fit(row: Row, codec: ChatCodec, encoding: EncodeSpec) -> tuple[Encoded, bool]:
    """Encode an example, cutting its prompt from the left if `overflow` says so; it may still exceed max_length."""
    example = _encode(row, codec, encoding, cut=0)
    if len(example.input_ids) <= encoding.max_length or encoding.overflow == "drop":
        return example, False
    if encoding.overflow == "error":
        raise DataError(
            f"an example has {len(example.input_ids)} tokens, max_length is {encoding.max_length}",
            code="TG0309",
            where=f"{row['source']}:{row['source_line']}",
            hint="raise train.max_length, or set overflow: drop or truncate_left",
        )
    # Find the shortest cut that fits by bisection over the user's text; at least one character must stay.
    too_short, enough = 0, len(_user_text(row, encoding)) - 1
    if enough < 1:
        return example, False
    shortest = _encode(row, codec, encoding, cut=enough)
    if len(shortest.input_ids) > encoding.max_length:
        return shortest, True
    while enough - too_short > 1:
        middle = (too_short + enough) // 2
        attempt = _encode(row, codec, encoding, cut=middle)
        if len(attempt.input_ids) <= encoding.max_length:
            enough, shortest = middle, attempt
        else:
            too_short = middle
    return shortest, True


def _user_text(row: Row, encoding: EncodeSpec) -> str:
    """The text that may be cut: the prompt of a completion, else the first user turn."""
    if encoding.format == "completion":
        return render_text(encoding.prompt.user, row)
    turns = conversation_for(encoding.prompt, row)
    return next(turn["content"] for turn in turns if turn["role"] == "user")


def _encode(row: Row, codec: ChatCodec, encoding: EncodeSpec, *, cut: int) -> Encoded:
    try:
        kept = _user_text(row, encoding)[cut:]
        if encoding.format == "completion":
            return codec.completion(kept, render_text(encoding.prompt.answer, row))
        turns = conversation_for(encoding.prompt, row)
        first = next(at for at, turn in enumerate(turns) if turn["role"] == "user")
        turns[first] = {"role": "user", "content": kept}
        return codec.conversation(turns)
    except DataError as error:
        where = f"{row['source']}:{row['source_line']}"
        raise DataError(error.message, code=error.code, where=where, hint=error.hint) from None


def _quarantined(row: Row, error: Exception) -> dict[str, object]:
    """The ticket as a quarantined row; re-raises an error that is not the ticket's fault."""
    from tasks.tickets.row_fault import is_row_fault, row_fault

    if not is_row_fault(error, ROW_CODES):
        raise error
    code, reason = row_fault(error, "encode")
    places = {name: row[name] for name in ("ticket_id", "source", "source_line")}
    return {**places, "outcome": "quarantined", "code": code, "reason": reason}


def _removed(row: Row, example: Encoded, encoding: EncodeSpec) -> dict[str, object]:
    answer = sum(example.loss_mask)
    reason = f"{len(example.input_ids)} tokens ({answer} of them answer), max_length is {encoding.max_length}"
    if encoding.overflow == "truncate_left":
        reason = f"{reason}; even without the prompt, the answer and its template do not fit"
    return {
        "ticket_id": row["ticket_id"],
        "outcome": "dropped",
        "code": "max_length",
        "reason": reason,
        "source": row["source"],
        "source_line": row["source_line"],
    }


def _write_arrow(split: _Split, folder: Path) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "ticket_id": pa.array([ticket_id for ticket_id, _ in split.examples], pa.string()),
            "input_ids": pa.array([example.input_ids for _, example in split.examples], pa.list_(pa.int32())),
            "loss_mask": pa.array([example.loss_mask for _, example in split.examples], pa.list_(pa.int8())),
        }
    )
    write_examples(table, folder)


def write_examples(table: pa.Table, folder: Path) -> None:
    """Write a `datasets` directory. Its fingerprint is a hash of the content: the library's own would be random."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    fingerprint = hashlib.sha256(sink.getvalue()).hexdigest()[:16]
    dataset = Dataset(InMemoryTable(table), fingerprint=fingerprint)
    # By default the library writes no file for an empty dataset, and then cannot load it.
    dataset.save_to_disk(folder, num_shards=None if table.num_rows else 1)


def _summary(codec: ChatCodec, train: _Split, validation: _Split, lengths: Sequence[int]) -> dict[str, object]:
    template = codec.tokenizer.chat_template if codec.format == "instruction" else None
    bars = Counter(length // _BIN * _BIN for length in lengths)
    return {
        "format": codec.format,
        "template_sha256": hashlib.sha256(str(template).encode()).hexdigest() if template else None,
        "end_token": codec.tokenizer.convert_ids_to_tokens(codec.end_id),
        "end_id": codec.end_id,
        "loss_on": codec.loss_on,
        "opening": codec.turn.opening,
        "n_neutralised": sum(e.n_neutralised for split in (train, validation) for _, e in split.examples),
        "n_truncated": train.n_truncated + validation.n_truncated,
        "n_train_read": train.n_read,
        "length_histogram": {str(start): bars[start] for start in sorted(bars)},
    }


@dataclass(frozen=True)
class TokenRun:
    """Consecutive tokens that all carry loss, or all do not."""

    text: str
    """As the tokenizer writes them, including control tokens."""
    n_tokens: int
    carries_loss: bool


@dataclass(frozen=True)
class DecodedExample:
    """One training example."""

    ticket_id: str
    input_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    runs: tuple[TokenRun, ...]


def show_examples(*, dataset: DatasetRef, model: ModelRef, n_examples: int) -> list[DecodedExample]:
    """The first training examples in the order of ticket_id, decoded by the model's own tokenizer."""
    from datasets import load_from_disk

    tokenizer = load_tokenizer(model)
    train = load_from_disk(str(dataset.root / "train"))
    shown = []
    for row in train.select(range(min(n_examples, len(train)))):
        ids, mask = row["input_ids"], row["loss_mask"]
        runs = []
        for carries_loss, group in groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1])):
            part = [token for token, _ in group]
            text = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            runs.append(TokenRun(str(text), len(part), carries_loss))
        shown.append(DecodedExample(row["ticket_id"], tuple(ids), tuple(mask), tuple(runs)))
    return shown
