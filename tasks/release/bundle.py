"""Make a candidate servable: its weights, how to prompt it, which base it belongs to, and a model card.

The base model itself stays where it is and is pinned by the sha256 of its files. Called by `flows/release.py`; knows
nothing of MLflow and nothing of who is champion.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from schemas.artifacts import BundleRef, GateDecision, ModelRef, Scores, TrainedRef
from schemas.errors import StorageError
from schemas.evaluation import DecodingSpec
from schemas.release import ServingSpec
from schemas.training import PromptSpec
from tasks.files import MANIFEST, sha256_file, write_json

STORE_FILES = frozenset({MANIFEST, "artifact.json"})
NOT_SERVED = STORE_FILES | {"curves.parquet", "validation_answers.parquet"}


def bundle_candidate(
    *,
    trained: TrainedRef,
    model: ModelRef,
    scores: Scores,
    decision: GateDecision,
    name: str,
    prompt: PromptSpec,
    decoding: DecodingSpec,
    out: Path,
) -> BundleRef:
    """Copy the candidate's files and write `serving.json`, `README.md`, `decision.json` and `decision.md` beside them.

    Raises:
        StorageError: the candidate has no weights.
    """
    for source in _files(trained.root):
        if source.name not in NOT_SERVED:
            shutil.copyfile(source, out / source.name)
    if not any(path.suffix == ".safetensors" for path in out.iterdir()):
        raise StorageError("the candidate has no weights", code="TG0516", where=str(trained.root))
    here = Path()
    serving = ServingSpec(
        name=name,
        trained=trained.model_copy(update={"root": here}),
        prompt=prompt,
        decoding=decoding,
        base=model.model_copy(update={"root": here}),
        base_files={path.name: sha256_file(path) for path in _files(model.root) if path.name not in STORE_FILES},
    )
    write_json(out / "serving.json", serving.model_dump(mode="json"))
    for file in ("decision.json", "decision.md"):
        if (decision.root / file).is_file():
            shutil.copyfile(decision.root / file, out / file)
    (out / "README.md").write_text(_model_card(serving, trained, scores, decision), encoding="utf-8")
    return BundleRef(root=out, n_bytes=sum(path.stat().st_size for path in out.iterdir()))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _model_card(serving: ServingSpec, trained: TrainedRef, scores: Scores, decision: GateDecision) -> str:
    head = [
        "---",
        f"base_model: {serving.base.uri.split('#')[0]}",
        f"library_name: {'transformers' if trained.method == 'full' else 'peft'}",
        "tags: [tunegate, customer-support]",
        "---",
        "",
        f"# {serving.name}",
        "",
        f"Method {trained.method}, format {trained.format}: {trained.n_trainable:,} trained parameters, "
        f"{trained.n_steps:,} steps, {trained.n_tokens:,} tokens.",
        "",
        f"Verdict of the gate: **{decision.verdict}** on {decision.n_items:,} held-out items. {decision.reason}",
        "",
        "| metric | mean on held-out items |",
        "|---|---|",
    ]
    rows = [f"| {metric} | {value:.4f} |" for metric, value in sorted(scores.means.items())]
    tail = [
        "",
        "Answers must be generated as `serving.json` says: its prompt, greedily, with at most "
        f"{serving.decoding.max_new_tokens} new tokens, on the base model whose files have the sha256 named there.",
        "",
    ]
    return "\n".join([*head, *rows, *tail])
