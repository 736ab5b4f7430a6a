"""What is kept of a customer who was forgotten, and what is told about where their tickets are.

Nothing here names the customer in clear: a hash under a secret key does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fate = Literal["removed", "rewritten", "kept", "yours"]
"""removed: it goes as a whole. rewritten: it stays without the rows. kept: weights, they are marked. yours: outside of
the workspace, the user removes it there."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tombstone(_Part):
    """Who may never come back, by keyed hash."""

    id: str
    """HMAC of the customer's id as the source writes it."""
    key_id: str
    """Which key; it does not tell the key."""
    owners: tuple[str, ...]
    """HMACs of the ids under which tables hold the customer: the one of the source, and its pseudonyms."""
    tickets: tuple[str, ...] = ()
    """HMACs of the ids of their tickets, as the source writes them and as pseudonyms."""
    reason: str
    actor: str
    at: str
    """UTC, ISO 8601."""


class Holding(_Part):
    """One thing that holds rows of the customer, or was made from such."""

    kind: Literal["result", "snapshot", "warehouse", "feedback", "report", "landed", "source"]
    place: str
    """Below the home folder; of a source, its file and first lines."""
    digest: str = ""
    n_rows: int = Field(default=0, ge=0)
    """Their rows; 0 where it was made from such rows and has none with their id."""
    fate: Fate
    told: str = ""


class LearnedVersion(_Part):
    """A registered model version that learned from tickets of the customer."""

    name: str
    version: str
    run_id: str
    how: Literal["directly", "by inheritance"]
    n_rows: int
    """Their examples that it was trained on; of an inheriting one those of what it came from."""
    is_champion: bool = False


class Holdings(_Part):
    """Everything that is known of a customer in one workspace."""

    owner: str
    """The tombstone's id."""
    n_tickets: int
    """Rows of the customer that the newest extractions read."""
    held: tuple[Holding, ...]
    versions: tuple[LearnedVersion, ...]

    @property
    def to_do(self) -> tuple[Holding, ...]:
        """What has to go from the workspace."""
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
    """The proof: what went, by digest and count."""

    customer: str
    """The tombstone's id: who holds the key and the customer's id can check it, nobody else learns who it is."""
    key_id: str
    began: str
    ended: str
    reason: str
    by: str
    removals: tuple[Removal, ...]
    n_rows: int
    """Rows with the customer's id that went, over all tables: one ticket counts once in each."""
    versions: tuple[LearnedVersion, ...]
    sources: tuple[str, ...]
    """What the workspace does not own and the user has to remove at the source."""
