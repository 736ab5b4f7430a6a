"""What is kept of a customer who was forgotten, and where their tickets are.

Nothing here names the customer in clear: a hash under a secret key does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Fate = Literal["removed", "rewritten", "kept", "yours"]
"""removed: deleted as a whole. rewritten: kept without the rows. kept: weights, which are marked. yours: outside the
workspace; the user removes it there."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tombstone(_Part):
    """A customer whose rows are never read again, by keyed hash."""

    id: str
    """HMAC of the customer's id as the source writes it."""
    key_id: str
    """Identifies the key without revealing it."""
    owners: tuple[str, ...]
    """HMACs of the ids under which tables hold the customer: the one of the source, and its pseudonyms."""
    tickets: tuple[str, ...] = ()
    """HMACs of the ids of their tickets, as the source writes them and as pseudonyms."""
    reason: str
    actor: str
    at: str
    """UTC, ISO 8601."""


class Holding(_Part):
    """One thing that holds rows of the customer, or was made from them."""

    kind: Literal["result", "snapshot", "warehouse", "feedback", "report", "landed", "source"]
    place: str
    """Below the home folder; of a source, its file and first lines."""
    digest: str = ""
    n_rows: int = Field(default=0, ge=0)
    """Rows of the customer; 0 where it was made from such rows and has none with their id."""
    fate: Fate
    note: str = Field(default="", validation_alias=AliasChoices("note", "told"))
    """What happens to it, in words. `told` in what earlier versions wrote."""


class LearnedVersion(_Part):
    """A registered model version that learned from tickets of the customer."""

    name: str
    version: str
    run_id: str
    how: Literal["directly", "by inheritance"]
    n_rows: int
    """Examples of the customer that it was trained on; of an inheriting version, those of its parent."""
    is_champion: bool = False


class Holdings(_Part):
    """Everything that one workspace knows of a customer."""

    owner: str
    """The tombstone's id."""
    n_tickets: int
    """Rows of the customer that the newest extractions read."""
    held: tuple[Holding, ...]
    versions: tuple[LearnedVersion, ...]

    @property
    def to_do(self) -> tuple[Holding, ...]:
        """What has to be removed from the workspace."""
        return tuple(each for each in self.held if each.fate in ("removed", "rewritten"))


class Removal(_Part):
    """One line of a certificate."""

    kind: str
    place: str
    fate: str
    digest: str
    n_rows: int
    at: str


class Certificate(_Part):
    """The proof: what was removed, by digest and count."""

    customer: str
    """The tombstone's id: whoever has the key and the customer's id can check it; no one else learns who it is."""
    key_id: str
    began: str
    ended: str
    reason: str
    by: str
    removals: tuple[Removal, ...]
    n_rows: int
    """Removed rows with the customer's id, over all tables: a ticket counts once in each."""
    versions: tuple[LearnedVersion, ...]
    sources: tuple[str, ...]
    """What the workspace does not own: the user has to remove it at the source."""
