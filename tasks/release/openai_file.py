"""Write the training set as files for OpenAI's fine-tuning: one conversation per line.

It has exactly the examples of the training (duplicates merged, leaks and overlong ones removed), with redacted texts.
Each file is read back with the project's own reader of such files.

Source: OpenAI's guide to supervised fine-tuning: `messages`, and `weight` 0 for answers that are only context.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from schemas.artifacts import DatasetRef, Splits
from schemas.errors import StorageError
from schemas.training import Format, LossOn, PromptSpec
from tasks.model.chat_codec import supervised_turns
from tasks.release.export_format import Exported, export_format, gone
from tasks.release.serve import read_serving
from tasks.sources.readers.records import Fault
from tasks.sources.readers.shapes import detect_shape
from tasks.sources.readers.turns import read_turns
from tasks.storage.sealed_folder import verify
from tasks.tickets.encoded import encoded_ids
from tasks.tickets.prompts import conversation_for, render_text

SPLITS = ("train", "validation")


@export_format("openai-jsonl", reads_base=False, holds_tickets=True)
def write_openai(source: Exported, out: Path) -> dict[str, float]:
    """The training set as `train.jsonl` and `validation.jsonl`."""
    if source.dataset is None or source.splits is None:
        raise gone("the training set")
    for artifact in (source.dataset, source.splits):
        verify(artifact.root)
    counts = write_openai_files(source.dataset, source.splits, read_serving(source.bundle.root).prompt, out)
    return {f"n_{split}": float(count) for split, count in counts.items()}


def write_openai_files(dataset: DatasetRef, splits: Splits, prompt: PromptSpec, out: Path) -> dict[str, int]:
    """Write `train.jsonl` and, if there are validation examples, `validation.jsonl`; returns rows per split.

    A prompt that was cut for the local model is written in full: another model has another limit.

    Raises:
        StorageError: TG0510, an example's ticket is no longer in the split; TG0547, a line reads back differently.
    """
    encoding = orjson.loads((dataset.root / "encoding.json").read_bytes())
    counts = {}
    for split in SPLITS:
        tickets = {row["ticket_id"]: row for row in pq.read_table(splits.root / f"{split}.parquet").to_pylist()}
        conversations = [
            _conversation(_ticket(tickets, name, split), prompt, form=encoding["format"], loss_on=encoding["loss_on"])
            for name in encoded_ids(dataset.root / split)
        ]
        if not conversations:
            continue
        path = out / f"{split}.jsonl"
        path.write_bytes(b"".join(orjson.dumps({"messages": conversation}) + b"\n" for conversation in conversations))
        _read_back(path, conversations)
        counts[split] = len(conversations)
    return counts


def _conversation(
    row: Mapping[str, Any], prompt: PromptSpec, *, form: Format, loss_on: LossOn
) -> list[dict[str, object]]:
    """The turns, with a `weight` unless every answer carries loss."""
    if form == "completion":
        question, answer = (render_text(template, row) for template in (prompt.user, prompt.answer))
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    turns = conversation_for(prompt, row)
    supervised = set(supervised_turns(turns, loss_on))
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    conversation: list[dict[str, object]] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    if supervised != set(answers):
        for place in answers:
            conversation[place]["weight"] = int(place in supervised)
    return conversation


def _read_back(path: Path, conversations: list[list[dict[str, object]]]) -> None:
    with path.open("rb") as lines:
        for number, (line, conversation) in enumerate(zip(lines, conversations, strict=True), start=1):
            row = orjson.loads(line)
            read = read_turns(row["messages"])
            found = None if isinstance(read, Fault) else [(turn.role, turn.content, turn.weight) for turn in read]
            wanted = [(turn["role"], turn["content"], turn.get("weight")) for turn in conversation]
            if detect_shape(row) != "messages" or found != wanted:
                why = f": {read.code}" if isinstance(read, Fault) else ""
                raise StorageError(
                    f"the conversation reads back differently{why}", code="TG0547", where=f"{path.name}:{number}"
                )


def _ticket(tickets: Mapping[str, dict[str, Any]], name: str, split: str) -> dict[str, Any]:
    if name not in tickets:
        raise StorageError(
            f"training used ticket {name}, but it is not in the split `{split}`",
            code="TG0510",
            where=split,
            hint="`tunegate run PIPELINE --again` recomputes the results",
        )
    return tickets[name]
