"""The two workloads of the training benchmark: tickets as token ids, the batches of each step, a common adapter.

routing: a long instruction, a short ticket, a label. replies: a support prompt, a ticket of a few sentences, a written
answer. Words come from `phrases.yaml`, equal seeds give equal ids. Knows nothing of the contestants.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.tickets import phrases
from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tasks.tickets.prompts import Message

SEED = 20261126
BATCH_SIZE = 8
ADAPTER = AdapterSpec(rank=16, alpha=32)
UNCLIPPED = 1e9
"""A norm that no gradient reaches: litgpt does not clip, so no contestant does."""
TEAMS = ("billing", "delivery", "returns", "account", "technical", "cancellation")


@dataclass(frozen=True)
class Workload:
    """Messages and answers of one kind."""

    name: str
    system: str

    def turns(self, rng: np.random.Generator) -> tuple[list[Message], str]:
        """The messages before the answer, and the answer."""
        user, answer = (_routing if self.name == "routing" else _reply)(rng)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}], answer


WORKLOADS = {
    "routing": Workload(
        "routing",
        "You sort the mail of the Northbeam support desk. Read the ticket and answer with the name of one team and "
        "nothing else. The teams are billing, delivery, returns, account, technical and cancellation. If two of them "
        "fit, take the first one of the list. Write it in small letters.",
    ),
    "replies": Workload(
        "replies",
        "You answer the tickets of the Northbeam support desk. Greet the customer by name, say what you have "
        "understood, name the next step and when it will be done, close with the reference of the ticket and sign "
        "as Northbeam Care. Stay friendly and brief.",
    ),
}
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Prepared:
    """A workload on disk."""

    workload: Workload
    folder: Path
    dataset: DatasetRef
    n_shared: int
    """Tokens that all examples start with."""
    n_own: float
    """Mean number of further tokens per example."""
    n_supervised: float
    """Mean number of tokens with loss per example."""


def spec_of(*, dtype: str, threads: int = 1, **settings: Any) -> TrainSpec:
    """Our settings; every contestant gets the same."""
    settings = {"adapter": ADAPTER, "batch_size": BATCH_SIZE, **settings}
    return TrainSpec(
        base_model="pypi://", dtype=dtype, learning_rate=LEARNING_RATE, lr_scheduler="constant", warmup=0.0,
        max_grad_norm=UNCLIPPED, save_every=10_000, seed=SEED, threads=threads, **settings,
    )  # fmt: skip


def prepare(
    workload: Workload, model: ModelRef, folder: Path, *, dtype: str, n_steps: int, n_validation: int,
    adapter: AdapterSpec = ADAPTER, epochs: int = 1, batch_size: int = BATCH_SIZE,
) -> Prepared:  # fmt: skip
    """Write `dataset/` (a `DatasetRef`), `examples.json` (for all engines) and `adapter/` (PEFT).

    Args:
        workload: What to write.
        model: For its tokenizer and shapes.
        folder: An empty directory.
        dtype: Number type of all contestants, `bfloat16` or `float32`.
        n_steps: Batches per epoch, all of them full.
        n_validation: Number of held-out examples.
        adapter: The adapter that all start with.
        epochs: How often to repeat the batches.
        batch_size: Examples per step.
    """
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec
    from tasks.train.batches import step_batches

    codec = ChatCodec.of(load_tokenizer(model), "instruction")
    rng = np.random.default_rng([SEED, len(workload.name)])
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, count in (("train", n_steps * batch_size), ("validation", n_validation)):
        rows[split] = []
        for number in range(count):
            turns, answer = workload.turns(rng)
            made = codec.conversation([*turns, {"role": "assistant", "content": answer}])
            name = f"{split}-{number:04}"
            rows[split].append({"ticket_id": name, "input_ids": made.input_ids, "loss_mask": made.loss_mask})
    dataset = write_dataset(rows, folder / "dataset")
    lengths = [len(row["input_ids"]) for row in rows["train"]]
    steps = range(1, n_steps * epochs + 1)
    order = step_batches(lengths, batch_size=batch_size, accumulation=1, seed=SEED, steps=steps)
    write_json(
        folder / "examples.json",
        {
            **{split: [[row["input_ids"], row["loss_mask"]] for row in rows[split]] for split in rows},
            "batches": [batches[0] for _, batches in order],
            "batch_size": batch_size,
            "learning_rate": LEARNING_RATE,
            "dtype": dtype,
            "model": model.model_dump(mode="json"),
        },
    )
    _write_adapter(model, spec_of(dtype="float32", adapter=adapter), folder / "adapter")
    n_shared = len(_common_start([row["input_ids"] for row in rows["train"]]))
    n_supervised = mean(sum(row["loss_mask"]) for row in rows["train"])
    return Prepared(workload, folder, dataset, n_shared, mean(lengths) - n_shared, n_supervised)


def write_prompts(workload: Workload, folder: Path, *, n_items: int) -> None:
    """Write `prompts.parquet` of a `PromptSet`: held-out items as in an evaluation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.tickets.prompts import dump_messages

    rng = np.random.default_rng([SEED, len(workload.name), 1])
    turns_and_answers = [workload.turns(rng) for _ in range(n_items)]
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "item_id": [f"i{number:04}" for number in range(n_items)],
        "messages": [dump_messages(turns) for turns, _ in turns_and_answers],
        "answer": [answer for _, answer in turns_and_answers],
    }
    pq.write_table(pa.table(table), folder / "prompts.parquet")


