"""Score the answers to validation tickets during a training: one curve per metric.

The curves only show progress: the validation loss ends a training, and the test items decide about promotion. A step of
`flows/finetune.py`.
"""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Predictions, Splits, TrainedRef, ValidationCurves
from schemas.errors import TrainingError
from schemas.evaluation import EvaluateSpec
from tasks.assess.items import reference_answer
from tasks.assess.score import score_answers
from tasks.step import as_step

ANSWERS = "validation_answers.parquet"
CURVES = "curves.parquet"


@as_step("validation_curves", libraries=("pyarrow", "sacrebleu"))
def score_validation(
    out: Path, *, splits: Splits, trained: TrainedRef, evaluate: EvaluateSpec, metrics: tuple[str, ...], answer: str
) -> ValidationCurves:
    """Write `curves.parquet`: the training's own, and a column `validation_<metric>` filled at each validation.

    Args:
        splits: Has the validation tickets.
        trained: Has the answers, see `tasks.train.answers`.
        evaluate: Defines the metrics; the same code scores the test items.
        metrics: Names of the metrics to score.
        answer: Template of the reference answer.

    Raises:
        TrainingError: TG0407, an answer has no validation ticket.
    """
    answers = pq.read_table(trained.root / ANSWERS)
    by_step: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        items = _items(splits, answers.column("item_id").unique().to_pylist(), answer, Path(folder))
        for step in sorted(set(answers.column("step").to_pylist())):
            some = answers.filter(pa.compute.equal(answers.column("step"), step)).drop_columns(["step"])
            by_step[step] = _means(items, some, evaluate, Path(folder) / f"{step}")
    curves = pq.read_table(trained.root / CURVES)
    steps = curves.column("step").to_pylist()
    for name in metrics:
        values = [by_step[step].get(name) if step in by_step else None for step in steps]
        curves = curves.append_column(f"validation_{name}", pa.array(values, pa.float64()))
    pq.write_table(curves, out / CURVES, compression="zstd")
    last = by_step[max(by_step)]
    return ValidationCurves(
        root=out,
        n_items=items.n_items,
        n_validations=len(by_step),
        last={name: last[name] for name in metrics if name in last},
    )


def _items(splits: Splits, ids: list[str], answer: str, folder: Path) -> EvalSet:
    table = pq.read_table(splits.validation, filters=[("ticket_id", "in", ids)]).sort_by("ticket_id")
    if table.num_rows != len(ids):
        raise TrainingError(
            f"{len(ids)} validation tickets were answered, but only {table.num_rows} of them are in the split",
            code="TG0407",
            where=str(splits.validation),
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    table = table.append_column("item_id", table.column("ticket_id"))
    table = table.append_column("answer", pa.array([reference_answer(answer, row) for row in rows], pa.string()))
    pq.write_table(table.combine_chunks(), folder / "items.parquet")
    return EvalSet(root=folder, n_items=len(rows), n_available=splits.n_validation)


def _means(items: EvalSet, answers: Any, evaluate: EvaluateSpec, folder: Path) -> dict[str, float]:
    answered, scored = folder / "answers", folder / "scores"
    answered.mkdir(parents=True)
    scored.mkdir()
    pq.write_table(answers, answered / "predictions.parquet")
    predictions = Predictions(root=answered, n_items=answers.num_rows, n_new_tokens=0)
    scores = score_answers(items=items, predictions=predictions, evaluate=evaluate, arm="tuned", out=scored)
    return scores.means
