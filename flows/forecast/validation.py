"""What `tunegate validate` finds beyond the file itself: in the sources, the SQL and the functions that it names.

With `--data`, and for `plan`, also in the files of base models and sources. A source is read as a run reads it, into a
folder that is removed; of a remote one, what was ingested last. Contacts no service.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from flows.context.ingest import landed_folder, source_fault
from flows.curation_steps import declaration_advice
from flows.effects.needed_columns import is_empty, needed_columns, no_ticket_has
from flows.forecast.gate_power import last_decision
from flows.ledger.open import open_ledger, open_store
from flows.prepare import PROMPTING_ARMS
from flows.privacy.keys import load_forgotten
from flows.run.faults import base_model_faults, declared_faults
from flows.workspace.settings import Settings
from schemas.artifacts import RowCounts, TicketTable
from schemas.check import Declared, sections_of
from schemas.choice import base_models
from schemas.comparison import with_comparison
from schemas.errors import DataError, TunegateError
from schemas.metrics import traits_by_name
from schemas.pipeline import DataPipeline
from schemas.pipeline_rules import classifier_advice, prompt_advice, training_advice, unjudged_advice
from schemas.schedule import schedule_advice
from schemas.source import SourceSpec
from tasks.assess.limits import gate_warnings
from tasks.curate.curation_warnings import NO_TIMES
from tasks.curate.extract import extract_tickets
from tasks.curate.row_faults import FaultLimit
from tasks.curate.validate import validate_tickets
from tasks.model.model_uri import parse_model_uri
from tasks.sources.registry import fingerprint_source, ingest_source, ingested, kind_of, place_of
from tasks.start.source_size import measure_source
from tasks.train.base_fit import find_base

SHOWS_EXAMPLES = ("few_shot", "retrieval")
MAKES_COLUMNS = ("sql", "python")
"""Steps that may fill a column which the source lacks."""


def address_fault(uri: str) -> TunegateError | None:
    """Return what is wrong with the address of a base model; None if nothing is. Reads no file, opens no connection."""
    try:
        parse_model_uri(uri)
    except TunegateError as error:
        return error
    return None


def faults_of(pipelines: Mapping[str, Declared], *, root: Path) -> list[TunegateError]:
    """Every fault of the declarations, once."""
    return _each_once((name, fault) for name, spec in pipelines.items() for fault in declared_faults(spec, root=root))


def _each_once(found: Iterable[tuple[str, TunegateError]]) -> list[TunegateError]:
    """What several pipelines inherit is one fault, with the place of the first."""
    faults: dict[str, TunegateError] = {}
    for name, fault in found:
        faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    return list(faults.values())


def advice_on(spec: Declared, settings: Settings, *, root: Path, n_items: int | None = None) -> list[str]:
    """Return what is allowed but worth a second look, one sentence each.

    Args:
        root: Folder of pipelines.yaml.
        n_items: Held-out items if they are known.
    """
    sections = sections_of(spec)
    advice = [] if sections.train is None else training_advice(sections.train)
    if sections.curate is not None:
        advice += declaration_advice(sections.curate.steps, root=root)
    if sections.train is not None and sections.evaluate is not None:
        advice += prompt_advice(sections.train, sections.evaluate)
    if sections.gates is not None and sections.evaluate is not None:
        judged = with_comparison(sections.gates, sections.evaluate)
        if sections.train is not None:
            advice += unjudged_advice(sections.train, sections.evaluate, judged)
            advice += classifier_advice(sections.train, sections.evaluate, judged)
        advice += gate_warnings(
            judged,
            traits=traits_by_name(sections.evaluate.traits()),
            n_items=sections.evaluate.max_items if n_items is None else n_items,
        )
    if settings.ledger_url is None and isinstance(spec, DataPipeline):
        advice += schedule_advice(spec.schedule)
        with suppress(TunegateError):  # a ledger that is not to be believed stops what uses it, and not this check
            last = last_decision(open_ledger(settings), open_store(settings), spec.name)
            advice += [f"at the last verdict {last.cheaper}"] if last is not None and last.cheaper else []
    return advice


def advice_by_pipeline(pipelines: Mapping[str, Declared], settings: Settings, *, root: Path) -> dict[str, list[str]]:
    """Return each piece of advice once, with the pipelines that it is for."""
    found: dict[str, list[str]] = {}
    for name, spec in sorted(pipelines.items()):
        for sentence in advice_on(spec, settings, root=root):
            found.setdefault(sentence, []).append(name)
    return found


SURELY_BY_BYTES, SURELY = 2.0, 1.25
"""Prompts that need on average this many times the model's context are a fault. Bytes say tokens to a factor of two;
counted with the model's tokenizer, the rest is left to curation, which shortens some tickets."""


