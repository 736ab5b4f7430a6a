"""What a gate checks beside its rules: parts of the section `gates`. Used by `schemas/gates.py`.

`tasks/assess/checks.py` holds them against the evidence; docs/gates.md has the reasons for the defaults.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.spec import Spec


class ContaminationSpec(Spec):
    """`gates.contamination`: no ticket that was trained on may give a held-out item away, whatever curation declared.

    The thresholds are wider than those of `curate.decontaminate`, for word runs are weighed by the pool at hand, and
    the pool changes when leaks leave it: the rest may come out a few hundredths higher.
    """

    near_threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of 3-word shingles from which a question is nearly a held-out one."""
    quote_threshold: float = Field(default=0.4, gt=0, le=1)
    """Rarity-weighted share of a held-out question's long n-grams, from which a question quotes it."""
    paraphrase_threshold: float = Field(default=0.4, gt=0, le=1)
    """The same of short n-grams in four or more pieces: a paraphrase."""
    same: tuple[Literal["customer_id", "thread_id"], ...] | None = None
    """Columns of which no trained ticket may share a value with a held-out item; null takes `split.group_by`."""
    time_order: bool = True
    """Trained tickets must be older than the split's cut, where it has one."""
