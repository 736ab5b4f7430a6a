"""Sub-flow two: base model, token ids, training."""

from __future__ import annotations

import shutil
from pathlib import Path

from prefect import flow

from flows.assess import validation_step
from flows.choice import choice_steps
from flows.choice_report import report_choice
from flows.engine.step import Step
from flows.privacy.index import index_new_results
from flows.quarantine import within_limit
from flows.session import attach
from flows.steps import run_stage
from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.pipeline import PipelineSpec
from tasks.model.base_model import fetch_base_model, fingerprint_base_model
from tasks.model.chat_format import encode_examples
from tasks.train.launch import train_model


def finetune_steps(spec: PipelineSpec, *, root: Path, cache: Path, trunks: Path | None = None) -> list[Step]:
    """The steps in order. They take the splits of the step `decontaminate`.

    Args:
        root: Folder of pipelines.yaml.
        cache: Downloads.
        trunks: Where several trainings share what frozen layers computed; see `trunks_of`.
    """
    train = spec.train.training() if spec.train.choice is None else spec.train.first()
    single = [
        base_model_step(spec, root=root, cache=cache),
        within_limit(
            Step(
                "encode",
                encode_examples,
                DatasetRef,
                inputs={"splits": "decontaminate", "model": "base_model"},
                params={"encoding": train.encoding()},
                libraries=("transformers", "tokenizers", "datasets"),
                reports=True,
            ),
            spec.table,
        ),
        Step(
            "train",
            train_model,
            TrainedRef,
            inputs={"dataset": "encode", "model": "base_model"},
            params={"spec": train},
            libraries=("torch", "transformers", "peft", "bitsandbytes"),
            resumable=True,
            reports=True,
        ),
    ]
    steps = single if spec.train.choice is None else choice_steps(spec, single=single, root=root, trunks=trunks)
    return [*steps, *([validation_step(spec)] if spec.train.validation_metrics else [])]


def trunks_of(home: Path, pipeline: str) -> Path:
    """Folder of the pipeline's shared trunks; it goes when the choice is made."""
    return home / "scratch" / "trunks" / pipeline


def base_model_step(spec: PipelineSpec, *, root: Path, cache: Path) -> Step:
    """The base model in the store; curation takes it as well when it measures perplexity."""
    train = spec.train
    return Step(
        "base_model",
        fetch_base_model,
        ModelRef,
        params={"uri": train.base_model, "allow_download": train.allow_download},
        also={"files": fingerprint_base_model(train.base_model, root=root)},
        context={"root": root, "cache": cache},
        libraries=("safetensors", "tokenizers", "transformers"),
    )


@flow(name="finetune")
def finetune(pipeline: str, config: str = "pipelines.yaml", run_id: str | None = None) -> None:
    """Tune the base model on the curated train split; a killed training continues from its last checkpoint.

    Of a ladder or a sweep, the training that goes on is chosen on the validation split.
    """
    with attach(pipeline, config, run_id) as session:
        run_stage(session, "finetune")
        report_choice(session)
        index_new_results(session.settings)  # whom the model learned from, while its examples are there
        shutil.rmtree(trunks_of(session.settings.home, session.spec.name), ignore_errors=True)
