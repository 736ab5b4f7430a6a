"""A language model as judge: the section `gates.judge`. `tasks/assess/llm_judge.py` calls it."""

from pydantic import Field

from schemas.endpoint import EndpointSpec
from schemas.spec import Spec


class JudgeSpec(Spec):
    """`gates.judge`: a model chooses the better of two answers to a ticket, the candidate's or the champion's.

    It may block but never promotes on its own; without enough agreement with people it only reports.
    """

    endpoint: EndpointSpec
    criteria: str = Field(
        default="The better reply helps the customer more: it is right, complete, polite and no longer than needed.",
        min_length=1,
        max_length=4000,
    )
    """What makes an answer better, as an instruction to the judge."""
    n_items: int = Field(default=100, ge=1)
    """Held-out items to judge, twice each; chosen by hash of their ids from those with different answers."""
    labels: str | None = None
    """JSON Lines of people's choices, relative to pipelines.yaml: question, first, second, preferred (first, second or
    tie). Null only reports."""
    min_labels: int = Field(default=100, ge=20)
    """With fewer labels it only reports; those between equal texts do not count."""
    min_kappa: float = Field(default=0.6, gt=0, le=1)
    """Unless Cohen's kappa with those choices is at least this at 95 % confidence, it only reports."""
