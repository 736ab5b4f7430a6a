"""Does what would be released answer as what was judged? A process of its own loads the files anew and answers again.

The parent imports no torch: it copies the candidate's files as a release does, checks base and candidate against their
digests, and compares with the recorded answers. A step of flows/gate_checks.py;
`tasks/assess/measured_checks.py` judges.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from schemas.artifacts import Artifact, ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import GateError, StorageError
from schemas.evaluation import DecodingSpec
from schemas.evidence import CheckEvidence
from tasks.children import THIS_PROCESS, die_with
from tasks.files import sha256_file, verify, write_json
from tasks.step import as_step
from tasks.train.place import python_module, worker_environment

NOT_RELEASED = frozenset({"MANIFEST.json", "artifact.json", "curves.parquet"})
TIMEOUT_S = 1800.0
ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception)(?=:|$)", re.MULTILINE)
"""How a traceback names what was raised."""
DTYPE = "(dtype)"
"""Key beside the items' ids: what the other process computed in."""


class Job(BaseModel):
    """What the other process is told: `job.json`."""

    prompts: PromptSet
    model: ModelRef
    trained: TrainedRef
    decoding: DecodingSpec
    item_ids: tuple[str, ...]


@as_step("round_trip", libraries=("torch", "transformers", "peft", "bitsandbytes"), heavy=True, memory_gb=2.0)
def check_round_trip(
    out: Path,
    *,
    prompts: PromptSet,
    predictions: Predictions,
    model: ModelRef,
    trained: TrainedRef,
    decoding: DecodingSpec,
    n_prompts: int,
) -> CheckEvidence:
    """Write `evidence.json`: per prompt the loss of the reference answer at evaluation and from the reloaded files, and
    whether the answers are equal; the sha256 of every file of the candidate.

    The loss is a function of the logits at every token of the reference answer: other weights give another.

    Raises:
        GateError: TG0611, the other process failed: the candidate does not load from its files.
        TrainingError: TG0408, the run was ended.
    """
    import pyarrow.parquet as pq

    intact = {"base_intact": is_intact(model), "candidate_intact": is_intact(trained)}
    rows: list[dict[str, Any]] = pq.read_table(predictions.root / "predictions.parquet").to_pylist()
    rows = sorted(rows, key=lambda row: hashlib.sha256(row["item_id"].encode()).digest())[:n_prompts]
    with tempfile.TemporaryDirectory(prefix="tunegate-round-trip-") as scratch:
        folder = Path(scratch) / "candidate"
        folder.mkdir()
        for path in sorted(trained.root.iterdir()):
            if path.is_file() and path.name not in NOT_RELEASED:
                shutil.copyfile(path, folder / path.name)
        hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        job = Job(
            prompts=prompts.model_copy(update={"root": prompts.root.resolve()}),
            model=model.model_copy(update={"root": model.root.resolve()}),
            trained=trained.model_copy(update={"root": folder}),
            decoding=decoding,
            item_ids=tuple(row["item_id"] for row in rows),
        )
        again = _answer_elsewhere(job, Path(scratch))
    told = [
        {
            "item_id": row["item_id"],
            "loss": row["loss"],
            "loss_again": again[row["item_id"]]["loss"],
            "equal_answer": row["text"] == again[row["item_id"]]["text"],
        }
        for row in rows
    ]
    gaps = [abs(each["loss"] - each["loss_again"]) for each in told]
    # The mean: a short answer's loss in bfloat16 alone differs by 0.05 between two batches of the same weights.
    mean = sum(gaps) / len(gaps) if gaps and all(math.isfinite(gap) for gap in gaps) else None
    write_json(out / "evidence.json", {"prompts": told, "files": hashes, "base": model.digest, **intact})
    values = {
        "float32": float(again[DTYPE]["dtype"] == "float32"),
        "mean_gap": mean,
        "equal_answers": float(sum(each["equal_answer"] for each in told)),
        **{name: float(whole) for name, whole in intact.items()},
    }
    return CheckEvidence(root=out, check="round_trip", n_items=len(told), values=values)


def is_intact(artifact: Artifact) -> bool:
    """Are the files those of the digest?"""
    try:
        return verify(artifact.root) == artifact.digest
    except StorageError:
        return False


def _answer_elsewhere(job: Job, scratch: Path) -> dict[str, dict[str, Any]]:
    write_json(scratch / "job.json", job.model_dump(mode="json"))
    threads = job.decoding.threads or len(os.sched_getaffinity(0))
    log = scratch / "stderr"
    try:
        with log.open("wb") as stderr:
            command = python_module("tasks.model.round_trip", str(scratch / "job.json"), str(os.getpid()))
            environment = worker_environment(os.environ, threads=threads)
            if code := THIS_PROCESS.run(command, env=environment, output=stderr, timeout_s=TIMEOUT_S):
                raise ValueError(f"exit code {code}")
        answers: dict[str, dict[str, Any]] = orjson.loads((scratch / "answers.json").read_bytes())
        if answers.keys() != {*job.item_ids, DTYPE}:
            raise ValueError("it answered other items")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # The class alone, not its words: they may quote a ticket.
        raised = ERROR_LINE.findall(log.read_text(errors="replace")) if log.exists() else []
        told = raised[-1] if raised else type(error).__name__
        raise GateError(
            f"the candidate does not answer from its files in a fresh process ({told})",
            code="TG0611",
            where="round_trip",
        ) from None
    return answers


def main(path: Path) -> None:
    """The other process: load base and candidate, answer the items of the job, write `answers.json` beside it."""
    from tasks.model.answer_engine import Engine
    from tasks.model.base_model import load_tokenizer, resolve_dtype
    from tasks.model.chat_codec import ChatCodec
    from tasks.model.generate import read_items

    job = Job.model_validate_json(path.read_bytes())
    codec = ChatCodec.of(load_tokenizer(job.model), job.prompts.format)
    items = [item for item in read_items(job.prompts, codec) if item.item_id in job.item_ids]
    engine = Engine.load(job.model, job.trained, job.decoding, codec, [])
    answers = engine.answer(items)
    told: dict[str, dict[str, Any]] = {answer.item_id: {"loss": answer.loss, "text": answer.text} for answer in answers}
    told[DTYPE] = {"dtype": str(resolve_dtype(job.decoding.dtype)).removeprefix("torch.")}
    write_json(path.with_name("answers.json"), told)


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    main(Path(sys.argv[1]))
