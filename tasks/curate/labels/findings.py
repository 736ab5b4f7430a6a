"""What a search for label errors returns. Used by `tasks/curate/label_check.py` and both of its modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa


class Findings(NamedTuple):
    """What was found, and under which rule tickets are dropped."""

    tickets: pa.Table
    """One row per ticket, in the order of the table: `label_conflict` (int64), `code` and `reason` (null for tickets
    that stay) and `cluster_id` (null where there is none)."""
    code: str
    """The rule."""
    notes: Mapping[str, int]
