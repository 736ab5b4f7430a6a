"""The labels that a run's candidate gave, next to those of its tickets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from flows.views.run_reader import Recorded, spec_of
from schemas.artifacts import EvalSet, Predictions, Splits
from tasks.assess.fields import FieldPattern
from tasks.assess.given_labels import describe_given, describe_same


@dataclass(frozen=True)
class GivenLabels:
    """Labels of answers and tickets; no text besides them."""

    given: Mapping[str, str | None]
    """Item -> the label of the candidate's answer; null without one."""
    wanted: Mapping[str, str | None]
    known: frozenset[str]
    """Labels of the train tickets."""

    def in_items(self, items: Sequence[str]) -> str:
        """Return a sentence that names the label if these answers have one; empty if they differ."""
        return describe_same([self.given.get(item) for item in items], self.known)

    @property
    def note(self) -> str:
        """What is odd about the labels of all answers, without naming any; empty if nothing is."""
        return describe_given(list(self.given.values()), [self.wanted.get(each) for each in self.given], self.known)


def given_labels(recorded: Recorded) -> GivenLabels | None:
    """Return them; None for a run whose answers have no routing field, or are gone.

    Raises:
        ConfigError: TG0159, this version cannot read the run's configuration.
    """
    answers = recorded.result("answers_tuned", Predictions, folder="answers")
    items, splits = recorded.result("items", EvalSet), recorded.result("decontaminate", Splits)
    if answers is None or items is None or splits is None:
        return None
    evaluate = spec_of(recorded.row).evaluate
    field = evaluate.routing_field
    if field is None or field not in evaluate.field_names() or evaluate.fields is None:
        return None
    pattern = FieldPattern(evaluate.fields)
    texts = pq.read_table(answers.root / "predictions.parquet", columns=["item_id", "text"]).to_pylist()
    wanted = pq.read_table(items.root / "items.parquet", columns=["item_id", field]).to_pydict()
    train = pq.read_table(splits.train, columns=[field]).column(field).unique().to_pylist()
    return GivenLabels(
        given={row["item_id"]: pattern.value_in(row["text"] or "", field) for row in texts},
        wanted=dict(zip(wanted["item_id"], wanted[field], strict=True)),
        known=frozenset(label for label in train if label is not None),
    )
