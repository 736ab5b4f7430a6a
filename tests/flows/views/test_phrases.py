"""Phrases for results, as the screen shows them."""

from pathlib import Path

from flows.views.phrases import describe
from schemas.artifacts import RowCounts, TicketTable


def test_labels_in_doubt_are_counted_where_no_row_goes() -> None:
    rows = RowCounts(n_in=4053, n_out=4053)
    table = TicketTable(root=Path("/x"), rows=rows, notes={"label_suspects": 2233, "unchecked_labels": 3})
    assert describe(table) == "4,053 -> 4,053 rows, 2,233 labels of 4,053 in doubt"
    assert describe(TicketTable(root=Path("/x"), rows=rows)) == "4,053 -> 4,053 rows"
