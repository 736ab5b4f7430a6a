"""A registered candidate in the form of another program: a folder with a manifest, complete or not there at all.

The folder is written aside, compared with what the gate judged, sealed and renamed. Its MANIFEST.json names every file
with its sha256, and under `export` where it comes from and whether it was ever promoted. Called by `flows/cli/
exporting.py`, which knows the ledger; this does not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.artifacts import BundleRef, DatasetRef, ModelRef, PromptSet, Splits, TrainedRef
from schemas.errors import ConfigError, StorageError
from schemas.export import ExportFormat, ExportOrigin
from tasks.files import MANIFEST, seal, sync_directory, verify
from tasks.release.bundle import STORE_FILES, check_evaluated
from tasks.release.openai_file import write_openai_files
from tasks.release.serve import read_serving
from tasks.release.vllm_launch import ADAPTER, TEMPLATE, check_servable, launch_script

if TYPE_CHECKING:
    from tasks.model.merge import Parity


@dataclass(frozen=True)
class Exported:
    """What there is of a candidate. What a format does not need may be None."""

    model: ModelRef
    trained: TrainedRef
    bundle: BundleRef
    prompts: PromptSet | None = None
    """Held-out prompts with their answers: what a converted model is compared on."""
    dataset: DatasetRef | None = None
    splits: Splits | None = None
    aliases: tuple[str, ...] = ()
    """Names under which it is served at this moment."""


@dataclass(frozen=True)
class Export:
    """A written export."""

    root: Path
    digest: str
    """sha256 over the manifest's files."""
    origin: ExportOrigin
    files: Mapping[str, int]
    """File -> bytes."""


def export_candidate(
    source: Exported,
    origin: ExportOrigin,
    *,
    out: Path,
    stored: Literal["float32", "bfloat16"] = "bfloat16",
) -> Export:
    """Write the folder `out`, which must not exist yet or be empty.

    Raises:
        ConfigError: TG0189, `out` is taken; TG0185, the model has no such form.
        StorageError: what is to be exported is damaged or not what was evaluated (TG0510, TG0549), results
            that a check needs are gone (TG0510), or what was written reads back otherwise (TG0547).
        TrainingError: TG0403, a converted model does not answer as what the gate judged.
    """
    out = out.absolute()
    _check_free(out)
    check_evaluated(source.bundle, source.trained)
    if origin.format not in ("peft", "openai-jsonl") and verify(source.model.root) != source.model.digest:
        raise StorageError(
            "the base model is not the one that was trained on",
            code="TG0549",
            where=str(source.model.root),
            hint="remove this folder and run the pipeline again: it is made anew",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.mkdir(mode=0o700)
    try:
        checked = _write(source, origin.format, aside, stored=stored, version=origin.version)
        told = origin.model_copy(update={"checked": checked})
        digest = seal(aside, about={"export": told.model_dump(mode="json")})
        files = {
            path.relative_to(aside).as_posix(): path.stat().st_size
            for path in sorted(aside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        aside.rename(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(out, digest, told, files)


def _write(
    source: Exported,
    form: ExportFormat,
    out: Path,
    *,
    stored: Literal["float32", "bfloat16"],
    version: str,
) -> dict[str, float]:
    if form == "peft":
        _copy_bundle(source.bundle.root, out)
        return {}
    if form == "vllm":
        _write_vllm(source, [*source.aliases, f"version-{version}"], out)
        return {}
    if form == "openai-jsonl":
        return _write_openai(source, out)
    if form == "ollama":  # before the long work: the template may be refused
        _write_modelfile(source, out)
    from tasks.model.whole import write_merged

    dtype = read_serving(source.bundle.root).decoding.dtype
    return _told(write_merged(source.model, source.trained, texts=_texts(source), stored=stored, dtype=dtype, out=out))


def _copy_bundle(bundle: Path, out: Path) -> None:
    """The bundle is PEFT's form already, with the prompt, the decoding and the base's digests beside it."""
    for path in sorted(bundle.iterdir()):
        if path.is_file() and path.name not in STORE_FILES:
            shutil.copyfile(path, out / path.name)


def _write_vllm(source: Exported, names: Sequence[str], out: Path) -> None:
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import training_template

    serving = read_serving(source.bundle.root)
    rank = check_servable(serving, source.bundle.root)
    template = training_template(load_tokenizer(source.model)) if serving.trained.format == "instruction" else None
    (out / ADAPTER).mkdir()
    _copy_bundle(source.bundle.root, out / ADAPTER)
    if template is not None:
        (out / TEMPLATE).write_text(template, encoding="utf-8")
    script = out / "serve.sh"
    script.write_text(launch_script(serving, names, max_rank=rank, has_template=template is not None), encoding="utf-8")
    script.chmod(0o755)


def _write_openai(source: Exported, out: Path) -> dict[str, float]:
    if source.dataset is None or source.splits is None:
        raise _gone("the training set")
    for artifact in (source.dataset, source.splits):
        verify(artifact.root)
    counts = write_openai_files(source.dataset, source.splits, read_serving(source.bundle.root).prompt, out)
    return {f"n_{split}": float(count) for split, count in counts.items()}


def _write_modelfile(source: Exported, out: Path) -> None:
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec
    from tasks.release.modelfile import modelfile

    serving = read_serving(source.bundle.root)
    codec = ChatCodec.of(load_tokenizer(source.model), serving.trained.format)
    (out / "Modelfile").write_text(modelfile(serving, codec), encoding="utf-8")


def _texts(source: Exported) -> list[list[int]]:
    from tasks.model.merge import held_out_texts

    if source.prompts is None:
        raise _gone("the held-out prompts, which the converted model is compared on,")
    verify(source.prompts.root)
    return held_out_texts(source.prompts, source.model)


def _told(parity: Parity) -> dict[str, float]:
    return {
        "max_logit_difference": parity.max_logit_difference,
        "adapter_effect": parity.adapter_effect,
        "argmax_agreement": parity.argmax_agreement,
        "n_positions": float(parity.n_positions),
    }


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            "the folder to export into is taken; allowed is one that does not exist yet, or an empty one",
            code="TG0189",
            where=str(out),
            hint="name another folder: an export never writes into what is there",
        )


def _gone(what: str) -> StorageError:
    return StorageError(
        f"{what} of this run cannot be found in the store any more",
        code="TG0510",
        where="store",
        hint="`tunegate run PIPELINE --again` makes the results anew",
    )
