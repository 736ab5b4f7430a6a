"""Phrases for results, as the screen shows them."""

from pathlib import Path

from flows.views.phrases import describe
from schemas.artifacts import CertifiedRef, LabelSet, RowCounts, TicketTable


def test_labels_in_doubt_are_counted_where_no_row_goes() -> None:
    rows = RowCounts(n_in=4053, n_out=4053)
    table = TicketTable(root=Path("/x"), rows=rows, notes={"label_suspects": 2233, "unchecked_labels": 3})
    assert describe(table) == "4,053 -> 4,053 rows, 2,233 labels of 4,053 in doubt"
    assert describe(TicketTable(root=Path("/x"), rows=rows)) == "4,053 -> 4,053 rows"


def test_a_certificate_says_what_is_certified_and_labels_are_counted() -> None:
    certificate = CertifiedRef(
        root=Path("/x"), arm="tuned", field="category", target=0.9, confidence=0.95, temperature=1.0, threshold=None,
        coverage=0.0, n_calibration=60, n_clusters=None, n_routed=0, n_right=0, n_more=40, curve=(),
        sentence="nothing certified at a target of 0.9; about 40 more calibration tickets would do",
    )  # fmt: skip
    assert describe(certificate) == certificate.sentence
    labels = LabelSet(root=Path("/x"), field="category", pattern="", labels=("billing", "delivery"))
    assert describe(labels) == "2 labels of category"
