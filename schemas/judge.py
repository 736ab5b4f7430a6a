"""A language model as judge: the section `gates.judge`. `tasks/assess/llm_judge.py` asks it."""

from __future__ import annotations

from pydantic import Field

from schemas.endpoint import EndpointSpec
from schemas.spec import Spec


class JudgeSpec(Spec):
    """`gates.judge`: a model says which of two answers to a ticket is better, the candidate's or the champion's.

    It may block, and never promotes by itself; without enough agreement with people it only reports.
    """

    endpoint: EndpointSpec
    criteria: str = Field(
        default="The better reply helps the customer more: it is right, complete, polite and no longer than needed.",
        min_length=1,
        max_length=4000,
    )
    """What makes an answer better, in words for the judge."""
    n_items: int = Field(default=100, ge=1)
    """Held-out items that are judged, twice each; chosen by hash of their ids."""
    labels: str | None = None
    """JSON Lines of people's choices, relative to pipelines.yaml: question, first, second, preferred (first, second or
    tie). Null only reports."""
    min_labels: int = Field(default=100, ge=20)
    """With fewer labels it only reports."""
    min_kappa: float = Field(default=0.6, gt=0, le=1)
    """Cohen's kappa with those choices under which it only reports."""
