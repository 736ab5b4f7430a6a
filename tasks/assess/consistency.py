"""Shares of train replies in the declared form: a model that is shown two forms learns both.

Called by `flows/views/advice.py`.
"""

from __future__ import annotations

from schemas.artifacts import Splits
from schemas.evaluation import EvaluateSpec
from tasks.assess.fields import FieldPattern
from tasks.assess.items import reference_answer
from tasks.assess.style import HouseStyle


def form_shares(splits: Splits, evaluate: EvaluateSpec, *, answer: str) -> dict[str, float]:
    """Shares of the train replies: `format`, with the pattern of `evaluate.fields` exactly once; `style`, that follow
    every rule of the house style. What is not declared is left out.

    Args:
        answer: Template of the reply, `train.prompt.answer`.
    """
    import pyarrow.parquet as pq

    pattern = FieldPattern(evaluate.fields) if evaluate.fields else None
    style = HouseStyle(evaluate.style) if evaluate.style else None
    n, in_form, in_style = 0, 0.0, 0.0
    for batch in pq.ParquetFile(splits.train).iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            text = reference_answer(answer, row)
            n += 1
            in_form += pattern.score(text, row)["format"] if pattern else 0.0
            in_style += style.score(text)["style"] if style else 0.0
    found = {"format": in_form / n if n and pattern else None, "style": in_style / n if n and style else None}
    return {name: share for name, share in found.items() if share is not None}
