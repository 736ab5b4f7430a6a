"""A correction of a ticket by a person: a line of JSON in the file that `curate.corrections` names, kept in git.

Read by the step `corrections`, written by `tunegate data review --read`.
"""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from schemas.spec import Frozen

CorrectedField = Literal["category", "priority", "product", "channel", "reply"]
CORRECTED_FIELDS: tuple[CorrectedField, ...] = get_args(CorrectedField)
"""Columns that can be corrected."""


class Correction(Frozen):
    """What one person decided about one ticket."""

    ticket_id: str = Field(min_length=1)
    """As curated tables show it: a pseudonym where `redact` makes one of `ticket_id`."""
    do: Literal["set", "drop", "keep"]
    """`set` a field, `drop` the ticket, or `keep` it in spite of a rule."""
    field: CorrectedField | None = None
    """With `set`: the column."""
    old: str | None = None
    """With `set`: the value as the source has it, or null; `sha256:` and 16 digits of a text or of personal data. It
    does not apply if the source has another value by now."""
    new: str | None = Field(default=None, min_length=1)
    """With `set`: the right value."""
    rule: str | None = None
    """With `keep`: the rule, such as `label_suspect` or the name of a step `rule`."""
    by: str = Field(min_length=1)
    at: str = Field(min_length=10)
    """UTC, ISO 8601."""
    why: str = ""

    @model_validator(mode="after")
    def _has_its_parts(self) -> Self:
        needed = {"set": {"field", "new"}, "drop": set[str](), "keep": {"rule"}}[self.do]
        allowed = needed | ({"old"} if self.do == "set" else set())
        given = {name for name in ("field", "old", "new", "rule") if getattr(self, name) is not None}
        if needed - given or given - allowed:
            what = ", ".join(sorted(needed)) or "no further field"
            raise ValueError(f"{self.do!r} needs {what}, and has {', '.join(sorted(given)) or 'none'}")
        return self

    @property
    def about(self) -> tuple[str, str, str]:
        """Ticket and what is decided of it; the order of the file."""
        return self.ticket_id, self.field or "", self.rule or ""

    @property
    def says(self) -> tuple[str, str | None]:
        """The decision, whoever made it."""
        return self.do, self.new