class DataFindings(NamedTuple):
    """What is in the files of all pipelines."""

    faults: list[TunegateError]
    """Each once: what several pipelines share is one fault."""
    rows: dict[str, RowCounts]
    """Pipeline -> rows of its source, if that can be read."""
    unread: list[str]
    """Pipelines with a remote source that has not been ingested yet."""
    advice: dict[str, list[str]]
    """What is allowed but worth a second look -> the pipelines that it is for."""


def check_data(pipelines: Mapping[str, Declared], settings: Settings, *, root: Path) -> DataFindings:
    """Read what the pipelines name, all of it, and collect every fault."""
    found = DataFindings([], {}, [], {})
    found.faults.extend(
        _each_once(
            (name, fault)
            for name, spec in pipelines.items()
            for fault in (
                *base_model_faults(spec, root=root, cache=settings.cache),
                *_source_faults(spec, root, settings, found),
            )
        )
    )
    return found


def _source_faults(spec: Declared, root: Path, settings: Settings, found: DataFindings) -> Iterator[TunegateError]:
    if spec.source is None or source_fault(spec.source, pipeline=spec.name) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="tunegate-validate-") as aside:
        try:
            table = read_source(spec.source, root, settings, aside=Path(aside), pipeline=spec.name)
        except TunegateError as error:
            error.where = f"{spec.name}.source, {error.where}"
            yield error
            return
        if table is None:
            found.unread.append(spec.name)
            return
        found.rows[spec.name] = table.rows
        for sentence in time_advice(spec, table):
            found.advice.setdefault(sentence, []).append(spec.name)
        try:
            yield from missing_columns(spec, table, aside=Path(aside), root=root)
            faults, advice = prompt_findings(spec, table, root=root, settings=settings)
        except DataError as error:
            yield error
            return
        yield from faults
        for sentence in advice:
            found.advice.setdefault(sentence, []).append(spec.name)


def read_source(
    source: SourceSpec, root: Path, settings: Settings, *, aside: Path, pipeline: str, as_of: str | None = None
) -> TicketTable | None:
    """Read the source as a run does, into an empty folder; None of a remote source that was never ingested.

    Raises:
        TunegateError: as `extract_tickets` and `ingest_source`.
    """
    landed = landed_folder(settings, pipeline)
    if kind_of(source).is_remote:
        if ingested(source, landed=landed) is None:
            return None
    else:  # a database that another program writes is copied first
        landed = aside / "landed"
        ingest_source(source, root=root, landed=landed)
    out = aside / "out"
    out.mkdir()
    return extract_tickets(
        out, source=source, fingerprint=fingerprint_source(source, root=root, landed=landed),
        place=place_of(source, root=root, landed=landed), forgotten=load_forgotten(settings), as_of=as_of,
    )  # fmt: skip


