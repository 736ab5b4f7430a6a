"""Probe the routing label of a pipeline before it trains: by its train tickets, or by its source before curation."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.pipeline import PipelineSpec
from schemas.template import template_columns
from tasks.assess.learnable import MAX_TICKETS, Probe, probe_labels
from tasks.start.tried_steps import merge_copies

_SPARE = 3
"""Tickets that are read for each that is probed: copies do not count."""


@dataclass(frozen=True)
class LabelProbe:
    """How well a count of words predicts the label that answers begin with."""

    field: str
    probe: Probe

    @property
    def findings(self) -> list[str]:
        """What to know before a training; empty where a model has something to gain."""
        finding = self.probe.finding(self.field)
        return [f"{finding}; train.prompt.answer without {{{self.field}}} learns the replies alone"] if finding else []


def probe_label(spec: PipelineSpec, tickets: Path, *, curated: bool) -> LabelProbe | None:
    """Probe the label; None if answers have none, or too few tickets have one.

    Args:
        tickets: A table of tickets.
        curated: Its copies are merged.
    """
    field = spec.evaluate.routing_field
    if field is None or field not in template_columns(spec.train.first().prompt.answer):
        return None
    table = _sampled(tickets, field)
    if not curated:
        table = merge_copies(table)
    probe = probe_labels(table, {field: table[field].to_pylist()}).get(field)
    return None if probe is None else LabelProbe(field, probe)


def _sampled(tickets: Path, field: str) -> pa.Table:
    """Tickets with the label, spread over the table."""
    file = pq.ParquetFile(tickets)
    step = max(1, file.metadata.num_rows // (_SPARE * MAX_TICKETS))
    found, n_seen = [file.schema_arrow.empty_table()], 0
    for batch in file.iter_batches():
        labelled = batch.filter(batch[field].is_valid())
        found.append(pa.Table.from_batches([labelled.take(list(range(-n_seen % step, len(labelled), step)))]))
        n_seen += len(labelled)
    return pa.concat_tables(found)
