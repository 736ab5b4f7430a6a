"""What can be found wrong before a run curates: in the declaration, the files of base models, and on this machine.

`validate` reports the first, with `--data` also the second; `plan` and each run refuse to begin with any of them.
Reads no ticket and no weights, starts nothing and contacts no service. What needs the tickets is checked in front of
the training (`flows/prepare.py`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from flows.context.graph_context import limits_of
from flows.context.ingest import source_fault
from flows.context.request import ANY_CASE, RunRequest
from flows.curation_steps import declaration_faults
from flows.graph.keys import code_digests, installed
from flows.workspace.settings import Settings
from schemas.chat_template import ChatTemplate, resolve_template
from schemas.check import Declared, ReadableSections, sections_of
from schemas.choice import LOSS, Changes, LadderSpec, TrainSection, base_models, base_of, changes_of
from schemas.curation import CurateSpec
from schemas.curation_steps import QualityStep
from schemas.errors import ConfigError, SeveralErrors, TunegateError
from schemas.evaluation import EndpointSpec
from schemas.gates import GatesSpec
from schemas.metrics import JsonSchemaMetric, RougeMetric
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.source import FilesSource
from schemas.training import TrainSpec
from tasks.assess.economics import find_gpu
from tasks.assess.endpoint_client import check_key, check_local
from tasks.assess.llm_judge import check_labels
from tasks.assess.user_metrics import entry_point_faults, sql_faults
from tasks.corpus.build import corpus_faults
from tasks.curate.contract_model import Contract, contract_faults
from tasks.curate.corrections import CODE, corrections_file, read_corrections
from tasks.curate.data_checks import check_faults
from tasks.curate.named_tables import columns_of, sound_tables
from tasks.curate.step import rules_of
from tasks.extras import need_extra
from tasks.model.base_model import different_tokenizers_error
from tasks.model.model_uri import is_address
from tasks.sources.registry import fingerprint_source
from tasks.storage.files import sha256_file, sha256_json
from tasks.train.base_fit import TOKENIZER_FILES, FoundBase, base_faults, find_base
from tasks.train.external import check_base, check_template, find_candidate, read_candidate
from tasks.train.memory import PAGED, check_device, detect_device

Base = tuple[str, bool]
"""Address of a base model, and whether it may be downloaded."""


def check_early(spec: DataPipeline, settings: Settings, *, root: Path) -> None:
    """Refuse a pipeline whose run could only fail later.

    Args:
        root: Folder of pipelines.yaml.

    Raises:
        TunegateError: it has a fault; all of them, if there are several.
    """
    faults = [
        *declared_faults(spec, root=root), *base_model_faults(spec, root=root, cache=settings.cache),
        *machine_faults(spec),
    ]  # fmt: skip
    if faults:
        raise faults[0] if len(faults) == 1 else SeveralErrors(faults)


def declared_faults(spec: Declared, *, root: Path) -> Iterator[TunegateError]:
    """Yield what is wrong with the declaration and with the small files that it names."""
    spec = sections_of(spec)
    about_source = None if spec.source is None else source_fault(spec.source, pipeline=spec.name)
    if about_source is not None:
        yield about_source
    read, about_tables = sound_tables(spec.tables or {}, root)
    yield from about_tables
    for where, model in _models(spec):
        yield from contract_faults(Contract(model, f"{spec.name}.{where}", root))
    if spec.tables is not None and not about_tables:  # else what is wrong with SQL that reads them is not known
        tables = columns_of(read)
        if spec.curate is not None:
            yield from _correction_faults(spec.curate, root)
            yield from declaration_faults(spec.curate.steps, pipeline=spec.name, root=root, tables=tables)
        yield from check_faults(spec.checks or (), root, tables)
    if spec.train is not None:
        train = spec.train
        yield from _caught(spec.name, lambda: limits_of(train), lambda: _chat(train, root))
    if spec.evaluate is not None:
        where = f"{spec.name}.evaluate"
        yield from corpus_faults(spec.evaluate.corpus, root)
        if any(isinstance(metric, JsonSchemaMetric | RougeMetric) for metric in spec.evaluate.metrics):
            yield from _caught(
                spec.name, partial(need_extra, "metrics", what="`json_schema` or `rouge`", where="evaluate.metrics")
            )
        yield from sql_faults(spec.evaluate.metrics, where=where)
        yield from entry_point_faults(spec.evaluate.metrics, where=where)
    if spec.gates is not None:
        yield from _gate_faults(spec.name, spec.gates, root)


def _models(spec: PipelineSpec | ReadableSections) -> Iterator[tuple[str, str]]:
    table = spec.table
    if table is not None:
        named = (("schema.model", table.model), ("schema.curated", table.curated))
        yield from ((where, model) for where, model in named if model is not None)


def _correction_faults(curate: CurateSpec, root: Path) -> Iterator[TunegateError]:
    """Yield what is wrong with the file of corrections: what its step would raise."""
    if curate.corrections is None:
        return
    try:
        found = read_corrections(corrections_file(curate.corrections, root))
    except TunegateError as error:
        yield error
        return
    rules = rules_of(curate.steps)
    for each in found:
        if each.rule is not None and each.rule not in rules:
            allowed = ", ".join(rules) or "none: no step has one"
            yield ConfigError(
                f"ticket {each.ticket_id} is kept in spite of {each.rule!r}, which is no rule; rules: {allowed}",
                code=CODE, where=curate.corrections, hint="take the line out, or name the rule as the step does now",
            )  # fmt: skip


def _gate_faults(name: str, gates: GatesSpec, root: Path) -> Iterator[TunegateError]:
    cost, judge = gates.cost, gates.judge
    if cost is not None:
        yield from _caught(name, lambda: find_gpu(cost.machine))
    if judge is not None:
        yield from _caught(name, lambda: check_labels(judge, root=root))


def base_model_faults(spec: Declared, *, root: Path, cache: Path) -> Iterator[TunegateError]:
    """Yield what no training of the pipeline could do with its base models, of those that need no download.

    Args:
        cache: Downloads and conversions.
    """
    spec = sections_of(spec)
    train = spec.train
    if train is None:
        return
    found: dict[Base, FoundBase] = {}
    for uri, allow_download in base_models(train):
        if not is_address(uri):  # the loader reports it
            continue
        try:
            base = find_base(uri, allow_download=allow_download, root=root, cache=cache)
        except TunegateError as error:
            error.where = error.where or f"{spec.name}.train.base_model"
            yield error
            continue
        if base is not None:
            found[uri, allow_download] = base
    chat = None
    with suppress(TunegateError):  # `declared_faults` yields it
        chat = _chat(train, root)
    seen: set[str] = set()
    for changes in changes_of(train) or [{}]:
        base, own = found.get(base_of(train, changes)), _training(train, changes)
        if base is None or own is None:
            continue
        longest = 0 if spec.evaluate is None else spec.evaluate.max_new_tokens
        sound = cache / "sound" / _key_of(base, own, longest, chat, trains=not train.is_external)
        if sound.exists():
            continue
        faults = list(base_faults(base, own, max_new_tokens=longest, chat=chat, trains=not train.is_external))
        if not faults:
            with suppress(OSError):  # a cache that cannot be written: the next plan looks again
                sound.parent.mkdir(parents=True, exist_ok=True)
                sound.touch()
        for fault in faults:
            if fault.message not in seen:
                seen.add(fault.message)
                yield _placed(spec.name, fault)
    yield from _ladder_faults(spec.name, train, found)
    yield from _external_faults(spec.name, train, found.get(base_of(train, {})), root=root, cache=cache)


def _external_faults(
    name: str, train: TrainSection, base: FoundBase | None, *, root: Path, cache: Path
) -> Iterator[TunegateError]:
    """Yield what is wrong with a model that was trained elsewhere, of those that need no download."""
    if not train.is_external or train.model is None:
        return
    if train.trained_on:
        files = FilesSource(kind="files", paths=train.trained_on)
        try:
            fingerprint_source(files, root=root)
        except TunegateError as error:
            error.where = "train.trained_on"
            yield _placed(name, error)
    try:
        folder = find_candidate(train.model, allow_download=train.allow_download, root=root, cache=cache)
        if folder is None:
            return
        candidate = read_candidate(folder)
        here = None if base is None or base.where.is_file() else base.where
        check_base(candidate, base_model=train.base_model, base=here, root=root)
        if here is not None and train.prompt.chat_template is None:
            list(check_template(candidate, base=here, form=train.format))
    except TunegateError as error:
        yield _placed(name, error)


def _key_of(base: FoundBase, own: TrainSpec, longest: int, chat: ChatTemplate | None, *, trains: bool) -> str:
    """Return the digest of everything that `base_faults` depends on.

    What has no fault is remembered: to fill a chat template imports transformers, which took 1.5 CPU-seconds a run.
    """
    return sha256_json(
        {
            "config": dict(base.config), "matrices": sorted(base.matrices), "template": base.template,
            "tokenizer": [sha256_file(file) for name in TOKENIZER_FILES if (file := base.where / name).is_file()],
            "train": own.model_dump(mode="json"), "longest": longest, "trains": trains,
            "chat": None if chat is None else chat.model_dump(mode="json"),
            "code": code_digests(base_faults),
            "libraries": {name: installed(name) for name in ("transformers", "peft", "torch", "tokenizers", "jinja2")},
        }
    )  # fmt: skip


def _ladder_faults(name: str, train: TrainSection, found: dict[Base, FoundBase]) -> Iterator[TunegateError]:
    """Yield which base models of a ladder cannot be compared by their loss per token."""
    if not isinstance(train.choice, LadderSpec) or train.choice.target.metric != LOSS or len(found) < 2:
        return
    digests = {key: None if each.tokenizer is None else sha256_file(each.tokenizer) for key, each in found.items()}
    folders = [(key, digest) for key, digest in digests.items() if not found[key].where.is_file()]
    for (uri, _), digest in folders[1:]:
        if digest is None or digest != folders[0][1]:
            yield _placed(name, different_tokenizers_error(uri, folders[0][0][0]))


def machine_faults(spec: DataPipeline) -> Iterator[TunegateError]:
    """Yield what this machine lacks, of the stages that run on it."""
    if not isinstance(spec, PipelineSpec):
        return
    if spec.engine != "ray" and spec.place.pool_of("finetune") is None:
        trainings = [spec.train.training(changes) for changes in changes_of(spec.train) or [{}]]
        device = detect_device() if any(each.optimizer == PAGED for each in trainings) else ""
        for train in {each.optimizer: each for each in trainings}.values() if device else ():
            yield from _caught(spec.name, partial(check_device, train, device))
    asked: dict[str, EndpointSpec | None] = {
        "evaluate.endpoint": spec.evaluate.endpoint
    }  # always from the machine of the run
    if spec.place.pool_of("assess") is None and spec.gates.judge is not None:
        asked["gates.judge.endpoint"] = spec.gates.judge.endpoint
    for where, endpoint in asked.items():
        if endpoint is not None:
            yield from _caught(spec.name, partial(check_key, endpoint, os.environ, where=where))
            if endpoint.privacy == "local":
                yield from _caught(spec.name, partial(check_local, endpoint.base_url))


def check_libraries(spec: DataPipeline, request: RunRequest = ANY_CASE) -> None:
    """Refuse a run for which the libraries of training and answering are missing, before it begins.

    A stage that another machine makes needs them here too: the keys of its results hold their versions.

    Raises:
        ConfigError: TG0112, they are.
    """
    measures = any(isinstance(step, QualityStep) and step.perplexity for step in spec.curate.steps)
    if measures or (isinstance(spec, PipelineSpec) and request.reaches("finetune")):
        alone = f"curate alone: `tunegate data curate {spec.name}`"
        instead = f"{alone}, with `quality.perplexity: false`" if measures else alone
        need_extra("train", what=f"a run of {spec.name}", instead=instead)


def _chat(train: TrainSection, root: Path) -> ChatTemplate | None:
    prompt = train.prompt
    return resolve_template(prompt.chat_template, prompt.added_tokens, root=root, options=prompt.template_options)


def _training(train: TrainSection, changes: Changes) -> TrainSpec | None:
    with suppress(ValidationError):  # of a file with faults
        return train.training(changes)
    return None


def _caught(name: str, *checks: Callable[[], object]) -> Iterator[TunegateError]:
    for check in checks:
        try:
            check()
        except TunegateError as error:
            yield _placed(name, error)


def _placed(name: str, error: TunegateError) -> TunegateError:
    """Put the pipeline's name in front of a place that is a setting."""
    if error.where and os.sep not in error.where:
        error.where = f"{name}.{error.where}"
    return error
