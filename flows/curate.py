"""The first stage: tickets from the source to train, validation and test (`tunegate run NAME --until curate`)."""

from dataclasses import dataclass
from typing import Any

from flows.context.graph_context import GraphContext
from flows.curation_steps import Named, add_curation_steps
from flows.effects.contract import check_data
from flows.effects.needed_columns import check_columns
from flows.effects.pages import show_funnel
from flows.effects.personal_data import forget_old_texts, index_customers
from flows.effects.publish import publish
from flows.graph.graph import Graph
from flows.model_steps import add_base_model, draw_of
from schemas.artifacts import CheckResults, CorpusRef, CurationCard, ModelRef, Splits, TicketTable, WarehouseRef
from schemas.curation_steps import QualityStep, RedactStep
from schemas.pipeline import DataPipeline, PipelineSpec
from tasks.corpus.build import cite_for_tickets, read_corpus
from tasks.curate.card import build_card
from tasks.curate.contract import check_contract
from tasks.curate.contract_model import Contract
from tasks.curate.corrections import apply_corrections, fingerprint_corrections
from tasks.curate.data_checks import check_tickets, digests_of, texts_of
from tasks.curate.decontaminate import decontaminate
from tasks.curate.extract import extract_tickets
from tasks.curate.named_tables import tables_used
from tasks.curate.publish import publish_warehouse
from tasks.curate.redaction.pseudonyms import fingerprint_key, pseudonyms_step
from tasks.curate.split import split_tickets
from tasks.curate.validate import validate_tickets
from tasks.sources.registry import place_of
from tasks.storage.files import sha256_json


@dataclass(frozen=True)
class Curated:
    """The stage's results; handles until it has run."""

    tables: tuple[tuple[str, TicketTable], ...]
    """Name of each step and the table after it; the raw tickets come first."""
    corrected: TicketTable | None
    """Only if `curate.corrections` is declared; among `tables` too."""
    split: Splits
    clean: Splits
    """The split without train/test leakage."""
    shown: Splits
    """What prompts are made of: `clean`, with the passages of a declared corpus."""
    warehouse: WarehouseRef
    card: CurationCard
    base_model: ModelRef | None
    """Only if a curation step measures perplexity."""
    checks: CheckResults | None
    """Only if `checks` are declared."""
    corpus: CorpusRef | None
    """Only if `evaluate.corpus` is declared."""


def curate(graph: Graph, spec: DataPipeline, context: GraphContext) -> Curated:
    """Add the stage."""
    reads = {"forgotten": sha256_json(sorted(context.forgotten.owners))} if context.forgotten else {}
    with graph.stage("curate"):
        raw = graph.named("extract", reads=reads).add(
            extract_tickets,
            source=spec.source,
            fingerprint=context.fingerprint,
            place=place_of(spec.source, root=context.source_root or context.root, landed=context.landed),
            forgotten=context.forgotten,
            as_of=context.as_of,
        )
        corrected = _add_corrections(graph, spec, context, raw)
        valid = _add_validation(graph, spec, context, raw=raw, corrected=corrected)
        perplexity = any(isinstance(step, QualityStep) and step.perplexity for step in spec.curate.steps)
        model = spec if isinstance(spec, PipelineSpec) else None
        base_model = add_base_model(graph, model, context) if perplexity and model is not None else None
        steps = add_curation_steps(graph, spec, context, tickets=valid, base_model=base_model, corrected=corrected)
        by_people: tuple[Named, ...] = () if corrected is None else (("corrections", corrected),)
        tables: tuple[Named, ...] = (("extract", raw), *by_people, ("validate", valid), *steps)
        if steps or spec.table.curated is not None:
            tables += (("contract", _add_contract(graph, spec, context, tables[-1][1])),)
        names, stages = tuple(name for name, _ in tables), tuple(table for _, table in tables)
        split = graph.add(
            split_tickets,
            tickets=stages[-1],
            split=spec.split,
            previous=context.previous_run.split if spec.split.stable else None,
        )
        clean = graph.add(decontaminate, splits=split, spec=spec.curate.decontaminate)
        checks = _add_checks(graph, spec, context, raw=raw, clean=clean) if spec.checks else None
        corpus = None if model is None else _add_corpus(graph, model, context, clean)
        shown = clean if corpus is None else graph.named("passages").add(cite_for_tickets, splits=clean, corpus=corpus)
        warehouse = graph.add(
            publish_warehouse, stages=stages, stage_names=names, split=split, clean=clean, checks=checks
        )
        card = graph.add(
            build_card,
            stages=stages,
            stage_names=names,
            split=split,
            clean=clean,
            checks=checks,
            previous=context.previous_run.card,
            draw=None if model is None else draw_of(model.evaluate),
            max_examples=None if model is None else model.train.max_examples,
        )
        curated = Curated(tables, corrected, split, clean, shown, warehouse, card, base_model, checks, corpus)
        _add_effects(graph, context, curated)
    return curated


