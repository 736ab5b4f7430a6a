"""Phrases for results and findings: on the console, in Prefect's tables, in the plan."""

from schemas.artifacts import (
    Artifact,
    BundleRef,
    CertifiedRef,
    CheckEvidence,
    CheckResults,
    CurationCard,
    DatasetRef,
    EvalSet,
    GateDecision,
    InterimAnswers,
    LabelSet,
    ModelRef,
    Predictions,
    PromptSet,
    RowCounts,
    Scores,
    Splits,
    TicketTable,
    TrainedRef,
    ValidationCurves,
    WarehouseRef,
)
from schemas.counted import counted
from schemas.data_checks import count_checks
from schemas.trials import ChoiceRef, TrialRef
from schemas.verdicts import Finding


def describe(artifact: Artifact) -> str:
    """Describe a step's result in one phrase.

    >>> from pathlib import Path
    >>> describe(EvalSet(root=Path("/x"), n_items=96, n_available=400))
    '96 held-out items of 400'
    """
    match artifact:
        case TicketTable():
            suspects = artifact.notes.get("label_suspects")
            doubted = "" if suspects is None else f", {counted(suspects, 'label')} of {artifact.rows.n_in:,} in doubt"
            return f"{_rows(artifact.rows)}{doubted}"
        case Splits():
            sizes = f"train {artifact.n_train:,}  validation {artifact.n_validation:,}  test {artifact.n_test:,}"
            faulty = f", {artifact.rows.n_quarantined:,} quarantined" if artifact.rows.n_quarantined else ""
            return f"{sizes}  ({artifact.rows.n_dropped:,} dropped{faulty})"
        case WarehouseRef():
            return f"{counted(artifact.n_tickets, 'ticket')}, the fate of every row in warehouse.duckdb"
        case CurationCard():
            columns = counted(artifact.n_shifted, "column has", "columns have")
            shifted = f", {columns} shifted a lot since the last" if artifact.n_shifted else ""
            n_kept = artifact.n_train + artifact.n_validation + artifact.n_test
            return f"{counted(artifact.n_read, 'row')} read, {n_kept:,} kept{shifted}"
        case CheckResults():
            return count_checks(artifact.results)
        case ModelRef():
            return f"{artifact.n_parameters:,} parameters"
        case DatasetRef():
            n_train, n_tokens = counted(artifact.n_train, "example"), counted(artifact.n_tokens, "token")
            rewritten = f", {artifact.n_rewritten:,} earlier answers without loss" if artifact.n_rewritten else ""
            return f"{n_train}, {n_tokens}, {artifact.n_supervised:,} with loss{rewritten}"
        case TrainedRef() if artifact.external is not None:
            form = "adapter" if artifact.method == "lora" else "merged model"
            doubts = f", {counted(len(artifact.warnings), 'warning')}" if artifact.warnings else ""
            return f"{form} that was trained elsewhere, {artifact.n_trainable:,} weights{doubts}"
        case TrainedRef():
            validation = "" if artifact.validation_loss is None else f", validation {artifact.validation_loss:.3f}"
            return (
                f"{artifact.method}: {artifact.n_trainable:,} trainable, {counted(artifact.n_steps, 'step')}, "
                f"loss {artifact.train_loss or 0.0:.3f}{validation}"
            )
        case ValidationCurves():
            last = "".join(f"  {name} {value:.3f}" for name, value in artifact.last.items())
            answered = f"answered {counted(artifact.n_validations, 'time')}"
            return f"{counted(artifact.n_items, 'validation ticket')} {answered}, last{last}"
        case EvalSet():
            faulty = f", {artifact.n_quarantined:,} quarantined" if artifact.n_quarantined else ""
            repeated = f", {artifact.n_repeated:,} with the prompt of another" if artifact.n_repeated else ""
            return f"{counted(artifact.n_items, 'held-out item')} of {artifact.n_available:,}{faulty}{repeated}"
        case LabelSet():
            return f"{counted(len(artifact.labels), 'label')} of {artifact.field}"
        case CertifiedRef():
            return artifact.sentence
        case PromptSet():
            return counted(artifact.n_items, "prompt")
        case Predictions():
            return f"{counted(artifact.n_items, 'answer')}, {counted(artifact.n_new_tokens, 'token')}"
        case InterimAnswers():
            return artifact.use.sentence()
        case Scores():
            shown = list(artifact.means.items())[:3]
            return "  ".join(f"{metric} {value:.3f}" for metric, value in shown)
        case CheckEvidence():
            return _values(artifact)
        case GateDecision():
            return artifact.verdict
        case TrialRef():
            value = "no finite value" if artifact.row.value is None else f"{artifact.row.value:.4g}"
            return "; ".join(filter(None, (artifact.row.summary or f"{value} on validation", artifact.row.advice)))
        case ChoiceRef():
            return artifact.winner
        case BundleRef():
            return f"{artifact.n_bytes / 1e6:.1f} MB"
    return "passed" if type(artifact) is Artifact else artifact.digest[:12]


def _values(evidence: CheckEvidence) -> str:
    shown = [f"{name} {value:.4g}" for name, value in evidence.values.items() if value is not None and value != 0]
    return "  ".join(shown[:4]) or "nothing found"


def _rows(rows: RowCounts) -> str:
    lost = {"quarantined": rows.n_quarantined, "dropped": rows.n_dropped, "merged": rows.n_merged}
    losses = "".join(f", {count:,} {name}" for name, count in lost.items() if count)
    return f"{rows.n_in:,} -> {rows.n_out:,} rows{losses}"


def describe_progress(done: int, total: int | None, unit: str, figures: dict[str, float], *, rate: float = 0.0) -> str:
    """Describe how far a node is: `120/600 steps  loss 0.83`.

    Args:
        rate: Units per second; 0 if it is not known.
    """
    of = f"/{total:,}" if total else ""
    parts = [f"{done:,}{of} {unit}", *(f"{name} {value:.4g}" for name, value in figures.items())]
    if rate > 0:
        parts.append(f"{rate:,.1f} {unit}/s" if rate < 100 else f"{rate:,.0f} {unit}/s")
    if total and rate > 0:
        parts.append(f"ETA {max(0.0, (total - done) / rate):.0f} s")
    return "  ".join(parts)


def gate_row(finding: Finding) -> dict[str, str]:
    """Return one finding as text cells; used by the console and by Prefect's table artifact."""
    bounds = "" if finding.lower is None or finding.upper is None else f"{finding.lower:+.3f} .. {finding.upper:+.3f}"
    return {
        "rule": finding.rule,
        "reference": _number(finding.reference),
        "candidate": _number(finding.candidate),
        "difference": "" if finding.difference is None else f"{finding.difference:+.3f}",
        "bounds": bounds,
        "limit": _number(finding.limit),
        "n": str(finding.n_items),
        "verdict": finding.verdict if finding.decides else "not judged",
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
