"""The engines of `bench-labels`: from a Parquet file of tickets to a file with the ids whose label is suspect.

Run as `python labels.py ENGINE TICKETS ANSWER`. `cleanlab` runs in an environment of its own, which lacks the
application: each function imports what it needs, and imports are timed.
"""

from __future__ import annotations

import sys
from pathlib import Path

N_FOLDS = 5


def cleanlab(tickets: Path, answer: Path) -> None:
    """Cleanlab's defaults on out-of-fold probabilities of a logistic regression over TF-IDF."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from cleanlab.filter import find_label_issues
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.preprocessing import LabelEncoder

    table = pq.read_table(tickets, columns=["ticket_id", "body", "category"])
    texts, labels = table["body"].to_pylist(), LabelEncoder().fit_transform(table["category"].to_pylist())
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit_transform(texts)
    model = LogisticRegression(C=10.0, max_iter=200)
    probabilities = cross_val_predict(model, features, labels, cv=N_FOLDS, method="predict_proba")
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    pq.write_table(pa.table({"ticket_id": table["ticket_id"].filter(pa.array(issues))}), answer)


def ours(tickets: Path, answer: Path, **settings: object) -> None:
    """The step `label_check`."""
    import tempfile

    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from schemas.artifacts import RowCounts, TicketTable
    from schemas.curation_steps import LabelCheckStep
    from tasks.curate.label_check import check_labels

    n_rows = pq.read_metadata(tickets).num_rows
    step = LabelCheckStep.model_validate({"uses": "label_check", **settings})
    with tempfile.TemporaryDirectory() as folder:
        table = TicketTable(root=tickets.parent, rows=RowCounts(n_in=n_rows, n_out=n_rows))
        done = check_labels(Path(folder), tickets=table, step=step)
        found = pq.read_table(done.tickets, columns=["ticket_id", "label_conflict"])
        removed = pq.read_table(done.removed, columns=["ticket_id"])
        suspects = found.filter(pc.greater(found["label_conflict"], 0)).select(["ticket_id"])
        pq.write_table(removed if settings.get("action") else suspects, answer)


def contradiction(tickets: Path, answer: Path) -> None:
    """What the step dropped before it had modes: the minority of questions with a Jaccard similarity of 0.5."""
    ours(tickets, answer, mode="contradiction", threshold=0.5, action="drop_minority")


ENGINES = {"ours": ours, "contradiction": contradiction, "cleanlab": cleanlab}

if __name__ == "__main__":
    ENGINES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