def missing_columns(spec: Declared, table: TicketTable, *, aside: Path, root: Path) -> list[TunegateError]:
    """Columns that the pipeline needs and that no ticket of its source has.

    Raises:
        DataError: TG0220, TG0221, as a run at its step `validate`: too many rows are faulty, so what they lack says
            nothing of the columns.
    """
    try:
        if spec.table is not None:
            FaultLimit(spec.table.fail_above, (table,)).check()
        missing = list(_column_faults(spec, table))
        if spec.table is not None and not missing:
            out = aside / "valid"
            out.mkdir()
            validate_tickets(out, tickets=table, table=spec.table, root=root)
    except DataError as error:
        error.where = f"{spec.name}.source"
        raise
    return missing


def _column_faults(spec: Declared, table: TicketTable) -> Iterator[TunegateError]:
    """None if a step may make the column."""
    if spec.curate is None or any(step.uses in MAKES_COLUMNS for step in spec.curate.steps):
        return
    for column, needed_by in needed_columns(spec).items():
        if is_empty(column, table.tickets):
            yield no_ticket_has(column, needed_by, pipeline=spec.name)


def time_advice(spec: Declared, table: TicketTable) -> list[str]:
    """Say that the split cannot be by time, if no ticket has one; empty if a step may make it."""
    if not isinstance(spec, DataPipeline) or any(step.uses in MAKES_COLUMNS for step in spec.curate.steps):
        return []
    return [NO_TIMES] if spec.split.by_time and is_empty("created_at", table.tickets) else []


def prompt_findings(
    spec: Declared, table: TicketTable, *, root: Path, settings: Settings
) -> tuple[list[TunegateError], list[str]]:
    """Return which arms' prompts cannot be made of these tickets or do not fit the base model, and which hardly do.

    From a sample before curation, with the tokenizer of each base model that is here. A run counts all prompts before
    it trains.
    """
    spec = sections_of(spec)
    if spec.train is None or spec.evaluate is None or not spec.evaluate.arms:
        return [], []
    train, evaluate = spec.train.first(), spec.evaluate
    size = measure_source(table, train.prompt)
    shown = {arm: evaluate.few_shot_examples if arm in SHOWS_EXAMPLES else 0 for arm in evaluate.arms}
    most = max(shown.values())
    if most and size.n_usable <= most:
        return [
            DataError(
                f"prompts with {most} examples need more than the {size.n_usable} usable tickets of the source",
                code="TG0221", where=f"{spec.name}.evaluate.few_shot_examples",
                hint="lower evaluate.few_shot_examples, or remove few_shot and retrieval from evaluate.arms",
            )
        ], []  # fmt: skip
    faults: list[TunegateError] = []
    advice: list[str] = []
    said: set[str] = set()  # base models of one family have one tokenizer and context
    for uri, _ in base_models(spec.train):
        try:
            base = find_base(uri, allow_download=True, root=root, cache=settings.cache)
            if base is None:
                continue
            context, tokenizer = base.context_length, base.tokenizer
            counted = size if tokenizer is None else measure_source(table, train.prompt, tokenizer=tokenizer)
        except TunegateError:  # `base_model_faults` yields it
            continue
        surely = SURELY_BY_BYTES if tokenizer is None else SURELY
        for arm, n_examples in shown.items():
            if arm not in PROMPTING_ARMS:
                continue
            example = counted.prompt_tokens - counted.system_tokens + counted.answer_tokens
            needed = round(n_examples * example + counted.prompt_tokens + evaluate.max_new_tokens)
            if needed <= context:
                continue
            what = f"a prompt of {arm} and its answer need about {needed:,} tokens; the model's context has {context:,}"
            if what in said:
                continue
            said.add(what)
            if n_examples:
                hint = "lower evaluate.few_shot_examples"
            elif needed - evaluate.max_new_tokens < context:
                hint = "lower evaluate.max_new_tokens"
            else:
                hint = "shorten train.prompt, or use a base model with a longer context"
            if needed >= surely * context:
                faults.append(DataError(what, code="TG0309", where=f"{spec.name}.evaluate", hint=hint))
            else:
                advice.append(f"{what}; a run with such a prompt ends with TG0309 before it trains: {hint}")
    return faults, advice
