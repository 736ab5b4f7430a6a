"""Round trip: whether the files to be released answer as the evaluated model did; a new process reloads them.

The parent imports no torch: it copies the candidate's files as a release does, checks base and candidate against their
digests, and compares with the recorded answers. A step of flows/gate_checks.py;
`tasks/assess/measured_checks.py` judges.
"""

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

from schemas.artifacts import Artifact, CheckEvidence, ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import GateError, StorageError
from schemas.evaluation import DecodingSpec
from tasks.compute.children import THIS_PROCESS, die_with
from tasks.step import as_step
from tasks.storage.files import sha256_file, write_json
from tasks.storage.sealed_folder import verify
from tasks.train.place import python_module, worker_environment

NOT_RELEASED = frozenset({"MANIFEST.json", "artifact.json", "curves.parquet"})
TIMEOUT_S = 1800.0
ERROR_LINE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception)(?=:|$)", re.MULTILINE)
"""The line of a traceback that names the exception."""
DTYPE = "(dtype)"
"""Key next to the items' ids: the other process's number type."""


class Job(BaseModel):
    """The other process's input, `job.json`."""

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
    """Write `evidence.json`: for each prompt the losses at evaluation and after reloading, and whether answers agree.

    It also has the sha256 of every file of the candidate. The loss of a reference answer depends on the logits at each
    of its tokens, so other weights give another loss.

    Raises:
        GateError: TG0611, the other process failed: the candidate does not load from its files.
        TrainingError: TG0408, the run was stopped.
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
    compared = [
        {
            "item_id": row["item_id"],
            "loss": row["loss"],
            "loss_again": again[row["item_id"]]["loss"],
            "equal_answer": row["text"] == again[row["item_id"]]["text"],
        }
        for row in rows
    ]
    gaps = [abs(each["loss"] - each["loss_again"]) for each in compared]
    # Use the mean: in bfloat16 a single short answer's loss differs by 0.05 between two batches of the same weights.
    mean = sum(gaps) / len(gaps) if gaps and all(math.isfinite(gap) for gap in gaps) else None
    write_json(out / "evidence.json", {"prompts": compared, "files": hashes, "base": model.digest, **intact})
    values = {
        "float32": float(again[DTYPE]["dtype"] == "float32"),
        "mean_gap": mean,
        "equal_answers": float(sum(each["equal_answer"] for each in compared)),
        **{name: float(whole) for name, whole in intact.items()},
    }
    return CheckEvidence(root=out, check="round_trip", n_items=len(compared), values=values)


def is_intact(artifact: Artifact) -> bool:
    """Whether the files match the digest."""
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
            raise ValueError("it answered different items")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # Only the class: the message may quote a ticket.
        raised = ERROR_LINE.findall(log.read_text(errors="replace")) if log.exists() else []
        reason = raised[-1] if raised else type(error).__name__
        raise GateError(
            f"the candidate does not answer from its files in a new process ({reason})",
            code="TG0611",
            where="round_trip",
        ) from None
    return answers


def main(path: Path) -> None:
    """Run the other process: load base and candidate, answer the job's items, write `answers.json` next to it."""
    from tasks.model.answer_engine import Engine
    from tasks.model.base_model import load_tokenizer, resolve_dtype
    from tasks.model.chat_codec import ChatCodec
    from tasks.model.generate import read_items

    job = Job.model_validate_json(path.read_bytes())
    codec = ChatCodec.of(load_tokenizer(job.model), job.prompts.format)
    items = [item for item in read_items(job.prompts, codec) if item.item_id in job.item_ids]
    engine = Engine.load(job.model, job.trained, job.decoding, codec, [])
    answers = engine.answer(items)
    rows: dict[str, dict[str, Any]] = {answer.item_id: {"loss": answer.loss, "text": answer.text} for answer in answers}
    rows[DTYPE] = {"dtype": str(resolve_dtype(job.decoding.dtype)).removeprefix("torch.")}
    write_json(path.with_name("answers.json"), rows)


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    main(Path(sys.argv[1]))
