"""What MLflow shows of a run, kept next to the ledger so that it can also be sent later."""

from dataclasses import dataclass

import orjson

from flows.context.run_context import RunContext
from flows.graph.keys import digest_of
from flows.ledger.rows import flat
from flows.records.timings import read_timings
from flows.views.report import page_without_text, report_folder
from flows.views.selection_report import choice_files
from flows.workspace.disk import private_folder
from schemas.artifacts import (
    CheckEvidence,
    DatasetRef,
    EvalSet,
    GateDecision,
    Scores,
    ServedCertificate,
    Splits,
    TrainedRef,
    ValidationCurves,
)
from schemas.choice import candidates
from schemas.counted import counted
from schemas.release import DatasetRecord, RunRecord
from schemas.schedule import OPERATIONS
from schemas.secrets import masked_value
from schemas.trials import ChoiceRef
from tasks.release.shown_data import count_labels, write_items
from tasks.storage.files import write_json
from tasks.tickets.visible import literal


@dataclass(frozen=True)
class RecordedResults:
    """Results that the record is made from."""

    splits: Splits
    dataset: DatasetRef | None
    """None of a model that was trained elsewhere."""
    items: EvalSet
    decision: GateDecision
    trained: TrainedRef
    scores: tuple[Scores, ...]
    """Of all arms on the test items."""
    curves: ValidationCurves | None
    choice: ChoiceRef | None
    latency: CheckEvidence | None
    certificate: ServedCertificate | None
    """None without `evaluate.abstain`."""


def write_record(run: RunContext, evidence: RecordedResults) -> None:
    folder = private_folder(run.settings.home / "runs")
    write_json(folder / f"{run.run_id}.json", masked_value(_record(run, evidence).model_dump(mode="json")))


def _record(run: RunContext, evidence: RecordedResults) -> RunRecord:
    spec, home, splits = run.trained_spec, run.settings.home, evidence.splits
    dataset, items, decision, trained = evidence.dataset, evidence.items, evidence.decision, evidence.trained
    own = {*OPERATIONS, "registry"}
    config = orjson.loads(spec.model_dump_json(by_alias=True, exclude=own))
    set_by_user = orjson.loads(spec.model_dump_json(by_alias=True, exclude={*own, "name"}, exclude_unset=True))
    digests = private_folder(report_folder(home, run.run_id)) / "digests.json"
    write_json(digests, _digests(run))
    score = score_of(decision)
    page = page_without_text(home, run.run_id)  # written when the verdict is final, before MLflow is updated
    table = report_folder(home, run.run_id) / "items.json"
    write_items(table, items=items, scores=evidence.scores)
    judged = (decision.root / "decision.json", decision.root / "decision.md", page, table)
    weighed = choice_files(home, run.run_id, evidence.choice) if evidence.choice is not None else ()
    pace = evidence.latency
    return RunRecord(
        run_id=run.run_id,
        pipeline=spec.name,
        tracking_uri=spec.registry.tracking_uri,
        experiment=spec.registry.experiment,
        params=flat(set_by_user),
        metrics=_metrics(evidence.scores)
        | ({} if trained.train_loss is None else {"train_loss": trained.train_loss})
        | ({} if dataset is None else {"n_train_examples": float(dataset.n_train)})
        | read_timings(run.settings, "train", trained.root.name)
        | (read_timings(run.settings, "latency", pace.root.name) if pace is not None else {}),
        tags={
            "tunegate.pipeline": spec.name,
            "tunegate.verdict": decision.verdict,
            "tunegate.champion": decision.champion_version or "none",
            **({"tunegate.score": score} if score else {}),
            **_certificate_tags(evidence.certificate),
            "tunegate.config": digest_of(config),
            "tunegate.code": run.code_digest,
        },
        description=describe_verdict(decision),
        datasets=_datasets(spec.name, splits, items),
        scored=tuple(next((_metrics((each,)) for each in evidence.scores if each.arm == "tuned"), {})),
        files=tuple(
            path.relative_to(home).as_posix()
            for path in (trained.root / "curves.parquet", *weighed, digests)
            if path.is_file()
        ),
        verdict_files=tuple(path.relative_to(home).as_posix() for path in judged),
        curves=((evidence.curves or trained).root / "curves.parquet").relative_to(home).as_posix(),
        items=table.relative_to(home).as_posix(),
        trials=weighed[0].relative_to(home).as_posix() if weighed else "",
    )


def _datasets(name: str, splits: Splits, items: EvalSet) -> tuple[DatasetRecord, ...]:
    held_out = items.root / "items.parquet"
    found = (
        ("train", "training", splits.digest, splits.n_train, splits.train),
        ("validation", "validation", splits.digest, splits.n_validation, splits.validation),
        ("held-out", "evaluation", items.digest, items.n_items, held_out),
    )
    return tuple(
        DatasetRecord(name=f"{name}-{part}", context=context, digest=digest, n_rows=n_rows, labels=count_labels(table))
        for part, context, digest, n_rows, table in found
        if n_rows
    )


def _certificate_tags(certificate: ServedCertificate | None) -> dict[str, str]:
    if certificate is None:
        return {}
    threshold = "none" if certificate.threshold is None else repr(certificate.threshold)
    return {"tunegate.threshold": threshold, "tunegate.certificate": certificate.sentence}


def describe_verdict(decision: GateDecision) -> str:
    """Return verdict, champion, score and reason as Markdown, for the pages of a run and of its version."""
    champion = "none" if decision.champion_version is None else f"version {decision.champion_version}"
    score = score_of(decision)
    lines = [f"**{decision.verdict}**", f"champion: {champion}", *([score] if score else []), literal(decision.reason)]
    return "\n\n".join(lines)


def score_of(decision: GateDecision) -> str:
    """Return the first deciding rule's metric with its interval; empty if there is none.

    `exact 0.740, reference 0.700: difference +0.040 (+0.010 .. +0.070) on 96 items`
    """
    found = next((each for each in decision.findings if each.part == "primary" and each.decides), None)
    if found is None or found.candidate is None:
        return ""
    bounds = "" if found.lower is None or found.upper is None else f"{found.lower:+.3f} .. {found.upper:+.3f}"
    n_items = counted(found.n_items, "item")
    if found.reference is None:  # an absolute limit: the bounds are those of the value
        return f"{found.metric} {found.candidate:.3f}{f' ({bounds})' if bounds else ''} on {n_items}"
    change = "" if found.difference is None else f": difference {found.difference:+.3f}{f' ({bounds})' * bool(bounds)}"
    return f"{found.metric} {found.candidate:.3f}, reference {found.reference:.3f}{change} on {n_items}"


def _digests(run: RunContext) -> dict[str, str]:
    """Return step -> sha256 of the run's results, except single rungs and trials."""
    tried = tuple(candidate.name for candidate in candidates(run.trained_spec.train))
    steps = run.ledger.steps(run.run_id)
    return {step.step: step.digest for step in steps if step.digest and not (tried and step.step.endswith(tried))}


def _metrics(scores: tuple[Scores, ...]) -> dict[str, float]:
    """Return `exact` for the candidate, `zero_shot/exact` and so on for the other arms; NaN is left out."""
    found: dict[str, float] = {}
    for each in scores:
        prefix = "" if each.arm == "tuned" else f"{each.arm}/"
        found |= {f"{prefix}{metric}": value for metric, value in each.means.items() if value == value}
    return found
