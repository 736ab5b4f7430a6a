"""Find files and weeks whose labels disagree with those of all other tickets, and label columns whose mix has changed.

A wrong export has tickets like the others with other labels, so a classifier that learned from all tickets doubts many
of its labels and few elsewhere (`tasks/curate/label_suspects.py`). The classifier learns from at most a quarter as many
tickets that are new since the champion as from those that the champion's verdict knew: else a large wrong file would
make the known labels the doubtful ones.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import LabelSources, Splits
from schemas.diagnosis import LabelGroup, LabelShift
from schemas.schedule import DriftSpec
from tasks.assess.wrong_references import count_contradicted
from tasks.monitor.drift import mix_distance
from tasks.step import as_step

LABEL_COLUMNS = ("category", "priority")
"""Columns to compare the mix of, besides the checked one."""
MIN_TICKETS = 20
"""Checked tickets of a file or week that is compared."""
SIGNIFICANCE = 0.01
"""Probability of naming any file or week by chance, for all of them together."""
MIN_EXCESS = 0.1
"""Least difference between the share of suspects in a named file and elsewhere. Tickets of one file are alike, so that
the test alone would name files that are merely harder to label."""
MAX_ELSEWHERE = 0.5
"""Greatest share of suspects elsewhere. With more, the others are no reference: all labels are in doubt."""
SHOWN = 10
"""Files and weeks in the result."""


@as_step("label_sources", libraries=("pyarrow", "numpy", "numba", "scipy", "scikit-learn"))
def compare_label_sources(out: Path, *, splits: Splits, known: Splits | None, field: str) -> LabelSources:
    """Check the labels of all tickets of the splits, by file and by ISO week.

    Writes `label_suspects.parquet`: ticket_id, source, source_line, week, split, value, confidence, suggested,
    suggested_confidence; the least likely label first.

    Args:
        known: The splits of the champion's verdict; None if there are none any more.
        field: The column of labels to check.
    """
    from tasks.curate.label_suspects import judge_labels

    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    columns = tuple(dict.fromkeys(("ticket_id", "source", "source_line", "created_at", field, *LABEL_COLUMNS)))
    tables = {name: pq.read_table(path, columns=list(columns)) for name, path in parts.items()}
    table = pa.concat_tables(
        each.append_column("split", pa.repeat(pa.scalar(name), len(each))) for name, each in tables.items()
    )
    table = table.append_column("week", pc.strftime(table["created_at"], format="%G-W%V"))
    newer = None if known is None else _newer(table, known, field)
    judged = judge_labels(tuple(parts.values()), table[field].combine_chunks().cast(pa.string()), newer=newer)
    listed = table.select(["ticket_id", "source", "source_line", "week", "split"]).append_column("value", table[field])
    pq.write_table(judged.listed(listed), out / "label_suspects.parquet", compression="zstd")
    n_sure, n_contradicted = count_contradicted(*judged.certainty())
    groups = compare_groups(
        {
            "file": table["source"].take(pa.array(judged.rows)).to_pylist(),
            "week": table["week"].take(pa.array(judged.rows)).to_pylist(),
        },
        judged.suspects,
    )
    shifts: tuple[LabelShift, ...] = ()
    if newer is not None and MIN_TICKETS <= newer.sum() <= len(newer) - MIN_TICKETS:
        names = dict.fromkeys((field, *LABEL_COLUMNS))
        compared = {name: table[name] for name in names if table[name].null_count < len(table)}
        shifts = tuple(_shift(name, values, newer, n_columns=len(compared)) for name, values in compared.items())
    return LabelSources(
        root=out, field=field, n_checked=len(judged.rows), n_suspects=int(judged.suspects.sum()), n_sure=n_sure,
        n_contradicted=n_contradicted,
        groups=groups, shifts=shifts,
    )  # fmt: skip


def compare_groups(members: dict[str, Sequence[str | None]], suspects: NDArray[np.bool_]) -> tuple[LabelGroup, ...]:
    """Compare the share of suspects in each file and week with that in all others of its kind.

    One-sided exact test of Fisher (a hypergeometric tail), with Bonferroni's correction over all files and weeks of at
    least `MIN_TICKETS` tickets. Named are those that are significant and at least `MIN_EXCESS` above the others,
    unless these are mostly suspects themselves.

    Source: Fisher, "The Design of Experiments", 1935; Bonferroni as in Dunn, "Multiple Comparisons Among Means", 1961.

    Args:
        members: `file` and `week` -> of each checked ticket its file or week; None is in none.

    Returns:
        The `SHOWN` least likely by chance, in this order.
    """
    from scipy.stats import hypergeom

    found: list[tuple[str, str, int, int, int, int]] = []
    for kind, names in members.items():
        given = np.array([name is not None for name in names], bool)
        values, places = np.unique([name for name in names if name is not None], return_inverse=True)
        sizes = np.bincount(places, minlength=len(values))
        counts = np.bincount(places, weights=suspects[given], minlength=len(values)).astype(int)
        n, k = int(sizes.sum()), int(counts.sum())
        found += [
            (kind, str(name), int(size), int(count), n, k)
            for name, size, count in zip(values, sizes, counts, strict=True)
            if MIN_TICKETS <= size <= n - MIN_TICKETS
        ]
    groups = []
    for kind, name, size, count, n, k in found:
        p_chance = min(1.0, len(found) * float(hypergeom.sf(count - 1, n, k, size)))
        elsewhere = (k - count) / (n - size)
        groups.append(
            LabelGroup(
                kind="file" if kind == "file" else "week", name=name, n_checked=size, n_suspects=count,
                share_elsewhere=round(elsewhere, 6), p_chance=round(p_chance, 6),
                disagrees=p_chance <= SIGNIFICANCE
                and elsewhere <= MAX_ELSEWHERE
                and count / size - elsewhere >= MIN_EXCESS,
            )
        )  # fmt: skip
    return tuple(sorted(groups, key=lambda each: (not each.disagrees, each.p_chance, each.kind, each.name))[:SHOWN])


def _newer(table: pa.Table, known: Splits, field: str) -> NDArray[np.bool_] | None:
    """Tickets that the known splits do not have, or have with another label; None if those share no ticket."""
    before: dict[str, str | None] = {}
    for path in (known.train, known.validation, known.test):
        rows = pq.read_table(path, columns=["ticket_id", field])
        before.update(zip(rows["ticket_id"].to_pylist(), rows[field].to_pylist(), strict=True))
    ids, values = table["ticket_id"].to_pylist(), table[field].to_pylist()
    rows = zip(ids, values, strict=True)
    newer = np.array([name not in before or before[name] != value for name, value in rows], bool)
    return newer if len(newer) and not newer.all() else None


def _shift(name: str, values: pa.ChunkedArray, newer: NDArray[np.bool_], *, n_columns: int) -> LabelShift:
    """Compare the mix of a column in the new tickets with that in the known ones; no label is one of the labels."""
    plain = np.array(pc.fill_null(values.cast(pa.string()), "").to_pylist())
    labels, places = np.unique(plain, return_inverse=True)
    limit = DriftSpec()
    distance, p_chance = mix_distance(plain[newer].tolist(), plain[~newer].tolist(), limit)
    new, known = (np.bincount(places[mask], minlength=len(labels)) / mask.sum() for mask in (newer, ~newer))
    most = int(np.abs(new - known).argmax())
    return LabelShift(
        field=name, n_known=int((~newer).sum()), n_new=int(newer.sum()), distance=round(distance, 6),
        p_chance=round(p_chance, 6),
        drifted=distance >= limit.routing and p_chance <= limit.significance / n_columns,
        label=str(labels[most]),
        share_known=round(float(known[most]), 6), share_new=round(float(new[most]), 6),
    )  # fmt: skip