def write_dataset(rows: dict[str, list[dict[str, Any]]], root: Path) -> DatasetRef:
    """Write splits of examples (ticket_id, input_ids, loss_mask) into a new folder."""
    from datasets import Dataset, Features, Sequence, Value
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    types = {"ticket_id": Value("string"), "input_ids": Sequence(Value("int32")), "loss_mask": Sequence(Value("int8"))}
    for split, examples in rows.items():
        Dataset.from_list(examples, features=Features(types)).save_to_disk(str(root / split))
    lengths = [len(row["input_ids"]) for row in rows["train"]]
    return DatasetRef(
        root=root, digest=seal(root), n_train=len(rows["train"]), n_validation=len(rows["validation"]),
        n_tokens=sum(lengths), n_supervised=sum(sum(row["loss_mask"]) for row in rows["train"]), n_dropped=0,
        max_tokens=max(lengths),
    )  # fmt: skip


def _write_adapter(model: ModelRef, spec: TrainSpec, out: Path) -> None:
    from tasks.model.adapter import open_for_training, save_trained

    out.mkdir(parents=True)
    save_trained(open_for_training(model, spec), spec, base=model, out=out)


def _common_start(rows: list[list[int]]) -> list[int]:
    first, last = min(rows), max(rows)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same]


def _routing(rng: np.random.Generator) -> tuple[str, str]:
    team = int(rng.integers(len(TEAMS)))
    noun, fault = _words(rng, "noun"), _words(rng, "fault")
    about = ("invoice", "parcel", "return", "login", "device", "contract")[team]
    return f"Hi, my {_words(rng, 'quality')} {noun} {fault} {_words(rng, 'time')}, please see the {about}.", TEAMS[team]


def _reply(rng: np.random.Generator) -> tuple[str, str]:
    name, noun, fault = (_words(rng, slot) for slot in ("name", "noun", "fault"))
    wish, time = _words(rng, "wish"), _words(rng, "time")
    reference = f"NB-{rng.integers(10_000, 99_999)}"
    team = TEAMS[int(rng.integers(len(TEAMS)))]
    deed, place, feeling = _words(rng, "deed"), _words(rng, "place"), _words(rng, "feeling")
    user = (
        f"Hello, my {noun} {fault} {time}. I {deed} {place} and am {feeling}. Please {wish} by the end of the week. "
        f"Regards, {name}, {reference}"
    )
    answer = (
        f"Hello {name},\nwe are sorry to hear that your {noun} {fault}. Our {team} team will look into it and write "
        f"to you by Friday about this: {wish}. Thank you for telling us, and for your patience.\n"
        f"Reference: {reference}\nNorthbeam Care"
    )
    return user, answer


def _words(rng: np.random.Generator, slot: str) -> str:
    return str(rng.choice(phrases()["slots"][slot]))
