"""Shares of train replies in the declared form."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import RowCounts, Splits
from schemas.evaluation import EvaluateSpec, StyleRule
from tasks.assess.style import form_shares


def test_shares_are_of_the_replies_as_they_are_learned(tmp_path: Path) -> None:
    replies = ["Thanks. [billing]", "Thanks. [billing] or [other]", "no form", "[delivery] Thanks."]
    pq.write_table(pa.table({"reply": replies, "messages": pa.nulls(4, pa.string())}), tmp_path / "train.parquet")
    splits = Splits(root=tmp_path, rows=RowCounts(n_in=4, n_out=4), n_train=4, n_validation=0, n_test=0)
    polite = StyleRule(name="polite", pattern="Thanks")
    evaluate = EvaluateSpec(fields=r"\[(?P<category>[a-z]+)\]", style=(polite,))
    assert form_shares(splits, evaluate, answer="{reply}") == {"format": 0.5, "style": 0.75}
    assert form_shares(splits, EvaluateSpec(), answer="{reply}") == {}
