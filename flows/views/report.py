"""A run's report: collected from ledger and store, written as a page, JSON, a comment and a JUnit file.

Changes nothing that a verdict depends on. Used at the end of `tunegate run` and by `tunegate report`.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import orjson

from flows.context.outcome import Outcome
from flows.context.run_context import RunContext
from flows.ledger.rows import RunRow
from flows.records.run_picture import read_picture
from flows.records.timings import memory_sentence, read_timings
from flows.views.arms import arm_lines
from flows.views.costs import costs_of
from flows.views.diff_champion import changes_since, compare_starts, start_of
from flows.views.given_labels import given_labels
from flows.views.labelling import labelling_of
from flows.views.report_files import write_report
from flows.views.run_reader import Recorded, declared_of, shown_finding, spec_of
from flows.views.selection_report import choice_of, choice_row
from flows.workspace.disk import write_private
from flows.workspace.settings import Settings
from schemas.artifacts import (
    Artifact,
    CertifiedRef,
    CheckResults,
    CorpusRef,
    CurationCard,
    DatasetRef,
    EvalSet,
    GateDecision,
    Splits,
    TrainedRef,
    ValidationCurves,
    WarehouseRef,
)
from schemas.curation_card import CardNumbers, LabelBalance
from schemas.curation_steps import RedactStep
from schemas.data_checks import CheckResult
from schemas.errors import TunegateError
from schemas.report import (
    CertificateLine,
    CitedPassage,
    CorpusFacts,
    Curve,
    Example,
    FunnelLine,
    RemovedExample,
    RunReport,
    StepLine,
)
from tasks.assess.worst import WorstItem
from tasks.corpus.search import count_citations, passage_names
from tasks.curate.cards.label_balance import count_balance
from tasks.curate.data_checks import judge_now
from tasks.curate.warehouse_query import removed_examples
from tasks.release.reports.page import draw_page
from tasks.release.reports.read import cut_replies, read_curves, token_lengths
from tasks.tickets.encoded import encoded_ids

T = TypeVar("T")
CITED_PASSAGES = 20
"""Most cited passages that are shown."""
REMOVED_ROWS = 3
"""Removed rows that are shown per code."""


def report_run(run: RunContext) -> None:
    """Write the report of a run that has its outcome, and a page without ticket text for MLflow.

    A failure is only noted: the verdict is already in the ledger.
    """
    try:
        report, card = gather(run.settings, run.run_id, outcome=run.outcome)
        write_report(report, card, report_folder(run.settings.home, run.run_id))
        page = draw_page(report.model_copy(update={"worst": (), "removed": ()}), card=card)
        write_private(page_without_text(run.settings.home, run.run_id), page)
    except Exception as error:  # its text may quote a ticket
        why = f"the report was not written ({type(error).__name__})"
        run.listeners.noted(f"{why}; `tunegate report {run.run_id}` tries again")


def gather(
    settings: Settings, run_id: str, *, n_items: int = 0, outcome: Outcome | None = None
) -> tuple[RunReport, str]:
    """Collect the report of a recorded run, and its curation card as an HTML fragment (empty if it has none).

    Args:
        n_items: Worst held-out items to show, redacted; the next run replaces what was shown.
        outcome: Of a run that is not yet closed in the ledger.
    """
    recorded = Recorded(settings, run_id)
    row, decision = recorded.row, recorded.decision()
    card = recorded.result("card", CurationCard)
    champion = recorded.ledger.current(row.model_name)
    mine = [each for each in recorded.ledger.versions(row.model_name) if each.ref.run_id == row.run_id]
    chosen = choice_of(recorded.ledger, recorded.store, row.run_id)
    dataset = recorded.of_training("encode", DatasetRef)
    items = recorded.result("items", EvalSet)
    corpus = recorded.result("corpus", CorpusRef)
    report = RunReport(
        run_id=row.run_id,
        pipeline=row.pipeline,
        model_name=row.model_name,
        verdict=outcome.verdict if outcome else _verdict(row),
        reason=outcome.reason if outcome else row.reason,
        as_of=row.as_of,
        given=row.given,
        started_at=row.started_at,
        ended_at=row.ended_at,
        version=mine[0].ref.version if mine else None,
        compared_with=decision.champion_version if decision else None,
        champion=champion.version if champion else None,
        evidence=_evidence(decision, items),
        n_items=decision.n_items if decision else 0,
        n_items_quarantined=items.n_quarantined if items else 0,
        findings=decision.findings if decision else (),
        checks=_checks(recorded),
        arms=arm_lines(recorded),
        funnel=_funnel(recorded.card_numbers()),
        removed=_removed(recorded),
        training=_training(recorded, dataset),
        curves=_curves(recorded),
        token_lengths=token_lengths(dataset.root / "train") if dataset else (),
        notes=tuple(_notes(recorded, dataset)),
        encoded=_encoded(recorded, dataset),
        choice=tuple(choice_row(trial, chosen[1]) for trial in chosen[0].rows) if chosen else (),
        certificates=_certificates(recorded),
        corpus=_corpus_facts(corpus, items),
        labels=_if_readable(lambda: labelling_of(recorded).facts()),
        diagnosis=decision.diagnosis if decision else None,
        worst=_worst(recorded, decision, n_items, corpus),
        changes=changes_since(recorded, decision),
        starts=compare_starts(recorded),
        costs=_if_readable(lambda: costs_of(recorded)),
        graph=read_picture(settings.home, row.run_id),
        steps=tuple(
            StepLine(
                step=step.step, state=step.state, n_in=step.n_in, n_out=step.n_out, seconds=round(step.seconds, 2),
                digest=step.digest,
            )
            for step in recorded.steps
        ),
        reproduce=f"tunegate study reproduce {row.run_id}",
    )  # fmt: skip
    return report, (card.root / "card.html").read_text(encoding="utf-8") if card else ""


def report_folder(home: Path, run_id: str) -> Path:
    return home / "reports" / run_id


def page_without_text(home: Path, run_id: str) -> Path:
    """Return the page that leaves this machine: it goes to MLflow."""
    return report_folder(home, run_id) / "report-without-text.html"


def _verdict(row: RunRow) -> str:
    """Return the verdict of a closed run; one of data alone, which names no model, has done its work or has failed."""
    ends: dict[str, str] = {} if row.model_name else {"DONE": "DONE", "FAILED": "ERROR"}
    return row.verdict or ends.get(row.status, "NONE")


def _checks(recorded: Recorded) -> tuple[CheckResult, ...]:
    found, started = recorded.result("checks", CheckResults), datetime.fromisoformat(recorded.row.started_at)
    return () if found is None else tuple(judge_now(each, started) for each in found.results)


def _funnel(numbers: CardNumbers | None) -> tuple[FunnelLine, ...]:
    steps = numbers.funnel if numbers else ()
    return tuple(FunnelLine(step=step.step, **step.rows.model_dump()) for step in steps)


def _removed(recorded: Recorded) -> tuple[RemovedExample, ...]:
    """Redact them like the run did; none if its configuration can no longer be read."""
    warehouse, spec = recorded.result("warehouse", WarehouseRef), _if_readable(lambda: declared_of(recorded.row))
    if warehouse is None or spec is None:
        return ()
    redact = next((step for step in spec.curate.steps if isinstance(step, RedactStep)), RedactStep(uses="redact"))
    return tuple(removed_examples(warehouse.database, redact=redact, n_rows=REMOVED_ROWS))


def _training(recorded: Recorded, dataset: DatasetRef | None) -> dict[str, str]:
    trained = recorded.result("train", TrainedRef)
    if trained is None:
        return {}
    config = recorded.row.config["train"]
    seconds = recorded.ledger.made_in(recorded.keys["train"])
    if trained.external is not None:
        return {
            "base model": str(config["base_model"]).split("#")[0].rsplit("/", 1)[-1],
            "trained elsewhere": trained.external,
            "form": f"{'adapter' if trained.method == 'lora' else 'merged model'}, {trained.format}",
            "weights": f"{trained.n_trainable:,}",
            "learned from": ", ".join(config.get("trained_on") or ()) or "not declared",
        }
    facts = {
        "base model": str(config["base_model"]).split("#")[0].rsplit("/", 1)[-1],
        "method": f"{trained.method}, {trained.format}",
        "trainable weights": f"{trained.n_trainable:,}",
        "start": start_of(recorded, trained),
        "steps": f"{trained.n_steps:,}",
        "tokens": f"{trained.n_tokens:,}",
        "loss": f"{trained.train_loss or 0.0:.4f} at the end",
    }
    if trained.validation_loss is not None:
        facts["validation loss"] = f"{trained.validation_loss:.4f}"
    if dataset is not None:
        facts["examples"] = (
            f"{dataset.n_train:,} train, {dataset.n_validation:,} validation, {dataset.n_dropped:,} left out"
        )
        if (replay := dataset.root / "replay.json").is_file():
            counts = orjson.loads(replay.read_bytes())
            facts["examples"] += f"; {counts['n_new']:,} new to the champion, {counts['n_replayed']:,} replayed"
            if trained.started_from and counts["n_learned_not_in_pool"]:
                facts["learned before"] = (
                    f"{counts['n_learned_before']:,} tickets; {counts['n_learned_not_in_pool']:,} of them are train "
                    "tickets no more (removed, merged, or too close to a held-out one)"
                )
    if seconds:
        facts["time"] = f"{seconds:.0f} s, {trained.n_tokens / seconds:,.0f} tokens a second"
    memory = memory_sentence(read_timings(recorded.settings, "train", recorded.keys["train"]))
    return {**facts, "memory": memory} if memory else facts


def _notes(recorded: Recorded, dataset: DatasetRef | None) -> Iterator[str]:
    """Say what no training can change: cut answers, replies from a list, corrections, personal data in labels.

    Of a model that was trained elsewhere first what could not be checked.
    """
    trained = recorded.result("train", TrainedRef)
    yield from trained.warnings if trained is not None else ()
    if (evaluate := recorded.row.config.get("evaluate")) is not None:
        limit = int(evaluate["max_new_tokens"])
        scores = recorded.scores("tuned")
        finished = scores.means.get("finished") if scores is not None else None
        if finished is not None and finished < 1:
            yield f"{1 - finished:.1%} of the candidate's answers were cut at evaluate.max_new_tokens {limit}"
        if dataset is not None and (warning := cut_replies(dataset, max_new_tokens=limit)):
            yield warning
    given = _if_readable(lambda: given_labels(recorded))
    if given is not None and given.note:
        yield given.note
    numbers = recorded.card_numbers()
    if numbers is not None and numbers.replies is not None and numbers.replies.warning:
        yield numbers.replies.warning
    if numbers is not None and numbers.corrections is not None:
        yield numbers.corrections.sentence
    for labels in numbers.personal_labels if numbers is not None else ():
        yield from labels.sentences


def _encoded(recorded: Recorded, dataset: DatasetRef | None) -> LabelBalance | None:
    """Count the labels of what was encoded; None if its tickets or the configuration can no longer be read."""
    splits, spec = recorded.result("decontaminate", Splits), _if_readable(lambda: spec_of(recorded.row))
    if dataset is None or splits is None or spec is None:
        return None
    ids, label = encoded_ids(dataset.root / "train"), spec.evaluate.routing_field
    return count_balance(splits, ids, label=label, is_limited=spec.train.max_examples is not None)


def _curves(recorded: Recorded) -> tuple[Curve, ...]:
    """Read the curves of training; metrics measured at validations are in a separate file."""
    artifacts: list[Artifact | None] = [
        recorded.result("train", TrainedRef),
        recorded.result("validation_curves", ValidationCurves),
    ]
    found: dict[str, Curve] = {}
    for artifact in artifacts:
        if artifact is not None:
            file = artifact.root / "curves.parquet"  # none of a model that was trained elsewhere
            found |= {curve.name: curve for curve in (read_curves(file) if file.is_file() else ())}
    return tuple(found.values())


def _certificates(recorded: Recorded) -> tuple[CertificateLine, ...]:
    arms = ("tuned", "champion", "tfidf", "anchor")
    found = [recorded.result(f"certificate_{arm}", CertifiedRef, folder="certificate") for arm in arms]
    return tuple(
        CertificateLine(
            arm=each.arm,
            field=each.field,
            threshold=each.threshold,
            coverage=each.coverage,
            sentence=each.sentence,
            curve=each.curve,
            agreement=each.agreement,
            separation=each.separation,
        )
        for each in found
        if each is not None
    )


def _corpus_facts(corpus: CorpusRef | None, items: EvalSet | None) -> CorpusFacts | None:
    if corpus is None or items is None:
        return None
    counts, n_without = count_citations(items)
    names = passage_names(corpus)
    cited = [CitedPassage(source=names[each][0], heading=names[each][1], n_items=n) for each, n in counts]
    return CorpusFacts(
        n_articles=corpus.n_articles, n_passages=corpus.n_passages, n_dropped=corpus.n_dropped,
        n_redacted=corpus.n_redacted, n_items_without=n_without, cited=tuple(cited[:CITED_PASSAGES]),
    )  # fmt: skip


def _evidence(decision: GateDecision | None, items: EvalSet | None) -> str:
    """How often items and candidate were judged, and how many items are left; empty without a decision."""
    if decision is None:
        return ""
    fresh = None if items is None else items.n_fresh
    left = "" if items is None or fresh is None else f"{fresh:,} of {items.n_available:,} test tickets are left fresh"
    return "; ".join(part for part in (decision.evidence_used(), left) if part)


def _if_readable(make: Callable[[], T | None]) -> T | None:
    """Return what it makes; None if the answers, the configuration or the price book can no longer be read."""
    try:
        return make()
    except TunegateError:
        return None


def _worst(
    recorded: Recorded, decision: GateDecision | None, n_items: int, corpus: CorpusRef | None
) -> tuple[Example, ...]:
    """Return the worst items of the most interesting finding; a finding without wrong items is passed over."""
    first = shown_finding(decision) if decision and n_items else None
    if decision is None or first is None:
        return ()
    for finding in (first, *(each for each in decision.findings if not each.is_check and each.candidate is not None)):
        try:
            items = recorded.worst(decision, finding, n_items)
        except TunegateError:
            continue
        if items:
            names = passage_names(corpus) if corpus is not None else {}
            return tuple(_example(item, finding.metric, names) for item in items)
    return ()


def _example(item: WorstItem, metric: str, names: Mapping[str, tuple[str, str]]) -> Example:
    return Example(
        item_id=item.item_id, metric=metric, candidate=item.candidate, reference=item.reference, question=item.question,
        wanted=item.wanted, candidate_answer=item.candidate_answer, reference_answer=item.reference_answer,
        passages=tuple(": ".join(filter(None, names[each])) for each in item.cited if each in names),
    )  # fmt: skip