def _add_corrections(graph: Graph, spec: DataPipeline, context: GraphContext, raw: TicketTable) -> TicketTable | None:
    """Add people's corrections, before `validate`, so that a value that it refuses can be corrected."""
    path = spec.curate.corrections
    if path is None:
        return None
    redact = pseudonyms_step(spec.curate.steps)
    digest = fingerprint_corrections(path, context.root)
    reads = {"file": digest, **({} if redact is None else {"key": fingerprint_key(redact)})}
    return graph.named("corrections", reads=reads).add(
        apply_corrections,
        tickets=raw,
        path=path,
        digest=digest,
        redact=redact,
        root=context.root,
    )


def _add_validation(
    graph: Graph, spec: DataPipeline, context: GraphContext, *, raw: TicketTable, corrected: TicketTable | None
) -> TicketTable:
    table = spec.table.model_copy(update={"curated": None})
    node = graph.named("validate", reads=_source_of(table.model, "schema.model", context))
    if corrected is None:
        return node.add(validate_tickets, tickets=raw, table=table, root=context.root)
    return node.add(validate_tickets, tickets=corrected, table=table, root=context.root, read=raw)


def _add_contract(graph: Graph, spec: DataPipeline, context: GraphContext, last: TicketTable) -> TicketTable:
    table = spec.table.model_copy(update={"model": None})
    reads = _source_of(table.curated, "schema.curated", context)
    return graph.named("contract", reads=reads).add(check_contract, tickets=last, table=table, root=context.root)


def _source_of(model: str | None, where: str, context: GraphContext) -> dict[str, str]:
    return {} if model is None else {"model": Contract(model, where, context.root).fingerprint()}


def _add_effects(graph: Graph, context: GraphContext, curated: Curated) -> None:
    """Add what the end of the stage changes and checks, one after the other."""
    names, tables = zip(*curated.tables, strict=True)
    clean, checks = curated.clean, curated.checks
    last: Any = graph.effect(show_funnel, names=names, tables=tables, split=curated.split, clean=clean)
    if context.as_of is None:  # people read the published tables as the present state
        with graph.after(last):
            last = graph.effect(
                publish, raw=tables[0], clean=clean, warehouse=curated.warehouse, card=curated.card, checks=checks
            )
    with graph.after(last, curated.shown, curated.warehouse, curated.card, checks):  # all that reads raw tickets
        last = graph.effect(index_customers)
    with graph.after(last):
        last = graph.effect(forget_old_texts)
    with graph.after(last):  # once the tables are published, which show what failed
        last = graph.effect(check_columns, clean=clean, last=context.previous_run.split)
    if checks is not None:
        with graph.after(last):
            graph.effect(check_data, results=checks)


def _add_checks(
    graph: Graph, spec: DataPipeline, context: GraphContext, *, raw: TicketTable, clean: Splits
) -> CheckResults:
    texts = texts_of(spec.checks, context.root)
    tables = tables_used(spec.tables, [text for _, text in texts], context.root)
    reads = {**digests_of(spec.checks, context.root), **({"tables": tables} if tables else {})}
    return graph.named("checks", reads=reads).add(
        check_tickets,
        raw=raw,
        clean=clean,
        checks=spec.checks,
        texts=texts,
        tables=tables,
        root=context.root,
        previous=context.previous_run.checks,
    )


def _add_corpus(graph: Graph, spec: PipelineSpec, context: GraphContext, clean: Splits) -> CorpusRef | None:
    corpus = spec.evaluate.corpus
    if corpus is None:
        return None
    return graph.named("corpus").add(
        read_corpus,
        corpus=corpus,
        articles=context.articles,
        root=context.root,
        redact=tuple(step for step in spec.curate.steps if isinstance(step, RedactStep)),
        held_out=clean,
        decontaminate=spec.curate.decontaminate,
    )
